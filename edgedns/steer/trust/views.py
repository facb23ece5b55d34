"""What each vantage sees of each network, and where one alone sees something else.

Vantages stand in different places, so their RTTs differ and should. What should agree is the rest: how a network's RTTs
through its providers differ from each other. So each network's RTTs are taken as a distance of the vantage plus a time of
the provider (Tukey's median polish, which a minority can't bend), and what is left is disagreement. A vantage is *outvoted*
on a network where three or more measure it and what is left of its view is far beyond what is left of the others'.

All in ms. Groups are (network row, family); nothing here has a clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgedns.steer.failure.paths import GROUP, PROVIDERS, VANTAGES, Numbered, path_code, path_parts, places
from edgedns.steer.table.batch import Batch
from edgedns.steer.table.rows import KEY, Bools, Floats, Ints, Keys, lookup, pack, starts

RECENT = 600.0
COMPARED = 60.0
LEAST_VANTAGES = 3
TOLERATED_MS = 10.0
TOLERATED_SHARE = 0.25
TOLERATED_SPREADS = 4.0
CELLS_AT_ONCE = 1 << 20

Cube = NDArray[np.float32]  # [group, provider, vantage], NaN where nothing was heard
_VIEW = np.dtype([("rtt", "<f4"), ("at", "<f8")])


class Seen(NamedTuple):
    """One vantage's standing among the others in one judgement: networks that it shares with two more, and how it fares."""

    shared: int
    outvoted: int
    odd: int  # of a sample of the shared ones, those where its place can't explain what it sees
    sampled: int


@dataclass(frozen=True)
class Outvoted:
    """Who is outvoted where: `keys` in order, and codes in order, (key * 2 + family) * VANTAGES + vantage."""

    keys: Keys
    vantages: tuple[str, ...]
    codes: Ints

    def among(self, batch: Batch) -> Bools:
        """Which samples are of them."""
        if not len(self.codes):
            return np.zeros(len(batch), dtype=np.bool_)
        row = lookup(self.keys, pack(batch.rows))[batch.row]
        here = np.array([self.vantages.index(name) if name in self.vantages else -1 for name in batch.vantages], dtype=np.int64)
        vantage = here[batch.vantage]
        codes = (row * 2 + (batch.family == 6)) * VANTAGES + vantage
        return np.asarray((row >= 0) & (vantage >= 0) & np.isin(codes, self.codes), dtype=np.bool_)


NOBODY = Outvoted(np.zeros(0, dtype=KEY), (), np.zeros(0, dtype=np.int64))


@dataclass(frozen=True)
class Verdict:
    """What one judgement found; `seen` by vantage."""

    outvoted: Outvoted
    seen: dict[str, Seen]


