"""Pooling: levels with few samples lean on the level above as far as such rows are alike, which the table itself tells."""

from __future__ import annotations

import numpy as np
import pytest

from edgedns.model import NetworkKey, RttSample
from edgedns.steer.table.rtt import RttStore
from edgedns.steer.table.wan import WanTable, estimate, table_of

NAMES = ("alder", "birch", "cedar", "dogwood")
NETWORKS = [NetworkKey(64500 + i, "DE") for i in range(200)]


def table_of_world(scatter: float, apart: float, times: int = 2, seed: int = 3) -> tuple[WanTable, np.ndarray]:
    """(table, truth[row, arm] in ln(ms)). apart: how ASNs differ from one profile; scatter: samples of one arm."""
    rng = np.random.default_rng(seed)
    profile, slow = np.log([20.0, 25.0, 35.0, 50.0]), rng.uniform(0, 1.5, (len(NETWORKS), 1))
    truth = profile + slow + rng.normal(0, apart, (len(NETWORKS), 4))
    store = RttStore()
    store.observe(
        RttSample(1000.0 + t, "fra1", name, network, 4, float(np.exp(truth[i, p] + rng.normal(0, scatter))))
        for i, network in enumerate(NETWORKS) for p, name in enumerate(NAMES) for t in range(times)
    )  # fmt: skip
    store.close_round(1010.0)
    return estimate(store), truth


def error(table: WanTable, truth: np.ndarray) -> float:
    at = [table.find(network, 4) for network in NETWORKS]
    return float(np.sqrt(np.mean((np.log(table.typical[at, 0]) - truth) ** 2)))


@pytest.mark.parametrize("times", [2, 6])
def test_where_asns_are_alike_and_samples_scatter_the_level_above_helps(times: int) -> None:
    table, truth = table_of_world(scatter=0.3, apart=0.1, times=times)
    alone = 0.3 / np.sqrt(times)
    assert table.trust[1] > 2.0
    assert error(table, truth) < 0.85 * alone


def test_where_asns_differ_each_speaks_for_itself() -> None:
    table, truth = table_of_world(scatter=0.03, apart=0.5)
    assert table.trust[1] < 0.05
    assert error(table, truth) < 0.04


def test_so_much_is_borrowed_as_the_variances_say() -> None:
    """Equal variances: the expectation is worth one sample."""
    trusts = [table_of_world(scatter=0.3, apart=0.3, times=3, seed=seed)[0].trust[1] for seed in range(6)]
    assert np.mean(trusts) == pytest.approx(1.0, rel=0.35)


def test_a_few_rows_tell_nothing_of_variances_but_may_be_told() -> None:
    store = RttStore()
    store.observe([RttSample(1001.0, "v", name, NETWORKS[0], 4, 20.0 + 9 * i) for i, name in enumerate(NAMES)] * 2)
    store.close_round(1010.0)
    table = estimate(store)
    assert table.trust == (0.0,) * 5
    assert table_of(store.cells(), trust=(1.0,) * 5).trust == (0.0, *(1.0,) * 4), "networks speak for themselves"


def test_an_asn_leans_on_its_country_and_not_on_the_world() -> None:
    """Alder is best in Germany, birch everywhere else. AS64999 was measured once, in Germany, where birch had a good moment."""
    rng, store = np.random.default_rng(5), RttStore()
    best = {"DE": (20.0, 40.0), "FR": (40.0, 20.0), "US": (40.0, 20.0)}
    known = [(NetworkKey(64500 + i, country), best[country]) for i in range(40) for country in best]
    store.observe(
        RttSample(1001.0, "v", name, network, 4, rtts[p] * float(np.exp(rng.normal(0, 0.4))))
        for network, rtts in known for p, name in enumerate(NAMES[:2]) for _ in range(3)
    )  # fmt: skip
    new = NetworkKey(64999, "DE")
    store.observe([RttSample(1001.0, "v", "alder", new, 4, 31.0), RttSample(1001.0, "v", "birch", new, 4, 28.0)])
    store.close_round(1010.0)
    table = estimate(store)
    typical = table.typical[table.find(new, 4), 0]
    assert typical[0] < typical[1]
