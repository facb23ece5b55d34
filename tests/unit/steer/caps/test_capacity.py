"""Caps: the program and its prices on small cases with known answers, and what they move in decide().

Demand from queries or a file, measured loads, and caps kept in the answers that workers give: tests/unit/test_caps.py. No
failover overloads whom caps could spare: tests/property/test_capacity_laws.py. Time: tests/bench/test_capacity_speed.py.
"""

from __future__ import annotations

import csv
import gzip
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import sparse
from scipy.optimize import linprog

from edgedns.model import Capacity, NetworkKey, Provider, Reason, RttSample, State, Wan
from edgedns.steer.caps.capacity import HEADROOM, Limits, Plan, Prices, cheapest, solve
from edgedns.steer.caps.loads import Fit, Load
from edgedns.steer.caps.spill import absences, only_plans, plan_prices, prices_for, with_plan
from edgedns.steer.deciding.decisions import Column, Decisions, Ranking
from edgedns.steer.deciding.policy import decide
from edgedns.steer.failure.health import Health
from edgedns.steer.table.rows import Floats, Ints
from edgedns.steer.table.rtt import RttStore
from edgedns.steer.table.wan import estimate

DATA = Path(__file__).parents[3] / "data" / "rtt" / "dev_planetlab_ipa.csv.gz"
INF = np.inf
Row = Sequence[float] | Floats


def plan_of(
    demand: Row, cost: Sequence[Sequence[float]] | Floats, cap: Row, fixed: Row | None = None,
    current: Sequence[int] | Ints | None = None, **how: Any,
) -> Plan:  # fmt: skip
    caps, costs = np.array(cap, float), np.array(cost, float)
    limits = Limits(caps, np.zeros(len(caps)) if fixed is None else np.array(fixed, float))
    serving = np.full(len(costs), -1) if current is None else np.array(current)
    return solve(np.array(demand, float), costs, limits, serving, **how)


class TestSolve:
    def test_without_caps_each_takes_the_cheapest(self) -> None:
        plan = plan_of([5, 1], [[0, 3], [2, 0]], [INF, INF])
        assert plan.chosen.tolist() == [0, 1]
        assert not plan.prices.any()
        assert not len(plan.split)

    def test_the_one_that_loses_least_leaves_and_only_as_much_as_must(self) -> None:
        plan = plan_of([60, 40], [[0, 10], [0, 2]], [70 / HEADROOM, INF])
        assert plan.load == pytest.approx([70, 30], abs=0.1)
        assert plan.split.tolist() == [1]
        assert plan.shares[0] == pytest.approx([0.25, 0.75], abs=0.001)
        assert plan.prices == pytest.approx([2, 0])
        assert plan.used == HEADROOM

    def test_the_reserve_is_used_only_where_nine_tenths_are_too_little(self) -> None:
        cost = [[0, 5]] * 10
        roomy, tight = plan_of([1] * 10, cost, [6, 6]), plan_of([1] * 10, cost, [5.4, 5.4])
        assert roomy.load[0] == pytest.approx(5.4, abs=0.01)
        assert (tight.load <= 5.4).all()
        assert tight.load[0] > 5.3
        assert (roomy.used, tight.used) == (0.9, 0.995)
        assert not tight.unmet.any()

    def test_what_cannot_be_met_is_shared_out_in_proportion(self) -> None:
        plan = plan_of([1] * 90, [[0, 5]] * 90, [40, 20])
        assert plan.load == pytest.approx([60, 30], rel=0.01)
        assert plan.unmet == pytest.approx([20, 10], rel=0.02)

    def test_an_overload_of_one_that_others_cannot_relieve_overloads_nobody_else(self) -> None:
        plan = plan_of([50, 20, 20], [[0, INF, INF], [0, 3, 4], [9, 0, 1]], [30, 30, 30])
        assert plan.load[0] == pytest.approx(50)
        assert (plan.load[1:] <= 30).all()
        assert plan.unmet == pytest.approx([20, 0, 0])

    def test_what_is_fixed_counts_and_is_not_moved(self) -> None:
        plan = plan_of([20, 20], [[0, 4], [0, 6]], [40 / HEADROOM, INF], fixed=[20, 0])
        assert plan.load == pytest.approx([40, 20])
        assert plan.chosen.tolist() == [1, 0]

    def test_fixed_load_above_a_cap_leaves_no_room_and_spares_the_others(self) -> None:
        plan = plan_of([10, 10], [[0, 4], [0, 6]], [15, 40], fixed=[30, 0])
        assert plan.load == pytest.approx([30, 20])
        assert plan.unmet == pytest.approx([15, 0])

    def test_moving_has_a_price_so_that_near_ties_stay(self) -> None:
        cost, cap = [[0, 0.3], [0, 0.2]], [10 / HEADROOM, INF]
        for current in ([1, 0], [0, 1]):
            assert plan_of([10, 10], cost, cap, current=current).chosen.tolist() == current
        assert plan_of([10, 10], [[0, 3], [0, 0.2]], cap, current=[1, 0]).chosen.tolist() == [0, 1]

    def test_who_cannot_serve_never_does(self) -> None:
        plan = plan_of([9, 9], [[INF, 0], [0, INF]], [1, 1])
        assert plan.matrix().tolist() == [[0, 1], [1, 0]]

    def test_no_demand_is_no_trouble(self) -> None:
        assert plan_of([0, 0], [[0, 1], [1, 0]], [1, 1]).chosen.tolist() == [0, 1]

    def test_prices_alone_explain_who_goes_where(self) -> None:
        rng = np.random.default_rng(5)
        demand, cost = rng.pareto(1.2, 300) + 0.01, rng.gamma(2, 10, (300, 5))
        plan = plan_of(demand, cost, np.full(5, 1.1 * demand.sum() / 5))
        by_price = np.setdiff1d(np.arange(300), plan.split)
        assert (plan.chosen == cheapest(cost, plan.prices))[by_price].all()
        assert len(plan.split) <= 5

    def test_light_rows_go_by_the_prices_of_heavy_ones(self) -> None:
        rng = np.random.default_rng(7)
        demand, cost = 1.0 / np.arange(1, 4001), rng.gamma(2, 10, (4000, 6))
        cap = np.full(6, 1.2 * demand.sum() / 6)
        whole, quick = plan_of(demand, cost, cap), plan_of(demand, cost, cap, heaviest=300)
        assert (quick.load <= cap).all()
        spent = [(demand[:, None] * plan.matrix() * cost).sum() for plan in (whole, quick)]
        assert spent[1] <= spent[0] * 1.01