class Views:
    """The last RTT of every path, where there is more than one vantage."""

    def __init__(self) -> None:
        self._keys = Numbered(np.zeros(0, dtype=KEY))
        self._providers: tuple[str, ...] = ()
        self._vantages: tuple[str, ...] = ()
        self._codes: Ints = np.zeros(0, dtype=np.int64)
        self._views: NDArray[np.void] = np.zeros(0, dtype=_VIEW)

    def __len__(self) -> int:
        return len(self._codes)

    def codes(self, batch: Batch) -> Ints:
        """The path of each sample, numbered as it is here from now on."""
        used = np.unique(batch.row)
        keys = np.zeros(len(batch.rows), dtype=KEY)
        keys[used] = pack(batch.rows[used])
        self._keys.admit(keys[used])
        self._renumber(batch)
        number = np.zeros(len(batch.rows), dtype=np.int64)
        number[used] = self._keys.numbers(keys[used])
        return path_code(
            number[batch.row],
            (batch.family == 6).astype(np.int64),
            places(batch.providers, self._providers)[batch.provider],
            places(batch.vantages, self._vantages)[batch.vantage],
        )

    def knows(self, codes: Ints) -> Bools:
        """Which of these paths were heard of late."""
        if not len(self._codes):
            return np.zeros(len(codes), dtype=np.bool_)
        at = np.minimum(np.searchsorted(self._codes, codes), len(self._codes) - 1)
        return np.asarray(self._codes[at] == codes, dtype=np.bool_)

    def elsewhere(self, codes: Ints) -> Bools:
        """Which of these paths' networks are heard through the same provider by another vantage."""
        arm = codes // VANTAGES
        first, last = (np.searchsorted(self._codes, (arm + i) * VANTAGES) for i in (0, 1))
        return np.asarray(last - first > self.knows(codes), dtype=np.bool_)

    def take(self, codes: Ints, rtt: Floats, at: Floats) -> None:
        """Take replies: of each path the median of what came is its RTT from now on, unless a later one is known."""
        order = np.lexsort((rtt, codes))
        first = starts(codes[order])
        count = np.diff(first, append=len(codes))
        fresh = np.zeros(len(first), dtype=_VIEW)
        fresh["rtt"] = rtt[order][first + (count - 1) // 2]
        fresh["at"] = np.maximum.reduceat(at[order], first) if len(first) else 0.0
        paths = codes[order][first]
        known = self.knows(paths)
        there = np.searchsorted(self._codes, paths[known])
        self._views[there] = np.where(fresh["at"][known] >= self._views["at"][there], fresh[known], self._views[there])
        place = np.searchsorted(self._codes, paths[~known])
        self._codes = np.insert(self._codes, place, paths[~known])
        self._views = np.insert(self._views, place, fresh[~known])

    def forget(self, now: float) -> None:
        """Drop what was not heard of late, and the numbers of networks and vantages that are gone."""
        kept = self._views["at"] > now - RECENT
        if kept.all():
            return
        row, family, provider, vantage = path_parts(self._codes[kept])
        rows, row = np.unique(row, return_inverse=True)
        names, vantage = np.unique(vantage, return_inverse=True)
        self._keys = Numbered(self._keys.keys[rows])
        self._vantages = tuple(self._vantages[i] for i in names.tolist())
        self._codes = path_code(row.reshape(-1), family, provider, vantage.reshape(-1))
        self._views = self._views[kept]

    def judge(self, touched: Ints, now: float) -> Verdict:
        """Compare the vantages on these groups (each once, ascending), where three or more measured it in the last minute."""
        fresh = np.flatnonzero(self._views["at"] > now - COMPARED)
        groups = self._shared(touched, fresh)
        if not len(groups):
            return Verdict(NOBODY, {})
        size = max(1, CELLS_AT_ONCE // max(1, len(self._providers) * len(self._vantages)))
        parts = max(1, -(-len(groups) // size))
        found: list[Ints] = []
        shared, outvoted, odd, sampled = np.zeros((4, len(self._vantages)), dtype=np.int64)
        for part in range(parts):  # each an even sample of all
            mine = groups[part::parts]
            left, scale, several = _polished(self._cube(mine, fresh))
            out, judged = _outvoted(left, scale)
            shared += judged.sum(axis=0)
            outvoted += out.sum(axis=0)
            where, who = np.nonzero(out)
            found.append(mine[where] * VANTAGES + who)
            if part == 0:
                odd, sampled = _outvoted(_as_placed(left, several), scale)[0].sum(axis=0), judged.sum(axis=0)
        columns = zip(shared.tolist(), outvoted.tolist(), odd.tolist(), sampled.tolist(), strict=True)
        seen = {name: Seen(*counts) for name, counts in zip(self._vantages, columns, strict=True)}
        return Verdict(self._named(np.concatenate(found)), seen)

    def judge_instead(self, codes: Ints, rtt: Floats, now: float) -> Outvoted:
        """Who would be outvoted if these replies were what their paths have now; they are not kept."""
        before = self._codes, self._views.copy()
        self.take(codes, rtt, np.full(len(codes), np.inf))
        outvoted = self.judge(np.unique(codes // GROUP), now).outvoted
        self._codes, self._views = before
        return outvoted

    def _named(self, codes: Ints) -> Outvoted:
        """group * VANTAGES + vantage, as they are to be known when rows are numbered otherwise."""
        group, vantage = np.divmod(codes, VANTAGES)
        row, family = np.divmod(group, 2)
        keys, place = np.unique(self._keys.keys[row], return_inverse=True)
        return Outvoted(keys, self._vantages, np.sort((place.reshape(-1) * 2 + family) * VANTAGES + vantage))

    def _renumber(self, batch: Batch) -> None:
        providers = tuple(sorted({*self._providers, *batch.providers}))
        vantages = tuple(sorted({*self._vantages, *batch.vantages}))
        if len(providers) > PROVIDERS or len(vantages) > VANTAGES:
            raise ValueError(f"{len(providers)} providers, {len(vantages)} vantages; at most {PROVIDERS} and {VANTAGES}")
        if (providers, vantages) == (self._providers, self._vantages):
            return
        row, family, provider, vantage = path_parts(self._codes)
        if len(self._codes):
            provider, vantage = places(self._providers, providers)[provider], places(self._vantages, vantages)[vantage]
            self._codes = path_code(row, family, provider, vantage)
        self._providers, self._vantages = providers, vantages

    def _shared(self, groups: Ints, fresh: Ints) -> Ints:
        """The groups that three vantages or more measure."""
        codes = self._codes[fresh]
        pairs = np.unique(codes // GROUP * VANTAGES + codes % VANTAGES) // VANTAGES
        first = starts(pairs)
        several = pairs[first][np.diff(first, append=len(pairs)) >= LEAST_VANTAGES]
        return np.intersect1d(groups, several, assume_unique=True)

    def _cube(self, groups: Ints, fresh: Ints) -> Cube:
        cube = np.full((len(groups), len(self._providers), len(self._vantages)), np.nan, dtype=np.float32)
        group = self._codes[fresh] // GROUP
        at = np.minimum(np.searchsorted(groups, group), len(groups) - 1)
        mine = groups[at] == group
        _, _, provider, vantage = path_parts(self._codes[fresh[mine]])
        cube[at[mine], provider, vantage] = self._views["rtt"][fresh[mine]]
        return cube


def _polished(cube: Cube) -> tuple[Cube, Floats, Bools]:
    """What neither a vantage's distance nor a provider's time explains; the typical RTT of each group; whether three
    providers or more can be compared in it."""
    cube = np.where((~np.isnan(cube)).sum(axis=2, keepdims=True) >= LEAST_VANTAGES, cube, np.float32(np.nan))
    left = cube
    for _ in range(2):
        left = left - _median(left, 2)[:, :, None]
        left = left - _median(left, 1)[:, None, :]
    scale = _median(cube.reshape(len(cube), -1), 1).astype(np.float64)
    return left, scale, (~np.isnan(cube)).any(axis=2).sum(axis=1) >= 3


def _as_placed(left: Cube, several: Bools) -> Cube:
    """Less what a vantage's place explains: a provider that is slower from there by as much everywhere, such as by a detour
    on the way out. That one is faster than all others see it is no matter of place, unless there are but two to compare."""
    usual = _median(left, 0)[None, :, :]
    return left - np.where(several[:, None, None], np.fmax(usual, 0.0), usual)


def _outvoted(left: Cube, scale: Floats) -> tuple[Bools, Bools]:
    """bool[group, vantage]: it alone sees something else; and whether it was judged at all."""
    judged = (~np.isnan(left)).sum(axis=1) >= 2
    judged &= judged.sum(axis=1, keepdims=True) >= LEAST_VANTAGES
    off = np.where(judged, np.fmax.reduce(np.abs(left), axis=1, initial=0.0), np.inf)
    count = judged.sum(axis=1, keepdims=True)
    order = np.argsort(off, axis=1, kind="stable")
    rank = np.argsort(order, axis=1, kind="stable")
    middle = np.maximum((count - 2) // 2, 0)
    others = np.take_along_axis(np.take_along_axis(off, order, axis=1), middle + (rank <= middle), axis=1)
    least = np.maximum(TOLERATED_MS, TOLERATED_SHARE * np.nan_to_num(scale))[:, None]
    out = judged & (off > np.maximum(least, TOLERATED_SPREADS * np.where(np.isinf(others), 0.0, others)))
    return out & (2 * out.sum(axis=1, keepdims=True) < count), judged


def _median(values: Cube, axis: int) -> NDArray[np.float32]:
    """The median of what is there along an axis, NaN where nothing is."""
    ordered = np.sort(values, axis=axis)
    count = (~np.isnan(values)).sum(axis=axis, keepdims=True)
    low = np.take_along_axis(ordered, np.maximum(count - 1, 0) // 2, axis=axis)
    high = np.take_along_axis(ordered, count // 2, axis=axis)
    return np.asarray((low + high).squeeze(axis) / 2, dtype=np.float32)
