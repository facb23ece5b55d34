"""Caps applied: which networks leave the provider that is best for them, and what is solved beforehand for each absence.

Hysteresis (hold.py) knows nothing of caps: it goes on deciding which provider is best for a row, and prices move rows off it
or not. So nothing has to be learnt again when room returns. Reasons are SPILLED for what a price moved.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np

from edgedns.model import NetworkKey, Reason
from edgedns.steer.caps.capacity import HEADROOM, Limits, Offer, Plan, Prices, Splits, cheapest, solve, staying
from edgedns.steer.deciding.decisions import Column, ColumnDecisions, Decisions, Ranking, carried
from edgedns.steer.table.rows import Bools, Floats, Ints, lookup, pack, rows_of

UNKNOWN_MS = 20.0
EASE = 0.97
PAIRED = 4
NAMED = 500
DEFAULT = pack(rows_of([NetworkKey(0)]))


def offer(decided: ColumnDecisions, rtt: Floats, path_up: Bools, before: ColumnDecisions | None) -> Offer:
    """A wan column's rows as caps see them, and one more for all networks that have none.

    rtt[row, arm] in ms (NaN: unknown), path_up[row, arm]: not down for that network; both of the arms of `decided`.
    """
    arms, rows = decided.arms, len(decided.keys)
    first = np.append(decided.hold["serving"].astype(np.int64), _arm(arms, decided.default))
    home = np.append(decided.hold["home"].astype(np.int64), first[-1])
    second = np.append(decided.hold["second"].astype(np.int64), -1)
    known = np.vstack([_filled(rtt, first[:rows]), np.full((1, len(arms)), UNKNOWN_MS)])
    known[-1, first[-1]] = 0.0
    up = np.vstack([path_up, np.ones((1, len(arms)), dtype=np.bool_)])
    return Offer(np.append(decided.keys, DEFAULT), known, up, home, first, second, _served(decided, before))


def _filled(rtt: Floats, first: Ints) -> Floats:
    """Unknown RTTs are 20 ms more than the slowest known one; where none is known, than that of who serves."""
    known = np.where(np.isnan(rtt), -np.inf, rtt)
    most = known.max(axis=1, initial=-np.inf)
    filled = np.where(np.isnan(rtt), (np.where(np.isfinite(most), most, 0.0) + UNKNOWN_MS)[:, None], rtt)
    nothing = np.flatnonzero(~np.isfinite(most))
    filled[nothing, first[nothing]] = 0.0
    return np.asarray(filled, dtype=np.float64)


def _arm(arms: Sequence[str], ranking: Ranking) -> int:
    return arms.index(ranking.targets[0]) if ranking.targets and ranking.targets[0] in arms else -1


def _served(decided: ColumnDecisions, before: ColumnDecisions | None) -> Ints:
    """Who served each row, and the default, before; -1 where that isn't known."""
    if before is None or not before.arms:
        return np.full(len(decided.keys) + 1, -1, dtype=np.int64)
    firsts = np.array([_arm(decided.arms, ranking) for ranking in (*before.rankings, before.default)], dtype=np.int64)
    was = carried(before, decided.keys)
    own = np.where(was >= 0, np.append(before.ranking, 0)[was], -1)
    return np.append(np.where(was >= 0, firsts[own], -1), firsts[-1])


def costs(offered: Offer, arms: Sequence[str], up: frozenset[str]) -> tuple[Floats, Ints]:
    """(cost[row, arm], who serves each row at no price) when these providers are up: ms more than with that one.

    A row that is left without any provider stays with whom it has (law 8).
    """
    able = offered.path_up & np.array([name in up for name in arms], dtype=np.bool_)
    every = np.arange(len(able))
    able[every, offered.first] |= ~able.any(axis=1)
    nearest = np.where(able, offered.rtt, np.inf).argmin(axis=1)
    second = np.where((offered.second >= 0) & able[every, offered.second], offered.second, nearest)
    stands_in = np.where(able[every, offered.first], offered.first, second)
    first = np.where(able[every, offered.home], offered.home, stands_in)  # who is back serves again
    cost = np.maximum(offered.rtt - offered.rtt[every, first][:, None], 0.0)
    return np.where(able, cost, np.inf), np.asarray(first, dtype=np.int64)


