"""Holdout and uplift through the control process: from the rules to answers, and from samples to what /v1/uplift tells."""

from __future__ import annotations

from collections import Counter
from ipaddress import ip_address
from pathlib import Path

import pytest

from edgedns import metrics
from edgedns.control import Control, Paths
from edgedns.dns import types
from edgedns.dns.edns import ClientSubnet, Edns
from edgedns.dns.message import Query
from edgedns.engine.answer import answer
from edgedns.engine.explain import Question, explain
from edgedns.metrics import NetworkCounts
from edgedns.model import Prefix, Reason
from edgedns.steer.deciding.decisions import moves
from tests.small import ADDRESS, replace, samples, write_rules, write_table

NOW = 1_790_000_000.0
WWW = b"\3www\7example\3net\0"
RTTS: dict[str, float | None] = {"alder": 50.0, "birch": 30.0, "cedar": 60.0}
LEVEL: dict[str, float | None] = {"alder": 30.0, "birch": 50.0, "cedar": 60.0}


def start(top: Path, share: str, now: float = NOW) -> Control:
    rules = write_rules(top / "rules")
    zone = rules / "example.net.yaml"
    replace(zone, zone.read_text().replace("min_samples: 1,", f"min_samples: 1, holdout: {share},"))
    control = Control(Paths(top / "state", rules, write_table(top / "table.tsv")), "node", lambda _: None)
    control.start(now)
    return control


def measure(control: Control, rounds: int, now: float = NOW) -> float:
    """Birch is faster than nominal alder in the first forty networks, alder itself in the others."""
    for _ in range(rounds):
        control.ingest(samples(now + 1, RTTS, range(40)) + b"\n" + samples(now + 1, LEVEL, range(40, 60)), now + 1)
        now += 10
        control.close_round(now)
    return now


def lure(control: Control, rounds: int, now: float) -> float:
    """In the first five networks birch wins three times in five, and is 76 ms slower on average."""
    for _ in range(rounds):
        for i, birch in enumerate((10.0, 10.0, 300.0, 10.0, 300.0)):
            body = samples(now + 1 + i, {**RTTS, "birch": birch}, range(5)) + b"\n" + samples(now + 1 + i, RTTS, range(5, 40))
            control.ingest(body, now + 1 + i)
        now += 10
        control.close_round(now)
    return now


def given(control: Control, network: int, at: float) -> Counter[tuple[str, Reason | None, int]]:
    """(address, reason, scope) of each /24 of a network."""
    found: Counter[tuple[str, Reason | None, int]] = Counter()
    snapshot = control.snapshot()
    for third in range(256):
        edns = Edns(1232, 0, False, ClientSubnet(1, 24, 0, bytes((10, network, third, 0))))
        query = Query(0, types.QUERY, False, False, WWW, WWW, types.A, types.IN, edns, b"")
        made, choice = answer(snapshot, query, bytes((127, 0, 0, 1)), at)
        found[str(ip_address(made.response.answer[0].rdata)), choice.reason, made.scope] += 1
    return found


@pytest.mark.parametrize("share", [0.1, 0.25])
def test_a_share_keeps_nominal_answers_and_says_so(tmp_path: Path, share: float) -> None:
    control = start(tmp_path, f"{share}")
    now = measure(control, 3)
    found = given(control, 7, now)
    birch, alder = (ADDRESS["birch"], Reason.MEASURED, 24), (ADDRESS["alder"], Reason.HOLDOUT, 24)
    assert set(found) == {birch, alder}
    assert abs(found[alder] / 256 - share) < 4 * (share * (1 - share) / 256) ** 0.5
    assert {(address, reason) for address, reason, _ in given(control, 50, now)} == {(ADDRESS["alder"], Reason.MEASURED)}


