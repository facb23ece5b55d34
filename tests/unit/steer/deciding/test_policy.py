"""decide(): every action, every way of being down, and what moves a wan row or holds it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from itertools import pairwise

import numpy as np
import pytest

from edgedns.errors import SourceError
from edgedns.model import Action, AllDown, Failover, NetworkKey, Pin, Provider, Reason, RttSample, State, Wan, Weighted
from edgedns.steer.deciding.decisions import Column, Decisions, Move, Ranking, moves
from edgedns.steer.deciding.hold import Pace
from edgedns.steer.deciding.policy import decide
from edgedns.steer.failure.health import Health
from edgedns.steer.table.rows import Ints, Rows, rows_of
from edgedns.steer.table.rtt import RttStore
from edgedns.steer.table.wan import estimate

NAMES = ("alder", "birch", "cedar")
PROVIDERS = {
    name: Provider(name, (bytes([192, 0, 2, i]),), (bytes(15) + bytes([i]),) if name != "cedar" else ())
    for i, name in enumerate(NAMES)
}  # fmt: skip
WAN = Column(Wan(NAMES, NAMES), 4)
NETWORK, NEIGHBOUR, ELSEWHERE = NetworkKey(64500, "DE", 4, 1), NetworkKey(64500, "DE", 4, 2), NetworkKey(64511, "US", 4, 3)
UNMAPPED = NetworkKey(0, "", 4, 9)
Rtts = Mapping[NetworkKey, Mapping[str, float | None]]


class Node:
    """A control process without its sockets: rounds of 10 s over made RTTs, {network: {provider: ms or None}}."""

    def __init__(self, *columns: Column, pace: Pace | None = None, ttl: float = 0.0) -> None:
        self.columns = columns
        self.pace, self.ttl = pace, ttl
        self.store, self.health, self.now = RttStore(), Health(), 1000.0
        self.last: Decisions | None = None
        self.states: Mapping[str, State] = {}
        self.asked: tuple[Rows, Ints] | None = None
        self.moved: list[Move] = []

    @property
    def decisions(self) -> Decisions:
        assert self.last is not None
        return self.last

    def round(self, rtts: Rtts, times: int = 2, count: int = 1) -> Node:
        for _ in range(count):
            samples = [
                RttSample(self.now + k * 10.0 / times, "fra1", provider, network, 4, rtt)
                for network, by in rtts.items() for provider, rtt in by.items() for k in range(times)
            ]  # fmt: skip
            for counted in self.health.observe(samples):
                self.store.observe_columns(counted)
            self.now += 10.0
            self.store.close_round(self.now)
            self.decide()
        return self

    def decide(self) -> Node:
        table = estimate(self.store)
        before = self.last
        self.last = decide(
            self.columns, PROVIDERS, self.states, table, self.health, before, self.now, self.ttl, self.pace, asked=self.asked
        )
        self.moved += moves(before, self.decisions)
        return self

    def answer(self, network: NetworkKey = NETWORK, column: Column | None = None) -> Ranking:
        return self.decisions.columns[column or self.columns[0]].ranking_for(network)

    def silence(self, network: NetworkKey, provider: str) -> Node:
        """The detector hears five losses, while another arm of the network replies."""
        other = next(n for n in NAMES if n != provider)
        at = [self.now - 0.2 * k for k in range(6)]
        self.health.observe([RttSample(at[-1] - 1.0, "fra1", provider, network, 4, 20.0)])
        self.health.observe([RttSample(t, "fra1", provider, network, 4, None) for t in at])
        self.health.observe([RttSample(self.now, "fra1", other, network, 4, 20.0)])
        assert self.health.state(network, provider, 4) == "down"
        return self


def first(ranking: Ranking) -> tuple[str, Reason]:
    return ranking.targets[0], ranking.reason


FAST_BIRCH = {NETWORK: {"alder": 60.0, "birch": 20.0, "cedar": 40.0}}


class TestWithoutMeasurements:
    @pytest.mark.parametrize(
        ("action", "expected"),
        [
            (Pin("birch"), Ranking(("birch",), Reason.PINNED)),
            (Failover(("birch", "alder")), Ranking(("birch", "alder"), Reason.ORDERED)),
            (Weighted((("alder", 70.0), ("birch", 30.0))), Ranking(("alder", "birch"), Reason.WEIGHTED, (0.7, 0.3))),
            (Weighted((("alder", 1.0), ("birch", 0.0))), Ranking(("alder",), Reason.WEIGHTED)),
            (Wan(NAMES, ("cedar", "alder")), Ranking(("cedar", "alder", "birch"), Reason.NOMINAL)),
        ],
    )
    def test_every_action(self, action: Action, expected: Ranking) -> None:
        node = Node(Column(action, 4)).decide()
        assert node.answer() == node.answer(UNMAPPED) == expected

    def test_a_family_without_addresses_is_nodata(self) -> None:
        node = Node(Column(Pin("cedar"), 6), Column(Wan(NAMES, ("cedar", "birch", "alder")), 6)).decide()
        assert node.answer() == Ranking((), Reason.NOMINAL, down="nodata")
        assert node.answer(column=node.columns[1]).targets == ("birch", "alder")


ALDER_ALONE = [Pin("alder"), Failover(("alder",)), Weighted((("alder", 1.0),)), Wan(("alder",), ("alder",))]


class TestDeclaredStates:
    @pytest.mark.parametrize("state", ["down", "drain"])
    def test_who_is_out_is_out_at_once(self, state: State) -> None:
        failover, weighted = Column(Failover(NAMES), 4), Column(Weighted((("alder", 50), ("birch", 25), ("cedar", 25))), 4)
        node = Node(WAN, failover, weighted)
        node.round({NETWORK: {"alder": 20.0, "birch": 60.0, "cedar": 40.0}})
        node.states = {"alder": state}
        node.decide()
        assert first(node.answer()) == ("cedar", Reason.FAILED_OVER)
        assert first(node.answer(UNMAPPED)) == ("birch", Reason.FAILED_OVER)
        assert node.answer(column=failover) == Ranking(("birch", "cedar"), Reason.FAILED_OVER)
        assert node.answer(column=weighted) == Ranking(("birch", "cedar"), Reason.WEIGHTED, (0.5, 0.5))
        node.states = {}
        node.decide()
        assert first(node.answer()) == ("alder", Reason.MEASURED)

    @pytest.mark.parametrize(
        ("policy", "expected"),
        [
            (AllDown("nodata"), Ranking((), Reason.ALL_DOWN, down="nodata")),
            (AllDown("servfail"), Ranking((), Reason.ALL_DOWN, down="servfail")),
            (AllDown("use", "birch"), Ranking(("birch",), Reason.ALL_DOWN)),
        ],
    )
    @pytest.mark.parametrize("action", ALDER_ALONE)
    def test_all_down_as_the_rule_asks(self, action: Action, policy: AllDown, expected: Ranking) -> None:
        node = Node(Column(action, 4, policy)).round(FAST_BIRCH, count=3)
        before = node.answer()
        node.states = {"alder": "down"}
        assert node.decide().answer() == expected
        assert node.answer(UNMAPPED) == expected
        node.states = {}
        assert node.decide().answer() == before

    def test_open_by_default(self) -> None:
        pin, failover = Column(Pin("alder"), 4), Column(Failover(("alder", "birch")), 4)
        node = Node(WAN, pin, failover).round(FAST_BIRCH)
        node.states = dict.fromkeys(NAMES, "down")
        node.decide()
        assert first(node.answer()) == ("birch", Reason.ALL_DOWN)
        assert node.answer(column=pin) == Ranking(("alder",), Reason.PINNED)
        assert node.answer(column=failover) == Ranking(("alder", "birch"), Reason.ALL_DOWN)


class TestSilence:
    def test_only_the_silent_network_moves(self) -> None:
        failover, weighted = Column(Failover(("birch", "alder")), 4), Column(Weighted((("birch", 1.0), ("alder", 1.0))), 4)
        node = Node(WAN, failover, weighted)
        node.round({NETWORK: FAST_BIRCH[NETWORK], NEIGHBOUR: FAST_BIRCH[NETWORK]}, count=2)
        node.silence(NETWORK, "birch").decide()
        assert [first(node.answer(n)) for n in (NETWORK, NEIGHBOUR)] == [
            ("cedar", Reason.FAILED_OVER), ("birch", Reason.MEASURED),
        ]  # fmt: skip
        assert "birch" not in node.answer().targets
        assert [first(node.answer(n, failover))[0] for n in (NETWORK, NEIGHBOUR)] == ["alder", "birch"]
        assert [node.answer(n, weighted).targets for n in (NETWORK, NEIGHBOUR)] == [("alder",), ("birch", "alder")]
        assert {m.network for m in node.moved if m.column == WAN and m.after.reason is Reason.FAILED_OVER} == {NETWORK}

    def test_silence_never_takes_the_last_provider(self) -> None:
        alone = Column(Failover(("birch",)), 4, AllDown("servfail"))
        both = Column(Wan(("birch", "alder"), ("birch", "alder")), 4, AllDown("servfail"))
        node = Node(both, alone).round(FAST_BIRCH).silence(NETWORK, "birch")
        node.states = {"alder": "drain"}
        node.decide()
        assert node.answer().targets == node.answer(column=alone).targets == ("birch",)

    def test_it_comes_back_home_without_waiting(self) -> None:
        node = Node(WAN).round(FAST_BIRCH, count=3).silence(NETWORK, "birch").decide()
        assert node.answer().targets[0] == "cedar"
        node.now += 92.0
        node.health.observe([RttSample(node.now + k * 0.2, "fra1", "birch", NETWORK, 4, 20.0) for k in range(4)])
        assert first(node.decide().answer()) == ("birch", Reason.MEASURED)

    def test_a_row_with_too_few_samples_fails_over_too(self) -> None:
        node = Node(Column(Wan(NAMES, NAMES, min_samples=1000.0), 4)).round(FAST_BIRCH)
        assert first(node.answer()) == ("alder", Reason.NOMINAL)
        node.silence(NETWORK, "alder").decide()
        assert first(node.answer()) == ("birch", Reason.FAILED_OVER)
        assert first(node.answer(ELSEWHERE))[0] == "birch", "the only network known in any level above is down"


class TestMeasured:
    def test_the_best_serves_where_it_was_measured_and_the_best_rtt_elsewhere(self) -> None:
        node = Node(WAN).round({
            NETWORK: {"alder": 60.0, "birch": 20.0, "cedar": 40.0},
            NEIGHBOUR: {"alder": 300.0, "birch": 310.0, "cedar": 250.0},
        })  # fmt: skip
        assert [first(node.answer(n)) for n in (NETWORK, NEIGHBOUR, UNMAPPED)] == [
            ("birch", Reason.MEASURED), ("cedar", Reason.MEASURED), ("alder", Reason.NOMINAL),
        ]  # fmt: skip
        assert first(node.answer(NetworkKey(64500, "DE", 4, 77)))[1] is Reason.MEASURED

    def test_below_min_samples_the_level_above_decides(self) -> None:
        rtts = {NETWORK: {"alder": 60.0, "birch": 20.0}, NEIGHBOUR: {"alder": 20.0, "birch": 60.0}}
        node = Node(Column(Wan(NAMES, NAMES, min_samples=5), 4))
        node.round({NETWORK: rtts[NETWORK]}, times=1)
        assert node.answer().reason is Reason.NOMINAL
        node.round(rtts, times=3)
        assert [node.answer(n).targets[0] for n in rtts] == ["birch", "alder"]

    def test_the_other_family_is_steered_from_asn_and_country_upwards(self) -> None:
        column = Column(Wan(("alder", "birch"), ("alder", "birch")), 6)
        node = Node(column).round(FAST_BIRCH, count=2)
        assert first(node.answer()) == ("birch", Reason.MEASURED)
        assert NETWORK not in [tuple(row) for row in node.decisions.columns[column].rows.tolist()]

    def test_a_better_one_waits_two_rounds(self) -> None:
        node = Node(WAN).round(FAST_BIRCH, times=9, count=3)
        worse = {NETWORK: {"alder": 8.0, "birch": 20.0, "cedar": 40.0}}
        answers = [first(node.round(worse, times=9).answer()) for _ in range(8)]
        change = [name for name, _ in answers].index("alder")
        assert answers[change - 1] == ("birch", Reason.HELD)
        assert {name for name, _ in answers[change:]} == {"alder"}

    def test_calls_between_rounds_change_nothing(self) -> None:
        node = Node(WAN).round(FAST_BIRCH, times=9, count=3)
        node.round({NETWORK: {"alder": 10.0, "birch": 200.0, "cedar": 40.0}}, times=9)
        before = node.decisions
        for _ in range(5):
            node.decide()
        assert node.decisions.columns[WAN].same_answers(before.columns[WAN])

    def test_a_move_waits_for_two_ttls(self) -> None:
        node = Node(WAN, ttl=60.0).round({NETWORK: {"alder": 60.0, "birch": 20.0}}, times=9)
        start = node.now
        while node.answer().targets[0] == "birch":
            node.round({NETWORK: {"alder": 10.0, "birch": 20.0}}, times=9)
        assert 120.0 <= node.now - start <= 140.0

    def test_a_shift_of_the_one_that_serves_ends_waiting_and_dwelling(self) -> None:
        node = Node(WAN, ttl=600.0).round({NETWORK: {"alder": 60.0, "birch": 20.0}}, times=9)
        start = node.now
        while node.answer().targets[0] == "birch":
            node.round({NETWORK: {"alder": 60.0, "birch": 140.0}}, times=9)
        assert node.now - start <= 20.0

    def test_a_shift_asks_for_probes_once(self) -> None:
        node = Node(WAN).round({NETWORK: {"alder": 60.0, "birch": 20.0}}, times=9)
        assert node.health.wants(node.now) == []
        node.round({NETWORK: {"alder": 60.0, "birch": 140.0}}, times=9)
        wants = node.health.wants(node.now)
        assert [(want.provider, want.probes) for want in wants] == [("birch", 3), ("alder", 2)]
        assert node.health.wants(node.now + 0.2) == []

    @pytest.mark.parametrize(("margin_ms", "percent", "moves_"), [(0.0, 5.0, True), (0.0, 20.0, False), (8.0, 5.0, False)])
    def test_the_margin_is_asked_for_in_both_units(self, margin_ms: float, percent: float, moves_: bool) -> None:
        node = Node(Column(Wan(NAMES, NAMES, margin_ms, percent), 4))
        node.round({NETWORK: {"alder": 40.0, "birch": 34.0, "cedar": 90.0}}, times=9, count=4)
        assert (node.answer().targets[0] == "birch") is moves_

    def test_of_equals_the_first_in_nominal_order(self) -> None:
        rule = Wan(NAMES, ("cedar", "birch", "alder"))
        node = Node(Column(rule, 4)).round({NETWORK: dict.fromkeys(NAMES, 20.0)}, times=9, count=4)
        assert node.answer().targets == ("cedar", "birch", "alder")

    def test_the_churn_budget_lets_the_most_worth_move_first(self) -> None:
        networks = [NetworkKey(64500 + i, "DE", 4, i) for i in range(10)]
        start = {n: {"alder": 30.0, "birch": 100.0 + i} for i, n in enumerate(networks)}
        node = Node(WAN, pace=Pace(churn=0.2, freely=1)).round(start, times=9, count=4)
        moved: list[set[NetworkKey]] = [set()]
        while len(moved[-1]) < len(networks):
            node.round({n: {"alder": 200.0 + 20 * i, "birch": 30.0} for i, n in enumerate(networks)}, times=9)
            moved.append({n for n in networks if node.answer(n).targets[0] == "birch"})
        rows = len(node.decisions.columns[WAN].keys)
        steps = [after - before for before, after in pairwise(moved) if after != before]
        assert max(map(len, steps)) <= 0.2 * rows
        assert len(steps) >= 3
        assert networks[-1] in steps[0]

    def test_the_churn_budget_counts_queries_where_they_are_known(self) -> None:
        """Nobody asks from the rows worth most in ms: they don't use the budget up."""
        networks = [NetworkKey(64500 + i, "DE", 4, i) for i in range(10)]
        node = Node(WAN, pace=Pace(churn=0.5, freely=1))
        node.asked = rows_of(networks), np.array([1, 2, 3, 4, 0, 0, 0, 0, 0, 0])
        node.round({n: {"alder": 30.0, "birch": 100.0} for n in networks}, times=9, count=4)
        moved: set[int] = set()
        while not moved:
            node.round({n: {"alder": 200.0 + 20 * i, "birch": 30.0} for i, n in enumerate(networks)}, times=9)
            moved = {i for i, n in enumerate(networks) if node.answer(n).targets[0] == "birch"}
        assert moved == {3, 4, 5, 6, 7, 8, 9}

    def test_first_measurements_are_not_churn(self) -> None:
        networks = [NetworkKey(64500 + i, "DE", 4, i) for i in range(40)]
        node = Node(WAN, pace=Pace(churn=0.01, freely=1)).round({n: {"alder": 90.0, "birch": 30.0} for n in networks})
        assert {node.answer(n).targets[0] for n in networks} == {"birch"}

    def test_a_move_that_made_it_worse_is_taken_back_and_guarded(self) -> None:
        node = Node(WAN).round({NETWORK: {"alder": 36.0, "birch": 30.0, "cedar": 90.0}}, times=9)
        assert node.answer().targets[0] == "birch"
        node.round({NETWORK: {"alder": 36.0, "birch": 46.0, "cedar": 90.0}}, times=9, count=8)
        assert first(node.answer()) == ("alder", Reason.GUARDED)
        node.round({NETWORK: {"alder": 50.0, "birch": 30.0, "cedar": 90.0}}, times=9, count=20)
        assert first(node.answer()) == ("alder", Reason.GUARDED)
        node.round({NETWORK: {"alder": 50.0, "birch": 30.0, "cedar": 90.0}}, times=9, count=45)
        assert first(node.answer()) == ("birch", Reason.MEASURED)

    def test_rankings_are_shared(self) -> None:
        rng = np.random.default_rng(3)
        networks = [NetworkKey(64500 + i, "DE", 4, i) for i in range(300)]
        node = Node(WAN).round({n: dict(zip(NAMES, rng.uniform(10, 90, 3), strict=True)) for n in networks})
        decided = node.decisions.columns[WAN]
        assert len(set(decided.rankings)) == len(decided.rankings) <= 6