def spilled(
    decided: ColumnDecisions, offered: Offer, plans: Sequence[Prices], up: frozenset[str], before: ColumnDecisions | None,
    now: float,
) -> ColumnDecisions:  # fmt: skip
    """A wan column's decisions with the prices of these providers being up applied.

    Paths are found to be down before their provider is: one that most of its rows can't reach counts as gone, and rows that
    alone lost theirs go by the prices for its absence, until the next plan has them in it.
    """
    kept = replace(decided, offer=offered, splits=before.splits if before else {})
    arms = np.array(decided.arms)
    lost = ~offered.path_up[np.arange(len(offered.home)), offered.home]
    left = up - set(arms[_mostly(lost, offered.home, len(arms))].tolist())
    plan = prices_for(plans, left)
    if plan is None:
        return kept
    cost, first = costs(offered, decided.arms, up)
    shares, named = _placed(kept, offered, cost, plan, first, ahead=plan.up != plans[0].up)
    for arm in np.unique(offered.home[lost & ~named]).tolist():
        absent = prices_for(plans, left - {decided.arms[arm]})
        if absent is not None and absent.up != plan.up:
            mine = lost & ~named & (offered.home == arm)
            shares[mine] = _placed(kept, offered, cost, absent, first, ahead=True)[0][mine]
    return _moved(kept, first, shares, before, now)


def _mostly(lost: Bools, home: Ints, arms: int) -> Bools:
    """Arms that more than half of the rows whose home they are can't reach; the default, which has no path, aside."""
    down, whole = np.bincount(home[:-1][lost[:-1]], minlength=arms), np.bincount(home[:-1], minlength=arms)
    return np.asarray(down * 2 > whole, dtype=np.bool_)


def _placed(
    decided: ColumnDecisions, offered: Offer, cost: Floats, plan: Prices, first: Ints, ahead: bool
) -> tuple[Floats, Bools]:
    """(each row's share by arm under a plan, whether the plan names it itself): where it does, among arms that can serve.

    ahead: the plan was solved ahead, when nobody could know who would serve by now; so that doesn't count.
    """
    chosen = first
    if plan.ms:
        prices = np.array([plan.ms.get(name, 0.0) for name in decided.arms])
        chosen = cheapest(cost if ahead else cost + staying(cost.shape, offered.served), prices)
    shares, named = np.zeros(cost.shape), np.zeros(len(cost), dtype=np.bool_)
    shares[np.arange(len(cost)), chosen] = 1.0
    splits = decided.splits.get(plan.up)
    if splits is None or not len(splits.keys) or splits.shares.shape[1] != cost.shape[1]:
        return shares, named
    at = lookup(splits.keys, offered.keys)
    able = np.where(np.isfinite(cost), splits.shares[at], 0.0)
    named = (at >= 0) & (able.sum(axis=1) > 0)
    shares[named] = able[named] / able[named].sum(axis=1)[:, None]
    return shares, named


def _moved(
    decided: ColumnDecisions, first: Ints, shares: Floats, before: ColumnDecisions | None, now: float
) -> ColumnDecisions:
    """Rankings anew for rows that don't stay whole with `first`, alike ones together; the last row is the default."""
    rows, most = len(decided.keys), shares.argmax(axis=1)
    leaving = np.flatnonzero((most != first) | (shares.max(axis=1) < 1.0))
    rankings, number = [*decided.rankings, decided.default], np.append(decided.ranking.astype(np.int64), len(decided.rankings))
    alike = np.column_stack([number[leaving], shares[leaving]])
    kinds, kind = np.unique(alike, axis=0, return_inverse=True)
    made = [_divided(rankings[int(old)], decided.arms, parts) for old, *parts in kinds.tolist()]
    number[leaving] = len(rankings) + kind.reshape(-1)
    rankings += made
    used, ranking = np.unique(number[:rows], return_inverse=True)
    return replace(
        decided, default=rankings[number[rows]], ranking=ranking.reshape(-1).astype(np.int32),
        rankings=tuple(rankings[i] for i in used), since=_since(decided, most[:rows], before, now),
    )  # fmt: skip


