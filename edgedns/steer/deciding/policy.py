"""decide(): rules x table x health -> who serves whom, and why. Pure; `now` is an argument."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgedns.model import Failover, Family, Pin, Provider, Reason, State, Wan, Weighted
from edgedns.steer.caps.capacity import Prices
from edgedns.steer.caps.spill import offer, spilled
from edgedns.steer.deciding.decisions import HOLD, Column, ColumnDecisions, Decisions, Ranking, carried
from edgedns.steer.deciding.hold import Evidence, Hold, Pace, step
from edgedns.steer.deciding.holdout import held_out
from edgedns.steer.deciding.losing import switched_off
from edgedns.steer.failure.health import Health
from edgedns.steer.table.rows import KEY, LEVELS, Bools, Floats, Ints, Keys, Rows, level_of, nearest, pack, parents, unpack
from edgedns.steer.table.wan import Grid, WanTable

KEEP_SHARE = 0.6
NO_KEYS: Keys = np.zeros(0, dtype=KEY)


@dataclass(frozen=True)
class World:
    """What one call of `decide` looks at."""

    providers: Mapping[str, Provider]
    states: Mapping[str, State]
    table: WanTable
    health: Health
    now: float
    pace: Pace
    failing: Collection[tuple[str, Family]] = ()
    plans: tuple[Prices, ...] = ()
    asked: tuple[Rows, Ints] | None = None
    since: float = np.inf
    losing: Mapping[Column, Keys] | None = None

    def off(self, column: Column, before: ColumnDecisions | None) -> Keys:
        """The networks of a column where steering is switched off: as last found, or as it was."""
        if self.losing is not None:
            return self.losing.get(column, NO_KEYS)
        return before.off if before is not None else NO_KEYS

    def arms(self, names: Sequence[str], family: Family) -> tuple[str, ...]:
        """Those that have an address of the family; a name that is no provider is plain anycast's or nothing."""
        return tuple(n for n in dict.fromkeys(names) if n in self.providers and self.providers[n].addresses(family))

    def declared_up(self, name: str) -> bool:
        """Neither drained nor down by declaration or order."""
        return self.states.get(name, self.providers[name].state) == "up"

    def up(self, arms: Sequence[str], family: Family) -> tuple[str, ...]:
        """Arms that are declared up and whose check over the family doesn't fail. Where there is none, `all_down` speaks."""
        return tuple(name for name in arms if self.declared_up(name) and (name, family) not in self.failing)

    def standing(self, arms: Sequence[str], family: Family) -> tuple[str, ...]:
        """Those that are up. Failing open: those that only checks took away, since they never take the last one; else all."""
        return self.up(arms, family) or tuple(name for name in arms if self.declared_up(name)) or tuple(arms)

    def usable(self, arms: Sequence[str], family: Family) -> tuple[str, ...]:
        """Arms that may serve. Silence (an automatic event) never takes the last one away (law 8)."""
        standing = self.standing(arms, family)
        heard = tuple(name for name in standing if not self.health.provider_down(name, family))
        return heard or standing

    def up_alone(self, family: Family) -> frozenset[str]:
        """Every provider that is up and heard over a family, however many are left."""
        up = self.up(tuple(self.providers), family)
        return frozenset(name for name in up if not self.health.provider_down(name, family))


