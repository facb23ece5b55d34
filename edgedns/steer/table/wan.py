"""The WAN table: what is believed of each provider for each row, and how surely.

WAN, wins above nominal, of an arm: how often its RTT lies below thresholds that a provider drawn at random meets with 5,
12, 25 and 50 %, averaged over the four, less the same for that random provider. 0 is nominal, +0.77 the most there is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgedns.errors import SourceError
from edgedns.model import Estimate, Family, NetworkKey
from edgedns.steer.table.pooling import lent, pooled
from edgedns.steer.table.rows import (
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
    starts,
    unpack,
    unpack_json,
    unpack_keys,
)
from edgedns.steer.table.rtt import BUCKETS, CELLS, LOST, PROVIDERS, Cells, RttStore, rtt_at

Grid = NDArray[np.float32]
MEDIAN = 0.5


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
    typical: geometric mean in ms, a loss counting 10 s, pooled with the level above; an arm without samples takes what is
    expected from there. trust: how many samples that is worth at each level (nearest first); not stored.
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
    trust: tuple[float, ...] = ()

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
            arrays: dict[str, Any] = {name: sections[name] for name in _ARRAYS}
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


def table_of(cells: Cells, terms: Terms = TERMS, only: Sequence[str] | None = None, trust: tuple[float, ...] = ()) -> WanTable:
    """The WAN table of these histograms. `trust` is another table's, where these are too few rows to tell it."""
    names = cells.providers if only is None else tuple(sorted(only))
    return _table(_kept(cells, names), names, terms, trust)


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


def _table(cells: Cells, names: tuple[str, ...], terms: Terms, trust: tuple[float, ...]) -> WanTable:
    rows = unpack(cells.keys)
    shape = (len(rows), 2, len(names))
    arms = _arms(cells, shape, terms)
    parent = parents(rows, cells.keys)
    level = level_of(rows)
    depths = [np.flatnonzero(level == depth) for depth in range(len(LEVELS))]
    mean, sd = _shrunk(arms.wins, arms.samples, depths, parent, terms)
    typical, trust = pooled(arms.ln_ms, arms.variance, arms.samples, depths, parent, trust)
    seen = np.zeros(shape)
    seen.reshape(-1)[_flat_place(cells.arms, len(names))] = cells.seen
    return WanTable(
        rows=rows, keys=cells.keys, providers=names, parent=parent, mean=mean, w50=arms.half, sd=sd,
        rtt=_inherited(arms.rtt, depths, parent), typical=np.exp(typical),
        samples=arms.samples, seen=seen, at=cells.at, terms=terms, trust=trust,
    )  # fmt: skip


_CHUNK = 1 << 15
_LN_MIDDLE: Floats = np.log(rtt_at(np.arange(CELLS, dtype=np.float64) + 0.5))  # of a loss: 10 s
_LN_REPLY: Floats = np.where(np.arange(CELLS) < LOST, _LN_MIDDLE, 0.0)


class _Arms(NamedTuple):
    """Of each arm: decayed samples, mean of W_q - q, W_50, median RTT in ms, mean and variance of ln(ms).

    Without samples the first two are 0, the others NaN.
    """

    samples: Grid
    wins: Grid
    half: Grid
    rtt: Grid
    ln_ms: Grid
    variance: Grid


class _Shares(NamedTuple):
    """Of each cell of a chunk: its bucket, the arm and the row it is of (numbered within the chunk), its share of its arm."""

    bucket: Ints
    arm: Ints
    row: Ints
    mass: Floats


