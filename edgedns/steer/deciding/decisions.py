"""Decisions as data: which ranking each row of each column has, since when, and what is pending.

They are explicit and stored: a restart or another node goes on from them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgedns.errors import SourceError
from edgedns.model import Action, AllDown, Failover, Family, NetworkKey, Pin, Reason, Wan, Weighted
from edgedns.steer.caps.capacity import Offer, Prices, Splits
from edgedns.steer.table.rows import (
    KEY,
    Floats,
    Ints,
    Keys,
    Rows,
    Sections,
    key_of,
    lookup,
    nearest,
    pack_json,
    pack_keys,
    rows_of,
    unpack,
    unpack_json,
    unpack_keys,
)

HOLD = np.dtype(
    [
        ("home", "<i2"), ("serving", "<i2"), ("second", "<i2"), ("pending", "<i2"), ("left", "<i2"), ("waited", "u1"),
        ("worse", "u1"), ("settled", "?"), ("moved", "<f8"), ("guard_rtt", "<f4"), ("guard_until", "<f8"),
    ]
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Column:
    """The terms of a rule for one family; rules of the same terms share one."""

    action: Action
    family: Family
    all_down: AllDown = AllDown()  # noqa: RUF009


@dataclass(frozen=True, slots=True)
class Ranking:
    """Targets, best first. `shares` (as many as targets) splits them by hash unit; `down` is what to answer without any.

    `reasons` (as many as targets, or none) say why each share of a split is given where that isn't `reason` for all.
    """

    targets: tuple[str, ...]
    reason: Reason
    shares: tuple[float, ...] = ()
    down: Literal["", "nodata", "servfail"] = ""
    reasons: tuple[Reason, ...] = ()


@dataclass(frozen=True)
class ColumnDecisions:
    """One column's rankings. A row is `rows[i]` (sorted), its ranking `rankings[ranking[i]]`, in force since `since[i]`.

    A mapped network takes the nearest row at or above its own key. `default` is for networks that have none and for unmapped
    space; `nominal` holds once the snapshot is no longer fresh. `hold` is the switching state of each row of a wan
    column (provider numbers index `arms`), empty for other actions. Under caps, `splits` are the rows that each plan names
    itself, by what it takes to be up, and `offer` what the next plan is made from (not stored). `off` (sorted) are the rows
    where steering was found to lose: they are given the nominal order, whatever `hold` says.
    """

    column: Column
    default: Ranking
    nominal: Ranking
    keys: Keys = field(default_factory=lambda: np.zeros(0, dtype=KEY))
    ranking: NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, dtype=np.int32))
    rankings: tuple[Ranking, ...] = ()
    since: Floats = field(default_factory=lambda: np.zeros(0))
    arms: tuple[str, ...] = ()
    hold: NDArray[np.void] = field(default_factory=lambda: np.zeros(0, dtype=HOLD))
    splits: Mapping[tuple[str, ...], Splits] = field(default_factory=dict)
    offer: Offer | None = None
    off: Keys = field(default_factory=lambda: np.zeros(0, dtype=KEY))

    @property
    def rows(self) -> Rows:
        """The rows, as NetworkKey columns."""
        return unpack(self.keys)

    def index(self, key: NetworkKey) -> int:
        """Which row decides for a network, -1 for the default."""
        return -1 if key.asn == 0 else int(nearest(rows_of([key]), self.keys)[0])

    def ranking_for(self, key: NetworkKey) -> Ranking:
        """What a network's users are given."""
        row = self.index(key)
        return self.default if row < 0 else self.rankings[self.ranking[row]]

    def same_answers(self, other: ColumnDecisions) -> bool:
        """True when nobody's ranking or reason differs: no overlay is needed."""
        return (
            (self.default, self.nominal, self.rankings) == (other.default, other.nominal, other.rankings)
            and np.array_equal(self.keys, other.keys)
            and np.array_equal(self.ranking, other.ranking)
        )


@dataclass(frozen=True)
class Decisions:
    """All columns, and the closing time of the table that they were made from.

    `plans` are the prices that caps ask, the first for what was up when they were solved, others for when that changes; none
    where caps are not in force.
    """

    columns: Mapping[Column, ColumnDecisions]
    table_at: float = 0.0
    now: float = 0.0
    plans: tuple[Prices, ...] = ()

    def to_sections(self) -> Sections:
        """As flat arrays with JSON beside them."""
        about = {"table_at": self.table_at, "now": self.now, "columns": [_plain(c) for c in self.columns.values()]}
        about["plans"] = [[plan.up, dict(plan.ms)] for plan in self.plans]
        sections: Sections = {"about": pack_json(about)}
        for i, column in enumerate(self.columns.values()):
            sections[f"{i}_keys"] = pack_keys(column.keys)
            sections[f"{i}_ranking"], sections[f"{i}_since"] = column.ranking, column.since
            sections[f"{i}_off"] = pack_keys(column.off)
            sections.update({f"{i}_hold_{name}": column.hold[name].copy() for name in HOLD.names or ()})
            for j, plan in enumerate(self.plans):
                if split := column.splits.get(plan.up):
                    sections[f"{i}_split_{j}_keys"] = pack_keys(split.keys)
                    sections[f"{i}_split_{j}_shares"] = split.shares
        return sections

    @classmethod
    def from_sections(cls, sections: Sections) -> Decisions:
        """The decisions that `to_sections` wrote; SourceError when they are not."""
        about = unpack_json(sections, "about")
        try:
            plans = tuple(_prices(up, ms) for up, ms in about.get("plans", []))
            columns = [_column_decisions(plain, sections, i, plans) for i, plain in enumerate(about["columns"])]
            return cls({c.column: c for c in columns}, float(about["table_at"]), float(about["now"]), plans)
        except (AttributeError, KeyError, IndexError, TypeError, ValueError) as error:
            raise SourceError(f"stored decisions can't be read: {error!r}") from error