def _led_by(old: Ranking, name: str) -> Ranking:
    """The same ranking with another one first, because of a price; what failed keeps its reason."""
    reason = old.reason if old.reason in (Reason.FAILED_OVER, Reason.ALL_DOWN) else Reason.SPILLED
    return Ranking((name, *(other for other in old.targets if other != name)), reason)


def _divided(old: Ranking, arms: Sequence[str], shares: Sequence[float]) -> Ranking:
    """A ranking divided by hash unit, or given whole to the one that has it all."""
    parts = sorted((-share, name) for share, name in zip(shares, arms, strict=True) if share > 0)
    if len(parts) == 1:
        return _led_by(old, parts[0][1])
    return Ranking(tuple(name for _, name in parts), Reason.SPILLED, tuple(-share for share, _ in parts))


def _since(decided: ColumnDecisions, serving: Ints, before: ColumnDecisions | None, now: float) -> Floats:
    """When each row's first target began to serve."""
    if before is None or decided.offer is None or not len(before.since):
        return decided.since
    stays = decided.offer.served[: len(serving)] == serving
    return np.where(stays, before.since[carried(before, decided.keys)], now)


def prices_for(plans: Sequence[Prices], up: frozenset[str]) -> Prices | None:
    """The prices solved for just these providers being up; where there are none, the highest of those for fewer going away.

    The first plan is for what was up when they were solved.
    """
    for plan in plans:
        if frozenset(plan.up) == up:
            return plan
    if not plans:
        return None
    was = frozenset(plans[0].up)
    near = [plan for plan in plans if up < frozenset(plan.up) < was] or [plans[0]]
    names = {name for plan in near for name in plan.ms}
    return Prices(tuple(sorted(up)), {name: max(plan.ms.get(name, 0.0) for plan in near) for name in names})


def absences(up: frozenset[str], names: Iterable[str]) -> Iterator[frozenset[str]]:
    """What may be up next: any one provider gone, or one of those that are not up come back."""
    for name in sorted(names):
        changed = up ^ {name}
        if changed:
            yield changed


def pairs(load: Mapping[str, float]) -> Iterator[frozenset[str]]:
    """What is left where two of the most loaded providers that are up go at once; `load` is by provider that is up.

    Where two others go, or a third, the prices known for fewer absences hold until the next plan.
    """
    most = sorted(load, key=lambda name: (-load[name], name))[:PAIRED]
    for gone in combinations(most, 2):
        left = frozenset(load) - frozenset(gone)
        if len(left) > 1:
            yield left


def plan_prices(
    decisions: Decisions, demand: Mapping[Column, Floats], limits: Limits, names: Sequence[str], up: frozenset[str],
    heaviest: int, ahead: bool = False,
) -> tuple[Prices, dict[Column, Splits], Plan]:  # fmt: skip
    """Prices, and rows that they alone don't put right, for these providers being up.

    demand[column][row] as in the column's offer; `limits` by provider in the order of `names`. ahead: they are not what is up
    now, so that moving costs nothing: who will serve until then is not known. CapsUnsolved.
    """
    columns = [column for column, decided in decisions.columns.items() if decided.offer is not None and column in demand]
    unsure = {column: _unsure(decisions.columns[column], up if ahead else None, demand[column]) for column in columns}
    parts = [_stacked(decisions.columns[column], names, up) for column in columns]
    cost, first, served = (np.concatenate(part) for part in zip(*parts, strict=True))
    weight = np.concatenate([demand[column] for column in columns])
    load = limits.fixed + np.bincount(first, weights=weight, minlength=len(names))
    if (load <= limits.cap * HEADROOM * EASE).all():
        nothing = np.zeros(0, dtype=np.int64)
        free = Plan(np.zeros(len(names)), first, nothing, cost[:0], load, np.zeros(len(names)), HEADROOM)
        return Prices(tuple(sorted(up)), {}), _splits(decisions, columns, names, free, unsure), free
    plan = solve(weight, cost, limits, np.full(len(served), -1) if ahead else served, heaviest=heaviest)
    ms = {name: round(float(price), 6) for name, price in zip(names, plan.prices, strict=True)}
    return Prices(tuple(sorted(up)), ms), _splits(decisions, columns, names, plan, unsure), plan