def planetlab() -> Floats:
    with gzip.open(DATA, "rt") as file:
        rows = list(csv.DictReader(file))
    networks, providers = sorted({r["client_asn"] for r in rows}), sorted({r["provider"] for r in rows})
    total, count = (np.zeros((len(networks), len(providers))) for _ in range(2))
    for row in rows:
        if row["rtt_ms"] not in ("", "lost"):
            at = networks.index(row["client_asn"]), providers.index(row["provider"])
            total[at] += float(row["rtt_ms"])
            count[at] += 1
    return total / count


def least_cost(demand: Floats, rtt: Floats, cap: Floats) -> float:
    """What the linear program itself makes of it: no assignment that keeps to these caps has a lower mean RTT."""
    rows, arms = rtt.shape
    found = linprog(
        (demand[:, None] * rtt).ravel(),
        A_ub=sparse.kron(demand[None, :], sparse.eye(arms)), b_ub=cap,
        A_eq=sparse.kron(sparse.eye(rows), np.ones((1, arms))), b_eq=np.ones(rows),
        method="highs",
    )  # fmt: skip
    assert found.status == 0
    return float(found.fun)


@pytest.mark.parametrize(("exponent", "most"), [(0.6, 0.02), (0.8, 0.02), (1.0, INF)])
def test_caps_of_real_networks_at_a_twentieth_over_the_fair_share(exponent: float, most: float) -> None:
    """Zipf demand. At an exponent of 1 one network alone has more than a fair share: no way is within 2 % of uncapped."""
    rtt, over = planetlab(), []
    for seed in range(5):
        demand = np.random.default_rng(seed).permutation(1.0 / np.arange(1, len(rtt) + 1) ** exponent)
        cap, free = np.full(8, 1.05 * demand.sum() / 8), demand @ rtt.min(axis=1)
        plan = plan_of(demand, rtt - rtt.min(axis=1, keepdims=True), cap, current=rtt.argmin(axis=1))
        assert (plan.load <= cap).all()
        assert demand @ plan.matrix() == pytest.approx(plan.load)
        over.append((demand[:, None] * plan.matrix() * rtt).sum() / free - 1)
        assert over[-1] <= least_cost(demand, rtt, cap) / free - 1 + 0.004
    assert np.median(over) <= most


# -- in decide()