def test_what_it_gains(tmp_path: Path) -> None:
    control = start(tmp_path, "10%")
    now = measure(control, 12)
    told = control.uplift(5, now)
    assert told["weighted_by"] == "networks"
    column = next(one for one in told["columns"] if one["rules"] == ["www/measured A"])
    assert (column["holdout"], column["networks"], column["measured"], column["worse"]) == (0.1, 60, 40, 0)
    assert column["moved"]["low"] < column["moved"]["ms"] < column["moved"]["high"]
    assert column["moved"]["ms"] == pytest.approx(20.0, abs=2.0)
    assert column["overall"]["ms"] == pytest.approx(column["moved"]["ms"] * 40 / 60, abs=0.01)
    assert len(column["rows"]) == 5
    assert (column["rows"][0]["provider"], column["rows"][0]["nominal"]) == ("birch", "alder")
    control.save(now)
    again = start(tmp_path, "10%")
    kept = next(one for one in again.uplift(5, now)["columns"] if one["rules"] == ["www/measured A"])
    assert kept["moved"] == column["moved"]


def answers(control: Control, network: int, at: float) -> set[tuple[str, Reason | None]]:
    return {(address, reason) for address, reason, _ in given(control, network, at)}


def test_where_it_loses_it_is_switched_off_and_says_so(tmp_path: Path) -> None:
    control = start(tmp_path, "0")
    now = lure(control, 2, NOW)
    assert answers(control, 3, now) == answers(control, 7, now) == {(ADDRESS["birch"], Reason.MEASURED)}
    now = lure(control, 12, now)
    off, on = {(ADDRESS["alder"], Reason.GUARDED)}, {(ADDRESS["birch"], Reason.MEASURED)}
    assert answers(control, 3, now) == off
    assert answers(control, 7, now) == on
    subnet = Prefix(4, bytes((10, 3, 1, 0)), 24)
    told = explain(control.snapshot(), Question(WWW, types.A, bytes((127, 0, 0, 1)), subnet), control.evidence(now), now)
    lost = {each["provider"]: each["lost_because"] for each in told["candidates"]}
    assert told["reason"] == "GUARDED"
    assert "but this network was slower by what steering chose" in lost["birch"]
    assert "is not above" in lost["cedar"]
    columns = {one["rules"][0]: one for one in control.uplift(5, now)["columns"]}
    assert sorted(columns["www/measured A"]["off"]) == [key_text(network) for network in range(5)]
    assert len(next(one for one in control.uplift(2, now)["columns"] if one["off"])["off"]) == 2
    control.save(now)
    again = start(tmp_path, "0", now)
    assert answers(again, 3, now) == off
    now = lure(again, 1, now)
    assert (answers(again, 3, now), answers(again, 7, now)) == (off, on)


def key_text(network: int) -> str:
    return f"AS{64512 + network}/DE/10.{network}.0.0/16"


def count_queries(control: Control, queries: dict[int, int]) -> None:
    """As if a worker had answered so many queries of these networks."""
    atoms, key = control.world.ground.atoms, control.world.ground.key
    counts = NetworkCounts(metrics.networks_path(control.run, 0, key), len(atoms.net_asn)).counts
    for number in range(1, len(atoms.net_asn)):
        counts[number] = queries.get(atoms.network_key(number).asn - 64512, 0)


def test_queries_weigh_what_may_move_in_a_round(tmp_path: Path) -> None:
    """One network has 700 of 1,880 queries: more than a quarter, so that it moves with nine others only, as ten always may."""
    control = start(tmp_path, "0")
    now = measure(control, 3)
    count_queries(control, {network: 700 if network == 1 else 20 for network in range(60)})
    moved: list[set[int]] = []
    for _ in range(8):
        before = control.force.decisions
        control.ingest(samples(now + 1, {"alder": 90.0, "birch": 95.0, "cedar": 9.0}, range(60)), now + 1)
        now += 10
        control.close_round(now)
        networks = {move.network for move in moves(before, control.force.decisions)}
        moved.append({network.asn - 64512 for network in networks if network.block >= 0})
    assert [len(each) for each in moved if each] == [10, 23, 23, 4], "23 times 20 queries are a quarter"
    assert 1 in next(each for each in moved if each)