def _stacked(decided: ColumnDecisions, names: Sequence[str], up: frozenset[str]) -> tuple[Floats, Ints, Ints]:
    """A column's costs, who serves at no price and who serves now, by the numbers of `names`."""
    assert decided.offer is not None
    cost, first = costs(decided.offer, decided.arms, up)
    place = np.array([names.index(name) for name in decided.arms], dtype=np.int64)
    wide = np.full((len(cost), len(names)), np.inf)
    wide[:, place] = cost
    served = _served(decided, decided)  # as whoever applies the prices will find it
    return wide, place[first], np.where(served >= 0, place[served], -1)


def _splits(
    decisions: Decisions, columns: Sequence[Column], names: Sequence[str], plan: Plan, unsure: Mapping[Column, Ints]
) -> dict[Column, Splits]:
    """The rows that a plan names by column, keys sorted: those off their price, and those that prices might lead elsewhere.

    Such a row's path was known to be down, or its first and second choice go at once and hysteresis may choose another third.
    """
    found, start, shares = {}, 0, plan.matrix()
    for column in columns:
        decided = decisions.columns[column]
        assert decided.offer is not None
        end = start + len(decided.offer.keys)
        mine = ~decided.offer.path_up[np.arange(end - start), decided.offer.home]
        mine[plan.split[(plan.split >= start) & (plan.split < end)] - start] = True
        mine[unsure[column]] = True
        rows = np.flatnonzero(mine)
        rows = rows[np.argsort(decided.offer.keys[rows])]
        place = [names.index(name) for name in decided.arms]
        found[column] = Splits(decided.offer.keys[rows], shares[start:end][rows][:, place])
        start = end
    return found


def _unsure(decided: ColumnDecisions, up: frozenset[str] | None, demand: Floats) -> Ints:
    """The heaviest rows that will have neither their home nor their second choice when these providers are up."""
    offered = decided.offer
    if offered is None or up is None:
        return np.zeros(0, dtype=np.int64)
    able = offered.path_up & np.array([name in up for name in decided.arms], dtype=np.bool_)
    every = np.arange(len(able))
    second = (offered.second >= 0) & able[every, offered.second]
    rows = np.flatnonzero(~able[every, offered.home] & ~second)
    return np.asarray(rows[np.argsort(-demand[rows], kind="stable")][:NAMED], dtype=np.int64)


def with_plan(decisions: Decisions, prices: Prices, splits: Mapping[Column, Splits], first: bool) -> Decisions:
    """Decisions that carry this plan; as the first it is the one for what is up now."""
    others = tuple(plan for plan in decisions.plans if plan.up != prices.up)
    plans = (prices, *others) if first else (*others, prices)
    columns = {
        column: replace(decided, splits={**decided.splits, prices.up: splits[column]} if column in splits else
                        {up: one for up, one in decided.splits.items() if up != prices.up})
        for column, decided in decisions.columns.items()
    }  # fmt: skip
    return replace(decisions, plans=plans, columns=columns)


def only_plans(decisions: Decisions, wanted: Iterable[frozenset[str]]) -> Decisions:
    """Without the plans for anything else; with none wanted caps are not in force."""
    ups = {tuple(sorted(up)) for up in wanted}
    columns = {
        column: replace(decided, splits={up: one for up, one in decided.splits.items() if up in ups})
        for column, decided in decisions.columns.items()
    }
    return replace(decisions, columns=columns, plans=tuple(plan for plan in decisions.plans if plan.up in ups))
