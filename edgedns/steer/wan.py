"""The WAN table: what is believed of each provider for each row, and how surely (DESIGN section 9, items 1, 2 and 5).

WAN, wins above nominal, of an arm: how often its RTT lies below thresholds that a provider drawn at random meets with 5,
12, 25 and 50 %, averaged over the four, less the same for that random provider. 0 is nominal, +0.77 the most there is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgedns.errors import SourceError
from edgedns.model import Estimate, Family, NetworkKey
from edgedns.steer.rows import (
    LEVELS,
    Floats,
    Ints,
    Keys,
    Rows,
    Sections,
    level_of,
    lineage,
    lookup,
    pack,
    pack_json,
    pack_keys,
    parents,
    rows_of,
    unpack,
    unpack_json,
    unpack_keys,
)
from edgedns.steer.rtt import BUCKETS, CELLS, PROVIDERS, Cells, RttStore, rtt_at

Grid = NDArray[np.float32]


@dataclass(frozen=True)
class Terms:
    """How the estimate is made: threshold quantiles, prior strength k, z of the score and of the 90 % interval."""

    quantiles: tuple[float, ...] = (0.05, 0.12, 0.25, 0.50)
    prior: float = 4.0
    cautious: float = 0.5
    interval: float = 1.645


TERMS = Terms()
_ARRAYS = ("mean", "w50", "sd", "rtt", "typical", "samples", "seen")


@dataclass(frozen=True)
class WanTable:
    """Immutable. Rows are sorted by packed key; every array is [row, family (v4, v6), provider].

    mean: WAN after shrinking towards the level above. w50: the share of samples faster than the pooled median, unshrunk.
    sd: its uncertainty. rtt: median in ms, of this row or, without samples, of the level above; NaN where nobody knows.
    typical: geometric mean in ms, a loss counting 10 s; an arm without samples takes the level above's, times how much slower
    the row is than that level on the arms that it has.
    samples: decayed count. seen: Unix time of the last sample, 0 for never. at: when the last round closed.
    """

    rows: Rows
    keys: Keys
    providers: tuple[str, ...]
    parent: Ints
    mean: Grid
    w50: Grid
    sd: Grid
    rtt: Grid
    typical: Grid
    samples: Grid
    seen: Floats
    at: float
    terms: Terms = TERMS

    @property
    def score(self) -> Grid:
        """What decides: the mean less half its uncertainty."""
        return (self.mean - np.float32(self.terms.cautious) * self.sd).astype(np.float32)

    @property
    def low(self) -> Grid:
        """Lower end of the 90 % interval of `mean`."""
        return (self.mean - np.float32(self.terms.interval) * self.sd).astype(np.float32)

    @property
    def high(self) -> Grid:
        """Upper end of the 90 % interval of `mean`."""
        return (self.mean + np.float32(self.terms.interval) * self.sd).astype(np.float32)

    @property
    def row_samples(self) -> Grid:
        """[row, family]: decayed samples of all arms together."""
        return np.asarray(self.samples.sum(axis=2), dtype=np.float32)

    def find(self, key: NetworkKey, family: Family, min_samples: float = 0.0) -> int:
        """Index of the row that speaks for a network: the nearest level with that many samples, -1 for none."""
        levels = np.concatenate(lineage(rows_of([key])))
        for row in lookup(self.keys, pack(levels)).tolist():
            if row >= 0 and self.row_samples_of(row, family) >= max(min_samples, 1e-9):
                return int(row)
        return -1

    def row_samples_of(self, row: int, family: Family) -> float:
        """Samples that speak for a row: its own family's, or the other's where it has none (they are its prior)."""
        both = self.samples[row].sum(axis=1)
        own = float(both[_family(family)])
        return own if own > 0 or self.rows["block"][row] >= 0 else float(both.sum())

    def lookup(self, key: NetworkKey, family: Family, min_samples: float = 0.0) -> tuple[Estimate, ...]:
        """The estimates that steer a network, best score first, each saying which level it is of; () if there is none."""
        row = self.find(key, family, min_samples)
        if row < 0:
            return ()
        level = LEVELS[int(level_of(self.rows[row : row + 1])[0])]
        estimates = [self._estimate(row, _family(family), p, level) for p in range(len(self.providers))]
        return tuple(sorted(estimates, key=lambda e: (-e.score, e.provider)))

    def _estimate(self, row: int, family: int, provider: int, level: str) -> Estimate:
        at = (row, family, provider)
        seen = float(self.seen[at])
        return Estimate(
            provider=self.providers[provider],
            wan=float(self.mean[at]),
            w50=float(self.w50[at]),
            low=float(self.low[at]),
            high=float(self.high[at]),
            score=float(self.score[at]),
            rtt_ms=float(self.rtt[at]),
            samples=float(self.samples[at]),
            age=self.at - seen if seen else float("inf"),
            health="",
            level=level,
        )

    def to_sections(self) -> Sections:
        """The table as flat arrays."""
        about = {"providers": list(self.providers), "at": self.at}
        return {"about": pack_json(about), "keys": pack_keys(self.keys), **{name: getattr(self, name) for name in _ARRAYS}}

    @classmethod
    def from_sections(cls, sections: Sections, terms: Terms = TERMS) -> WanTable:
        """The table that `to_sections` wrote; SourceError when it is not one."""
        about = unpack_json(sections, "about")
        try:
            keys, providers, at = unpack_keys(sections["keys"]), tuple(about["providers"]), float(about["at"])
            arrays = {name: sections[name] for name in _ARRAYS}
        except (KeyError, TypeError, ValueError) as error:
            raise SourceError(f"stored WAN table can't be read: {error!r}") from error
        shape = (len(keys), 2, len(providers))
        if any(array.shape != shape for array in arrays.values()) or not (keys[1:] > keys[:-1]).all():
            raise SourceError(f"stored WAN table is damaged: expected arrays of shape {shape} over sorted rows")
        rows = unpack(keys)
        return cls(rows=rows, keys=keys, providers=providers, parent=parents(rows, keys), at=at, terms=terms, **arrays)


def diff(before: WanTable | None, after: WanTable, tolerance: float = 0.02) -> Ints:
    """Indices of the rows of `after` that are new or where some provider's WAN moved by more than `tolerance`."""
    if before is None or before.providers != after.providers:
        return np.arange(len(after.keys))
    was = lookup(before.keys, after.keys)
    change = np.abs(after.mean - before.mean[was]).max(axis=(1, 2), initial=0.0)
    return np.flatnonzero((was < 0) | (change > tolerance))


