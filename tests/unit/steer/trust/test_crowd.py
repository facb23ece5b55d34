"""Beacons of strangers: which of them count; and what users' own connections tell."""

from __future__ import annotations

import pytest

from edgedns.model import NetworkKey, RttSample
from edgedns.steer.table.rtt import RttStore, beside
from edgedns.steer.trust import crowd
from edgedns.steer.trust.crowd import MIN_CLIENTS, MOST_A_ROUND, Crowd, connections, unit_of

NOW = 1_790_000_000.0
ROUND = 10.0
NETWORK = NetworkKey(64500, "DE", 4, 198 << 8 | 51)


def beacon(address: str, provider: str = "alder", network: NetworkKey = NETWORK) -> RttSample:
    return RttSample(NOW, "web", provider, network, 4, 20.0, address, "", "beacon")


def report(client: int, network: NetworkKey = NETWORK, is_probed: bool = False) -> list[tuple[RttSample, bool]]:
    return [(beacon(f"198.51.{client}.0", provider, network), is_probed) for provider in ("alder", "birch")]


def admitted(judge: Crowd, *clients: int, now: float = NOW) -> int:
    return sum(len(judge.admit(report(client), ROUND, now)) for client in clients)


def test_nobody_counts_until_there_are_several_clients() -> None:
    judge = Crowd()
    assert admitted(judge, *[7] * 20) == 0  # one client, however often
    assert admitted(judge, *range(20, 20 + MIN_CLIENTS - 2)) == 0
    assert admitted(judge, 9) == 2
    assert judge.counts["counted"] == 2
    assert sum(judge.counts.values()) == 2 * (20 + MIN_CLIENTS - 2 + 1)


def test_clients_of_an_hour_ago_are_forgotten() -> None:
    judge = Crowd()
    admitted(judge, 1, 2)
    assert admitted(judge, 3, now=NOW + 3700) == 0


def test_a_client_counts_once_a_round_and_a_whole_report_does() -> None:
    judge = Crowd()
    admitted(judge, 1, 2, 3)
    assert admitted(judge, 1, 1, 1) == 2
    assert judge.counts["repeated"] == 4
    assert admitted(judge, 1, now=NOW + ROUND) == 2


def test_a_network_counts_no_more_than_a_probed_one() -> None:
    judge = Crowd()
    assert admitted(judge, *range(100)) == 2 * MOST_A_ROUND
    assert judge.counts["over_share"] == 2 * (100 - MOST_A_ROUND - MIN_CLIENTS + 1)
    other = NETWORK._replace(block=5)
    assert sum(len(judge.admit(report(client, other), ROUND, NOW)) for client in range(100, 103)) == 2


def test_probes_speak_alone_where_there_are_any() -> None:
    judge = Crowd()
    admitted(judge, 1, 2, 3)
    assert judge.admit(report(4, is_probed=True), ROUND, NOW) == []
    assert judge.counts["probed"] == 2
    assert len(judge.admit(report(4), ROUND, NOW)) == 2


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crowd, "NETWORKS_KEPT", 10)
    judge = Crowd()
    for block in range(50):
        for client in range(40):
            judge.admit(report(client, NETWORK._replace(block=block)), ROUND, NOW)
    assert len(judge._clients) == 10
    assert max(len(clients) for clients in judge._clients.values()) == crowd.CLIENTS_KEPT


def test_a_client_is_a_24_or_a_48() -> None:
    assert unit_of("198.51.100.7") == unit_of("198.51.100.200") != unit_of("198.51.101.7")
    assert unit_of("2001:db8:1:2::3") == unit_of("2001:db8:1:ff::") != unit_of("2001:db8:2::")


def test_rows_beside_each_other_are_of_one_store_each() -> None:
    """By row and family: what the first has is its own, whatever the second says; all else is the second's."""
    first, second = RttStore(ROUND), RttStore(ROUND)
    other = NETWORK._replace(asn=64501)
    first.observe([RttSample(NOW, "fra1", name, NETWORK, 4, 10.0) for name in ("birch", "dogwood")])
    second.observe([RttSample(NOW, "web", name, NETWORK, 4, 90.0) for name in ("alder", "birch")])
    second.observe([RttSample(NOW, "web", "alder", other, 4, 50.0)])
    second.observe([RttSample(NOW, "web", "alder", NETWORK._replace(family=6, block=7), 6, 70.0)])
    for store in (first, second):
        store.close_round(NOW + ROUND)
    both = beside(first.cells(), second.cells())
    assert set(connections(both, NETWORK, 4)) == {"birch", "dogwood"}
    assert connections(both, NETWORK, 4)["birch"].rtt_ms == pytest.approx(10.0, rel=0.09)
    assert connections(both, other, 4)["alder"].rtt_ms == pytest.approx(50.0, rel=0.09)
    country = NetworkKey(-1, "DE", 0, -1)
    assert set(connections(both, country, 4)) == {"birch", "dogwood"}
    assert set(connections(both, country, 6)) == {"alder"}
    assert beside(first.cells(), RttStore(ROUND).cells()).codes.tolist() == first.cells().codes.tolist()
    alone = beside(RttStore(ROUND).cells(), second.cells())
    assert alone.codes.tolist() == second.cells().codes.tolist()
    assert alone.at == second.cells().at


def test_connections_tell_of_their_network_and_provider() -> None:
    store = RttStore(ROUND, 30.0)
    rtts = {"alder": [10.0] * 5 + [40.0] * 4, "birch": [25.0]}
    for provider, found in rtts.items():
        store.observe(RttSample(NOW + i, "fra1", provider, NETWORK, 4, rtt) for i, rtt in enumerate(found))
    store.observe([RttSample(NOW, "fra1", "cedar", NETWORK._replace(block=5), 4, 5.0)])
    store.close_round(NOW + ROUND)
    told = connections(store.cells(), NETWORK, 4)
    assert set(told) == {"alder", "birch"}
    assert told["alder"].rtt_ms == pytest.approx(10.0, rel=0.09)  # a bucket's width
    assert told["alder"].samples == pytest.approx(9.0)
    assert told["alder"].seen == NOW + 8
    assert told["birch"].rtt_ms == pytest.approx(25.0, rel=0.09)
    assert connections(store.cells(), NETWORK, 6) == {}
    assert connections(store.cells(), NETWORK._replace(asn=64501), 4) == {}
    assert connections(RttStore().cells(), NETWORK, 4) == {}
