"""Past samples through the serving estimator and `decide`: what steering would have gained (no second implementation).

At each slot the answers are chosen from what was measured in earlier slots, then scored by what the slot measured.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

import numpy as np

from edgedns.model import AllDown, Provider, Wan
from edgedns.steer.deciding.decisions import Column, ColumnDecisions, Decisions
from edgedns.steer.deciding.hold import Pace
from edgedns.steer.deciding.policy import decide
from edgedns.steer.failure.health import Health
from edgedns.steer.probing.explore import choose, expected_gain
from edgedns.steer.replay.trace import Trace
from edgedns.steer.table.batch import Batch
from edgedns.steer.table.rows import Bools, Floats, Ints, Rows, lineage, nearest, pack
from edgedns.steer.table.rtt import Cells, RttStore, without
from edgedns.steer.table.wan import TERMS, Grid, Terms, WanTable, estimate, table_of

Objective = Literal["graded", "median", "rtt"]
Schedule = Literal["random", "engine"]
Watch = Callable[[int, int], None]


@dataclass(frozen=True)
class Plan:
    """How to replay. budget: the share of arms measured in a slot (1 = all), beside the one that serves.

    wan: the terms of a rule to judge, instead of the margins and the nominal order given here.
    """

    objective: Objective = "graded"
    min_samples: float = 1.0
    margin_ms: float = 0.0
    margin_percent: float = 5.0
    nominal: tuple[str, ...] = ()
    half_life: float = 5.0
    ttl: float = 0.0
    budget: float = 1.0
    schedule: Schedule = "random"
    seed: int = 0
    leave_out_vantage: bool = False
    wan: Wan | None = None

    def terms(self) -> Terms:
        """`median` is the literal definition: P(rtt < the pooled median), unshrunk and without caution."""
        return Terms(quantiles=(0.5,), prior=0.0, cautious=0.0) if self.objective == "median" else TERMS

    def pace(self) -> Pace:
        """... and without hysteresis: whoever has the highest value, of equals the first."""
        literal = Pace(gain=-1e-9, rounds=1, enough=0.0, few=0.0, doubt=0.0, watch=-1.0)
        return literal if self.objective == "median" else Pace(objective=self.objective)

    def rule(self, providers: tuple[str, ...]) -> Wan:
        """The rule that is replayed: of these providers those that it names, or all, in the order given or else by name."""
        if self.wan is not None:
            among = tuple(name for name in self.wan.among if name in providers)
            nominal = tuple(dict.fromkeys((*(name for name in self.wan.nominal if name in among), *among)))
            wan = replace(self.wan, among=among, nominal=nominal, holdout=0.0)
        else:
            nominal = tuple(dict.fromkeys((*self.nominal, *providers)))
            wan = Wan(providers, nominal, self.margin_ms, self.margin_percent, self.min_samples)
        return replace(wan, margin_ms=-np.inf, margin_percent=-np.inf) if self.objective == "median" else wan


@dataclass(frozen=True)
class Played:
    """What was answered. An answer is given in each slot to each unit that has samples there; they are in order of slots.

    slot[answer] and unit[answer] are numbers (the slot's as the file has it), chosen[answer] is a provider's.
    rtt[answer, provider]: the mean of what the slot measured, NaN for nothing; a loss costs LOST_MS.
    believed[answer, provider]: the WAN before the slot.
    """

    providers: tuple[str, ...]
    slot: Ints
    unit: Ints
    chosen: Ints
    rtt: Grid
    believed: Grid


LOST_MS = 1000.0  # what a lost answer costs: the initial retransmission timeout of RFC 6298
ROUND = 10.0  # a slot is replayed as a round: what serves measures silence, guards and dwelling by rounds of that length


class _Answers(NamedTuple):
    """Those of one slot."""

    slot: Ints
    unit: Ints
    chosen: Ints
    rtt: Grid
    believed: Grid


def play(trace: Trace, plan: Plan, watch: Watch = lambda done, of: None) -> Played:
    """Replay a trace; `watch` is told how many of how many samples are done."""
    trace, plan = _in_rounds(trace, plan)
    stage = _Stage.set(trace, plan)
    apart = _LeftOut(stage)
    dice = np.random.default_rng(plan.seed)
    slots, begins = np.unique(trace.slot, return_index=True)
    ends = np.append(begins[1:], len(trace.slot))
    told = []
    for slot, begin, end in zip(slots.tolist(), begins.tolist(), ends.tolist(), strict=True):
        here = np.arange(begin, end)
        units, rtt = _measured(trace, here)
        batch = trace.batch.take(here)
        if plan.leave_out_vantage:
            probed = stage.probed(batch, stage.serving(trace.batch.row[here])[0], dice)
            if len(slots) == 1:
                apart.learn(batch.take(probed), slot)
            chosen, believed = apart.serving(trace, units, _between(watch, begin, end, len(trace.slot)))
            if len(slots) > 1:
                apart.learn(batch.take(probed), slot)
        else:
            chosen, believed = stage.serving(trace.unit_row[units])
            serving = chosen[np.searchsorted(units, trace.unit[here])]
            stage.learn(batch.take(stage.probed(batch, serving, dice)), slot)
        told.append(_Answers(np.full(len(units), slot), units, chosen, rtt, believed.astype(np.float32)))
        watch(end, len(trace.slot))
    return Played(trace.batch.providers, *(np.concatenate(each) for each in zip(*told, strict=True)))


def _in_rounds(trace: Trace, plan: Plan) -> tuple[Trace, Plan]:
    """Both, in a time in which a slot is a round."""
    at = trace.batch.at / trace.slot_seconds * ROUND
    return replace(trace, batch=replace(trace.batch, at=at)), replace(plan, ttl=plan.ttl / trace.slot_seconds * ROUND)


def _between(watch: Watch, begin: int, end: int, of: int) -> Callable[[float], None]:
    """Tells `watch` of a share (0 to 1) of the way from begin to end."""
    return lambda share: watch(begin + int(share * (end - begin)), of)


@dataclass
class _Stage:
    """The engine as it serves, driven by slots instead of rounds."""

    plan: Plan
    providers: dict[str, Provider]
    columns: tuple[Column, Column]
    names: tuple[str, ...]
    rows: Rows
    store: RttStore
    health: Health = field(default_factory=Health)
    table: WanTable | None = None
    decisions: Decisions | None = None

    @classmethod
    def set(cls, trace: Trace, plan: Plan) -> _Stage:
        names = trace.batch.providers
        providers = {name: Provider(name, (bytes(4),), (bytes(16),)) for name in names}
        rule = plan.rule(names)
        columns = (Column(rule, 4, AllDown()), Column(rule, 6, AllDown()))
        store = RttStore(ROUND, plan.half_life)
        return cls(plan, providers, columns, names, trace.batch.rows, store)

    def learn(self, batch: Batch, slot: int) -> None:
        """One slot's samples, and the decisions for the next."""
        now = (slot + 1) * ROUND
        for counted in self.health.observe(batch):
            self.store.observe_columns(counted)
        self.store.close_round(now)
        self.settle(now)

    def settle(self, now: float) -> None:
        """Decide by all that was counted."""
        self.table = estimate(self.store, self.plan.terms(), only=self.names)
        self.decisions = self.decide(self.table, self.decisions, now)

    def decide(self, table: WanTable, before: Decisions | None, now: float) -> Decisions:
        """The serving `decide`."""
        return decide(self.columns, self.providers, {}, table, self.health, before, now, self.plan.ttl, self.plan.pace())

    def serving(self, unit_row: Ints) -> tuple[Ints, Floats]:
        """Who serves each unit now, and what is believed of every provider for it."""
        if self.decisions is None or self.table is None:
            first = self.names.index(self.plan.rule(self.names).nominal[0])
            return np.full(len(unit_row), first), np.full((len(unit_row), len(self.names)), np.nan)
        rows = self.rows[unit_row]
        row = nearest(rows, self.table.keys)
        at = np.where(rows["family"] == 6, 1, 0)
        belief = np.full((len(rows), len(self.names)), np.nan)
        belief[row >= 0] = self.table.mean[row[row >= 0], at[row >= 0]]
        return served(self.decisions, self.columns, rows, self.names), belief

    def probed(self, batch: Batch, serving: Ints, dice: np.random.Generator) -> Bools:
        """Which of a slot's samples are taken under the probe budget; serving[i] is who serves sample i's unit."""
        if self.plan.budget >= 1.0:
            return np.ones(len(batch), dtype=np.bool_)
        rows, row = np.unique(batch.row, return_inverse=True)
        shape = (len(rows), len(self.names))
        if self.plan.schedule == "random":
            wanted = dice.random(shape) < self.plan.budget
        else:
            wanted = choose(self._gain(rows), np.ones(len(rows)), round(self.plan.budget * len(rows) * len(self.names)))
        serves = (self.decisions is not None) & (batch.provider == serving)
        return np.asarray(wanted[row.reshape(-1), batch.provider] | serves, dtype=np.bool_)

    def _gain(self, rows: Ints) -> Floats:
        if self.table is None or self.decisions is None or not len(self.table.keys):
            shape = (len(rows), len(self.names))
            return expected_gain(np.zeros(shape), np.full(shape, np.nan), np.full(len(rows), -1))
        own = nearest(self.rows[rows], self.table.keys)
        exact = (own >= 0) & (self.table.rows[own] == self.rows[rows])
        at = np.where(self.rows["family"][rows] == 6, 1, 0)
        samples = np.where(exact[:, None], self.table.samples[own, at], 0.0).astype(np.float64)
        typical = np.where((own >= 0)[:, None], self.table.typical[own, at], np.nan).astype(np.float64)
        return expected_gain(samples, typical, served(self.decisions, self.columns, self.rows[rows], self.names))


def served(decisions: Decisions, columns: tuple[Column, Column], rows: Rows, names: tuple[str, ...]) -> Ints:
    """The number in `names` of the provider that serves each row, by the column of the row's family."""
    both = [_first(decisions.columns[column], rows, names) for column in columns]
    return np.where(rows["family"] == 6, both[1], both[0])


def _first(column: ColumnDecisions, rows: Rows, names: tuple[str, ...]) -> Ints:
    first = np.array([names.index(ranking.targets[0]) for ranking in (*column.rankings, column.default)], dtype=np.int64)
    index = nearest(rows, column.keys)
    return np.asarray(first[np.append(column.ranking, len(column.rankings))[index]], dtype=np.int64)


def _measured(trace: Trace, here: Ints) -> tuple[Ints, Grid]:
    """The units of a slot, in order, and [unit, provider]: their mean RTT; a loss costs LOST_MS; NaN where nothing was sent."""
    providers = len(trace.batch.providers)
    units, unit = np.unique(trace.unit[here], return_inverse=True)
    place, size = unit.reshape(-1) * providers + trace.batch.provider[here], len(units) * providers
    cost = np.where(np.isnan(trace.batch.rtt[here]), LOST_MS, trace.batch.rtt[here])
    count, total = np.bincount(place, minlength=size), np.bincount(place, weights=cost, minlength=size)
    mean = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return units, mean.reshape(len(units), providers).astype(np.float32)


@dataclass
class _LeftOut:
    """Each vantage decided for by a table that never saw it: what DNS does to a user who was not probed."""

    stage: _Stage
    own: dict[str, RttStore] = field(default_factory=dict)
    decisions: dict[str, Decisions] = field(default_factory=dict)

    def learn(self, batch: Batch, slot: int) -> None:
        """Count one slot's samples for all, and for each vantage its own."""
        now = (slot + 1) * ROUND
        for counted in self.stage.health.observe(batch):
            self.stage.store.observe_columns(counted)
            for vantage in np.unique(counted.vantage):
                name = counted.vantages[vantage]
                own = self.own.setdefault(name, RttStore(ROUND, self.stage.plan.half_life))
                own.observe_columns(counted.take(counted.vantage == vantage))
        for store in (self.stage.store, *self.own.values()):
            store.close_round(now)
        self.stage.settle(now)

    def serving(self, trace: Trace, units: Ints, watch: Callable[[float], None]) -> tuple[Ints, Floats]:
        """As `_Stage.serving`, for some units, each without what its vantage measured; `watch` is told the share done."""
        chosen, believed = self.stage.serving(trace.unit_row[units])
        if self.stage.table is None:
            return chosen, believed
        cells, trust = self.stage.store.cells(), self.stage.table.trust
        every = np.unique(trace.unit_vantage[units])
        for number, vantage in enumerate(every):
            watch(number / len(every))
            mine = np.flatnonzero(trace.unit_vantage[units] == vantage)
            rows = trace.unit_row[units[mine]]
            chosen[mine], believed[mine] = self._stage_of(trace.batch.vantages[vantage], rows, cells, trust).serving(rows)
        return chosen, believed

    def _stage_of(self, vantage: str, rows: Ints, cells: Cells, trust: tuple[float, ...]) -> _Stage:
        keys = np.unique(np.concatenate([pack(level) for level in lineage(self.stage.rows[rows])]))
        own = self.own.get(vantage)
        left = cells if own is None else without(cells, own.cells(), keys)
        table = table_of(left, self.stage.plan.terms(), only=self.stage.names, trust=trust)
        decided = self.stage.decide(table, self.decisions.get(vantage), cells.at)
        self.decisions[vantage] = decided
        return replace(self.stage, table=table, decisions=decided)