NAMES = ("alder", "birch", "cedar")
UP = frozenset(NAMES)
PROVIDERS = {name: Provider(name, (bytes(4),), (bytes(16),), Capacity(0.5, "share")) for name in NAMES}
COLUMN = Column(Wan(NAMES, NAMES, min_samples=1.0), 4)
NETWORKS = [NetworkKey(64500 + i, "DE", 4, i) for i in range(20)]


class Node:
    """Twenty networks: alder is best for all, birch worse by their number in ms, cedar by twice that."""

    def __init__(self, providers: Mapping[str, Provider] = PROVIDERS, columns: Sequence[Column] = (COLUMN,)) -> None:
        self.providers, self.columns = providers, columns
        self.health, self.now = Health(), 1000.0
        self.states: Mapping[str, State] = {}
        store = RttStore()
        samples = [
            RttSample(1000.0 + k, "fra1", name, network, 4, 20.0 + (i + 1) * worse)
            for i, network in enumerate(NETWORKS) for worse, name in enumerate(NAMES) for k in range(8)
        ]  # fmt: skip
        store.observe(samples)
        store.close_round(1010.0)
        self.table = estimate(store)
        self.decisions = self.decided(None)

    def decided(self, before: Decisions | None) -> Decisions:
        self.now += 1.0
        return decide(self.columns, self.providers, self.states, self.table, self.health, before, self.now, 0.0)

    def decide(self) -> Node:
        self.decisions = self.decided(self.decisions)
        return self

    def price(self, cap: Mapping[str, float], ahead: bool = False, up: frozenset[str] = UP) -> Node:
        """Solve, each network with a demand of 1 and nothing asked elsewhere, and decide again."""
        decided = self.decisions.columns[COLUMN]
        own = np.append((decided.rows["block"] >= 0).astype(float), 0.0)
        assert decided.offer is not None
        assert len(own) == len(decided.offer.keys)
        limits = Limits(np.array([cap.get(name, INF) for name in NAMES], float), np.zeros(3))
        for i, what in enumerate([up, *(absences(up, NAMES) if ahead else ())]):
            prices, splits, _ = plan_prices(self.decisions, {COLUMN: own}, limits, NAMES, what, 5000, ahead=i > 0)
            self.decisions = with_plan(self.decisions, prices, splits, first=i == 0)
        return self.decide()

    def load(self, networks: Sequence[NetworkKey] = NETWORKS) -> dict[str, float]:
        """How many networks each provider serves, shares of them counted in part."""
        load = dict.fromkeys(NAMES, 0.0)
        for network in networks:
            ranking = self.decisions.columns[COLUMN].ranking_for(network)
            for name, share in zip(ranking.targets, ranking.shares or (1.0,), strict=False):
                load[name] += share
        return load

    def ranking(self, i: int) -> Ranking:
        return self.decisions.columns[COLUMN].ranking_for(NETWORKS[i])


def test_nothing_changes_where_no_provider_has_a_cap() -> None:
    free = Node({name: replace(provider, capacity=None) for name, provider in PROVIDERS.items()})
    assert free.decisions.columns[COLUMN].offer is None
    capped = Node()
    assert capped.decisions.columns[COLUMN].same_answers(free.decisions.columns[COLUMN])
    assert free.load() == {"alder": 20.0, "birch": 0.0, "cedar": 0.0}


def test_caps_that_do_not_bind_move_nobody() -> None:
    node = Node()
    before = node.decisions.columns[COLUMN]
    node.price({"alder": 30, "birch": 1})
    assert node.decisions.columns[COLUMN].same_answers(before)
    assert node.decisions.plans[0].ms == {}


def test_networks_that_lose_least_are_spilled_and_told_so() -> None:
    node = Node().price({"alder": 10 / HEADROOM})
    assert node.load()["alder"] == pytest.approx(10, abs=0.05)
    assert node.load()["cedar"] == 0
    for i in range(20):
        ranking = node.ranking(i)
        assert (ranking.targets[0], ranking.reason) == (("birch", Reason.SPILLED) if i < 10 else ("alder", Reason.MEASURED))
    decided = node.decisions.columns[COLUMN]
    assert set(decided.hold["home"].tolist()) == {0}
    assert set(decided.since[[decided.index(n) for n in NETWORKS[:9]]]) == {node.now}


def test_a_split_network_is_given_by_hash_unit() -> None:
    node = Node().price({"alder": 10.5 / HEADROOM})
    split = [node.ranking(i) for i in range(20) if node.ranking(i).shares]
    assert [(ranking.targets, ranking.reason) for ranking in split] == [(("alder", "birch"), Reason.SPILLED)]
    assert split[0].shares == pytest.approx((0.5, 0.5), abs=0.01)
    assert node.load()["alder"] == pytest.approx(10.5, abs=0.01)


