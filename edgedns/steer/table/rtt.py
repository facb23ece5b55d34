"""RTT histograms: additive, decayed on reading, without a clock of their own.

An arm is one (row, family, provider). Its histogram has 128 log-spaced buckets from 0.2 ms to 10 s and one more for
losses, which sorts behind them all. Cells are kept sparse, sorted by arm and bucket, so that memory follows what was
measured.

Decay is forward decay (Cormode et al., ICDE 2009): a sample weighs 2 ** (round / half_life) when it is added and nothing
is touched later; reading divides by today's weight. Weights are 10-bit integers times a power of two, so sums are exact,
hence the same in whatever order and from however many collectors they came.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np

from edgedns.errors import SourceError
from edgedns.model import RTT_LEAST_MS, RTT_MOST_MS, RttSample
from edgedns.steer.failure.paths import among
from edgedns.steer.table.anew import Anew
from edgedns.steer.table.batch import Batch, batch_of, joined
from edgedns.steer.table.rows import (
    KEY,
    Bools,
    Floats,
    Ints,
    Keys,
    Sections,
    above_networks,
    expand,
    lineage,
    lookup,
    pack,
    pack_json,
    pack_keys,
    starts,
    unpack,
    unpack_json,
    unpack_keys,
)

BUCKETS = 128
LOST = BUCKETS
PROVIDERS = 256
CELLS = 256
EDGES = RTT_LEAST_MS * (RTT_MOST_MS / RTT_LEAST_MS) ** (np.arange(BUCKETS + 1) / BUCKETS)
KEPT_ROUNDS = 12.0
_ROW = 2 * PROVIDERS * CELLS
_MANTISSA = 1024
_REBASE = 64
_NOTHING = 2.0**-30


def bucket_of(rtt_ms: Floats) -> Ints:
    """The bucket of each RTT, LOST for NaN."""
    with np.errstate(invalid="ignore"):
        place = np.floor(BUCKETS * np.log(rtt_ms / RTT_LEAST_MS) / np.log(RTT_MOST_MS / RTT_LEAST_MS))
    return np.where(np.isnan(rtt_ms), LOST, np.clip(place, 0, BUCKETS - 1)).astype(np.int64)


def rtt_at(position: Floats) -> Floats:
    """The RTT in ms at a place on the bucket scale: 0 is 0.2 ms, 128 and beyond are 10 s."""
    return RTT_LEAST_MS * (RTT_MOST_MS / RTT_LEAST_MS) ** (np.minimum(position, BUCKETS) / BUCKETS)


@dataclass(frozen=True)
class Cells:
    """What was measured up to one round, decayed to it: weights[c] samples in the cell codes[c], sorted.

    code = ((row * 2 + (0 for v4, 1 for v6)) * 256 + provider) * 256 + bucket; arms and seen give the last sample's time.
    """

    keys: Keys
    providers: tuple[str, ...]
    codes: Ints
    weights: Floats
    arms: Ints
    seen: Floats
    at: float


class RttStore:
    """The control process's accumulator; rounds are aligned to Unix time.

    Samples count when their round closes; until then they are kept as they came. Those of a round closed already are
    still counted, with the weight of their own round; those older than twelve half-lives are not.
    An arm that begins anew (anew.py) does so in the store that is told of it: of two that are merged both must be.
    """

    def __init__(self, round_seconds: float = 10.0, half_life: float = 5.0) -> None:
        self.round_seconds = round_seconds
        self.half_life = half_life
        self.round = -1
        self._base = 0
        self._pending: list[Batch] = []
        self._anew: list[Batch] = []
        self._keys = np.zeros(0, dtype=KEY)
        self._providers: tuple[str, ...] = ()
        self._codes = np.zeros(0, dtype=np.int64)
        self._weights = np.zeros(0)
        self._arms = np.zeros(0, dtype=np.int64)
        self._seen = np.zeros(0)

    def observe(self, samples: Iterable[RttSample]) -> None:
        """Take samples, in any order."""
        self.observe_columns(batch_of(samples))

    def observe_columns(self, batch: Batch) -> None:
        """Take samples in columns; a Batch is not copied. Arms that begin anew do so when the round closes."""
        if len(batch):
            (self._anew if batch.anew else self._pending).append(batch)

    def close_round(self, now: float, vet: Callable[[Batch], Batch] = lambda batch: batch) -> None:
        """Count what belongs to rounds that ended by `now`; samples of later rounds wait for theirs.

        vet: gives back of what is to be counted that which may be.
        """
        closing = int(np.floor(now / self.round_seconds)) - 1
        self.round = max(self.round, closing)
        self._rebase()
        self._begin_anew()
        if self._pending:
            batch, self._pending = joined(self._pending), []
            self._take(batch, vet)
        self._forget()

    def _take(self, batch: Batch, vet: Callable[[Batch], Batch]) -> None:
        rounds = np.floor(batch.at / self.round_seconds)
        later = rounds > self.round
        if later.any():
            self.observe_columns(batch.take(later & (rounds <= self.round + 2)))
        counted = vet(_only_where(batch, ~later & (rounds > self.round - KEPT_ROUNDS * self.half_life)))
        home = _at_home(counted)
        self._count(_only_where(counted, home))
        self._count(_only_where(replace(counted, rows=above_networks(counted.rows)), ~home))

    def _begin_anew(self) -> None:
        """Drop what was counted of arms that begin anew, and what waits of them from before."""
        end = (self.round + 1) * self.round_seconds
        due = [batch for batch in self._anew if batch.at.max() < end]
        if not due:
            return
        self._anew = [batch for batch in self._anew if batch.at.max() >= end]
        seeds = replace(joined(due), anew=False)
        anew = Anew.of(seeds)
        self._drop(anew.arms_in(self._keys, self._providers))
        waiting = [batch.take(~anew.outdates(batch)) for batch in self._pending]
        self._pending = [batch for batch in (*waiting, seeds.take(~anew.supersedes(seeds))) if len(batch)]

    def _drop(self, arms: Ints) -> None:
        """Forget arms, in their rows and as much of the levels above."""
        gone = among(self._codes // CELLS, arms)
        codes, weights = self._codes[gone], self._weights[gone]
        self._codes, self._weights = self._codes[~gone], self._weights[~gone]
        for some, higher in _above(codes, self._keys):
            less = _summed(higher, weights[some], weights[some])
            self._codes, self._weights = _added(self._codes, self._weights, less.codes, -less.weights)
        left = self._weights > 1e-9 * self._weight(np.array([self.round]))[0]
        self._codes, self._weights = self._codes[left], self._weights[left]

    def cells(self) -> Cells:
        """The histograms as of the last closed round; a sample of that round weighs 1."""
        at = (self.round + 1) * self.round_seconds
        scale = 1.0 / float(self._weight(np.array([self.round]))[0])
        return Cells(self._keys, self._providers, self._codes, self._weights * scale, self._arms, self._seen, at)

    def knows(self, keys: Keys) -> Bools:
        """Which of these rows, or levels, hold samples."""
        return np.asarray(lookup(self._keys, keys) >= 0, dtype=np.bool_)

    def merge(self, other: RttStore) -> None:
        """Add what another collector with the same round and half-life counted: as if one had seen both."""
        if (self.round_seconds, self.half_life) != (other.round_seconds, other.half_life):
            raise ValueError("stores of different round or half-life can't be merged")
        self.round = max(self.round, other.round)
        self._rebase()
        self._admit(other._keys, other._providers)
        code = self._translate(other, other._codes, CELLS)
        weight = other._weights * 2.0 ** (other._base - self._base)
        self._codes, self._weights = _added(self._codes, self._weights, code, weight)
        self._arms, self._seen = _latest(self._arms, self._seen, self._translate(other, other._arms, 1), other._seen)
        self._pending.extend(other._pending)
        self._anew.extend(other._anew)
        self._forget()

    def to_sections(self) -> Sections:
        """All that was counted, as flat arrays; samples of the round still open are not in it."""
        scalars = {
            "round_seconds": self.round_seconds, "half_life": self.half_life, "round": self.round, "base": self._base,
            "providers": list(self._providers),
        }  # fmt: skip
        return {
            "about": pack_json(scalars), "keys": pack_keys(self._keys), "codes": self._codes, "weights": self._weights,
            "arms": self._arms, "seen": self._seen,
        }  # fmt: skip

    @classmethod
    def from_sections(cls, sections: Sections) -> RttStore:
        """The store that `to_sections` wrote; SourceError when it is not one."""
        about = unpack_json(sections, "about")
        try:
            store = cls(float(about["round_seconds"]), float(about["half_life"]))
            store.round, store._base = int(about["round"]), int(about["base"])
            store._providers = tuple(about["providers"])
            store._keys = unpack_keys(sections["keys"])
            store._codes, store._arms = sections["codes"].astype(np.int64), sections["arms"].astype(np.int64)
            store._weights, store._seen = sections["weights"].astype(np.float64), sections["seen"].astype(np.float64)
        except (KeyError, TypeError, ValueError) as error:
            raise SourceError(f"stored histograms can't be read: {error!r}") from error
        store._refuse_broken()
        return store

    def _refuse_broken(self) -> None:
        arms = len(self._keys) * 2 * PROVIDERS
        sorted_codes = bool((np.diff(self._codes) > 0).all() and (np.diff(self._arms) > 0).all())
        sorted_keys = bool((self._keys[1:] > self._keys[:-1]).all())
        in_range = not len(self._codes) or (self._codes[0] >= 0 and self._codes[-1] < arms * CELLS)
        arms_known = not len(self._arms) or (self._arms[0] >= 0 and self._arms[-1] < arms)
        lengths = len(self._codes) == len(self._weights) and len(self._arms) == len(self._seen)
        if not (sorted_codes and sorted_keys and in_range and arms_known and lengths):
            raise SourceError("stored histograms are damaged: cells out of order or out of range")

    def _weight(self, rounds: Ints | Floats) -> Floats:
        """The weight of a sample of each round: a 10-bit integer times a power of two, relative to the base."""
        exponent = np.asarray(rounds, dtype=np.float64) / self.half_life
        whole = np.floor(exponent)
        return np.rint(_MANTISSA * 2.0 ** (exponent - whole)) * 2.0 ** (whole - self._base)

    def _rebase(self) -> None:
        """Keep weights near 1 (an exact scaling by a power of two), and forget cells that weigh nothing any more."""
        today = int(np.floor(self.round / self.half_life))
        if abs(today - self._base) < _REBASE:
            return
        weights = self._weights * 2.0 ** (self._base - today)
        kept = weights > _NOTHING
        self._codes, self._weights, self._base = self._codes[kept], weights[kept], today

    def _count(self, batch: Batch) -> None:
        if not len(batch):
            return
        levels, row = _levels(batch)
        self._admit(np.concatenate([level.keys for level in levels]), batch.providers)
        provider = self._provider_index(batch.providers)[batch.provider]
        arm = row * 2 * PROVIDERS + (batch.family == 6) * PROVIDERS + provider
        rounds = np.floor(batch.at / self.round_seconds).astype(np.int64)
        first = int(rounds.min())
        weight = self._weight(np.arange(first, int(rounds.max()) + 1))[rounds - first]
        own = _summed(arm * CELLS + bucket_of(batch.rtt), weight, batch.at)
        place = np.stack([lookup(self._keys, level.keys)[level.of] for level in levels], axis=1)
        fresh = [np.where(_repeats(place, level), -1, place[:, level]) for level in range(len(levels))]
        self._add(_one_of([_moved(own, rows) for rows in fresh]))

    def _add(self, more: _Counted) -> None:
        self._codes, self._weights = _added(self._codes, self._weights, more.codes, more.weights)
        arms = more.codes // CELLS
        first = starts(arms)
        seen = np.maximum.reduceat(more.seen, first) if len(first) else more.seen
        self._arms, self._seen = _latest(self._arms, self._seen, arms[first], seen)

    def _admit(self, keys: Keys, providers: tuple[str, ...]) -> None:
        """Make room for rows and providers, keeping both sorted; sorted codes stay sorted."""
        if len(keys) and (lookup(self._keys, keys) < 0).any():
            merged = np.union1d(self._keys, keys)
            self._renumber(lookup(merged, self._keys), None)
            self._keys = merged
        if not set(providers) <= set(self._providers):
            names = tuple(sorted({*self._providers, *providers}))
            if len(names) > PROVIDERS:
                raise ValueError(f"{len(names)} providers, at most {PROVIDERS}")
            moved = np.array([names.index(name) for name in self._providers], dtype=np.int64)
            self._renumber(None, moved)
            self._providers = names

    def _renumber(self, rows: Ints | None, providers: Ints | None) -> None:
        self._codes = _recode(self._codes, rows, providers, CELLS)
        self._arms = _recode(self._arms, rows, providers, 1)

    def _provider_index(self, providers: tuple[str, ...]) -> Ints:
        return np.array([self._providers.index(name) for name in providers], dtype=np.int64)

    def _translate(self, other: RttStore, codes: Ints, cells: int) -> Ints:
        rows, providers = lookup(self._keys, other._keys), self._provider_index(other._providers)
        return _recode(codes, rows, providers, cells)

    def _forget(self) -> None:
        """Drop arms that were not seen for twelve half-lives, and rows left without any."""
        oldest = (self.round + 1 - KEPT_ROUNDS * self.half_life) * self.round_seconds
        gone = self._seen < oldest
        if not gone.any():
            return
        dead = self._arms[gone]
        self._arms, self._seen = self._arms[~gone], self._seen[~gone]
        keep = ~among(self._codes // CELLS, dead)
        self._codes, self._weights = self._codes[keep], self._weights[keep]
        used = np.zeros(len(self._keys), dtype=bool)
        used[self._arms // (2 * PROVIDERS)] = True
        self._renumber(np.cumsum(used) - 1, None)
        self._keys = self._keys[used]


def without(whole: Cells, part: Cells, keys: Keys) -> Cells:
    """What `whole` counted less what `part`, counted beside it, did; only the rows `keys` (sorted) are kept.

    Both are of the same round, so the same samples cancel exactly.
    """
    codes, weights = _only(whole, whole.providers, keys, whole.codes, whole.weights, CELLS)
    less, known = _only(part, whole.providers, keys, part.codes, part.weights, CELLS)
    codes, weights = _added(codes, weights, less, -known)
    left = weights > 1e-9
    arms, seen = _only(whole, whole.providers, keys, whole.arms, whole.seen, 1)
    return Cells(keys, whole.providers, codes[left], weights[left], arms, seen, whole.at)


def beside(first: Cells, second: Cells) -> Cells:
    """Both, and no row mixed: where `first` has a row of some family, that of `second` is left out."""
    if not len(second.codes):
        return first
    keys = np.union1d(first.keys, second.keys)
    names = tuple(sorted({*first.providers, *second.providers}))
    codes, weights = _only(first, names, keys, first.codes, first.weights, CELLS)
    arms, seen = _only(first, names, keys, first.arms, first.seen, 1)
    more, extra = _only(second, names, keys, second.codes, second.weights, CELLS)
    later, last = _only(second, names, keys, second.arms, second.seen, 1)
    rows = arms // PROVIDERS
    free, free_arms = ~among(more // (PROVIDERS * CELLS), rows), ~among(later // PROVIDERS, rows)
    codes, weights = _added(codes, weights, more[free], extra[free])
    arms, seen = _latest(arms, seen, later[free_arms], last[free_arms])
    return Cells(keys, names, codes, weights, arms, seen, max(first.at, second.at))


def _only(
    cells: Cells, providers: tuple[str, ...], keys: Keys, codes: Ints, values: Floats, unit: int
) -> tuple[Ints, Floats]:
    """Codes of some rows only, renumbered to `keys` and `providers`."""
    wanted = lookup(cells.keys, keys)
    place = np.flatnonzero(wanted >= 0)
    width = 2 * PROVIDERS * unit
    first = np.searchsorted(codes, wanted[place] * width)
    count = np.searchsorted(codes, (wanted[place] + 1) * width) - first
    owner, at = expand(first, count)
    moved = np.array([providers.index(name) for name in cells.providers], dtype=np.int64)
    return _recode(place[owner] * width + codes[at] % width, None, moved, unit), values[at]


def _recode(codes: Ints, rows: Ints | None, providers: Ints | None, cells: int) -> Ints:
    arm, bucket = np.divmod(codes, cells)
    family_row, provider = np.divmod(arm, PROVIDERS)
    row, family = np.divmod(family_row, 2)
    row = row if rows is None else rows[row]
    provider = provider if providers is None or not len(provider) else providers[provider]
    return np.asarray(((row * 2 + family) * PROVIDERS + provider) * cells + bucket, dtype=np.int64)


class _Counted(NamedTuple):
    """Cells in order, each code once: their weight, and when one of their samples was last seen."""

    codes: Ints
    weights: Floats
    seen: Floats


def _summed(codes: Ints, weights: Floats, seen: Floats, how: Literal["quicksort", "stable"] = "quicksort") -> _Counted:
    """Cells in any order, codes repeating, as _Counted. Sums are exact, so the order within a code is no matter.

    how: the sort; "stable" merges runs that are in order already, and is three times slower on what is in none.
    """
    if (codes[1:] < codes[:-1]).any():
        order = np.argsort(codes, kind=how)
        codes, weights, seen = codes[order], weights[order], seen[order]
    first = starts(codes)
    if len(first) == len(codes):
        return _Counted(codes, weights, seen)
    return _Counted(codes[first], np.add.reduceat(weights, first), np.maximum.reduceat(seen, first))


class _Level(NamedTuple):
    """Distinct keys of one level, and which of them each row of a batch has."""

    keys: Keys
    of: Ints


def _levels(batch: Batch) -> tuple[list[_Level], Ints]:
    """The rows that a batch uses, in key order, at each level; and each sample's row among them."""
    used = np.flatnonzero(np.bincount(batch.row, minlength=len(batch.rows)))
    keys = [pack(level) for level in lineage(batch.rows[used])]
    order = np.argsort(keys[0], kind="stable")
    rank = np.zeros(len(batch.rows), dtype=np.int64)
    rank[used[order]] = np.arange(len(order))
    return [_level(each[order]) for each in keys], rank[batch.row]