def estimate(store: RttStore, terms: Terms = TERMS, only: Sequence[str] | None = None) -> WanTable:
    """The WAN table of all that a store counted up to its last closed round.

    `only` names the providers (arms) that there are: nominal is one of these drawn at random. Default: all that were seen.
    """
    return table_of(store.cells(), terms, only)


def table_of(cells: Cells, terms: Terms = TERMS, only: Sequence[str] | None = None) -> WanTable:
    """The WAN table of these histograms."""
    names = cells.providers if only is None else tuple(sorted(only))
    return _table(_kept(cells, names), names, terms)


def _kept(cells: Cells, names: tuple[str, ...]) -> Cells:
    """The cells of these providers, renumbered to their places in `names`."""
    if names == cells.providers:
        return cells
    place = np.array([names.index(name) if name in names else -1 for name in (*cells.providers, "")], dtype=np.int64)

    def renumber(codes: Ints, unit: int) -> tuple[Ints, NDArray[np.bool_]]:
        arm, rest = np.divmod(codes, unit)
        group, provider = np.divmod(arm, PROVIDERS)
        keep = place[provider] >= 0
        return ((group * PROVIDERS + place[provider]) * unit + rest)[keep], keep

    codes, kept_cells = renumber(cells.codes, CELLS)
    arms, kept_arms = renumber(cells.arms, 1)
    return Cells(cells.keys, names, codes, cells.weights[kept_cells], arms, cells.seen[kept_arms], cells.at)