def test_it_stays_so_and_goes_home_when_there_is_room() -> None:
    node = Node().price({"alder": 10 / HEADROOM})
    since = node.decisions.columns[COLUMN].since
    answers = node.decisions.columns[COLUMN]
    node.decide().price({"alder": 10 / HEADROOM})
    assert node.decisions.columns[COLUMN].same_answers(answers)
    assert node.decisions.columns[COLUMN].since.tolist() == since.tolist()
    node.price({"alder": 30})
    assert node.load()["alder"] == 20
    assert {node.ranking(i).reason for i in range(20)} == {Reason.MEASURED}


def test_the_default_can_be_split() -> None:
    node = Node()
    decided = node.decisions.columns[COLUMN]
    demand = np.zeros(len(decided.keys) + 1)
    demand[-1] = 8.0
    prices, splits, _ = plan_prices(
        node.decisions, {COLUMN: demand}, Limits(np.array([2, INF, INF]) / HEADROOM, np.zeros(3)), NAMES, UP, 5000
    )
    node.decisions = with_plan(node.decisions, prices, splits, first=True)
    default = node.decide().decisions.columns[COLUMN].default
    assert default.reason is Reason.SPILLED
    assert dict(zip(default.targets, default.shares, strict=True)) == pytest.approx({"alder": 0.25, "birch": 0.75}, abs=0.01)


def test_an_absence_overloads_nobody_because_it_was_solved_beforehand() -> None:
    """Without alder all networks prefer birch, which has room for eleven."""
    node = Node().price({"alder": 12, "birch": 11, "cedar": 12}, ahead=True)
    node.states = {"alder": "down"}
    node.decide()
    assert node.load()["alder"] == 0
    assert node.load()["birch"] <= 11
    assert node.load()["cedar"] <= 12
    unready = Node().price({"alder": 12, "birch": 11, "cedar": 12})
    unready.states = {"alder": "down"}
    assert unready.decide().load()["birch"] > 11
    node.states = {}
    assert 12 * HEADROOM - 1.1 < node.decide().load()["alder"] < 12 * HEADROOM + 0.1, "but for a near tie"
    assert node.price({"alder": 12, "birch": 11, "cedar": 12}).load()["alder"] == pytest.approx(12 * HEADROOM, abs=0.1)


def test_a_return_was_solved_beforehand_too() -> None:
    node = Node()
    node.states = {"alder": "drain"}
    node.decide().price({"alder": 5, "birch": 20, "cedar": 20}, ahead=True, up=UP - {"alder"})
    assert node.load()["alder"] == 0
    node.states = {}
    assert 4.0 < node.decide().load()["alder"] <= 5


def test_a_failed_path_is_not_where_anybody_is_spilled() -> None:
    node = Node().price({"alder": 10 / HEADROOM})
    assert node.ranking(8).targets[0] == "birch"
    at = node.now
    for after in (3, 2, 1, 0):  # or birch were down everywhere
        node.health.observe([RttSample(at - after, "fra1", "birch", network, 4, 20.0) for network in NETWORKS[9:]])
    node.health.observe([RttSample(at - 2, "fra1", "birch", NETWORKS[8], 4, 20.0)])
    node.health.observe([RttSample(at - 0.2 * k, "fra1", "birch", NETWORKS[8], 4, None) for k in range(6)])
    node.health.observe([RttSample(at, "fra1", "cedar", NETWORKS[8], 4, 20.0)])
    node.decide()
    assert node.ranking(8).targets[0] == "alder"
    assert node.ranking(1).targets[0] == "birch"


def lose(node: Node, provider: str, networks: Sequence[NetworkKey]) -> Node:
    """The detector hears of losses on one provider's paths to these networks; others reply."""
    for after in (4, 3, 2, 1, 0):
        others = [network for network in NETWORKS if network not in networks]
        node.health.observe([RttSample(node.now - after, "fra1", provider, network, 4, 20.0) for network in others])
    for network in networks:
        node.health.observe([RttSample(node.now - 3, "fra1", provider, network, 4, 20.0)])
        node.health.observe([RttSample(node.now - 0.2 * k, "fra1", provider, network, 4, None) for k in range(6)])
        node.health.observe([RttSample(node.now, "fra1", "cedar", network, 4, 20.0)])
    assert all(node.health.state(network, provider, 4) == "down" for network in networks)
    return node.decide()