def _level(keys: Keys) -> _Level:
    """Sorting strings is slow, so runs of equal ones are sorted as one."""
    begins = np.ones(len(keys), dtype=bool)
    begins[1:] = keys[1:] != keys[:-1]
    distinct, which = np.unique(keys[begins], return_inverse=True)
    return _Level(distinct, which.reshape(-1)[np.cumsum(begins) - 1])


def _moved(own: _Counted, place: Ints) -> _Counted:
    """Cells whose rows are renumbered, row r becoming place[r] (-1: dropped); rows that meet are added."""
    row = own.codes // _ROW
    if (place < 0).any():
        kept = (place >= 0)[row]
        own, row = _Counted(own.codes[kept], own.weights[kept], own.seen[kept]), row[kept]
    rows, which = np.unique(place, return_inverse=True)
    if len(rows) * _ROW <= 4 * len(row):
        return _few_rows(own, row, rows, which.reshape(-1))
    return _summed(own.codes + ((place - np.arange(len(place))) * _ROW)[row], own.weights, own.seen)


def _few_rows(own: _Counted, row: Ints, rows: Ints, which: Ints) -> _Counted:
    """As `_moved`, without sorting: row r becomes rows[which[r]]."""
    size = len(rows) * _ROW
    dense = own.codes + ((which - np.arange(len(which))) * _ROW)[row]
    weights: Floats = np.bincount(dense, own.weights, size).astype(np.float64, copy=False)
    seen = np.zeros(size)
    np.maximum.at(seen, dense, own.seen)
    there = np.flatnonzero(weights)
    return _Counted(there + ((rows - np.arange(len(rows))) * _ROW)[there // _ROW], weights[there], seen[there])


def _only_where(batch: Batch, which: Bools) -> Batch:
    return batch if which.all() else batch.take(which)


def _one_of(parts: list[_Counted]) -> _Counted:
    """Several _Counted as one."""
    codes = np.concatenate([part.codes for part in parts])
    weights, seen = (np.concatenate([part[i] for part in parts]) for i in (1, 2))
    return _summed(codes, weights, seen, "stable")


def _at_home(batch: Batch) -> Bools:
    """False where a network was measured over the other family: that counts from (ASN, country) upwards."""
    space = batch.rows["family"][batch.row]
    return np.asarray((space == 0) | (space == batch.family), dtype=np.bool_)


def _repeats(place: Ints, level: int) -> Bools:
    return np.asarray((place[:, :level] == place[:, level : level + 1]).any(axis=1), dtype=np.bool_)


def _added(codes: Ints, values: Floats, more: Ints, extra: Floats) -> tuple[Ints, Floats]:
    """Sum of two sorted sparse vectors."""
    codes, values, at = _widened(codes, values, more)
    values[at] += extra
    return codes, values


def _latest(codes: Ints, values: Floats, more: Ints, extra: Floats) -> tuple[Ints, Floats]:
    codes, values, at = _widened(codes, values, more)
    values[at] = np.maximum(values[at], extra)
    return codes, values


def _widened(codes: Ints, values: Floats, more: Ints) -> tuple[Ints, Floats, Ints]:
    """Both sets of codes, sorted, zeros where `more` is new, and where each of `more` now is."""
    if np.array_equal(codes, more):
        return codes, values.copy(), np.arange(len(codes))
    at = np.searchsorted(codes, more)
    new = np.ones(len(more), dtype=bool)
    inside = at < len(codes)
    new[inside] = codes[at[inside]] != more[inside]
    if not new.any():
        return codes, values.copy(), at
    place = at + np.cumsum(new) - new
    wide, held = np.empty(len(codes) + int(new.sum()), dtype=np.int64), np.ones(len(codes) + int(new.sum()), dtype=bool)
    held[place[new]] = False
    wide[place[new]], wide[held] = more[new], codes
    filled = np.zeros(len(wide))
    filled[held] = values
    return wide, filled, place


def _above(codes: Ints, keys: Keys) -> list[tuple[Ints, Ints]]:
    """For each level above: which of these cells count there, and their codes there. Levels that are the same count once."""
    row, rest = np.divmod(codes, _ROW)
    rows, which = np.unique(row, return_inverse=True)
    place = np.stack([lookup(keys, pack(level)) for level in lineage(unpack(keys[rows]))], axis=1)[which.reshape(-1)]
    found = []
    for level in range(1, place.shape[1]):
        counts = (place[:, level] >= 0) & ~(place[:, :level] == place[:, level : level + 1]).any(axis=1)
        found.append((np.flatnonzero(counts), (place[:, level] * _ROW + rest)[counts]))
    return found
