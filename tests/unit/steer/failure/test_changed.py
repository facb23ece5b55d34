"""Paths that got slower, and catchments that moved: whom the detector believes, and what answers make of it between rounds."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np
import pytest

from edgedns.model import NetworkKey, Reason, RttSample, Wan
from edgedns.steer.deciding.decisions import Column, Decisions, Ranking
from edgedns.steer.deciding.policy import decide
from edgedns.steer.failure.changed import TO_AND_FRO
from edgedns.steer.failure.health import Health
from edgedns.steer.table.batch import batch_of
from edgedns.steer.table.rows import pack, rows_of
from edgedns.steer.table.rtt import RttStore
from edgedns.steer.table.wan import WanTable, estimate
from tests.unit.steer.deciding.test_policy import PROVIDERS

NAMES = ("alder", "birch", "cedar")
NETWORK = NetworkKey(64500, "DE", 4, 1)
KEY = pack(rows_of([NETWORK]))
WAN = Column(Wan(NAMES, NAMES), 4)
By = Mapping[str, float | None]  # ms by provider, None lost
USUAL: By = {"alder": 60.0, "birch": 20.0, "cedar": 90.0}


class Net:
    """Probes of one network by every provider, one each 3 s, and decisions: rounds of 10 s, and whenever something changed."""

    def __init__(self) -> None:
        self.health, self.store, self.now = Health(), RttStore(), 1000.0
        self.last: Decisions | None = None
        self.known: WanTable | None = None
        self.changes, self.given = 0, ""
        self.switched: list[float] = []

    def run(self, seconds: float, rtt: By | Callable[[float], By] = USUAL) -> Net:
        """As fra1 hears it; `rtt` may be a function of the time."""
        return self.go_on(seconds, lambda at: {"fra1": rtt(at) if callable(rtt) else rtt})

    def heard(self, seconds: float, by_vantage: Mapping[str, By]) -> Net:
        return self.go_on(seconds, lambda _: by_vantage)

    def go_on(self, seconds: float, told: Callable[[float], Mapping[str, By]]) -> Net:
        end = self.now + seconds
        while self.now < end:
            for vantage, by in told(self.now).items():
                self.take([RttSample(self.now + k * 0.1, vantage, p, NETWORK, 4, ms) for k, (p, ms) in enumerate(by.items())])
            self.now += 3.0
            if self.now // 10 > (self.now - 3.0) // 10:
                self.store.close_round(self.now)
                self.known = estimate(self.store, only=NAMES)
                self.decide()
        return self

    def take(self, samples: list[RttSample]) -> None:
        for counted in self.health.observe(samples):
            self.store.observe_columns(counted)
        if self.health.changes != self.changes:
            self.changes = self.health.changes
            self.decide()

    def decide(self) -> None:
        if self.known is not None:
            before, at = self.last, self.now
            self.last = decide([WAN], PROVIDERS, {}, self.known, self.health, before, at, 30.0, sudden=True)
            given = self.answer.targets[0]
            self.switched += [at] * (given != self.given)
            self.given = given

    @property
    def decisions(self) -> Decisions:
        assert self.last is not None
        return self.last

    @property
    def table(self) -> WanTable:
        assert self.known is not None
        return self.known

    @property
    def answer(self) -> Ranking:
        return self.decisions.columns[WAN].ranking_for(NETWORK)

    def slower(self, provider: str = "birch") -> float:
        return float(self.health.slower(KEY, [provider], 4, 1.0)[0, 0])


def test_who_got_slower_alone_is_left_before_the_round_ends() -> None:
    net = Net().run(121)
    assert net.given == "birch"
    assert np.isnan(net.slower())
    net.run(12, {**USUAL, "birch": 100.0})
    assert (net.given, net.answer.reason) == ("alder", Reason.MEASURED)
    assert net.switched[-1] < 1130.0 < net.now
    assert net.slower() == pytest.approx(100.0, abs=1.0)


def test_what_it_was_like_before_counts_no_more() -> None:
    net = Net().run(301).run(21, {**USUAL, "birch": 100.0})
    at = net.table.find(NETWORK, 4)
    typical = dict(zip(net.table.providers, net.table.typical[at, 0].tolist(), strict=True))
    assert typical["birch"] == pytest.approx(100.0, rel=0.05)
    assert typical["alder"] == pytest.approx(60.0, rel=0.05)


def test_a_vantage_or_target_that_got_slower_for_all_moves_nobody() -> None:
    net = Net().run(121).run(90, {"alder": 140.0, "birch": 100.0, "cedar": 170.0})
    assert net.given == "birch"
    assert len(net.switched) == 1
    assert np.isnan([net.slower(name) for name in NAMES]).all()


def test_nobody_is_left_for_somebody_who_is_slower_still() -> None:
    net = Net().run(121).run(60, {**USUAL, "birch": 50.0})
    assert net.slower() == pytest.approx(50.0, abs=1.0)
    assert len(net.switched) == 1


def test_where_nobody_else_is_heard_the_path_is_believed() -> None:
    health = Health()
    for k in range(20):
        health.observe([RttSample(1000.0 + 10 * k, "fra1", "birch", NETWORK, 4, 20.0 if k < 12 else 100.0)])
    assert health.slower(KEY, ["birch"], 4, 1000.0)[0, 0] == pytest.approx(100.0, abs=1.0)


@pytest.mark.parametrize("period", [20, 40, 60, 120, 240])
def test_a_path_that_is_slow_by_turns_is_left_and_not_come_back_to_all_the_time(period: int) -> None:
    net = Net().run(121)
    net.run(600, lambda at: {**USUAL, "birch": 100.0 if (at - 1121) % (2 * period) < period else 20.0})
    assert len(net.switched) - 1 <= 3


def test_a_queue_that_comes_and_goes_is_no_rise() -> None:
    """Probes that were asked for meet it, one after the other."""
    net = Net().run(121)
    net.take([RttSample(net.now + k / 2, "fra1", "birch", NETWORK, 4, 100.0) for k in range(4)])
    net.take([RttSample(net.now + 2.0, "fra1", name, NETWORK, 4, rtt) for name, rtt in USUAL.items()])
    net.now += 3.0
    assert net.run(60).given == "birch"
    assert np.isnan(net.slower())


def test_a_small_rise_is_left_to_the_histograms() -> None:
    net = Net().run(121).run(30, {**USUAL, "birch": 35.0})
    assert np.isnan(net.slower())


def test_one_of_several_vantages_moves_nobody_by_itself() -> None:
    """It may be sick, or lie."""
    every = dict.fromkeys(("fra1", "fra2", "iad1"), USUAL)
    net = Net().heard(121, every).heard(15, {**every, "fra1": {**USUAL, "birch": 400.0}})
    assert (net.given, len(net.switched)) == ("birch", 1)
    assert np.isnan(net.slower())
    net.heard(9, {name: USUAL if name == "iad1" else {**USUAL, "birch": 100.0} for name in every})
    assert net.given == "alder", "most of them agree"


def test_who_gets_slower_again_after_a_while_is_believed_again() -> None:
    net = Net().run(121).run(60, {**USUAL, "birch": 100.0}).run(TO_AND_FRO + 100.0)
    assert net.given == "birch"
    begun = net.now
    net.run(12, {**USUAL, "birch": 100.0})
    assert net.given == "alder"
    assert net.switched[-1] - begun < 10.0


@pytest.mark.parametrize("dead", [5, 20, 45, 60])
def test_a_path_that_dies_and_comes_back_again_and_again_is_left_once(dead: int) -> None:
    net = Net().run(121)
    net.run(600, lambda at: {**USUAL, "birch": None if (at - 1121) % (2 * dead) < dead else 20.0})
    assert len(net.switched) - 1 <= 2
    net.run(1500)
    assert net.given == "birch", "in the end it is trusted again"


def test_without_leave_nothing_measured_moves_between_rounds() -> None:
    net = Net().run(121)
    before = net.decisions
    net.health.observe([RttSample(net.now + k, "fra1", "birch", NETWORK, 4, 100.0) for k in range(4)])
    net.health.observe([RttSample(net.now + 4.0, "fra1", "alder", NETWORK, 4, 60.0)])
    assert net.health.any_slower(net.table.at)

    def first(sudden: bool) -> str:
        made = decide([WAN], PROVIDERS, {}, net.table, net.health, before, net.now + 4.0, 30.0, sudden=sudden)
        return made.columns[WAN].ranking_for(NETWORK).targets[0]

    assert first(sudden=False) == "birch"
    assert first(sudden=True) == "alder"


def test_a_network_under_guard_stays_where_it_was_sent() -> None:
    net = Net().run(421)
    hold = net.decisions.columns[WAN].hold
    hold["guard_until"] = net.now + 600.0
    net.run(30, {**USUAL, "birch": 100.0})
    assert net.given == "birch"


class TestCatchment:
    """fra1 hears birch's replies until they land at iad1."""

    def moved(self, rtt: float) -> tuple[Net, dict[str, By]]:
        net = Net().heard(121, {"fra1": USUAL, "iad1": {"birch": None, "cedar": None}})
        return net, {"fra1": {**USUAL, "birch": None}, "iad1": {"birch": rtt, "cedar": None}}

    def test_it_is_what_the_new_vantage_hears_and_nobody_is_sent_back_to_what_it_was(self) -> None:
        net, after = self.moved(105.0)
        net.heard(24, {**after, "iad1": {"birch": None}})
        assert (net.given, net.answer.reason) == ("alder", Reason.FAILED_OVER)
        net.heard(60, after)
        assert (net.given, net.answer.reason) == ("alder", Reason.MEASURED)
        assert net.slower() == pytest.approx(105.0, abs=1.0)
        assert not net.health.down(rows_of([NETWORK]), ["birch"], 4).any()
        assert len(net.switched) == 2

    def test_a_new_vantage_as_near_changes_nothing_in_the_end(self) -> None:
        net, after = self.moved(24.0)
        net.heard(60, after)
        assert (net.given, net.answer.reason) == ("birch", Reason.MEASURED)
        assert len(net.switched) <= 3

    def test_the_old_vantage_need_not_fall_silent_where_it_is_known_that_its_replies_land_elsewhere(self) -> None:
        net, after = self.moved(105.0)
        net.health.lands_elsewhere("fra1", "birch", NETWORK, 4)
        net.heard(24, {"fra1": {name: USUAL[name] for name in ("alder", "cedar")}, "iad1": after["iad1"]})
        assert (net.given, net.answer.reason) == ("alder", Reason.MEASURED)
        assert net.switched[-1] < 1121.0 + 14.0

    def test_a_new_vantage_is_asked_for_more_until_it_has_heard_enough(self) -> None:
        net, after = self.moved(105.0)
        net.heard(24, {**after, "iad1": {"birch": None}})
        net.take([RttSample(net.now, "iad1", "birch", NETWORK, 4, 105.0)])
        wanted = [(want.vantage, want.provider) for want in net.health.wants(net.now + 0.1)]
        assert ("iad1", "birch") in wanted
        net.take([RttSample(net.now + 0.2 * k, "iad1", "birch", NETWORK, 4, 105.0) for k in range(1, 3)])
        assert net.slower() == pytest.approx(105.0, abs=1.0)

    def test_one_reply_at_another_vantage_is_not_enough(self) -> None:
        net, after = self.moved(105.0)
        net.heard(24, {**after, "iad1": {"birch": None}})
        net.take([RttSample(net.now, "iad1", "birch", NETWORK, 4, 105.0)])
        assert net.given == "alder"
        assert net.health.down(rows_of([NETWORK]), ["birch"], 4).all()


def test_what_only_a_level_knows_does_not_begin_anew() -> None:
    """An agent that names an ASN alone: others' samples are in that row too."""
    level, health, found = NetworkKey(64500), Health(), []
    for k in range(20):
        samples = [
            RttSample(1000.0 + 10 * k, "fra1", p, level, 4, 20.0 if k < 12 or p == "alder" else 100.0) for p in NAMES[:2]
        ]
        found += health.observe(samples)
    assert any(len(batch) for batch in found)
    assert not any(batch.anew for batch in found if len(batch))


def test_a_store_that_is_told_twice_of_the_same_beginning_counts_it_once() -> None:
    store, seeds = RttStore(), dataclasses.replace(batch_of([RttSample(1004.0, "fra1", "birch", NETWORK, 4, 50.0)]), anew=True)
    store.observe_columns(seeds)
    store.observe_columns(seeds)
    store.close_round(1010.0)
    assert store.cells().weights.max() <= 2.0
