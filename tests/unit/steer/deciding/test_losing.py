"""Steering switched off where it loses: who is found to, how long it lasts, and what is answered meanwhile."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from edgedns.model import NetworkKey, Provider, Reason, RttSample, Wan
from edgedns.steer.deciding.decisions import Column, Decisions
from edgedns.steer.deciding.losing import is_off, losing
from edgedns.steer.deciding.policy import decide
from edgedns.steer.deciding.uplift import Gains, Uplift
from edgedns.steer.failure.health import Health
from edgedns.steer.table.batch import batch_of
from edgedns.steer.table.rows import KEY, pack, rows_of
from edgedns.steer.table.rtt import RttStore
from edgedns.steer.table.wan import estimate

NETWORKS = [NetworkKey(64500 + i, "DE", 4, 256 + i) for i in range(6)]
KEYS = pack(rows_of(NETWORKS))
NOBODY = np.zeros(0, dtype=KEY)


def gains(ms: list[float], error: float = 1.0, samples: float = 50.0) -> Gains:
    return Gains(rows_of(NETWORKS[: len(ms)]), np.array(ms), np.full(len(ms), error), np.full((len(ms), 2), samples))


class TestWhoLoses:
    def test_only_beyond_doubt(self) -> None:
        assert losing(gains([5.0, -1.0, -3.0]), NOBODY).tolist() == KEYS[2:3].tolist()
        assert len(losing(gains([-3.0], error=2.0), NOBODY)) == 0
        assert len(losing(gains([-3.0], samples=19.0), NOBODY)) == 0

    def test_it_lasts_until_the_gain_is_not_below_zero(self) -> None:
        assert losing(gains([-0.1, 0.1]), KEYS[:2]).tolist() == KEYS[:1].tolist()

    def test_without_samples_left_it_ends(self) -> None:
        assert len(losing(gains([]), KEYS[:2])) == 0


ARMS = ("alder", "birch", "cedar")
PROVIDERS = {name: Provider(name, (bytes(4),), (bytes(16),)) for name in ARMS}
COLUMN = Column(Wan(ARMS, ARMS), 4)


class Engine:
    """Rounds of samples, decided on with what the uplift tells; may be taken up again between rounds."""

    def __init__(self) -> None:
        self.store, self.uplift, self.now = RttStore(), Uplift(), 1000.0
        self.decisions = Decisions({})

    def round(self, birch: tuple[float, ...]) -> list[tuple[str, Reason]]:
        """Five samples of each arm in every network: alder 50 ms, cedar 80, birch so; in the last network birch has 30."""
        found = [
            RttSample(self.now + i, "fra1", name, network, 4, {"alder": 50.0, "cedar": 80.0}.get(name, rtt))
            for network in NETWORKS for i, rtt in enumerate(birch if network != NETWORKS[-1] else (30.0,) * 5) for name in ARMS
        ]  # fmt: skip
        batch = batch_of(found)
        self.uplift.observe(batch, self.decisions)
        self.store.observe_columns(batch)
        self.now += 10.0
        self.store.close_round(self.now)
        self.uplift.close_round([COLUMN], self.now)
        return self.decided()

    def decided(self) -> list[tuple[str, Reason]]:
        off = self.decisions.columns[COLUMN].off if self.decisions.columns else NOBODY
        found = {COLUMN: losing(self.uplift.gains(COLUMN), off)}
        table = estimate(self.store)
        self.decisions = decide([COLUMN], PROVIDERS, {}, table, Health(), self.decisions, self.now, 20.0, losing=found)
        rankings = [self.decisions.columns[COLUMN].ranking_for(network) for network in NETWORKS]
        return [(ranking.targets[0], ranking.reason) for ranking in rankings]

    def restarted(self) -> Engine:
        again = Engine()
        again.store = RttStore.from_sections(self.store.to_sections())
        again.uplift = Uplift.from_sections(self.uplift.to_sections())
        again.decisions, again.now = Decisions.from_sections(self.decisions.to_sections()), self.now
        return again


OFTEN_FAST = (10.0, 10.0, 300.0, 10.0, 300.0)  # wins against 50 ms, and is 76 ms slower on average
FAST = (10.0,) * 5
OFF, ON = ("alder", Reason.GUARDED), ("birch", Reason.MEASURED)


def run(restart: bool) -> list[list[tuple[str, Reason]]]:
    engine, told = Engine(), []
    for number in range(60):
        told.append(engine.round(OFTEN_FAST if number < 20 else FAST))
        engine = engine.restarted() if restart else engine
    return told


def test_who_wins_often_and_loses_on_average_is_given_up_until_that_ends() -> None:
    told = run(restart=False)
    assert told[1] == [ON] * 6
    assert told[19] == [OFF] * 5 + [ON], "the other network gains, and stays"
    assert told[-1] == [ON] * 6
    firsts = [each[0] for each in told]
    assert sum(a != b for a, b in pairwise(firsts)) == 2, "off once, back once"


def test_a_restart_changes_nothing_of_it() -> None:
    assert run(restart=True) == run(restart=False)


def test_it_is_part_of_the_decisions_and_stands_without_news() -> None:
    engine = Engine()
    for _ in range(20):
        engine.round(OFTEN_FAST)
    before = Decisions.from_sections(engine.decisions.to_sections())
    column = before.columns[COLUMN]
    assert [is_off(column, network) for network in NETWORKS] == [True] * 5 + [False]
    again = decide([COLUMN], PROVIDERS, {}, estimate(engine.store), Health(), before, engine.now + 5, 20.0)
    assert again.columns[COLUMN].same_answers(column)
    assert np.array_equal(again.columns[COLUMN].since, column.since)
