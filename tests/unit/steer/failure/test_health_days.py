"""False failovers over days of loss that means nothing: independent, and in bursts (Gilbert-Elliott).

100 networks behind 4 providers, each path probed every 10 s from one vantage; what the detector wants is probed too, at the
end of those 10 s. 24 such worlds, which share nothing, go through one detector side by side, so that 30 days are 30 hours.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest

from edgedns.model import NetworkKey
from edgedns.steer.failure.health import Health
from edgedns.steer.table.batch import Batch
from edgedns.steer.table.rows import Bools, Floats, Ints, rows_of

NETWORKS, ARMS, PERIOD = 100, 4, 10.0
WORLDS = 24
PATHS = NETWORKS * ARMS


class Loss:
    """Each path is in a good or a bad state, for times of these means (seconds); `bad_for` 0 is independent loss."""

    def __init__(
        self, good: float, bad: float = 0.0, good_for: float = 0.0, bad_for: float = 0.0, seed: int = 1, worlds: int = WORLDS
    ) -> None:
        self.rng = np.random.default_rng(seed)
        self.rates, self.times = (good, bad), (good_for, bad_for)
        self.bad = np.zeros(worlds * PATHS, dtype=bool)

    def tick(self) -> None:
        good_for, bad_for = self.times
        if bad_for:
            flips = self.rng.random(self.bad.size) < 1 - np.exp(-PERIOD / np.where(self.bad, bad_for, good_for))
            self.bad ^= flips

    def lost(self, paths: Ints) -> Bools:
        return self.rng.random(len(paths)) < np.where(self.bad[paths], self.rates[1], self.rates[0])


class Worlds:
    """Paths are numbered by world, network and provider; each world has networks, providers and a vantage of its own."""

    def __init__(self, loss: Loss) -> None:
        self.loss, self.health, count = loss, Health(), len(loss.bad) // PATHS
        self.providers = tuple(f"p{w:02}{arm}" for w in range(count) for arm in range(ARMS))
        self.vantages = tuple(f"v{w:02}" for w in range(count))
        keys = [NetworkKey(64512 + i, ("DE", "FR", "JP", "US")[i % 4], 4, 0xC000 + i) for i in range(count * NETWORKS)]
        self.rows, self.row_of = rows_of(keys), {key: i for i, key in enumerate(keys)}
        self.order = np.random.default_rng(9).permutation(len(loss.bad))
        self.spread = np.arange(len(self.order)) * PERIOD / len(self.order)
        self.changes = self.whole = self.paths = 0
        self.was_whole, self.was_paths = np.zeros(len(self.providers), dtype=bool), np.zeros(len(self.order), dtype=bool)

    def observe(self, paths: Ints, at: Floats) -> None:
        row, arm = np.divmod(paths, ARMS)
        world = row // NETWORKS
        rtt = np.where(self.loss.lost(paths), np.nan, 20.0)
        family = np.full(len(paths), 4)
        self.health.observe(Batch(self.rows, self.providers, self.vantages, row, world * ARMS + arm, world, family, rtt, at))

    def wanted(self, now: float) -> tuple[Ints, Floats]:
        """Asked until nothing more is wanted, since a detector asks for a limited number at once."""
        paths, at = list[int](), list[float]()
        while wants := self.health.wants(now):
            for want in wants:
                arm = self.providers.index(want.provider) % ARMS
                paths += [self.row_of[want.network] * ARMS + arm] * want.probes
                at += [now + 0.2 * k for k in range(want.probes)]
        return np.array(paths, dtype=np.int64), np.array(at)

    def period(self, number: int) -> None:
        now = 1e6 + number * PERIOD
        self.loss.tick()
        self.observe(self.order, now + self.spread)
        paths, at = self.wanted(now + PERIOD)
        if len(paths):
            self.observe(paths, at)
        if self.health.changes != self.changes:
            self.changes = self.health.changes
            self.count()

    def count(self) -> None:
        """Failovers count as they begin."""
        is_whole = np.array([self.health.provider_down(name, 4) for name in self.providers])
        is_paths = self.health.to_sections()["path_down"]
        self.whole += int((is_whole & ~self.was_whole).sum())
        self.paths += int((is_paths & ~self.was_paths).sum())
        self.was_whole, self.was_paths = is_whole, is_paths


def false_failovers(loss: Loss, days: float) -> tuple[int, int]:
    """(provider failovers, path failovers) in so many days of one world, or hours of all together."""
    worlds = Worlds(loss)
    for number in range(round(days * 86400 / PERIOD / WORLDS)):
        worlds.period(number)
    return worlds.whole, worlds.paths


# name: (the loss, most provider failovers in 30 days)
CASES: dict[str, tuple[Callable[[], Loss], int]] = {
    "independent, 1 %": (partial(Loss, 0.01), 0),
    "independent, 3 %": (partial(Loss, 0.03), 9),
    "bursts of 20 s, 1 % on average": (partial(Loss, 0.001, bad=0.5, good_for=1000.0, bad_for=20.0), 0),
    "bursts of 60 s, 3 % on average": (partial(Loss, 0.001, bad=0.5, good_for=1000.0, bad_for=60.0), 9),
}


@pytest.mark.parametrize("name", list(CASES)[1:3])
def test_six_hours(name: str) -> None:
    assert false_failovers(CASES[name][0](), 0.25)[0] == 0


def test_it_would_be_seen() -> None:
    """The same counting, with one provider losing three of four."""
    loss = Loss(good=0.01)
    loss.bad[::ARMS], loss.rates = True, (0.01, 0.95)
    assert false_failovers(loss, 0.1)[0] >= WORLDS / 2


@pytest.mark.long
@pytest.mark.timeout(5400)
@pytest.mark.parametrize("name", CASES)
def test_thirty_days(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    loss, most = CASES[name]
    days = float(os.environ.get("EDGEDNS_TEST_DAYS", "30"))
    whole, paths = false_failovers(loss(), days)
    with capsys.disabled():
        print("\n" + json.dumps({"loss": name, "days": days, "provider failovers": whole, "path failovers": paths}))
    assert whole <= most