def decide(
    columns: Sequence[Column],
    providers: Mapping[str, Provider],
    states: Mapping[str, State],
    table: WanTable,
    health: Health,
    decisions: Decisions | None,
    now: float,
    ttl: float,
    pace: Pace | None = None,
    failing: Collection[tuple[str, Family]] = (),
    asked: tuple[Rows, Ints] | None = None,
    losing: Mapping[Column, Keys] | None = None,
    sudden: bool = False,
) -> Decisions:
    """What to answer in each column, going on from earlier decisions.

    `states` overrides a provider's declared state (drains); `failing` are those whose check fails, by family. Failures act
    at every call; measured moves only when `table` is of a later round than the one decided on last, so that calls between
    rounds do no harm; with `sudden` also those away from paths that got slower since. `asked` gives networks and their
    queries, by which the churn budget weighs rows; without it all weigh the same. `losing` are, by column, the networks where
    steering is to be switched off (sorted keys); without it those that are stay so.
    """
    before = decisions.columns if decisions else {}
    fresh = decisions is None or table.at > decisions.table_at
    pace = (pace or Pace()).at(now, ttl, fresh, sudden)
    plans = decisions.plans if decisions else ()
    since = 2 * decisions.table_at - table.at if decisions else np.inf
    world = World(providers, states, table, health, now, pace, failing, plans, asked, since, losing)
    decided = {column: _decide_column(column, world, before.get(column) or _kin(column, before)) for column in columns}
    return Decisions(decided, table.at, now, plans)


def _kin(column: Column, before: Mapping[Column, ColumnDecisions]) -> ColumnDecisions | None:
    """Where a wan rule's terms were edited, its rows go on from another wan column over the same names and family."""
    for other, decided in before.items():
        alike = isinstance(other.action, Wan) and isinstance(column.action, Wan) and other.family == column.family
        if alike and _names(other) == _names(column):
            return decided
    return None


def _decide_column(column: Column, world: World, before: ColumnDecisions | None) -> ColumnDecisions:
    arms = world.arms(_names(column), column.family)
    if not arms:
        nothing = Ranking((), Reason.NOMINAL, down="nodata")
        return ColumnDecisions(column, nothing, nothing)
    if not world.up(arms, column.family) and column.all_down.policy != "fail-open":
        return _all_down(column, world, before)
    if isinstance(column.action, Wan):
        return _decide_wan(column, world, arms, before)
    return _decide_fixed(column, world, arms, before)


def _names(column: Column) -> tuple[str, ...]:
    action = column.action
    if isinstance(action, Pin):
        return (action.provider,)
    if isinstance(action, Weighted):
        return tuple(name for name, share in action.shares if share > 0)
    if isinstance(action, Failover):
        return action.order
    return (*(name for name in action.nominal if name in action.among), *action.among)


def _all_down(column: Column, world: World, before: ColumnDecisions | None) -> ColumnDecisions:
    """Every arm is drained or down, by declaration or check, and the rule asks for something else than staying open."""
    use = world.arms((column.all_down.use,), column.family)
    if column.all_down.policy == "use" and use:
        ranking = Ranking(use, Reason.ALL_DOWN)
    else:
        ranking = Ranking((), Reason.ALL_DOWN, down="servfail" if column.all_down.policy == "servfail" else "nodata")
    kept = before or ColumnDecisions(column, ranking, ranking)
    everyone = np.zeros(len(kept.keys), dtype=np.int32)
    return ColumnDecisions(
        column, ranking, ranking, kept.keys, everyone, (ranking,), np.full(len(kept.keys), world.now), kept.arms, kept.hold
    )


def _decide_fixed(column: Column, world: World, arms: tuple[str, ...], before: ColumnDecisions | None) -> ColumnDecisions:
    """Pin, weighted and failover: rows exist only where a network's health tells it from the level above."""
    usable = world.usable(arms, column.family)
    default = _fixed(column, world, arms, usable)
    nominal = _fixed(column, world, arms, world.standing(arms, column.family))
    if isinstance(column.action, Pin):
        return ColumnDecisions(column, default, nominal)
    rows = world.health.rows_known()
    up = _row_candidates(world, rows_keys := pack(rows), usable, column.family)
    masks, which = _distinct(up)
    rankings = tuple(_fixed(column, world, arms, tuple(n for n, ok in zip(usable, mask, strict=True) if ok)) for mask in masks)
    above = parents(rows, rows_keys)
    default_at = rankings.index(default) if default in rankings else -1
    own = np.flatnonzero(which != np.where(above >= 0, which[above], default_at))
    keys, ranking = rows_keys[own], which[own].astype(np.int32)
    first = np.array([arms.index(r.targets[0]) for r in rankings], dtype=np.int64)[ranking] if len(keys) else which[own]
    return ColumnDecisions(column, default, nominal, keys, ranking, rankings, _since(before, keys, first, arms, world.now))