def _table(cells: Cells, names: tuple[str, ...], terms: Terms) -> WanTable:
    rows = unpack(cells.keys)
    shape = (len(rows), 2, len(names))
    arm, samples, median, typical = _per_arm(cells)
    place = _flat_place(arm, len(names))
    wins, w50 = _wins(cells, arm, samples, place, shape, terms)
    parent = parents(rows, cells.keys)
    count = _scatter(samples, place, shape, 0.0)
    mean, sd = _shrunk(wins, count, rows, parent, terms)
    seen = np.zeros(shape)
    seen.reshape(-1)[_flat_place(cells.arms, len(names))] = cells.seen
    medians, typicals = (_scatter(values, place, shape, np.nan) for values in (median, typical))
    return WanTable(
        rows=rows, keys=cells.keys, providers=names, parent=parent, mean=mean, w50=_scatter(w50, place, shape, np.nan), sd=sd,
        rtt=_inherited(medians, rows, parent, np.zeros(shape[:2])),
        typical=_inherited(typicals, rows, parent, None), samples=count, seen=seen, at=cells.at, terms=terms,
    )  # fmt: skip


def _per_arm(cells: Cells) -> tuple[Ints, Floats, Floats, Floats]:
    """Codes of the arms that have cells, sorted; their samples; their median and typical RTT in ms."""
    arm_of_cell = cells.codes // CELLS
    first = np.flatnonzero(np.diff(arm_of_cell, prepend=-1))
    if not len(first):
        return arm_of_cell, cells.weights, cells.weights, cells.weights
    samples = np.add.reduceat(cells.weights, first)
    middle = np.minimum(cells.codes % CELLS + 0.5, BUCKETS)
    typical = np.add.reduceat(cells.weights * middle, first) / samples
    return arm_of_cell[first], samples, rtt_at(_quantile_place(cells, first, samples, 0.5)), rtt_at(typical)


def _quantile_place(cells: Cells, first: Ints, samples: Floats, q: float) -> Floats:
    """Where on the bucket scale each arm's quantile q lies, interpolated within its bucket."""
    counts = np.diff(first, append=len(cells.codes))
    within = np.cumsum(cells.weights / np.repeat(samples, counts))
    before = np.concatenate(([0.0], within[first[1:] - 1]))
    at = np.minimum(np.searchsorted(within, before + q), first + counts - 1)
    mass = cells.weights[at] / samples
    fraction = np.clip((before + q - (within[at] - mass)) / mass, 0.0, 1.0)
    return (cells.codes[at] % CELLS) + fraction


