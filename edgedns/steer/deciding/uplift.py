"""What steering gains over nominal, in ms, by samples that came after the decision.

A choice looks better in the samples that it was made from than it is. So each sample is set against the decisions in force
when it came: where a network is given another provider than the nominal one by measurement, samples of the one count as
`measured`, of the other as `nominal`. Both arms are probed all the time, so no user is needed for it; the holdout is for
whoever measures at the users' side. Lost probes have no ms: failures are told elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from edgedns.errors import SourceError
from edgedns.model import RTT_LEAST_MS, RTT_MOST_MS, Wan
from edgedns.steer.deciding.decisions import Column, ColumnDecisions, Decisions, Ranking
from edgedns.steer.deciding.holdout import MEASURED
from edgedns.steer.table.batch import Batch
from edgedns.steer.table.rows import Bools, Floats, Ints, Rows, Sections, lookup, nearest, pack_json, unpack, unpack_json
from edgedns.steer.table.rtt import BUCKETS, CELLS, PROVIDERS, Cells, RttStore, rtt_at

HALF_LIFE = 3600.0
LEAST = 5.0
NINETY = 1.645
ROLES = ("measured", "nominal")
_MIDDLE = rtt_at(np.arange(BUCKETS, dtype=np.float64) + 0.5)
# A bucket is this wide, relative to its middle; what lies in one has the deviation of even spread over it.
_WITHIN = float(((RTT_MOST_MS / RTT_LEAST_MS) ** (1.0 / BUCKETS) - 1.0) / np.sqrt(12.0))


@dataclass(frozen=True)
class Gains:
    """By network: ms less than nominal and its standard error. samples[n, role], decayed."""

    rows: Rows
    ms: Floats
    error: Floats
    samples: Floats


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate in ms and its 90 % interval."""

    ms: float
    low: float
    high: float


class Uplift:
    """Histograms of both roles for each wan column, with a half-life of an hour."""

    def __init__(self, round_seconds: float = 10.0) -> None:
        self.round_seconds = round_seconds
        self._stores: dict[str, RttStore] = {}

    def observe(self, batch: Batch, decisions: Decisions) -> None:
        """Take samples while these decisions are in force."""
        replies = batch.take(~batch.lost)
        for column, decided in decisions.columns.items():
            if isinstance(column.action, Wan) and len(decided.keys):
                roles = _roles(replies, decided)
                counted = replace(replies, providers=ROLES, provider=np.maximum(roles, 0)).take(roles >= 0)
                if len(counted):
                    self._store(column).observe_columns(counted)

    def close_round(self, columns: Iterable[Column], now: float, vet: Callable[[Batch], Batch] = lambda batch: batch) -> None:
        """Count the round that ends, as much as `vet` gives back; columns that are no longer there are forgotten."""
        names = {repr(column) for column in columns}
        self._stores = {name: store for name, store in self._stores.items() if name in names}
        for store in self._stores.values():
            store.close_round(now, vet)

    def gains(self, column: Column) -> Gains:
        """The networks that have samples enough of both roles, in key order."""
        return _gains(self._store(column).cells())

    def to_sections(self) -> Sections:
        """All that was counted, as flat arrays."""
        sections: Sections = {"uplift": pack_json([self.round_seconds, list(self._stores)])}
        for i, store in enumerate(self._stores.values()):
            sections |= {f"{i}_{name}": array for name, array in store.to_sections().items()}
        return sections

    @classmethod
    def from_sections(cls, sections: Sections) -> Uplift:
        """What `to_sections` wrote; SourceError when it is not that."""
        try:
            period, columns = unpack_json(sections, "uplift")
            uplift = cls(float(period))
            for i, column in enumerate(columns):
                mine = {name.partition("_")[2]: array for name, array in sections.items() if name.startswith(f"{i}_")}
                uplift._stores[str(column)] = RttStore.from_sections(mine)
        except (TypeError, ValueError) as error:
            raise SourceError(f"stored uplift can't be read: {error!r}") from error
        return uplift

    def _store(self, column: Column) -> RttStore:
        name = repr(column)
        if name not in self._stores:
            self._stores[name] = RttStore(self.round_seconds, HALF_LIFE / self.round_seconds)
        return self._stores[name]