def _fixed(column: Column, world: World, arms: tuple[str, ...], up: tuple[str, ...]) -> Ranking:
    """The ranking of a pin, weighted or failover rule when these of its arms are up."""
    action = column.action
    opened = not world.up(arms, column.family)
    if isinstance(action, Pin):
        return Ranking(arms, Reason.PINNED)
    if isinstance(action, Weighted):
        shares = {name: share for name, share in action.shares if name in up}
        whole = sum(shares.values())
        split = tuple(share / whole for share in shares.values()) if len(shares) > 1 else ()
        return Ranking(tuple(shares), Reason.ALL_DOWN if opened else Reason.WEIGHTED, split)
    ordered = tuple(name for name in arms if name in up)
    moved = Reason.ORDERED if ordered[0] == arms[0] else Reason.FAILED_OVER
    return Ranking(ordered, Reason.ALL_DOWN if opened else moved)


def _row_candidates(world: World, keys: Keys, usable: tuple[str, ...], family: Family) -> Bools:
    """bool[row, arm]: up for that network; where silence would leave none, all stay."""
    if not len(world.health.failing(usable, family)):
        return np.ones((len(keys), len(usable)), dtype=np.bool_)
    up = ~world.health.down(unpack(keys), usable, family)
    up[~up.any(axis=1)] = True
    return up


def _since(before: ColumnDecisions | None, keys: Keys, first: Ints, arms: Sequence[str], now: float) -> Floats:
    """When each row's first target, named by its place in `arms`, began to serve."""
    if before is None or not len(before.keys):
        return np.full(len(keys), now)
    was = carried(before, keys)
    place = {name: i for i, name in enumerate(arms)}
    firsts = np.array([place.get("".join(r.targets[:1]), -1) for r in before.rankings], dtype=np.int64)
    same = (was >= 0) & (firsts[before.ranking[was]] == first)
    return np.where(same, before.since[was], now)


def _decide_wan(column: Column, world: World, arms: tuple[str, ...], before: ColumnDecisions | None) -> ColumnDecisions:
    assert isinstance(column.action, Wan)
    opened = not world.up(arms, column.family)
    usable = world.usable(arms, column.family)
    declared = world.standing(arms, column.family)
    failed = Reason.NOMINAL if usable[0] == arms[0] else Reason.FAILED_OVER
    default = Ranking(usable, Reason.ALL_DOWN if opened else failed)
    stands_in = Reason.NOMINAL if declared[0] == arms[0] else Reason.FAILED_OVER
    nominal = Ranking(declared, Reason.ALL_DOWN if opened else stands_in)
    before = before if before is not None and before.arms == arms else None
    pace = world.pace if before is not None else world.pace.at(world.now, world.pace.ttl, True)
    off = world.off(column, before)
    keys, source = _wan_keys(column, world, arms, usable, before, off)
    evidence = _evidence(world, arms, usable, column.family, keys, source)
    hold, reasons = step(column.action, evidence, _held(before, keys, arms.index(usable[0])), pace)
    if opened:
        reasons = np.full(len(keys), int(Reason.ALL_DOWN))
    ranking, rankings = _rankings(arms, evidence.candidate, hold, reasons)
    since = _since(before, keys, hold["serving"].astype(np.int64), arms, world.now)
    decided = ColumnDecisions(column, default, nominal, keys, ranking, rankings, since, arms, hold)
    given = switched_off(_under_caps(decided, world, evidence, before), off, before, world.now)
    return held_out(given, column.action.holdout)


def _under_caps(decided: ColumnDecisions, world: World, evidence: Evidence, before: ColumnDecisions | None) -> ColumnDecisions:
    """The same where no provider has a cap; else what prices move, and what the next prices are made from."""
    if not any(provider.capacity for provider in world.providers.values()):
        return decided
    family = decided.column.family
    paths_up = ~world.health.down(decided.rows, decided.arms, family)
    up = world.up_alone(family)
    offered = offer(decided, evidence.typical, paths_up, before)
    return spilled(decided, offered, world.plans, up, before, world.now)