def test_networks_that_lose_their_path_go_by_the_prices_for_the_absence_until_the_next_plan() -> None:
    """Alder's six networks that lose it all prefer birch; as if alder were gone, half of them leave it room."""
    node = Node().price({"birch": 10}, ahead=True)
    assert node.load()["alder"] == 20
    lose(node, "alder", NETWORKS[5:15:2])
    first = {node.ranking(i).targets[0] for i in range(5, 15, 2)}
    assert first == {"birch", "cedar"}
    assert all(node.ranking(i).targets[0] == "alder" for i in range(0, 20, 2))
    node.price({"birch": 10})
    assert {node.ranking(i).targets[0] for i in range(5, 15, 2)} == {"birch"}


def test_the_last_provider_stays() -> None:
    node = Node().price({"alder": 10 / HEADROOM})
    node.states = dict.fromkeys(NAMES, "drain")
    node.decide()
    assert {node.ranking(i).reason for i in range(20)} == {Reason.ALL_DOWN}


def test_prices_and_splits_survive_a_restart() -> None:
    node = Node().price({"alder": 10.5, "birch": 9}, ahead=True)
    stored = Decisions.from_sections(node.decisions.to_sections())
    assert stored.plans == node.decisions.plans
    again = Node()
    again.decisions, again.now = stored, node.now
    again.decide()
    assert again.decisions.columns[COLUMN].same_answers(node.decisions.columns[COLUMN])
    assert any(ranking.shares for ranking in again.decisions.columns[COLUMN].rankings)


def test_only_rows_that_prices_do_not_put_right_are_named() -> None:
    node = Node().price({"alder": 10.5 / HEADROOM})
    assert len(node.decisions.columns[COLUMN].splits[NAMES].keys) == 1


def test_without_plans_caps_are_not_in_force() -> None:
    node = Node().price({"alder": 10 / HEADROOM}, ahead=True)
    node.decisions = only_plans(node.decisions, ())
    assert node.decide().load()["alder"] == 20
    assert not node.decisions.columns[COLUMN].splits


def test_prices_for_more_than_one_absence_are_the_highest_known() -> None:
    without = Prices(("birch", "cedar"), {"birch": 5.0}), Prices(("alder", "cedar"), {"cedar": 7.0})
    plans = [Prices(NAMES, {"alder": 1.0}), *without]
    assert prices_for(plans, UP) is plans[0]
    highest = prices_for(plans, frozenset({"cedar"}))
    assert highest is not None
    assert highest.ms == {"birch": 5.0, "cedar": 7.0}
    assert prices_for((), UP) is None


# -- bits per query


class TestFit:
    def test_a_query_counts_for_what_was_measured(self) -> None:
        fit = Fit()
        fit.take([Load("alder", 100e9, 0.0), Load("birch", 50e9, 0.0)], {"alder": 1000.0, "birch": 500.0}, 1000.0)
        assert fit.bits_per_query("alder", 1000.0) == pytest.approx(1e8)
        assert fit.bits_per_query("cedar", 1000.0) == pytest.approx(1e8)

    def test_a_load_that_queries_do_not_explain_makes_them_dearer(self) -> None:
        fit = Fit()
        fit.take([Load("alder", 100e9, 0.0), Load("birch", 100e9, 0.0)], {"alder": 1000.0, "birch": 500.0}, 1000.0)
        alder, birch = (fit.bits_per_query(name, 1000.0) or 0.0 for name in ("alder", "birch"))
        assert 0.0 < alder < 1.1e8
        assert birch > 1.5e8

    def test_nothing_is_fitted_without_queries_or_after_a_day(self) -> None:
        fit = Fit()
        fit.take([Load("alder", 100e9, 0.0)], {}, 1000.0)
        assert fit.bits_per_query("alder", 1000.0) is None
        fit.take([Load("alder", 100e9, 0.0)], {"alder": 10.0}, 2000.0)
        assert fit.bits_per_query("alder", 2000.0)
        assert fit.bits_per_query("alder", 2000.0 + 86401) is None

    def test_it_survives_a_restart(self) -> None:
        fit = Fit()
        fit.take([Load("alder", 100e9, 0.0)], {"alder": 10.0}, 1000.0)
        assert Fit.from_json(fit.to_json()) == fit
        for wrong in (None, {}, {"at": 1, "sums": {"alder": [1]}}, {"at": "x", "sums": {}}):
            with pytest.raises(ValueError, match="not the fit"):
                Fit.from_json(wrong)
