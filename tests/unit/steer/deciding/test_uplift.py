"""Uplift: which samples count, what the intervals promise, and that a lucky choice gains nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest

from edgedns.errors import SourceError
from edgedns.model import Family, NetworkKey, Reason, RttSample, Wan
from edgedns.steer.deciding.decisions import Column, ColumnDecisions, Decisions, Ranking
from edgedns.steer.deciding.holdout import held_out
from edgedns.steer.deciding.uplift import Gains, Uplift, interval, is_worse
from edgedns.steer.table.batch import batch_of
from edgedns.steer.table.rows import Keys, key_of, pack, rows_of

ARMS = ("alder", "birch", "cedar")
COLUMN = Column(Wan(ARMS, ARMS), 4)
NOMINAL = Ranking(ARMS, Reason.NOMINAL)
CHOSEN = Ranking(("cedar", "birch", "alder"), Reason.MEASURED)
NETWORKS = [NetworkKey(64500 + i, "DE", 4, 256 + i) for i in range(200)]


def deciding(rankings: dict[NetworkKey, Ranking], column: Column = COLUMN) -> Decisions:
    keys: Keys = pack(rows_of(rankings))
    order = np.argsort(keys)
    made = tuple(rankings[one] for one in rankings)
    numbers = order.astype(np.int32)
    decided = ColumnDecisions(column, NOMINAL, NOMINAL, keys[order], numbers, made, np.zeros(len(keys)), ARMS)
    return Decisions({column: decided})


def samples(
    network: NetworkKey, rtts: Mapping[str, Sequence[float | None]], at: float = 1000.0, family: Family = 4
) -> list[RttSample]:
    return [RttSample(at, "fra1", name, network, family, rtt) for name, found in rtts.items() for rtt in found]


def counted(decisions: Decisions, found: list[RttSample], column: Column = COLUMN) -> Gains:
    uplift = Uplift()
    uplift.observe(batch_of(found), decisions)
    uplift.close_round(decisions.columns, 1010.0)
    return uplift.gains(column)


EVEN: dict[str, list[float | None]] = {"alder": [50.0] * 8, "birch": [5.0] * 8, "cedar": [30.0] * 8}


class TestWhoCounts:
    def test_what_serves_against_what_nominal_would_be(self) -> None:
        gains = counted(deciding({NETWORKS[0]: CHOSEN}), samples(NETWORKS[0], EVEN))
        assert [key_of(row) for row in gains.rows] == NETWORKS[:1]
        assert gains.ms[0] == pytest.approx(20.0, rel=0.1)
        assert gains.samples.tolist() == [[8.0, 8.0]]

    def test_a_holdout_changes_nothing_of_it(self) -> None:
        decisions = deciding({NETWORKS[0]: CHOSEN})
        held = Decisions({COLUMN: held_out(decisions.columns[COLUMN], 0.1)})
        assert held.columns[COLUMN].rankings[0].shares
        assert counted(held, samples(NETWORKS[0], EVEN)).ms == counted(decisions, samples(NETWORKS[0], EVEN)).ms

    @pytest.mark.parametrize(
        "ranking",
        [
            Ranking(("alder", "cedar"), Reason.MEASURED),
            Ranking(("cedar", "birch"), Reason.FAILED_OVER),
            Ranking(("cedar", "alder"), Reason.SPILLED),
            Ranking((), Reason.ALL_DOWN, down="nodata"),
        ],
    )
    def test_where_measurement_chose_no_other_nothing_counts(self, ranking: Ranking) -> None:
        assert len(counted(deciding({NETWORKS[0]: ranking}), samples(NETWORKS[0], EVEN)).ms) == 0

    def test_nominal_is_the_first_that_is_up(self) -> None:
        gains = counted(deciding({NETWORKS[0]: Ranking(("cedar", "birch"), Reason.HELD)}), samples(NETWORKS[0], EVEN))
        assert gains.ms[0] == pytest.approx(-25.0, rel=0.1)
        assert is_worse(gains).tolist() == [True]

    def test_networks_below_a_level_count_for_themselves(self) -> None:
        gains = counted(deciding({NetworkKey(-1, "DE"): CHOSEN}), samples(NETWORKS[3], EVEN) + samples(NETWORKS[5], EVEN))
        assert [key_of(row) for row in gains.rows] == [NETWORKS[3], NETWORKS[5]]

    def test_losses_other_families_and_few_samples_do_not(self) -> None:
        decisions = deciding({NETWORKS[0]: CHOSEN})
        assert len(counted(decisions, samples(NETWORKS[0], EVEN, family=6)).ms) == 0
        lost = samples(NETWORKS[0], {**EVEN, "cedar": [30.0] * 4 + [None] * 50})
        assert len(counted(decisions, lost).ms) == 0
        assert len(counted(decisions, samples(NETWORKS[0], {**EVEN, "cedar": [30.0] * 5})).ms) == 1


class TestIntervals:
    def simulated(self, rng: np.random.Generator, gain: float, networks: int, each: int = 12) -> Gains:
        found = []
        for network in NETWORKS[:networks]:
            base = rng.uniform(20.0, 80.0)
            draw = {"alder": base + gain, "cedar": base}
            found += samples(network, {name: list(mean * rng.lognormal(0, 0.15, each)) for name, mean in draw.items()})
        return counted(deciding(dict.fromkeys(NETWORKS[:networks], CHOSEN)), found)

    def test_they_hold_the_truth_nine_times_in_ten(self) -> None:
        """Of each network and over all of them; 0.15 of lognormal noise makes the mean 1.0113 times the middle."""
        rng, truth = np.random.default_rng(4), 10.0 * float(np.exp(0.15**2 / 2))
        inside = []
        for _ in range(6):
            gains = self.simulated(rng, 10.0, 100)
            inside.append(np.abs(gains.ms - truth) < 1.645 * gains.error)
        assert 0.86 < np.concatenate(inside).mean() < 0.95
        over_all = 0
        for _ in range(60):
            gains = self.simulated(rng, 10.0, 8)
            found = interval(gains, np.ones(8), 8.0)
            over_all += found.low < truth < found.high
        assert over_all >= 48

    def test_what_is_not_estimated_counts_as_no_gain(self) -> None:
        gains = self.simulated(np.random.default_rng(5), 10.0, 50)
        moved, overall = interval(gains, np.ones(50), 50.0), interval(gains, np.ones(50), 200.0)
        assert overall.ms == pytest.approx(moved.ms / 4)
        assert overall.high - overall.low == pytest.approx((moved.high - moved.low) / 4)

    def test_queries_are_weight(self) -> None:
        gains = Gains(rows_of(NETWORKS[:2]), np.array([10.0, -2.0]), np.array([1.0, 1.0]), np.full((2, 2), 9.0))
        assert interval(gains, np.array([900.0, 100.0]), 1000.0).ms == pytest.approx(8.8)
        assert interval(gains, np.zeros(2), 0.0).ms == 0.0

    def test_a_lucky_choice_gains_nothing(self) -> None:
        """Two equal providers; each round the one that looked better serves. By the samples that chose it, it would gain."""
        rng, uplift, in_sample = np.random.default_rng(6), Uplift(), []
        rankings = {"alder": Ranking(("alder", "cedar"), Reason.MEASURED), "cedar": CHOSEN}
        served = dict.fromkeys(NETWORKS[:60], "cedar")
        for number in range(40):
            found = []
            at = 1000.0 + 10.0 * number
            decisions = deciding({network: rankings[name] for network, name in served.items()})
            for network in served:
                draw = {name: float(40.0 * rng.lognormal(0, 0.3)) for name in ("alder", "cedar")}
                found += samples(network, {name: [rtt] for name, rtt in draw.items()}, at)
                served[network] = min(draw, key=draw.__getitem__)
                in_sample.append(draw["alder"] - min(draw.values()))
            uplift.observe(batch_of(found), decisions)
            uplift.close_round(decisions.columns, at + 10.0)
        gains = uplift.gains(COLUMN)
        found_gain = interval(gains, np.ones(len(gains.ms)), float(len(gains.ms)))
        assert np.mean(in_sample) > 5.0
        assert found_gain.low < 0.0 < found_gain.high
        assert abs(found_gain.ms) < 1.5


class TestKeeping:
    def test_a_restart_goes_on(self) -> None:
        uplift, decisions = Uplift(), deciding({NETWORKS[0]: CHOSEN})
        uplift.observe(batch_of(samples(NETWORKS[0], EVEN)), decisions)
        uplift.close_round(decisions.columns, 1010.0)
        again = Uplift.from_sections(uplift.to_sections())
        for one in (uplift, again):
            one.observe(batch_of(samples(NETWORKS[0], EVEN, 1011.0)), decisions)
            one.close_round(decisions.columns, 1020.0)
        assert np.array_equal(again.gains(COLUMN).ms, uplift.gains(COLUMN).ms)
        assert again.gains(COLUMN).samples.sum() == pytest.approx(32, rel=0.01)

    def test_broken_state_is_said(self) -> None:
        sections = Uplift().to_sections()
        sections["uplift"] = np.frombuffer(b'[10.0, ["x"]]', np.uint8)
        with pytest.raises(SourceError):
            Uplift.from_sections(sections)
        with pytest.raises(SourceError):
            Uplift.from_sections({})

    def test_rules_that_are_gone_are_forgotten(self) -> None:
        uplift, decisions = Uplift(), deciding({NETWORKS[0]: CHOSEN})
        uplift.observe(batch_of(samples(NETWORKS[0], EVEN)), decisions)
        other = replace(COLUMN, family=6)
        uplift.close_round([other], 1010.0)
        assert len(uplift.gains(COLUMN).ms) == 0