class Move(NamedTuple):
    """One row whose first target changed."""

    column: Column
    network: NetworkKey
    before: Ranking
    after: Ranking
    since: float


def moves(before: Decisions | None, after: Decisions) -> list[Move]:
    """Rows, of either, whose networks' first target is another than it was; in row order.

    A row that came or went is compared with the nearest level above it. `since` is NaN where the default rules now.
    """
    return [move for column in after.columns.values() for move in _column_moves(before, column)]


def _column_moves(before: Decisions | None, after: ColumnDecisions) -> list[Move]:
    was = before.columns.get(after.column) if before else None
    if was is None:
        return []
    keys = np.union1d(was.keys, after.keys)
    old, new = _ranking_index(was, keys), _ranking_index(after, keys)
    olds, news = (*was.rankings, was.default), (*after.rankings, after.default)
    differs = np.array([[a.targets[:1] != b.targets[:1] for b in news] for a in olds], dtype=np.bool_)
    changed = np.flatnonzero(differs[old, new])
    since = np.append(after.since, np.nan)[nearest(unpack(keys[changed]), after.keys)]
    return [
        Move(after.column, key_of(row), olds[a], news[b], float(at))
        for row, a, b, at in zip(unpack(keys[changed]), old[changed], new[changed], since, strict=True)
    ]


def _ranking_index(decided: ColumnDecisions, keys: Keys) -> Ints:
    """Which ranking each key's networks have; one past the last is the default."""
    row = nearest(unpack(keys), decided.keys)
    return np.append(decided.ranking.astype(np.int64), len(decided.rankings))[row]


def carried(before: ColumnDecisions | None, keys: Keys) -> Ints:
    """For each key its row in the earlier decisions, -1 where it had none of its own."""
    if before is None:
        return np.full(len(keys), -1, dtype=np.int64)
    return np.arange(len(keys)) if np.array_equal(keys, before.keys) else lookup(before.keys, keys)


_ACTIONS: dict[str, type[Any]] = {"pin": Pin, "weighted": Weighted, "failover": Failover, "wan": Wan}


def _plain(decided: ColumnDecisions) -> dict[str, Any]:
    column = decided.column
    kind = next(name for name, action in _ACTIONS.items() if isinstance(column.action, action))
    return {
        "kind": kind, "action": asdict(column.action), "family": column.family, "all_down": asdict(column.all_down),
        "default": _plain_ranking(decided.default), "nominal": _plain_ranking(decided.nominal),
        "rankings": [_plain_ranking(r) for r in decided.rankings], "arms": decided.arms,
    }  # fmt: skip


def _plain_ranking(ranking: Ranking) -> list[Any]:
    return [ranking.targets, ranking.reason.name, ranking.shares, ranking.down, [each.name for each in ranking.reasons]]


def _ranking(plain: list[Any]) -> Ranking:
    targets, reason, shares, down, *reasons = plain
    by_target = tuple(Reason[each] for each in (reasons[0] if reasons else ()))
    return Ranking(tuple(targets), Reason[reason], tuple(shares), down, by_target)


def _prices(up: list[str], ms: dict[str, float]) -> Prices:
    return Prices(tuple(map(str, up)), {str(name): float(price) for name, price in ms.items()})


def _splits(sections: Sections, i: int, plans: tuple[Prices, ...], arms: int) -> dict[tuple[str, ...], Splits]:
    found = {}
    for j, plan in enumerate(plans):
        if f"{i}_split_{j}_keys" in sections:
            split = Splits(unpack_keys(sections[f"{i}_split_{j}_keys"]), sections[f"{i}_split_{j}_shares"].astype(np.float64))
            if split.shares.shape != (len(split.keys), arms):
                raise ValueError(f"splits of column {i} don't fit its arms")
            found[plan.up] = split
    return found


def _column_decisions(plain: dict[str, Any], sections: Sections, i: int, plans: tuple[Prices, ...]) -> ColumnDecisions:
    terms = {name: _frozen(value) for name, value in plain["action"].items()}
    column = Column(_ACTIONS[plain["kind"]](**terms), plain["family"], AllDown(**plain["all_down"]))
    keys, ranking = unpack_keys(sections[f"{i}_keys"]), sections[f"{i}_ranking"].astype(np.int32)
    rankings = tuple(_ranking(r) for r in plain["rankings"])
    if len(ranking) != len(keys) or (len(ranking) and not 0 <= ranking.min() <= ranking.max() < len(rankings)):
        raise ValueError(f"rankings of column {i} don't fit its rows")
    hold = np.zeros(len(sections[f"{i}_hold_home"]), dtype=HOLD)
    for name in HOLD.names or ():
        hold[name] = sections[f"{i}_hold_{name}"]
    return ColumnDecisions(
        column, _ranking(plain["default"]), _ranking(plain["nominal"]), keys, ranking, rankings,
        sections[f"{i}_since"].astype(np.float64), tuple(plain["arms"]), hold,
        _splits(sections, i, plans, len(plain["arms"])),
        off=unpack_keys(sections[f"{i}_off"]) if f"{i}_off" in sections else np.zeros(0, dtype=KEY),
    )  # fmt: skip


def _frozen(value: Any) -> Any:
    return tuple(_frozen(v) for v in value) if isinstance(value, list) else value
