"""When an arm is worse than it was: its RTT took a higher level, or its packets land at another vantage.

A rise that one path shows (shift.py) may be a queue that comes and goes, or the vantage's own, or the target's: then every
provider shows it. So it is believed when it is large and has lasted for some seconds, and a *witness*, the same network through
another provider from the same vantage, was heard after it and was as ever (needless where nobody else is heard there). Who
shifts to and fro is believed the first time only. And of the vantages that hear an arm more than half must have seen it rise,
so that none of several moves answers by itself. Smaller changes are left to the histograms.

Where a vantage hears an arm no more, or is told that its replies land elsewhere, and another one does, anycast has moved the
catchment: the arm is what the new vantage hears, as soon as that has heard enough. Until then it is what the old one says.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgedns.steer.failure.paths import VANTAGES, siblings
from edgedns.steer.failure.shift import Levels, Singles, follow
from edgedns.steer.table.rows import Bools, Floats, Ints, expand

Paths = NDArray[np.void]

SUSPECT = 2.9  # of the upward sum: one round trip far above the level, or two well above
SUDDEN_MS = 20.0  # a rise for which nothing waits
LASTS = 2.0
KNOWN = 3  # samples from which on a level is one
PATIENCE = 30.0
TO_AND_FRO = 600.0
TOGETHER = 60.0


def follow_at(levels: Levels, rtt: Floats, at: Floats) -> Levels:
    """The next state of the levels that these RTTs (ms) are of, with the times of what begins and shifts (Unix seconds)."""
    now, jump = follow(levels, rtt)
    begins = np.flatnonzero((levels["up"] <= 0.0) & (now["up"] > 0.0))
    now["began"][begins] = at[begins]
    shifts = np.flatnonzero(jump)
    now["shifted"][shifts], now["jump"][shifts] = at[shifts], jump[shifts]
    return now


def settle(codes: Ints, paths: Paths, levels: Levels, waiting: Ints, now: float, recent: float) -> Ints:
    """Of the paths whose shift waits for a witness those that go on waiting; who got worse, or better, is marked in `levels`.

    recent: for how many seconds a reply counts.
    """
    levels["eased"][waiting[levels["jump"][waiting] < 0.0]] = now
    rose = waiting[levels["jump"][waiting] >= SUDDEN_MS]
    lasted = (paths["replied"][rose] >= levels["began"][rose] + LASTS) & (levels["down"][rose] < SUSPECT)
    believed = lasted & _spoken_for(codes, paths, levels, rose, now - recent)
    levels["worse"][rose[believed & (levels["eased"][rose] < now - TO_AND_FRO)]] = now
    left = rose[~believed & (levels["shifted"][rose] > now - PATIENCE)]
    levels["shifted"][waiting[~np.isin(waiting, left)]] = 0.0
    return left


def _spoken_for(codes: Ints, paths: Paths, levels: Levels, waiting: Ints, since: float) -> Bools:
    """Which shifts a witness speaks for, or nobody could."""
    owner, sibling = siblings(codes, waiting)
    heard = (paths["replied"][sibling] > since) & ~paths["down"][sibling]
    as_ever = (levels["up"][sibling] < SUSPECT) & ((levels["shifted"][sibling] == 0.0) | (levels["jump"][sibling] < 0.0))
    witness = heard & as_ever & (paths["replied"][sibling] > levels["shifted"][waiting][owner])
    spoken = np.bincount(owner[witness], minlength=len(waiting)) > 0
    alone = np.bincount(owner[heard], minlength=len(waiting)) == 0
    return np.asarray(spoken | alone, dtype=np.bool_)


def hand_over(codes: Ints, paths: Paths, levels: Levels, touched: Ints, now: float, recent: float) -> Ints:
    """The paths that took an arm over from another vantage's; marks in `levels` which of them are worse than that was.

    touched: paths that were just sampled. The level of a vantage that hears the arm no more is forgotten with it.
    """
    unheard = codes[_silent_beside(codes, paths, levels, touched)] // VANTAGES
    owner, path = _in_arms(codes, touched[np.isin(codes[touched] // VANTAGES, unheard)] if len(unheard) else touched[:0])
    silent = _hears_no_more(paths[path], levels[path])
    hears = _hears(paths[path], levels[path], now - recent)
    count = int(owner[-1]) + 1 if len(owner) else 0
    moved = (np.bincount(owner[silent], minlength=count) > 0) & (np.bincount(owner[hears], minlength=count) > 0)
    was = np.zeros(count, dtype=np.float32)
    was[owner[silent]] = levels["level"][path[silent]]
    taken = hears & moved[owner]
    over = path[taken]
    jump = levels["level"][over] - was[owner[taken]]
    levels["worse"][over[jump >= SUDDEN_MS]] = now
    levels["samples"][path[silent & moved[owner]]] = 0
    return over


def taking_over(codes: Ints, paths: Paths, levels: Levels) -> Bools:
    """Paths that hear an arm which another vantage hears no more, and haven't heard enough of it yet."""
    new = (levels["samples"] > 0) & (levels["samples"] < KNOWN) & ~paths["down"]
    found = np.flatnonzero(new)
    new[found] = np.isin(codes[found] // VANTAGES, codes[_hears_no_more(paths, levels)] // VANTAGES)
    return np.asarray(new, dtype=np.bool_)


def _hears_no_more(paths: Paths, levels: Levels) -> Bools:
    """Paths that fell silent, or whose replies were found to land elsewhere (`replied` is 0 then), and that had a level."""
    return np.asarray((paths["down"] | (paths["replied"] <= 0.0)) & (levels["samples"] > 0), dtype=np.bool_)


def _silent_beside(codes: Ints, paths: Paths, levels: Levels, touched: Ints) -> Ints:
    """The paths that hear their arm no more: all of them, or where few were touched those of their arms, which costs less."""
    if len(touched) * 4 > len(codes):
        return np.flatnonzero(_hears_no_more(paths, levels))
    path = _in_arms(codes, touched)[1]
    return path[_hears_no_more(paths[path], levels[path])]


def speaking(codes: Ints, paths: Paths, levels: Levels, some: Ints, since: float) -> Ints:
    """The paths that speak for the arms of these: from whatever vantage replied since that time."""
    path = _in_arms(codes, some)[1]
    return path[_hears(paths[path], levels[path], since)]


def _in_arms(codes: Ints, some: Ints) -> tuple[Ints, Ints]:
    """(arm, path): every path of the arms of these, arms numbered from 0."""
    arms = np.unique(codes[some] // VANTAGES)
    first, last = np.searchsorted(codes, arms * VANTAGES), np.searchsorted(codes, (arms + 1) * VANTAGES)
    return expand(first, last - first)


def last_seen(levels: Levels) -> Singles:
    """[path, 3]: round trips (ms) that speak for the level as it is: itself, and the last two."""
    return np.asarray(np.stack([levels["level"], levels["before"], levels["last"]], axis=1), dtype=np.float32)


def risen(codes: Ints, paths: Paths, levels: Levels, since: float, now: float, recent: float, some: Ints | None = None) -> Ints:
    """Paths that got worse at or after a time, of arms that most of the vantages that hear them saw rise lately.

    some: looks at the arms of these paths only.
    """
    since = max(since, 1e-9)
    worse = np.flatnonzero(_is_worse(levels, since)) if some is None else some[_is_worse(levels[some], since)]
    owner, path = _in_arms(codes, worse)
    hears = _hears(paths[path], levels[path], now - recent)
    rose = _is_worse(levels[path], min(since, now - TOGETHER)) & hears
    count = int(owner[-1]) + 1 if len(owner) else 0
    most = 2 * np.bincount(owner[rose], minlength=count) > np.bincount(owner[hears], minlength=count)
    return path[most[owner] & _is_worse(levels[path], since)]


def _is_worse(levels: Levels, since: float) -> Bools:
    """Levels that shifted upwards at or after a time, and not back since."""
    worse: NDArray[Any] = levels["worse"]
    return np.asarray((worse >= since) & (worse > levels["eased"]), dtype=np.bool_)


def _hears(paths: Paths, levels: Levels, since: float) -> Bools:
    """Paths that have replied since that time, and often enough."""
    return np.asarray(~paths["down"] & (paths["replied"] > since) & (levels["samples"] >= KNOWN), dtype=np.bool_)
