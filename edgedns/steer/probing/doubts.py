"""What would settle the detector's doubts: which paths to probe at once, from where, and how often.

Asked for once each: after a loss (the path itself, a sibling that tells whether the target is alive, the same arm from other
vantages, for a path is down only where all who heard it say so), on a suspected shift upwards, where another vantage begins to
hear an arm, to confirm a return; and spot checks of a provider that loses here and there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgedns.model import Family, NetworkKey
from edgedns.steer.failure.changed import SUSPECT, taking_over
from edgedns.steer.failure.paths import VANTAGES, path_parts, siblings
from edgedns.steer.failure.shift import Levels
from edgedns.steer.table.rows import Bools, Ints, Keys, expand, key_of, unpack

BURST, BURST_GAP = 4, 0.2
RISE, RISE_GAP = 3, 1.0  # it must last
WITNESS_GAP = 0.5
SUSPECTED_EVERY = 30.0
ROUND = 10.0
RETURN_EVERY = 5.0
RETURNED = 3  # replies: from there on it is a matter of time
MOST = 64
SPOT_CHECKS = 8
OTHER_VANTAGES = 3


class Want(NamedTuple):
    """Exchanges that would settle a doubt: `probes` of them `gap` seconds apart, from that vantage, spread over the
    network's targets.
    """

    vantage: str
    network: NetworkKey
    provider: str
    family: Family
    probes: int
    gap: float = BURST_GAP


@dataclass(frozen=True, slots=True)
class Seen:
    """The detector's state as it is asked about: `paths`, `levels` and `whole` are written to where something was asked for.

    `whole_index` names the provider and family of each path in the flattened `whole`; `doubtful` and `recent` are the
    detector's own: from which sum on a provider is doubted, and for how many seconds a reply counts.
    """

    codes: Ints
    paths: NDArray[np.void]
    levels: Levels
    whole: NDArray[np.void]
    whole_index: Ints
    keys: Keys
    providers: tuple[str, ...]
    vantages: tuple[str, ...]
    doubtful: float
    recent: float


def wants(seen: Seen, now: float) -> list[Want]:
    """Probes to send now, each asked for once."""
    paths = seen.paths
    silent = seen.whole["down"].reshape(-1)[seen.whole_index]
    lost = (paths["run"] > 0) & ~paths["down"] & (paths["asked"] < paths["began"]) & ~silent
    returning = paths["down"] & (paths["good"] > 0) & (paths["good"] < RETURNED) & (paths["asked"] < now - RETURN_EVERY)
    slower = seen.levels["worse"] > np.maximum(paths["asked"], now - ROUND)
    moved = taking_over(seen.codes, paths, seen.levels) & (paths["asked"] < now - ROUND)
    burst = np.flatnonzero(lost | returning | slower | moved | _suspected(seen, now))[:MOST]
    quick = burst[(lost | returning)[burst]]
    slow = burst[~(lost | returning)[burst]]
    others = _elsewhere(seen, burst[lost[burst]], now)
    asked = [(quick, BURST, BURST_GAP), (slow, RISE, RISE_GAP), (others, BURST + 1, BURST_GAP)]
    for which, _, _ in asked:
        paths["asked"][which] = now
    spots = _spot_checks(seen, now)
    asked += [(_controls(seen, quick[~paths["down"][quick]]), 1, BURST_GAP), (spots, 1, BURST_GAP)]
    asked += [(_controls(seen, slow), 2, 2 * RISE_GAP)]  # was it the path that rose, or all that this vantage hears?
    asked += [(_controls(seen, others), 2, WITNESS_GAP)]  # a witness is heard after the first loss, not with it
    return [want for which, probes, gap in asked for want in _each(seen, which, probes, gap)]


def _suspected(seen: Seen, now: float) -> Bools:
    """Paths whose last round trip was far above their level, while it isn't known yet whether that lasts."""
    paths, levels = seen.paths, seen.levels
    fresh = (paths["replied"] > paths["asked"]) & (paths["replied"] > now - ROUND) & (paths["asked"] < now - SUSPECTED_EVERY)
    return np.asarray((levels["up"] >= SUSPECT) & ~paths["down"] & fresh, dtype=np.bool_)


def _elsewhere(seen: Seen, lost: Ints, now: float) -> Ints:
    """The same arms from other vantages that heard them lately and have no doubt yet; the last heard first, a few each."""
    arm = seen.codes[lost] // VANTAGES
    first, last = np.searchsorted(seen.codes, arm * VANTAGES), np.searchsorted(seen.codes, (arm + 1) * VANTAGES)
    owner, other = expand(first, last - first)
    state = seen.paths[other]
    well = (state["replied"] > now - seen.recent) & (state["run"] == 0) & ~state["down"] & (other != lost[owner])
    well &= state["asked"] < seen.paths["began"][lost[owner]]
    owner, other = owner[well], other[well]
    order = np.lexsort((-seen.paths["replied"][other], owner))
    owner, other = owner[order], other[order]
    rank = np.arange(len(owner)) - np.searchsorted(owner, owner)
    return np.unique(other[rank < OTHER_VANTAGES])


def _controls(seen: Seen, doubted: Ints) -> Ints:
    """One sibling for each doubted path, the last that was heard: is the target alive at all?"""
    owner, sibling = siblings(seen.codes, doubted)
    order = np.lexsort((-seen.paths["replied"][sibling], owner))
    owner, sibling = owner[order], sibling[order]
    return sibling[np.flatnonzero(np.diff(owner, prepend=-1))]


def _spot_checks(seen: Seen, now: float) -> Ints:
    """Paths of doubted providers that were well when last heard, spread over the networks."""
    whole, picks = seen.whole.reshape(-1), [np.zeros(0, dtype=np.int64)]
    due = ~whole["down"] & (whole["cusum"] >= seen.doubtful) & (whole["asked"] < whole["began"])
    for which in np.flatnonzero(due):
        well = np.flatnonzero((seen.whole_index == which) & (seen.paths["run"] == 0) & ~seen.paths["down"])
        whole["asked"][which] = now
        picks.append(well[np.linspace(0, len(well) - 1, min(SPOT_CHECKS, len(well))).astype(np.int64)])
    return np.concatenate(picks)


def _each(seen: Seen, paths: Ints, probes: int, gap: float) -> Iterator[Want]:
    row, family, provider, vantage = path_parts(seen.codes[paths])
    keys = [key_of(key) for key in unpack(seen.keys[row])]
    for key, f, p, v in zip(keys, family, provider, vantage, strict=True):
        yield Want(seen.vantages[v], key, seen.providers[p], 6 if f else 4, probes, gap)