def _wan_keys(
    column: Column, world: World, arms: tuple[str, ...], usable: tuple[str, ...], before: ColumnDecisions | None, off: Keys
) -> tuple[Keys, Ints]:
    """The rows that decide for themselves, sorted, and for each the table's row that speaks for it (-1: none).

    Rows with samples enough (a little fewer will do for a row that decided before), rows where somebody is down, and those
    of `off`.
    """
    assert isinstance(column.action, Wan)
    table = world.table
    samples = _row_samples(table, arms, column.family)
    enough = np.where(carried(before, table.keys) >= 0, KEEP_SHARE, 1.0) * column.action.min_samples
    decides = np.flatnonzero((samples > 0) & (samples >= enough))
    core = table.keys[decides]
    failing = world.health.failing(usable, column.family)
    if not len(failing) and not len(off):
        return core, decides
    keys = np.union1d(core, np.union1d(failing, off))
    nearest_core = nearest(unpack(keys), core)
    source = np.where(nearest_core >= 0, decides[nearest_core], -1) if len(core) else nearest_core
    return keys, source


def _row_samples(table: WanTable, arms: tuple[str, ...], family: Family) -> Floats:
    """Samples that speak for each row: of these arms, over this family or, above networks, over the other one."""
    place = [table.providers.index(name) for name in arms if name in table.providers]
    both = table.samples[:, :, place].sum(axis=2, dtype=np.float64)
    own, other = both[:, 0 if family == 4 else 1], both[:, 1 if family == 4 else 0]
    return np.asarray(np.where((own > 0) | (table.rows["block"] >= 0), own, other), dtype=np.float64)


def _evidence(
    world: World, arms: tuple[str, ...], usable: tuple[str, ...], family: Family, keys: Keys, source: Ints
) -> Evidence:
    """What the table says of each arm in each row; an arm it doesn't know is nominal."""
    table, known = world.table, source >= 0
    at = _speaking(table, source[known], family)
    place = np.array([table.providers.index(name) if name in table.providers else -1 for name in arms], dtype=np.int64)

    def told(grid: Grid, unknown: float) -> Floats:
        """grid[row, family, provider] as [row, arm]."""
        out = np.full((len(keys), len(arms)), unknown)
        if len(table.keys):
            out[known] = np.where(place >= 0, grid[source[known], at][:, place], unknown)
        return out

    value, samples, typical = told(table.mean, 0.0), told(table.samples, 0.0), told(table.typical, np.nan)
    doubt = table.terms.cautious * told(table.sd, 0.0)
    slower = world.health.slower(keys, arms, family, world.since)
    worse = ~np.isnan(slower)
    by_rtt = known.copy()
    by_rtt[known] = _has_children(table)[source[known]]
    if world.pace.objective == "rtt":
        by_rtt = known
    if not world.pace.fresh:  # since this table was made
        typical = np.where(worse, np.fmax(typical, slower), typical)
        by_rtt |= known & worse.any(axis=1)
    value[by_rtt], doubt[by_rtt] = _by_rtt(typical[by_rtt], samples[by_rtt])
    candidate = np.zeros((len(keys), len(arms)), dtype=np.bool_)
    candidate[:, [arms.index(name) for name in usable]] = _row_candidates(world, keys, usable, family)
    return Evidence(candidate, value, value - doubt, typical, samples, known, _weight(world, keys), worse)


def _weight(world: World, keys: Keys) -> Floats:
    """Queries of the networks that each row speaks for."""
    if world.asked is None or not len(keys):
        return np.ones(len(keys))
    rows, queries = world.asked
    own = nearest(rows, keys)
    return np.bincount(own[own >= 0], queries[own >= 0], len(keys)).astype(np.float64)


