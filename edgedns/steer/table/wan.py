"""The WAN table: what is believed of each provider for each row, and how surely.

WAN, wins above nominal, of an arm: how often its RTT lies below thresholds that a provider drawn at random meets with 5,
12, 25 and 50 %, averaged over the four, less the same for that random provider. 0 is nominal, +0.77 the most there is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgedns.errors import SourceError
from edgedns.model import RTT_MOST_MS, Estimate, Family, NetworkKey
from edgedns.steer.table import losses
from edgedns.steer.table.arms import arms_of
from edgedns.steer.table.batch import Batch
from edgedns.steer.table.pooling import lent, pooled
from edgedns.steer.table.rows import (
    LEVELS,
    Floats,
    Grid,
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
from edgedns.steer.table.rtt import CELLS, PROVIDERS, Cells, RttStore, arm_places


@dataclass(frozen=True)
class Terms:
    """How the estimate is made: threshold quantiles, prior strength k, z of the score and of the 90 % interval.

    wait: ms that a loss costs its user.
    """

    quantiles: tuple[float, ...] = (0.05, 0.12, 0.25, 0.50)
    prior: float = 4.0
    cautious: float = 0.5
    interval: float = 1.645
    wait: float = 1000.0


TERMS = Terms()
_ARRAYS = ("mean", "w50", "sd", "rtt", "typical", "loss", "samples", "seen")


@dataclass(frozen=True)
class WanTable:
    """Immutable. Rows are sorted by packed key; every array is [row, family (v4, v6), provider].

    mean: WAN after shrinking towards the level above, of round trips with their share of what losses cost (`losses`).
    w50: the share of samples faster than the pooled median, unshrunk, a loss being slower than all.
    sd: its uncertainty. rtt: median in ms, of this row or, without samples, of the level above; NaN where nobody knows.
    typical: geometric mean of the replies in ms, pooled with the level above, and what losses cost on top; an arm without
    samples takes what is expected from there. loss: the share of losses believed. trust, loss_trust: how many samples the
    level above is worth at each level (nearest first), of RTTs and of losses; not stored.
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
    loss: Grid
    samples: Grid
    seen: Floats
    at: float
    terms: Terms = TERMS
    trust: tuple[float, ...] = ()
    loss_trust: tuple[float, ...] = ()

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
            loss=float(self.loss[at]),
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


def estimate(store: RttStore, terms: Terms = TERMS, only: Sequence[str] | None = None, losing: Batch | None = None) -> WanTable:
    """The WAN table of all that a store counted up to its last closed round.

    `only` names the providers (arms) that there are: nominal is one of these drawn at random. Default: all that were seen.
    `losing`: losses that may become a failure, and count as losses until they do (`Health.losing`).
    """
    return table_of(store.cells(), terms, only, losing)


def table_of(
    cells: Cells, terms: Terms = TERMS, only: Sequence[str] | None = None, losing: Batch | None = None,
    like: WanTable | None = None,
) -> WanTable:  # fmt: skip
    """The WAN table of these histograms. `like`: a table that tells how alike rows are, where these are too few to."""
    names = cells.providers if only is None else tuple(sorted(only))
    return _table(_kept(cells, names), names, terms, losing, like)


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


def _table(cells: Cells, names: tuple[str, ...], terms: Terms, losing: Batch | None, like: WanTable | None) -> WanTable:
    rows = unpack(cells.keys)
    shape = (len(rows), 2, len(names))
    parent = parents(rows, cells.keys)
    level = level_of(rows)
    depths = [np.flatnonzero(level == depth) for depth in range(len(LEVELS))]
    counted = losses.tally(cells, shape, losing) if terms.wait else None
    loss = np.zeros(shape, dtype=np.float32)
    loss_trust: tuple[float, ...] = ()
    if counted is not None:
        loss, loss_trust = losses.shares(*counted, depths, parent, like.loss_trust if like else ())
    wait = losses.waits(loss, terms.wait)
    arms = arms_of(cells, shape, terms.quantiles, wait)
    mean, sd = _shrunk(arms.wins, arms.samples, depths, parent, terms)
    typical, trust = pooled(arms.ln_ms, arms.variance, arms.replies, depths, parent, like.trust if like else ())
    typical = np.where(np.isnan(typical) & (lent(arms.samples, arms.samples) > 0), np.float32(RTT_MOST_MS), np.exp(typical))
    seen = np.zeros(shape)
    seen.reshape(-1)[arm_places(cells.arms, len(names))] = cells.seen
    return WanTable(
        rows=rows, keys=cells.keys, providers=names, parent=parent, mean=mean, w50=arms.half, sd=sd,
        rtt=_inherited(arms.rtt, depths, parent), typical=typical + wait, loss=loss, samples=arms.samples, seen=seen,
        at=cells.at, terms=terms, trust=trust, loss_trust=loss_trust,
    )  # fmt: skip


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
