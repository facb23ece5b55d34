"""False failovers over days of loss that means nothing: independent, and in bursts (Gilbert-Elliott).

100 networks behind 4 providers, each path probed every 10 s from one vantage; what the detector wants is probed too. The
long form runs 30 days, the short one 2 hours; figures of the long one stand in docs/measuring.md.
"""

import json
import os

import numpy as np
import pytest

from edgedns.model import NetworkKey
from edgedns.steer.batch import Batch
from edgedns.steer.health import Health
from edgedns.steer.rows import rows_of

NETWORKS, PROVIDERS = 100, ("alder", "birch", "cedar", "dogwood")
KEYS = [NetworkKey(64512 + i, ("DE", "FR", "JP", "US")[i % 4], 4, 0xC000 + i) for i in range(NETWORKS)]
NUMBER = {key: i for i, key in enumerate(KEYS)}
ROWS = rows_of(KEYS)
PERIOD = 10.0


class Loss:
    """Each path is in a good or a bad state, for times of these means (seconds); `bad_for` 0 is independent loss."""

    def __init__(self, good, bad=0.0, good_for=0.0, bad_for=0.0, seed=1):
        self.rng = np.random.default_rng(seed)
        self.rates, self.times = (good, bad), (good_for, bad_for)
        self.bad = np.zeros(NETWORKS * len(PROVIDERS), dtype=bool)

    def tick(self):
        good_for, bad_for = self.times
        if bad_for:
            flips = self.rng.random(self.bad.size) < 1 - np.exp(-PERIOD / np.where(self.bad, bad_for, good_for))
            self.bad ^= flips

    def lost(self, paths):
        return self.rng.random(len(paths)) < np.where(self.bad[paths], self.rates[1], self.rates[0])


def batch(paths, at, loss):
    row, provider = np.divmod(paths, len(PROVIDERS))
    rtt = np.where(loss.lost(paths), np.nan, 20.0)
    zeros = np.zeros(len(paths), dtype=np.int64)
    return Batch(ROWS, PROVIDERS, ("fra1",), row, provider, zeros, zeros + 4, rtt, at)


def false_failovers(loss, days):
    """(provider failovers, path failovers) counted as they begin."""
    health, order = Health(), np.random.default_rng(9).permutation(loss.bad.size)
    spread = np.arange(len(order)) * PERIOD / len(order)
    whole = paths = changes = 0
    was_whole, was_paths = np.zeros(len(PROVIDERS), dtype=bool), np.zeros((NETWORKS, len(PROVIDERS)), dtype=bool)
    for period in range(round(days * 86400 / PERIOD)):
        now = 1e6 + period * PERIOD
        loss.tick()
        health.observe(batch(order, now + spread, loss))
        wants = health.wants(now + PERIOD)
        if wants:
            asked = [(NUMBER[want.network] * len(PROVIDERS) + PROVIDERS.index(want.provider), want.probes) for want in wants]
            again = np.concatenate([np.full(probes, path) for path, probes in asked])
            at = now + PERIOD + np.concatenate([0.2 * np.arange(probes) for _, probes in asked])
            health.observe(batch(again, at, loss))
        if health.changes != changes:
            changes = health.changes
            is_whole, is_paths = np.array([health.provider_down(p, 4) for p in PROVIDERS]), health.down(ROWS, PROVIDERS, 4)
            whole, paths = whole + int((is_whole & ~was_whole).sum()), paths + int((is_paths & ~was_paths).sum())
            was_whole, was_paths = is_whole, is_paths
    return whole, paths


# name: (the loss, most provider failovers in 30 days)
CASES = {
    "independent, 1 %": ({"good": 0.01}, 0),
    "independent, 3 %": ({"good": 0.03}, 9),
    "bursts of 20 s, 1 % on average": ({"good": 0.001, "bad": 0.5, "good_for": 1000.0, "bad_for": 20.0}, 0),
    "bursts of 60 s, 3 % on average": ({"good": 0.001, "bad": 0.5, "good_for": 1000.0, "bad_for": 60.0}, 9),
}


@pytest.mark.parametrize("name", list(CASES)[1:3])
def test_two_hours(name):
    assert false_failovers(Loss(**CASES[name][0]), 1 / 12)[0] == 0


def test_it_would_be_seen():
    """The same counting, with one provider losing three of four."""
    loss = Loss(good=0.01)
    loss.bad[::4], loss.rates = True, (0.01, 0.95)
    assert false_failovers(loss, 0.01)[0] >= 1


@pytest.mark.long
@pytest.mark.timeout(5400)
@pytest.mark.parametrize("name", CASES)
def test_thirty_days(name, capsys):
    loss, most = CASES[name]
    days = float(os.environ.get("EDGEDNS_TEST_DAYS", "30"))
    whole, paths = false_failovers(Loss(**loss), days)
    with capsys.disabled():
        print("\n" + json.dumps({"loss": name, "days": days, "provider failovers": whole, "path failovers": paths}))
    assert whole <= most
