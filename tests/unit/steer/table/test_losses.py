"""What losses cost: believed as far as arms differ, and no more where dice alone would have given them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from edgedns.model import NetworkKey, RttSample
from edgedns.steer.table.batch import batch_of
from edgedns.steer.table.losses import LEAST, MOST
from edgedns.steer.table.rtt import RttStore
from edgedns.steer.table.wan import TERMS, WanTable, estimate, table_of

NAMES = ("alder", "birch", "cedar", "dogwood")
NETWORKS = [NetworkKey(64500 + i) for i in range(200)]
FLAT = 3  # the level of networks that are told by their ASN alone


RTTS = (20.0, 30.0, 40.0, 50.0)
ROUNDS = 20


def store_of(share: Callable[[int, int], float], times: int = 1, seed: int = 1) -> RttStore:
    """So many samples of each arm in each of 20 rounds; share(network, arm) of them are lost, by dice."""
    rng, store = np.random.default_rng(seed), RttStore()
    lost = rng.random((len(NETWORKS), len(NAMES), ROUNDS * times))
    store.observe(
        RttSample(1000.0 + 10 * t / times, "fra1", name, network, 4, None if lost[i, p, t] < share(i, p) else RTTS[p])
        for i, network in enumerate(NETWORKS) for p, name in enumerate(NAMES) for t in range(ROUNDS * times)
    )  # fmt: skip
    store.close_round(1000.0 + 10 * ROUNDS)
    return store


def row(table: WanTable, network: NetworkKey) -> int:
    return table.find(network, 4)


def test_without_losses_they_cost_nothing() -> None:
    table = estimate(store_of(lambda i, p: 0.0))
    assert not table.loss.any()
    assert table.typical[row(table, NETWORKS[0]), 0] == pytest.approx([20, 30, 40, 50], rel=0.05)


def test_the_fastest_that_loses_a_fifth_is_no_longer_best() -> None:
    """20 ms nine times of ten wins nine; its users wait 220 ms on average, those of a clean one 30."""
    table = estimate(store_of(lambda i, p: 0.2 if i < 10 and p == 0 else 0.0, times=3))
    clean = [row(table, network) for network in NETWORKS[10:]]
    assert (table.mean[clean, 0].argmax(axis=1) == 0).all()
    losing = [i for i in (row(table, network) for network in NETWORKS[:10]) if table.loss[i, 0, 0] > 0.05]
    assert len(losing) > 6
    assert (table.mean[losing, 0].argmax(axis=1) == 1).all()
    assert (table.typical[losing, 0].argmin(axis=1) == 1).all()


def test_a_share_costs_a_second_each_beyond_the_rows_best() -> None:
    table = estimate(store_of(lambda i, p: 0.3 if p == 3 else 0.0, times=6))
    at = row(table, NETWORKS[0])
    assert table.typical[at, 0, 3] == pytest.approx(50 + 1000 * table.loss[at, 0, 3], rel=0.05)
    assert table.loss[at, 0, 3] == pytest.approx(0.3, abs=0.05)
    dear = estimate(store_of(lambda i, p: 0.3 if p == 3 else 0.0, times=6), replace(TERMS, wait=3000.0))
    assert dear.typical[at, 0, 3] > 2.5 * table.typical[at, 0, 3]


@pytest.mark.parametrize("share", [0.01, 0.03])
def test_where_dice_lose_no_single_loss_says_anything(share: float) -> None:
    table = estimate(store_of(lambda i, p: share))
    own = [row(table, network) for network in NETWORKS]
    assert table.loss_trust[FLAT] > 100
    apart = np.ptp(table.loss[own, 0], axis=1)
    assert np.median(apart) < 0.005
    assert apart.max() < 0.03
    assert (table.mean[own, 0].argmax(axis=1) == 0).mean() > 0.95


def test_where_arms_differ_each_is_believed() -> None:
    rng = np.random.default_rng(9)
    truth = np.where(rng.random((200, 4)) < 0.2, 0.3, 0.0)
    table = estimate(store_of(lambda i, p: float(truth[i, p])))
    own = [row(table, network) for network in NETWORKS]
    assert LEAST <= table.loss_trust[FLAT] < 8
    assert np.sqrt(np.mean((table.loss[own, 0] - truth) ** 2)) < 0.1


@pytest.mark.parametrize("networks", [3, 200])
def test_one_lossy_arm_among_clean_ones_stands_out_and_one_loss_does_not(networks: int) -> None:
    some = NETWORKS[:networks]

    def table(losses: int) -> WanTable:
        lost = [(0, 0, ROUNDS - 2 - 3 * number) for number in range(losses)]
        store = RttStore()
        store.observe(
            RttSample(1000.0 + 10 * t, "fra1", name, network, 4, None if (i, p, t) in lost else RTTS[p])
            for i, network in enumerate(some) for p, name in enumerate(NAMES) for t in range(ROUNDS)
        )  # fmt: skip
        store.close_round(1000.0 + 10 * ROUNDS)
        return estimate(store)

    once, often = table(1), table(4)
    at = row(once, some[0])
    assert once.mean[at, 0].argmax() == 0
    assert once.loss[at, 0, 0] < 0.03
    assert often.typical[at, 0].argmin() == 1
    assert often.mean[at, 0].argmax() == 1
    assert (often.mean[[row(often, network) for network in some[1:]], 0].argmax(axis=1) == 0).all()


def test_a_provider_that_loses_everywhere_does_so_where_nobody_measured() -> None:
    table = estimate(store_of(lambda i, p: 0.1 if p == 0 else 0.0))
    anywhere = row(table, NetworkKey(64999))
    assert table.typical[anywhere, 0, 0] == pytest.approx(20 + 100, rel=0.25)


def test_a_target_that_loses_through_all_is_no_reason_to_leave_anybody() -> None:
    table = estimate(store_of(lambda i, p: 0.3 if i < 20 else 0.0))
    bad = [row(table, network) for network in NETWORKS[:20]]
    assert table.loss[bad, 0].mean() > 0.1
    assert (table.mean[bad, 0].argmax(axis=1) == 0).mean() > 0.8


def test_an_arm_that_never_replied_is_expected_to_be_as_fast_as_elsewhere() -> None:
    table = estimate(store_of(lambda i, p: 1.0 if (i, p) == (7, 0) else 0.0))
    at = row(table, NETWORKS[7])
    assert table.typical[at, 0, 0] == pytest.approx(20 + 1000 * table.loss[at, 0, 0], rel=0.05)
    assert table.loss[at, 0, 0] > 0.5


def test_nobody_replied_anywhere() -> None:
    table = estimate(store_of(lambda i, p: 1.0 if p == 0 else 0.0))
    assert table.typical[row(table, NETWORKS[0]), 0, 0] >= 10_000


def test_losses_whose_end_is_open_count_at_the_network_and_each_level_once() -> None:
    store = store_of(lambda i, p: 0.0)
    network = NETWORKS[3]
    losing = batch_of([RttSample(1199.0, "fra1", "birch", network, 4, None)] * 3)
    plain, table = estimate(store), estimate(store, losing=losing)
    at = row(table, network)
    assert plain.loss[at, 0, 1] == 0 < table.loss[at, 0, 1]
    assert table.samples.tolist() == plain.samples.tolist(), "they are in no histogram"
    everything = row(table, NetworkKey(64999))
    assert table.loss[everything, 0, 1] < 3 / (7 * len(NETWORKS))


def test_too_few_rows_take_anothers_word() -> None:
    store = RttStore()
    store.observe([RttSample(1001.0, "v", name, NETWORKS[0], 4, 20.0 if name == "alder" else None) for name in NAMES[:2]] * 8)
    store.close_round(1010.0)
    table = estimate(store)
    at = row(table, NETWORKS[0])
    stern = table_of(store.cells(), like=replace(table, loss_trust=(MOST,) * 5))
    assert stern.loss[at, 0, 1] < table.loss[at, 0, 1]


def test_a_loss_of_a_provider_that_is_no_arm_counts_for_nobody() -> None:
    store = store_of(lambda i, p: 0.0)
    losing = batch_of([RttSample(1199.0, "fra1", "elm", NETWORKS[0], 4, None)])
    assert not estimate(store, losing=losing).loss.any()


def test_losses_over_the_family_that_is_not_a_networks_own_count_above_it() -> None:
    """As in the histograms (`rtt.at_home`)."""
    store, network = RttStore(), NetworkKey(64500, "DE", 4, 1)
    store.observe(RttSample(1001.0, "fra1", name, network, 4, 20.0) for name in NAMES)
    store.close_round(1010.0)
    losing = batch_of([RttSample(1009.0, "fra1", "birch", network, 6, None)] * 3)
    table = estimate(store, losing=losing)
    own = int(np.flatnonzero(table.rows["block"] == 1)[0])
    assert np.ptp(table.loss[own], axis=1).max() < 0.001, "there it speaks of no arm"
    assert np.isfinite(table.typical).all()


def test_a_table_without_losses_tells_nothing_of_them_to_another() -> None:
    clean, lossy = estimate(store_of(lambda i, p: 0.0)), store_of(lambda i, p: 0.1 if p == 0 else 0.0)
    table = table_of(lossy.cells(), only=[*NAMES, "elm"], like=clean)
    assert np.isfinite(table.loss).all()
    assert table.loss[row(table, NETWORKS[0]), 0, 0] > 0.02


def test_an_arm_with_losses_alone_is_as_slow_for_the_family_that_borrows_it() -> None:
    store, network = RttStore(), NetworkKey(64500, "DE", 4, 1)
    store.observe([RttSample(1001.0, "fra1", "alder", network, 4, 20.0), RttSample(1001.0, "fra1", "birch", network, 4, None)])
    store.close_round(1010.0)
    table = estimate(store)
    assert np.isfinite(table.typical[:, :, :2]).all()
