"""Histograms: what is counted, how it decays, that order and place of counting don't matter."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from edgedns.errors import SourceError
from edgedns.model import Family, NetworkKey, RttSample
from edgedns.steer.table.batch import Batch, batch_of
from edgedns.steer.table.rows import key_of, pack, unpack
from edgedns.steer.table.rtt import BUCKETS, LOST, RttStore, bucket_of, rtt_at, without

NETWORK = NetworkKey(64500, "DE", 4, 0xC000)


def sample(
    at: float, rtt: float | None, provider: str = "alder", network: NetworkKey = NETWORK, family: Family = 4,
    vantage: str = "fra1",
) -> RttSample:  # fmt: skip
    return RttSample(at, vantage, provider, network, family, rtt)


def counted(store: RttStore) -> dict[tuple[NetworkKey, int, str, int], float]:
    """{(network key, family, provider, bucket): decayed samples}"""
    cells = store.cells()
    found = {}
    for code, weight in zip(cells.codes.tolist(), cells.weights.tolist(), strict=True):
        arm, bucket = divmod(code, 256)
        group, provider = divmod(arm, 256)
        row, family = divmod(group, 2)
        found[key_of(unpack(cells.keys)[row]), 6 if family else 4, cells.providers[provider], bucket] = weight
    return found


def test_buckets_cover_their_range() -> None:
    assert bucket_of(np.array([0.2, 9999.9, 10_000.0, 0.05, np.nan])).tolist() == [0, 127, BUCKETS - 1, 0, LOST]
    middle = rtt_at(np.arange(BUCKETS, dtype=np.float64) + 0.5)
    assert bucket_of(middle).tolist() == list(range(BUCKETS))


def test_a_sample_counts_for_its_network_and_every_level_above() -> None:
    store = RttStore()
    store.observe([sample(1003.0, 20.0)])
    store.close_round(1010.0)
    assert {key for key, *_ in counted(store)} == {
        NETWORK, NetworkKey(64500, "DE"), NetworkKey(64500), NetworkKey(country="DE"), NetworkKey(),
    }  # fmt: skip
    assert set(counted(store).values()) == {1.0}


def test_a_short_key_counts_once_in_each_row() -> None:
    store = RttStore()
    store.observe([sample(1003.0, 20.0, network=NetworkKey(64500)), sample(1003.0, 20.0, network=NetworkKey(64501, "", 4, 7))])
    store.close_round(1010.0)
    by_key = {key: weight for (key, *_), weight in counted(store).items()}
    assert by_key == {NetworkKey(64500): 1.0, NetworkKey(): 2.0, NetworkKey(64501, "", 4, 7): 1.0, NetworkKey(64501): 1.0}


def test_the_other_family_counts_from_asn_and_country_upwards() -> None:
    store = RttStore()
    store.observe([sample(1003.0, 20.0, family=6)])
    store.close_round(1010.0)
    assert {(key, family) for key, family, *_ in counted(store)} == {
        (NetworkKey(64500, "DE"), 6), (NetworkKey(64500), 6), (NetworkKey(country="DE"), 6), (NetworkKey(), 6),
    }  # fmt: skip


def test_what_is_no_sample_is_left_out() -> None:
    store = RttStore()
    store.observe([sample(1003.0, 0.1), sample(1003.0, 10_001.0), sample(1003.0, 20.0, network=NetworkKey(0, "", 4, 1))])
    store.close_round(1010.0)
    assert counted(store) == {}


def test_samples_wait_for_their_round_to_close() -> None:
    store = RttStore()
    store.observe([sample(1003.0, 20.0), sample(1013.0, 20.0)])
    store.close_round(1012.0)
    assert max(counted(store).values()) == 1.0
    store.close_round(1020.0)
    assert max(counted(store).values()) == pytest.approx(1.0 + 2 ** (-1 / 5), rel=1e-3)


def test_half_is_left_after_the_half_life_and_nothing_after_twelve() -> None:
    store = RttStore()
    store.observe([sample(1003.0, 20.0)])
    store.close_round(1060.0)
    assert set(counted(store).values()) == {0.5}
    store.close_round(1010.0 + 12 * 50)
    assert counted(store) == {}
    assert len(store.cells().keys) == 0


def test_a_late_sample_has_the_weight_of_its_own_round() -> None:
    on_time, late = RttStore(), RttStore()
    on_time.observe([sample(1003.0, 20.0)])
    on_time.close_round(1010.0)
    on_time.close_round(1030.0)
    late.close_round(1020.0)
    late.observe([sample(1003.0, 20.0)])
    late.close_round(1030.0)
    assert counted(on_time) == counted(late)


def test_weights_stay_exact_over_years() -> None:
    store = RttStore()
    for year in (1, 40):
        at = year * 3.15e7
        store.observe([sample(at, 20.0)])
        store.close_round(at + 10.0)
        assert set(counted(store).values()) == {1.0}


def test_stored_and_read_again_it_goes_on_as_before() -> None:
    store = RttStore()
    store.observe([sample(1003.0, 20.0), sample(1004.0, None, "birch")])
    store.close_round(1010.0)
    again = RttStore.from_sections(store.to_sections())
    for each in (store, again):
        each.observe([sample(1013.0, 30.0, "cedar")])
        each.close_round(1020.0)
    assert counted(again) == counted(store)
    assert any(bucket == LOST for *_, bucket in counted(again))


@pytest.mark.parametrize("name", ["about", "keys", "codes", "weights", "seen"])
def test_damaged_state_is_refused(name: str) -> None:
    store = RttStore()
    store.observe([sample(1003.0, 20.0)])
    store.close_round(1010.0)
    sections = store.to_sections()
    sections[name] = sections[name][::-1][1:] if name != "codes" else sections[name][::-1].copy()
    with pytest.raises(SourceError):
        RttStore.from_sections(sections)


def test_without_takes_out_exactly_what_one_vantage_saw() -> None:
    every, mine, others = RttStore(), RttStore(), RttStore()
    ours = [sample(1000.0 + i, 20.0 + i, vantage="a") for i in range(9)]
    theirs = [sample(1000.0 + i, 30.0 + i, "birch", vantage="b") for i in range(9)]
    for store, samples in ((every, ours + theirs), (mine, ours), (others, theirs)):
        store.observe(samples)
        store.close_round(1010.0)
    left = without(every.cells(), mine.cells(), np.unique(pack(unpack(every.cells().keys))))
    assert left.weights.tolist() == others.cells().weights.tolist()
    assert {left.providers[code // 256 % 256] for code in left.codes.tolist()} == {"birch"}


def anew(*samples: RttSample) -> Batch:
    return dataclasses.replace(batch_of(samples), anew=True)


def test_an_arm_that_begins_anew_drops_what_came_before_at_every_level() -> None:
    neighbour, store, other = NetworkKey(64500, "DE", 4, 0xC001), RttStore(), RttStore()
    common = [sample(1004.0, 30.0, "birch"), sample(1005.0, 20.0, network=neighbour)]
    later = [sample(1015.0, 100.0), sample(1016.0, 30.0, "birch")]
    for each, own in ((store, [sample(1003.0, 20.0), sample(1004.0, 21.0)]), (other, [])):
        each.observe([*own, *common])
        each.close_round(1010.0)
    store.observe([sample(1012.0, 22.0), *later])
    other.observe([sample(1014.0, 99.0), *later])
    store.observe_columns(anew(sample(1014.0, 99.0)))
    for each in (store, other):
        each.close_round(1020.0)
    assert counted(store) == counted(other)


def test_an_arm_begins_anew_with_the_last_that_it_was_told_to() -> None:
    store = RttStore()
    for at, rtt in ((1003.0, 50.0), (1005.0, 90.0)):
        store.observe([sample(at, rtt)])
        store.observe_columns(anew(sample(at, rtt)))
    store.close_round(1010.0)
    assert {cell: n for cell, n in counted(store).items() if cell[0] == NETWORK} == {
        (NETWORK, 4, "alder", bucket_of(np.array([90.0]))[0]): 1.0
    }


def test_what_begins_anew_in_a_round_still_open_waits_for_its_end() -> None:
    store = RttStore()
    store.observe([sample(1003.0, 20.0)])
    store.observe_columns(anew(sample(1012.0, 90.0)))
    store.close_round(1010.0)
    assert {bucket for *_, bucket in counted(store)} == {bucket_of(np.array([20.0]))[0]}
    store.close_round(1020.0)
    assert {bucket for *_, bucket in counted(store)} == {bucket_of(np.array([90.0]))[0]}
