"""When an arm is worse than it was: its RTT took a higher level, or its packets land at another vantage.

A shift that one path shows (shift.py) may be the vantage's own, or the target's: then every provider shows it. So it is
believed when a *witness*, the same network through another provider from the same vantage, was heard since it began and was as
ever; where nobody else is heard there, at once. Who shifts to and fro is believed the first time only.

Where a vantage hears an arm no more, or is told that its replies land elsewhere, and another one does, anycast has moved the
catchment: the arm is what the new vantage hears, as soon as that has heard enough. Until then it is what the old one says.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgedns.steer.paths import VANTAGES, siblings
from edgedns.steer.rows import Bools, Floats, Ints, expand
from edgedns.steer.shift import TOLD_MS, Levels, Singles, follow

Paths = NDArray[np.void]

SUSPECT = 2.9  # of the upward sum: one round trip far above the level, or two well above
KNOWN = 3  # samples from which on a level is one
PATIENCE = 30.0
TO_AND_FRO = 600.0


def follow_at(levels: Levels, rtt: Floats, at: Floats) -> Levels:
    """The next state of the levels that these RTTs (ms) are of, with the times of what begins and shifts (Unix seconds)."""
    now, jump = follow(levels, rtt)
    now["began"] = np.where((levels["up"] <= 0.0) & (now["up"] > 0.0), at, now["began"])
    now["shifted"] = np.where(jump != 0.0, at, now["shifted"])
    now["jump"] = np.where(jump != 0.0, jump, now["jump"])
    return now


def settle(codes: Ints, paths: Paths, levels: Levels, waiting: Ints, now: float, recent: float) -> tuple[Ints, Ints]:
    """(paths that got worse, paths that go on waiting for a witness) of those that wait; marks it in `levels`.

    recent: for how many seconds a reply counts.
    """
    fell = waiting[levels["jump"][waiting] < 0.0]
    levels["eased"][fell] = now
    rose = waiting[levels["jump"][waiting] > 0.0]
    spoken_for = _spoken_for(codes, paths, levels, rose, now - recent)
    worse = rose[spoken_for & (levels["eased"][rose] < now - TO_AND_FRO)]
    levels["worse"][worse] = now
    left = rose[~spoken_for & (levels["shifted"][rose] > now - PATIENCE)]
    levels["shifted"][waiting[~np.isin(waiting, left)]] = 0.0
    return worse, left


def _spoken_for(codes: Ints, paths: Paths, levels: Levels, waiting: Ints, since: float) -> Bools:
    """Which shifts a witness speaks for, or nobody could."""
    owner, sibling = siblings(codes, waiting)
    heard = (paths["replied"][sibling] > since) & ~paths["down"][sibling]
    as_ever = (levels["up"][sibling] < SUSPECT) & ((levels["shifted"][sibling] == 0.0) | (levels["jump"][sibling] < 0.0))
    witness = heard & as_ever & (paths["replied"][sibling] > levels["began"][waiting][owner])
    spoken = np.bincount(owner[witness], minlength=len(waiting)) > 0
    alone = np.bincount(owner[heard], minlength=len(waiting)) == 0
    return np.asarray(spoken | alone, dtype=np.bool_)


def hand_over(codes: Ints, paths: Paths, levels: Levels, touched: Ints, now: float, recent: float) -> tuple[Ints, Ints]:
    """(paths that took an arm over from another vantage's, those of them whose level is higher).

    touched: paths that were just sampled. The level of a vantage that hears the arm no more is forgotten with it.
    """
    unheard = codes[_hears_no_more(paths, levels)] // VANTAGES
    owner, path = _in_arms(codes, touched[np.isin(codes[touched] // VANTAGES, unheard)] if len(unheard) else touched[:0])
    silent = _hears_no_more(paths[path], levels[path])
    hears = ~paths["down"][path] & (paths["replied"][path] > now - recent) & (levels["samples"][path] >= KNOWN)
    count = int(owner[-1]) + 1 if len(owner) else 0
    moved = (np.bincount(owner[silent], minlength=count) > 0) & (np.bincount(owner[hears], minlength=count) > 0)
    was = np.zeros(count, dtype=np.float32)
    was[owner[silent]] = levels["level"][path[silent]]
    taken = hears & moved[owner]
    over = path[taken]
    jump = levels["level"][over] - was[owner[taken]]
    worse = over[jump >= TOLD_MS]
    levels["worse"][worse] = now
    levels["samples"][path[silent & moved[owner]]] = 0
    return over, worse


def taking_over(codes: Ints, paths: Paths, levels: Levels) -> Bools:
    """Paths that hear an arm which another vantage hears no more, and haven't heard enough of it yet."""
    new = (levels["samples"] > 0) & (levels["samples"] < KNOWN) & ~paths["down"]
    found = np.flatnonzero(new)
    new[found] = np.isin(codes[found] // VANTAGES, codes[_hears_no_more(paths, levels)] // VANTAGES)
    return np.asarray(new, dtype=np.bool_)


def _hears_no_more(paths: Paths, levels: Levels) -> Bools:
    """Paths that fell silent, or whose replies were found to land elsewhere (`replied` is 0 then), and that had a level."""
    return np.asarray((paths["down"] | (paths["replied"] <= 0.0)) & (levels["samples"] > 0), dtype=np.bool_)


def arms_of(codes: Ints, changed: Ints) -> Ints:
    """All paths of the arms of these, from whatever vantage."""
    return _in_arms(codes, changed)[1]


def _in_arms(codes: Ints, some: Ints) -> tuple[Ints, Ints]:
    """(arm, path): every path of the arms of these, arms numbered from 0."""
    arms = np.unique(codes[some] // VANTAGES)
    first, last = np.searchsorted(codes, arms * VANTAGES), np.searchsorted(codes, (arms + 1) * VANTAGES)
    return expand(first, last - first)


def last_seen(levels: Levels) -> Singles:
    """[path, 3]: round trips (ms) that speak for the level as it is: itself, and the last two."""
    return np.asarray(np.stack([levels["level"], levels["before"], levels["last"]], axis=1), dtype=np.float32)


def is_worse(levels: Levels, since: float) -> Bools:
    """Levels that shifted upwards at or after a time, and not back since."""
    worse: NDArray[Any] = levels["worse"]
    return np.asarray((worse >= since) & (worse > levels["eased"]), dtype=np.bool_)
