"""Caps: the cheapest way to keep each provider below its cap, as prices that any network can answer for itself.

minimise sum d_n x_np cost_np, subject to sum_p x_np = 1 and sum_n d_n x_np <= what a provider has room for. HiGHS solves it
for the heaviest networks; the dual values of the caps are prices in ms, and every other network takes the provider with the
least cost + price. Pure: the same inputs give the same plan on every node.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from edgedns.errors import EdgednsError
from edgedns.steer.table.rows import Bools, Floats, Ints, Keys

HEAVIEST = 5000
STAND_INS = 1000
HEADROOM = 0.9
RESERVE = 0.995
COST_LIMIT = 1000.0
MOVING_MS = 1.0
SHARE_STEP = 1 / 1024
NEARLY = 1e-6


class CapsUnsolved(EdgednsError):
    """HiGHS found no plan in its time; the last prices stand."""


@dataclass(frozen=True)
class Offer:
    """A wan column's rows as caps see them, and last the default, for networks that have no row.

    rtt[row, arm]: ms, without gaps. path_up[row, arm]: not down for that network. home: whom the row has settled on, first,
    second: who serves at no price, and who is next (-1: nobody), served: who did before (-1: not known); all as numbers of
    the column's arms.
    """

    keys: Keys
    rtt: Floats
    path_up: Bools
    home: Ints
    first: Ints
    second: Ints
    served: Ints


@dataclass(frozen=True)
class Prices:
    """In ms by provider, solved for just these being `up` (sorted). Without any all caps are kept to by themselves."""

    up: tuple[str, ...]
    ms: Mapping[str, float]


@dataclass(frozen=True)
class Splits:
    """Rows of a column that a plan puts elsewhere than its prices would: sorted keys, shares[row, arm]."""

    keys: Keys
    shares: Floats


@dataclass(frozen=True)
class Limits:
    """By provider, in the unit of demand: `cap` (inf: none), and `fixed`, what it carries whatever steering does."""

    cap: Floats
    fixed: Floats

    def room(self, part: float) -> Floats:
        """What is left for steering when that part of each cap may be used."""
        return np.maximum(self.cap * part - self.fixed, 0.0)


@dataclass(frozen=True)
class Plan:
    """Who goes where. prices: ms by provider. chosen: provider by row. split: rows divided, or on the other side of a tie

    than prices alone would put them, and shares[split, provider] how. load: by provider, `fixed` included. unmet: by
    provider, what is over its cap. used: the part of each cap that could be kept to, 0.9 where that is enough.
    """

    prices: Floats
    chosen: Ints
    split: Ints
    shares: Floats
    load: Floats
    unmet: Floats
    used: float

    def matrix(self) -> Floats:
        """The share of each row that each provider gets: x[row, provider]."""
        whole = np.zeros((len(self.chosen), len(self.prices)))
        whole[np.arange(len(whole)), self.chosen] = 1.0
        whole[self.split] = self.shares
        return whole


@dataclass(frozen=True)
class _Solved:
    shares: Floats
    prices: Floats
    over: float


def solve(
    demand: Floats, cost: Floats, limits: Limits, current: Ints, moving: float = MOVING_MS, heaviest: int = HEAVIEST
) -> Plan:
    """The plan for rows of a demand (any unit) at a cost[row, provider] in ms (inf: can't serve; each row has one that can).

    current[row] serves now (-1: nobody): any other costs `moving` ms more. First 0.9 of each cap is kept to; where that is
    too little all of it; where that is too little too, the least possible is over, in proportion to the caps.
    CapsUnsolved when there is no plan within the time that a round has.
    """
    cost = np.where(np.isfinite(cost), np.minimum(cost, COST_LIMIT), np.inf) + staying(cost.shape, current, moving)
    whole = float(demand.sum())
    if whole <= 0.0 or not np.isfinite(limits.cap).any():
        return _plan(demand, cost, limits, np.zeros(cost.shape[1]), np.zeros(0, dtype=np.int64), cost[:0], HEADROOM)
    for used in (HEADROOM, RESERVE):
        if used == RESERVE or limits.room(used).sum() >= whole * (1.0 - NEARLY):
            plan, over = _solve_within(demand, cost, limits, used, heaviest)
            if over <= NEARLY * whole:
                break
    return plan


def cheapest(cost: Floats, prices: Floats) -> Ints:
    """Each row's provider under these prices; of equals the first, on every node."""
    return np.asarray(np.round(cost + prices, 6).argmin(axis=1), dtype=np.int64)


def staying(shape: tuple[int, ...], current: Ints, moving: float = MOVING_MS) -> Floats:
    """What a move costs: `moving` ms for every provider but the one that serves, nothing where nobody does."""
    extra = np.where(current >= 0, moving, 0.0)[:, None] * np.ones(shape)
    settled = np.flatnonzero(current >= 0)
    extra[settled, current[settled]] = 0.0
    return extra


def _solve_within(demand: Floats, cost: Floats, limits: Limits, used: float, heaviest: int) -> tuple[Plan, float]:
    """The plan that keeps to a part of each cap, and by how much it can't."""
    room, weight = limits.room(used), np.where(np.isfinite(limits.cap), limits.cap, 0.0)
    order = np.argsort(-demand, kind="stable")[: int((demand > 0).sum())]  # who asks nothing goes by prices
    heavy, light = np.sort(order[:heaviest]), np.sort(order[heaviest:])
    prices = np.zeros(cost.shape[1])
    if len(light):
        stand_ins, theirs = _stand_ins(demand, cost, light)
        first = _program(np.append(demand[heavy], theirs), cost[np.append(heavy, stand_ins)], room, weight)
        prices = first.prices
        carried = _load(demand[light], cheapest(cost[light], prices), len(prices))
        room = np.maximum(room - carried, 0.0)
    solved = _program(demand[heavy], cost[heavy], room, weight)
    prices = prices if len(light) else solved.prices
    return _plan(demand, cost, limits, prices, heavy, solved.shares, used), solved.over


def _stand_ins(demand: Floats, cost: Floats, light: Ints) -> tuple[Ints, Floats]:
    """A few rows that stand for the light ones, and the demand that each stands for: the middle ones of groups alike."""
    best = cost[light].argmin(axis=1)
    two = np.partition(cost[light], 1, axis=1) if cost.shape[1] > 1 else np.repeat(cost[light], 2, axis=1)
    order = light[np.lexsort((np.minimum(two[:, 1] - two[:, 0], COST_LIMIT), best))]
    groups = np.array_split(order, min(STAND_INS, len(order)))
    return np.array([group[len(group) // 2] for group in groups]), np.array([demand[group].sum() for group in groups])


def _program(demand: Floats, cost: Floats, room: Floats, weight: Floats) -> _Solved:
    """The linear program. Beside x there is `over` for each capped provider, and `most`, which they keep in proportion.

    Both cost more than any detour, so that a cap is passed only where it must be.
    """
    from scipy import sparse  # here, since most commands decide and never solve: it takes 0.2 s to load
    from scipy.optimize import linprog

    whole = float(demand.sum())
    row, arm = np.nonzero(np.isfinite(cost))
    capped = np.flatnonzero(np.isfinite(room))
    n, p, k = len(row), cost.shape[1], len(capped)
    penalty = (p + 1.0) * (float(cost[row, arm].max(initial=0.0)) + 1.0)
    place = np.full(p, -1)
    place[capped] = np.arange(k)
    mine = np.flatnonzero(place[arm] >= 0)
    each, over = np.arange(k), n + np.arange(k)
    share = weight[capped] / weight[capped].sum()
    below = sparse.csr_matrix(
        (
            np.concatenate([demand[row[mine]] / whole, np.full(k, -1.0), np.ones(k), -share]),
            (
                np.concatenate([place[arm[mine]], each, k + each, k + each]),
                np.concatenate([mine, over, over, np.full(k, n + k)]),
            ),
        ),
        shape=(2 * k, n + k + 1),
    )
    found = linprog(
        np.concatenate([demand[row] / whole * cost[row, arm], np.full(k + 1, penalty)]),
        A_ub=below,
        b_ub=np.concatenate([room[capped] / whole, np.zeros(k)]),
        A_eq=sparse.csr_matrix((np.ones(n), (row, np.arange(n))), shape=(len(demand), n + k + 1)),
        b_eq=np.ones(len(demand)),
        method="highs",
        options={"time_limit": 10.0},
    )
    if found.status != 0:
        raise CapsUnsolved(f"caps: no plan was found ({found.message.strip()})")
    shares, prices = np.zeros(cost.shape), np.zeros(p)
    shares[row, arm] = found.x[:n]
    prices[capped] = np.maximum(-found.ineqlin.marginals[:k], 0.0)
    prices -= prices.min()  # only differences decide; where every cap is passed all prices are the penalty and more
    return _Solved(shares, prices, float(found.x[n : n + k].sum()) * whole)


def _plan(
    demand: Floats, cost: Floats, limits: Limits, prices: Floats, heavy: Ints, shares: Floats, used: float
) -> Plan:
    """Everyone by prices, but for heavy rows that the program put elsewhere."""
    chosen = cheapest(cost, prices)
    shares = _rounded(shares)
    other = shares[np.arange(len(heavy)), chosen[heavy]] < 1.0
    split, parts = heavy[other], shares[other]
    chosen[split] = parts.argmax(axis=1)
    whole = np.ones(len(demand), dtype=np.bool_)
    whole[split] = False
    load = limits.fixed + _load(demand[whole], chosen[whole], len(prices)) + demand[split] @ parts
    unmet = np.where(np.isfinite(limits.cap), np.maximum(load - limits.cap, 0.0), 0.0)
    return Plan(prices, chosen, split, parts, load, np.where(unmet > NEARLY * demand.sum(), unmet, 0.0), used)


def _rounded(shares: Floats) -> Floats:
    """In steps that hash units can follow; what is lost goes to the largest."""
    if not len(shares):
        return shares
    stepped = np.floor(shares / SHARE_STEP + 0.5) * SHARE_STEP
    every, largest = np.arange(len(shares)), shares.argmax(axis=1)
    stepped[every, largest] += 1.0 - stepped.sum(axis=1)
    return stepped


def _load(demand: Floats, chosen: Ints, providers: int) -> Floats:
    return np.bincount(chosen, weights=demand, minlength=providers).astype(np.float64)