def _chunks(cells: Cells) -> Iterator[slice]:
    """All cells, in chunks of whole rows that fit a processor's cache."""
    width = PROVIDERS * CELLS
    heads = np.searchsorted(cells.codes, cells.codes[::_CHUNK] // width * width)
    bounds = np.append(np.unique(heads), len(cells.codes))
    return (slice(a, b) for a, b in pairwise(bounds.tolist()))


def _arms(cells: Cells, shape: tuple[int, int, int], terms: Terms) -> _Arms:
    """[row, family, provider]: what the cells tell of each arm by itself."""
    grids = [np.full(shape, empty, dtype=np.float32) for empty in (0.0, 0.0, np.nan, np.nan, np.nan, np.nan)]
    flat = [grid.reshape(-1) for grid in grids]
    for some in _chunks(cells):
        arm, values = _chunk(cells.codes[some], cells.weights[some], terms)
        place = _flat_place(arm, shape[2])
        for grid, value in zip(flat, values, strict=True):
            grid[place] = value
    return _Arms(*grids)


def _chunk(codes: Ints, weights: Floats, terms: Terms) -> tuple[Ints, tuple[NDArray[Any], ...]]:
    """The arms of a few whole rows, as codes, and for each what `_Arms` has.

    Sums are bincounts: of short runs these cost a third of what reduceat does.
    """
    arm_of = codes // CELLS
    first = starts(arm_of)
    arm = arm_of[first]
    head = starts(arm // PROVIDERS)
    which = np.repeat(np.arange(len(arm)), np.diff(first, append=len(codes)))
    row_of_arm = np.repeat(np.arange(len(head)), np.diff(head, append=len(arm)))
    samples = np.bincount(which, weights)
    cells = _Shares(codes & (CELLS - 1), which, row_of_arm[which], weights / samples[which])
    ln_ms, variance = _spread(cells)
    below = _below(cells, _thresholds(cells, np.bincount(row_of_arm), {*terms.quantiles, MEDIAN}))
    won = sum((below[q] for q in terms.quantiles), start=np.float32(0.0))
    wins = np.bincount(which, cells.mass * won) / len(terms.quantiles)
    half = np.bincount(which, cells.mass * below[MEDIAN])
    return arm, (samples, wins - np.mean(terms.quantiles), half, rtt_at(_median(cells, first)), ln_ms, variance)


def _spread(cells: _Shares) -> tuple[Floats, Floats]:
    """Of each arm's ln(ms) the mean, and the variance of replies alone: one loss would drown all that they tell of it."""
    value = _LN_REPLY[cells.bucket]
    part = cells.mass * value
    first, second = np.bincount(cells.arm, part), np.bincount(cells.arm, part * value)
    losses = np.flatnonzero(cells.bucket >= LOST)
    lost = np.bincount(cells.arm[losses], cells.mass[losses], len(first))
    replies = np.maximum(1.0 - lost, 1e-9)
    variance = np.maximum(second / replies - (first / replies) ** 2, 0.0)
    return first + lost * _LN_MIDDLE[LOST], variance


def _median(cells: _Shares, first: Ints) -> Floats:
    """Where on the bucket scale each arm's median lies, interpolated within its bucket. first: where each arm begins."""
    running = np.zeros(len(cells.mass) + 1)
    np.cumsum(cells.mass, out=running[1:])
    wanted = running[first] + (MEDIAN - 1e-9)  # of two halves the first, however sums are rounded
    target = wanted[cells.arm]
    at = np.flatnonzero((running[:-1] < target) & (running[1:] >= target))  # one cell of each arm
    within = (wanted - running[at]) / cells.mass[at]
    return np.asarray(cells.bucket[at] + np.clip(within, 0.0, 1.0), dtype=np.float64)


def _thresholds(cells: _Shares, arms: Ints, quantiles: Iterable[float]) -> dict[float, Grid]:
    """For each quantile where on the bucket scale it lies in each row's pool, in which each of its `arms` weighs the same."""
    width = BUCKETS + 1
    place = cells.bucket * len(arms) + cells.row
    pool: Floats = np.bincount(place, cells.mass, width * len(arms)).astype(np.float64, copy=False)
    rising = pool.reshape(width, len(arms))
    for below, here in pairwise(rising):  # rows beside each other: half of what cumsum takes
        here += below
    return {quantile: _place(rising, np.multiply(arms, quantile, dtype=np.float64)) for quantile in quantiles}


def _place(rising: Floats, target: Floats) -> Grid:
    """Where each column of rising[bucket, row] reaches its target."""
    rows = np.arange(len(target))
    at = np.minimum((rising < target).sum(axis=0, dtype=np.uint8).astype(np.int64), BUCKETS)
    low = np.where(at > 0, rising[at - 1, rows], 0.0)
    within = (target - low) / np.maximum(rising[at, rows] - low, 1e-9)
    return np.asarray(at + np.clip(within, 0.0, 1.0), dtype=np.float32)


def _below(cells: _Shares, place: Mapping[float, Grid]) -> dict[float, Grid]:
    """For each quantile the share of each cell that lies below its row's threshold, so that a tie counts half."""
    bucket = cells.bucket.astype(np.float32)
    below = {}
    for quantile, threshold in place.items():
        share = threshold[cells.row]
        share -= bucket
        below[quantile] = np.clip(share, 0.0, 1.0, out=share)
    return below


def _flat_place(arms: Ints, providers: int) -> Ints:
    """Arm codes -> positions in a flat [row, family, provider] array."""
    return (arms // PROVIDERS) * providers + (arms & (PROVIDERS - 1))


def _shrunk(wins: Grid, count: Grid, depths: list[Ints], parent: Ints, terms: Terms) -> tuple[Grid, Grid]:
    """Posterior mean and sd, level by level from the top: prior Beta(k m, k (1 - m)), m the value of the level above.

    A family without samples in a row takes the other family's posterior as it stands.
    """
    nominal, strength = np.float32(np.mean(terms.quantiles)), np.float32(terms.prior)
    mean = np.zeros_like(wins)
    for at in reversed(depths):
        prior = _above(mean, parent[at], 0.0)
        n = count[at]
        posterior = (strength * prior + n * wins[at]) / np.maximum(strength + n, np.float32(1e-9))
        mean[at] = lent(posterior, n)
    share = np.clip(mean + nominal, np.float32(0.01), np.float32(0.99))
    sd = np.sqrt(share * (1 - share) / (strength + count + 1))
    return mean, sd


def _above(values: Grid, parent: Ints, nobody: float) -> Grid:
    """values of the level above each row; `nobody` where there is none."""
    above = values[parent]
    above[parent < 0] = nobody
    return above


def _inherited(rtt: Grid, depths: list[Ints], parent: Ints) -> Grid:
    """RTTs with gaps filled from the other family, where a row has none at all, and from the level above."""
    for at in reversed(depths):
        lacks = at[np.isnan(rtt[at]).any(axis=(1, 2))]
        own = rtt[lacks]
        own = lent(own, np.where(np.isnan(own), np.float32(0.0), np.float32(1.0)))
        rtt[lacks] = np.where(np.isnan(own), _above(rtt, parent[lacks], np.nan), own)
    return rtt


def _family(family: Family) -> int:
    return 0 if family == 4 else 1
