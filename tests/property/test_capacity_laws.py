"""Laws of caps: each row is served by who can serve it, and no cap is passed that could be kept."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from edgedns.steer.capacity import Limits, cheapest, solve

INF = np.inf


@st.composite
def cases(draw):
    """(demand, cost, cap, fixed, current) of up to 40 rows and 5 providers."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rows, providers = draw(st.integers(1, 40)), draw(st.integers(1, 5))
    demand = rng.pareto(1.0, rows) * rng.integers(0, 2, rows) + rng.random(rows)
    cost = np.round(rng.gamma(1.5, 12.0, (rows, providers)), draw(st.sampled_from([0, 3])))
    closed = rng.random((rows, providers)) < draw(st.sampled_from([0.0, 0.4]))
    closed[np.arange(rows), rng.integers(0, providers, rows)] = False
    cost[closed] = INF
    cap = demand.sum() / providers * rng.uniform(0.3, 3.0, providers)
    cap[rng.random(providers) < 0.2] = INF
    fixed = np.where(rng.random(providers) < 0.3, demand.sum() * rng.random(providers), 0.0)
    current = np.where(rng.random(rows) < 0.5, cost.argmin(axis=1), -1)
    return demand, cost, cap, fixed, current


@settings(max_examples=150, deadline=None)
@given(cases())
def test_laws_of_a_plan(case):
    demand, cost, cap, fixed, current = case
    limits = Limits(cap, fixed)
    plan = solve(demand, cost, limits, current)
    shares = plan.matrix()
    assert np.allclose(shares.sum(axis=1), 1.0)
    assert (shares >= 0).all()
    assert np.isfinite(cost[shares > 0]).all()
    assert np.allclose(plan.load, fixed + demand @ shares)
    assert (plan.prices >= 0).all()
    step = demand.sum() / 1024
    if not plan.unmet.any():
        assert (plan.load <= cap + step).all()
    again = solve(demand, cost, limits, current)
    assert np.array_equal(again.prices, plan.prices)
    assert np.array_equal(again.matrix(), shares)


@settings(max_examples=100, deadline=None)
@given(cases(), st.randoms(use_true_random=False))
def test_a_cap_is_passed_only_where_every_other_way_passes_more(case, dice):
    """No other assignment of whole rows that anybody thinks of is over by less in all."""
    demand, cost, cap, fixed, current = case
    plan = solve(demand, cost, Limits(cap, fixed), current)
    over = plan.unmet.sum()
    for _ in range(20):
        other = np.array([dice.choice(np.flatnonzero(np.isfinite(row)).tolist()) for row in cost])
        load = fixed + np.bincount(other, weights=demand, minlength=len(cap))
        assert np.maximum(load - cap, 0.0).sum() >= over - 0.01 * demand.sum()


@settings(max_examples=60, deadline=None)
@given(cases())
def test_without_caps_nothing_is_priced(case):
    demand, cost, cap, fixed, _ = case
    nobody = np.full(len(demand), -1)
    plan = solve(demand, cost, Limits(np.full(len(cap), INF), fixed), nobody)
    assert not plan.prices.any()
    assert np.array_equal(plan.chosen, cheapest(np.minimum(cost, np.where(np.isfinite(cost), 1000.0, INF)), plan.prices))


@settings(max_examples=60, deadline=None)
@given(cases(), st.floats(1.0, 3.0))
def test_more_room_never_costs_more(case, more):
    demand, cost, cap, fixed, _ = case
    nobody = np.full(len(demand), -1)
    tight, roomy = (solve(demand, cost, Limits(one, fixed), nobody) for one in (cap, cap * more))
    if tight.unmet.any() or tight.used != roomy.used:
        return
    spent = [float((demand[:, None] * plan.matrix() * np.where(np.isfinite(cost), cost, 0.0)).sum()) for plan in (tight, roomy)]
    assert spent[1] <= spent[0] * 1.001 + demand.sum() * cost[np.isfinite(cost)].max() / 512