class TestDecisionsAsData:
    def test_stored_and_read_again_they_are_the_same(self) -> None:
        weighted = Column(Weighted((("alder", 7.0), ("birch", 3.0))), 4)
        node = Node(WAN, Column(Failover(NAMES), 6, AllDown("use", "birch")), weighted, Column(Pin("cedar"), 4))
        node.round(FAST_BIRCH, count=2).silence(NETWORK, "birch").decide()
        again = Decisions.from_sections(node.decisions.to_sections())
        assert list(again.columns) == list(node.decisions.columns)
        for column, decided in node.decisions.columns.items():
            assert decided.same_answers(again.columns[column])
            assert np.array_equal(decided.hold, again.columns[column].hold)
            assert decided.arms == again.columns[column].arms
        assert (again.now, again.table_at) == (node.decisions.now, node.decisions.table_at)

    def test_damaged_ones_are_refused(self) -> None:
        sections = Node(WAN).round(FAST_BIRCH).decisions.to_sections()
        for broken in ({}, {**sections, "0_ranking": sections["0_ranking"] + 9}, {**sections, "about": sections["about"][:-3]}):
            with pytest.raises(SourceError):
                Decisions.from_sections(broken)

    def test_since_tells_when_a_row_began_to_be_served(self) -> None:
        node = Node(WAN).round(FAST_BIRCH, count=5)
        decided = node.decisions.columns[WAN]
        assert decided.since[decided.index(NETWORK)] == 1010.0

    def test_a_column_whose_providers_changed_starts_anew(self) -> None:
        node = Node(WAN).round(FAST_BIRCH, times=9)
        fewer = {name: p for name, p in PROVIDERS.items() if name != "birch"}
        after = decide([WAN], fewer, {}, estimate(node.store), node.health, node.decisions, node.now + 10, 0.0)
        assert after.columns[WAN].ranking_for(NETWORK).targets == ("cedar", "alder")

    def test_a_rule_whose_terms_were_edited_keeps_its_incumbents(self) -> None:
        node = Node(WAN).round(FAST_BIRCH, times=9, count=3)
        node.columns = (Column(Wan(NAMES, NAMES, margin_percent=7.0), 4),)
        node.round({NETWORK: {"alder": 19.9, "birch": 20.0, "cedar": 40.0}}, times=9, count=30)
        assert node.answer().targets[0] == "birch"

    def test_a_column_is_hashable_and_equal_by_its_terms(self) -> None:
        assert {WAN: 1}[dataclasses.replace(WAN)] == 1