def choices(decided: ColumnDecisions) -> list[tuple[str, str]]:
    """For each ranking (provider by measurement, nominal provider); two empty names where measurement chose no other.

    As many follow for rows that are switched off, of whom the one by measurement stands second.
    """
    off = [(ranking.targets[1], ranking.targets[0]) if len(ranking.targets) > 1 else ("", "") for ranking in decided.rankings]
    return [*(_choice(ranking, decided.arms) for ranking in decided.rankings), *off]


def choice_of(decided: ColumnDecisions, row: Ints) -> Ints:
    """Which of `choices` each row has; one past the last for row -1."""
    count = len(decided.rankings)
    off = lookup(decided.off, decided.keys) >= 0
    number = np.append(decided.ranking.astype(np.int64) + count * off, 2 * count)
    return np.asarray(number[row], dtype=np.int64)


def _choice(ranking: Ranking, arms: Sequence[str]) -> tuple[str, str]:
    nominal = next((name for name in arms if name in ranking.targets), "")
    if ranking.reason not in MEASURED or nominal == ranking.targets[0]:
        return "", ""
    return ranking.targets[0], nominal


def _roles(batch: Batch, decided: ColumnDecisions) -> Ints:
    """The role of each sample, -1 for none."""
    place = {name: i for i, name in enumerate(batch.providers)}
    pairs = [[place.get(name, -2) for name in pair] for pair in (*choices(decided), ("", ""))]
    number = choice_of(decided, nearest(batch.rows, decided.keys))
    wanted = np.array(pairs, dtype=np.int64)[number][batch.row]
    mine = batch.family == decided.column.family
    hit = [mine & (batch.provider == wanted[:, role]) for role in range(2)]
    return np.where(hit[0], 0, np.where(hit[1], 1, -1))


def _gains(cells: Cells) -> Gains:
    """Means over both families of a network: a column has samples of its own family only."""
    row, role, weight, ms = _replies(cells)
    rows, place = unpack(cells.keys), row * 2 + role

    def summed(value: Floats) -> Floats:
        sums = np.bincount(place, weights=weight * value, minlength=2 * len(rows))
        return np.asarray(sums, dtype=np.float64).reshape(len(rows), 2)

    count, total, square = summed(np.ones(len(ms))), summed(ms), summed(ms * ms)
    kept = (rows["block"] >= 0) & (count >= LEAST).all(axis=1)
    count, total, square = count[kept], total[kept], square[kept]
    mean = total / count
    variance = np.maximum(square / count - mean * mean, 0.0) * count / (count - 1.0) + (_WITHIN * mean) ** 2
    return Gains(rows[kept], mean[:, 1] - mean[:, 0], np.sqrt((variance / count).sum(axis=1)), count)


def _replies(cells: Cells) -> tuple[Ints, Ints, Floats, Floats]:
    """(row, role, weight, ms) of each cell."""
    arm, bucket = np.divmod(cells.codes, CELLS)
    provider = arm % PROVIDERS
    role_of = np.array([ROLES.index(name) for name in cells.providers], dtype=np.int64)
    return arm // (2 * PROVIDERS), role_of[provider], cells.weights, _MIDDLE[np.minimum(bucket, BUCKETS - 1)]


def interval(gains: Gains, weight: Floats, whole: float) -> Interval:
    """The mean gain by these weights of the networks, out of `whole`: weight without an estimate counts as no gain."""
    share = weight / whole if whole > 0 else weight
    ms, error = float((share * gains.ms).sum()), float(np.sqrt(((share * gains.error) ** 2).sum()))
    return Interval(ms, ms - NINETY * error, ms + NINETY * error)


def is_worse(gains: Gains) -> Bools:
    """Networks that steering makes slower, beyond doubt."""
    return np.asarray(gains.ms + NINETY * gains.error < 0.0, dtype=np.bool_)