def _speaking(table: WanTable, rows: Ints, family: Family) -> Ints:
    """Which family's samples speak for each row: its own, or above networks, where it has none, the other's."""
    own = 0 if family == 4 else 1
    lent = (table.samples[rows, own].sum(axis=1) == 0) & (table.rows["block"][rows] < 0)
    return np.where(lent, 1 - own, own)


def _has_children(table: WanTable) -> Bools:
    """Rows that speak for others. An ASN's countries lean on the country; they follow the ASN in the order of rows."""
    above = np.zeros(len(table.keys), dtype=np.bool_)
    above[table.parent[table.parent >= 0]] = True
    asn = table.rows["asn"]
    above[:-1] |= (level_of(table.rows[:-1]) == LEVELS.index("asn")) & (asn[:-1] == asn[1:])
    return above


def _by_rtt(rtt: Floats, samples: Floats) -> tuple[Floats, Floats]:
    """For networks that nobody measured: the best RTT above them, never the majority of wins. In ln(ms), with its doubt.

    So too where a path has just got slower: of how often it wins now there are no samples yet.
    """
    value = np.where(np.isnan(rtt), -np.log(10_000.0), -np.log(np.where(np.isnan(rtt), 1.0, rtt)))
    return value, 0.25 / np.sqrt(samples + 1.0)


def _held(before: ColumnDecisions | None, keys: Keys, head: int) -> Hold:
    """Each row's state; a new one begins with what its users were given so far."""
    hold = np.zeros(len(keys), dtype=HOLD)
    hold["second"] = hold["pending"] = hold["left"] = -1
    hold["home"] = hold["serving"] = head
    if before is None or not len(before.keys):
        return hold
    was = carried(before, keys)
    new = np.flatnonzero(was < 0)
    above = nearest(unpack(keys[new]), before.keys)
    inherits = new[above >= 0]
    for name in ("home", "serving", "second"):
        hold[name][inherits] = before.hold[name][above[above >= 0]]
    hold[was >= 0] = before.hold[was[was >= 0]]
    return hold


def _rankings(
    arms: tuple[str, ...], candidate: Bools, hold: Hold, reasons: Ints
) -> tuple[NDArray[np.int32], tuple[Ranking, ...]]:
    """Rankings shared by many rows: who serves, who is next, then nominal order. So there are few of them."""
    masks, mask = _distinct(candidate)
    terms = (mask, hold["serving"].astype(np.int64), hold["second"] + 1, reasons)
    size = (max(1, len(masks)), len(arms), len(arms) + 1, len(Reason))
    codes, ranking = np.unique(np.ravel_multi_index(terms, size), return_inverse=True)
    rankings = tuple(
        _ranking(arms, masks[m], serving, second - 1, Reason(reason))
        for m, serving, second, reason in zip(*(part.tolist() for part in np.unravel_index(codes, size)), strict=True)
    )
    return ranking.astype(np.int32), rankings


def _distinct(flags: Bools) -> tuple[Bools, Ints]:
    """The distinct rows of a bool array, sorted, and which of them each row is."""
    packed = np.packbits(flags, axis=1, bitorder="little")
    wide = np.zeros((len(flags), 8 * -(-packed.shape[1] // 8)), dtype=np.uint8)
    wide[:, : packed.shape[1]] = packed
    words = wide.view("<u8").astype(np.uint64)
    number = words[:, 0] if words.shape[1] else np.zeros(len(flags), dtype=np.uint64)
    for column in range(1, words.shape[1]):
        pair = np.stack([number, words[:, column]], axis=1)
        number = np.unique(pair, axis=0, return_inverse=True)[1].reshape(-1).astype(np.uint64)
    _, first, which = np.unique(number, return_index=True, return_inverse=True)
    return flags[first], which.reshape(-1)


def _ranking(arms: tuple[str, ...], up: Bools, serving: int, second: int, reason: Reason) -> Ranking:
    head = [serving] + ([second] if second >= 0 else [])
    rest = [i for i in range(len(arms)) if up[i] and i not in head]
    return Ranking(tuple(arms[i] for i in (*head, *rest)), reason)