def _flat_place(arms: Ints, providers: int) -> Ints:
    """Arm codes -> positions in a flat [row, family, provider] array."""
    return (arms // PROVIDERS) * providers + arms % PROVIDERS


def _scatter(values: Floats, place: Ints, shape: tuple[int, int, int], empty: float) -> Grid:
    out = np.full(shape, empty, dtype=np.float32)
    out.reshape(-1)[place] = values
    return out


_CHUNK = 4096


def _wins(
    cells: Cells, arm: Ints, samples: Floats, place: Ints, shape: tuple[int, int, int], terms: Terms
) -> tuple[Grid, Floats]:
    """Mean of W_q less nominal, [row, family, provider], and W_50 by arm; 0 where nothing was measured."""
    first = np.searchsorted(cells.codes, arm * CELLS)
    group = arm // PROVIDERS
    heads = np.flatnonzero(np.diff(group, prepend=-1, append=-1))
    wins, half = np.zeros(len(arm)), np.zeros(len(arm))
    for start in range(0, len(heads) - 1, _CHUNK):
        bounds = heads[start : start + _CHUNK + 1]
        a0, a1 = int(bounds[0]), int(bounds[-1])
        c0, c1 = int(first[a0]), int(first[a1]) if a1 < len(arm) else len(cells.codes)
        counts = np.diff(first[a0:a1], append=c1)
        mass = (cells.weights[c0:c1] / np.repeat(samples[a0:a1], counts)).astype(np.float32)
        bucket = cells.codes[c0:c1] % CELLS
        wins[a0:a1], half[a0:a1] = _chunk_wins(bucket, mass, counts, np.diff(bounds), terms)
    return _scatter(wins, place, shape, 0.0), half


def _chunk_wins(bucket: Ints, mass: Grid, counts: Ints, arms: Ints, terms: Terms) -> tuple[Floats, Floats]:
    """(mean of W_q - q, W_50) by arm. Cell c holds the share mass[c] of its arm in bucket[c]; arm a has counts[a] cells

    and row r arms[r] arms, one after the other. A threshold at place t of the bucket scale is above clip(t - b, 0, 1) of
    what lies in bucket b, so that a tie counts half.
    """
    cells_of_row = np.add.reduceat(counts, np.cumsum(arms) - arms)
    row = np.repeat(np.arange(len(arms)), cells_of_row)
    pooled = np.bincount(row * (BUCKETS + 1) + bucket, weights=mass, minlength=len(arms) * (BUCKETS + 1))
    below = np.cumsum(pooled.reshape(len(arms), BUCKETS + 1) / arms[:, None], axis=1)
    first = np.cumsum(counts) - counts
    faster = np.zeros(len(bucket), dtype=np.float32)
    for q in terms.quantiles:
        faster += _share_below(below, q, bucket, cells_of_row)
    wins = np.add.reduceat(mass * faster, first) / len(terms.quantiles) - np.mean(terms.quantiles)
    half = np.add.reduceat(mass * _share_below(below, 0.5, bucket, cells_of_row), first)
    return np.asarray(wins, dtype=np.float64), np.asarray(half, dtype=np.float64)


def _share_below(below: Floats, q: float, bucket: Ints, cells_of_row: Ints) -> Grid:
    """For each cell the share of it that lies below its row's pooled quantile q."""
    at = np.minimum((below < q).sum(axis=1), BUCKETS)
    every = np.arange(len(below))
    low = np.where(at > 0, below[every, at - 1], 0.0)
    place = at + np.clip((q - low) / np.maximum(below[every, at] - low, 1e-9), 0.0, 1.0)
    return np.asarray(np.clip(np.repeat(place.astype(np.float32), cells_of_row) - bucket, 0.0, 1.0), dtype=np.float32)


def _shrunk(wins: Grid, count: Grid, rows: Rows, parent: Ints, terms: Terms) -> tuple[Grid, Grid]:
    """Posterior mean and sd, level by level from the top: prior Beta(k m, k (1 - m)), m the value of the level above.

    A family without samples in a row takes the other family's posterior as it stands.
    """
    nominal = float(np.mean(terms.quantiles))
    mean = np.zeros_like(wins)
    level = level_of(rows)
    for depth in range(len(LEVELS) - 1, -1, -1):
        at = np.flatnonzero(level == depth)
        prior = np.where((parent[at] >= 0)[:, None, None], mean[parent[at]], 0.0)
        n = count[at]
        posterior = (terms.prior * prior + n * wins[at]) / np.maximum(terms.prior + n, 1e-9)
        mean[at] = _lent(posterior, n)
    share = np.clip(mean + nominal, 0.01, 0.99)
    sd = np.sqrt(share * (1.0 - share) / (terms.prior + count + 1.0))
    return mean, sd.astype(np.float32)


def _lent(values: Grid, count: Grid) -> Grid:
    """values[row, family, provider] with a family that has no samples replaced by the other, where that has some."""
    empty = count.sum(axis=2) == 0
    borrow = (empty & ~empty[:, ::-1])[:, :, None]
    return np.where(borrow, values[:, ::-1], values).astype(np.float32)


def _inherited(rtt: Grid, rows: Rows, parent: Ints, slower: Floats | None) -> Grid:
    """RTTs with gaps filled from the level above and, where a row has none at all, from the other family.

    slower[row, family] is ln of how much slower a row is than the level above; None: told from the arms that both have.
    """
    level = level_of(rows)
    for depth in range(len(LEVELS) - 1, -1, -1):
        at = np.flatnonzero(level == depth)
        known = ~np.isnan(rtt[at])
        above = np.where((parent[at] >= 0)[:, None, None], rtt[parent[at]], np.nan)
        factor = _slower(rtt[at], above) if slower is None else slower[at]
        own = _lent(np.where(known, rtt[at], np.nan), known.astype(np.float32))
        rtt[at] = np.where(np.isnan(own), above * np.exp(factor)[:, :, None], own)
    return rtt


def _slower(rtt: Grid, above: Grid) -> Floats:
    """ln(row / level above), averaged over the arms that both know; 0 where there are none."""
    ratio = np.log(rtt / above)
    both = ~np.isnan(ratio)
    return np.asarray(np.where(both, ratio, 0.0).sum(axis=2) / np.maximum(both.sum(axis=2), 1), dtype=np.float64)


def _family(family: Family) -> int:
    return 0 if family == 4 else 1
