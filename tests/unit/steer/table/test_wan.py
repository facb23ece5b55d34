"""The WAN table: what wins, how doubt shrinks it, what speaks for those who were not measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from edgedns.errors import SourceError
from edgedns.model import Estimate, Family, NetworkKey, RttSample
from edgedns.steer.table.rtt import RttStore
from edgedns.steer.table.wan import WanTable, diff, estimate

NETWORK = NetworkKey(64500, "DE", 4, 0xC000)


def table_for(
    rtts: Mapping[str, Sequence[float | None]], network: NetworkKey = NETWORK, family: Family = 4, times: int = 5,
    more: Sequence[RttSample] = (),
) -> WanTable:  # fmt: skip
    """The table after `times` samples of each provider's RTTs (ms, None lost) in one round."""
    store = RttStore()
    store.observe([
        RttSample(1000.0 + i, "fra1", provider, network, family, rtt)
        for provider, each in rtts.items() for rtt in each for i in range(times)
    ])  # fmt: skip
    store.observe(more)
    store.close_round(1010.0)
    return estimate(store)


def estimates(table: WanTable, network: NetworkKey = NETWORK, family: Family = 4) -> dict[str, Estimate]:
    return {e.provider: e for e in table.lookup(network, family)}


def test_the_faster_wins_and_the_best_comes_first() -> None:
    table = table_for({"alder": [40.0], "birch": [20.0], "cedar": [30.0]})
    found = table.lookup(NETWORK, 4)
    assert [e.provider for e in found] == ["birch", "cedar", "alder"]
    assert found[0].wan > 0 > found[-1].wan
    assert [e.level for e in found] == ["network"] * 3
    assert found[0].rtt_ms == pytest.approx(20.0, rel=0.05)


def test_equals_are_nominal() -> None:
    found = estimates(table_for({"alder": [20.0], "birch": [20.0]}))
    assert found["alder"].wan == pytest.approx(0.0, abs=1e-6)
    assert found["birch"].w50 == pytest.approx(0.5, abs=1e-6)


def test_grades_where_the_median_saturates() -> None:
    """12 and 45 ms both beat a median of 60 always; WAN tells them apart."""
    found = estimates(table_for({"alder": [12.0], "birch": [45.0], "cedar": [80.0], "dogwood": [90.0]}))
    assert found["alder"].w50 == found["birch"].w50 == 1.0
    assert found["alder"].wan > found["birch"].wan + 0.1


def test_of_eight_the_winner_of_every_threshold_gets_most() -> None:
    table = table_for({f"p{i}": [10.0 * 1.3**i] for i in range(8)}, times=1000)
    nominal = np.mean([0.05, 0.12, 0.25, 0.5])
    expected = np.mean([0.4, 0.96, 1.0, 1.0]) - nominal  # alone in the first eighth of the pool
    assert estimates(table)["p0"].wan == pytest.approx(expected, abs=0.01)
    assert estimates(table)["p7"].wan == pytest.approx(-nominal, abs=0.01)


def test_prior_is_worth_four_samples_of_the_level_above() -> None:
    other = NetworkKey(64501, "DE", 4, 1)
    others = [RttSample(1001.0, "fra1", p, other, 4, r) for p, r in (("alder", 10.0), ("birch", 90.0))] * 96
    table = table_for({"alder": [60.0], "birch": [20.0]}, times=4, more=others)
    found, above = estimates(table), estimates(table, NetworkKey(64500, "DE"))
    raw = 0.5 * (np.mean([0.1, 0.24, 0.5, 1.0]) - 0.0)  # how far the winner of two is from nominal
    assert found["birch"].wan == pytest.approx((4 * above["birch"].wan + 4 * raw) / 8, abs=0.01)
    assert found["birch"].low < found["birch"].wan < found["birch"].high


def test_doubt_shrinks_with_samples() -> None:
    few, many = (estimates(table_for({"alder": [40.0], "birch": [20.0]}, times=n))["birch"] for n in (2, 200))
    assert many.high - many.low < few.high - few.low
    assert many.score > few.score


def test_lost_is_slower_than_everything() -> None:
    found = estimates(table_for({"alder": [15.0, None, None], "birch": [80.0]}))
    assert found["alder"].w50 == pytest.approx(1 / 3)
    assert found["alder"].rtt_ms == 10_000.0


def test_a_network_without_samples_is_told_of_by_the_nearest_level() -> None:
    table = table_for({"alder": [40.0], "birch": [20.0]})
    cases = {
        NetworkKey(64500, "DE", 4, 1): "asn+country",
        NetworkKey(64500, "FR", 4, 1): "asn",
        NetworkKey(64999, "DE", 4, 1): "country",
        NetworkKey(64999, "US", 4, 1): "all",
    }
    assert {key: table.lookup(key, 4)[0].level for key in cases} == cases


def test_below_min_samples_the_level_above_decides() -> None:
    more = [RttSample(1001.0, "fra1", "alder", NetworkKey(64501, "DE", 4, 1), 4, 30.0)] * 2
    table = table_for({"alder": [40.0], "birch": [20.0]}, more=more)
    assert table.lookup(NETWORK, 4, min_samples=10)[0].level == "network"
    assert table.lookup(NETWORK, 4, min_samples=11)[0].level == "country"
    assert table.lookup(NETWORK, 4, min_samples=13) == ()


def test_a_family_without_samples_takes_the_others_estimate() -> None:
    table = table_for({"alder": [40.0], "birch": [20.0]})
    found = table.lookup(NETWORK, 6)
    assert (found[0].provider, found[0].level, found[0].samples) == ("birch", "asn+country", 0.0)
    assert found[0].wan == pytest.approx(estimates(table, NetworkKey(64500, "DE"))["birch"].wan)


def test_an_arm_without_samples_is_expected_to_be_as_slow_as_its_row() -> None:
    near, far = NetworkKey(64501, "DE", 4, 1), NetworkKey(64502, "DE", 4, 2)
    more = [RttSample(1001.0, "fra1", p, near, 4, r) for p, r in (("alder", 20.0), ("birch", 40.0))] * 500
    table = table_for({"alder": [200.0]}, network=far, times=2, more=more)
    row = table.find(far, 4)
    birch = table.providers.index("birch")
    assert table.samples[row, 0, birch] == 0
    assert table.typical[row, 0, birch] == pytest.approx(400.0, rel=0.15)


def test_stored_and_read_again_it_is_the_same() -> None:
    table = table_for({"alder": [40.0], "birch": [20.0]})
    again = WanTable.from_sections(table.to_sections())
    assert again.lookup(NETWORK, 4) == table.lookup(NETWORK, 4)
    assert len(diff(table, again)) == 0
    assert len(diff(None, table)) == len(table.keys)


def test_a_damaged_table_is_refused() -> None:
    sections = table_for({"alder": [40.0], "birch": [20.0]}).to_sections()
    with pytest.raises(SourceError, match="damaged"):
        WanTable.from_sections({**sections, "mean": sections["mean"][1:]})
    with pytest.raises(SourceError):
        WanTable.from_sections({})


def test_an_empty_store_gives_an_empty_table() -> None:
    store = RttStore()
    store.close_round(1010.0)
    table = estimate(store)
    assert table.lookup(NETWORK, 4) == ()
