"""Reports of web pages: which give samples, and what strangers' come to."""

from __future__ import annotations

import json
from ipaddress import ip_address
from random import Random
from typing import Any

import pytest

from edgedns.probe import beacon
from edgedns.probe.beacon import UNIT_BURST, Beacons, OverRate, ReportError

NOW = 1_790_000_000.0
CLIENT = ip_address("203.0.113.77").packed
RTTS = {"alder": 23.4, "birch": 31}


def make(rate: float = 100.0) -> Beacons:
    return Beacons("web", list(RTTS), rate)


def body(rtts: Any = RTTS, **more: Any) -> bytes:
    return json.dumps({"rtt_ms": rtts, **more}).encode()


def test_a_report_becomes_a_sample_of_each_provider() -> None:
    judge = make()
    lines = [json.loads(line) for line in judge.take(body(), CLIENT, NOW)]
    shared = {"at": NOW, "vantage": "web", "kind": "beacon", "address": "203.0.113.0"}
    assert lines == [shared | {"provider": name, "rtt_ms": rtt} for name, rtt in RTTS.items()]
    (first, _) = make().take(body(), ip_address("2001:db8:7:8::9").packed, NOW)
    assert json.loads(first)["address"] == "2001:db8:7::"


def test_a_report_counts_whole() -> None:
    judge = make()
    assert judge.take(body({**RTTS, "birch": None}), CLIENT, NOW) == []
    assert judge.counts["incomplete"] == sum(judge.counts.values()) == 1


@pytest.mark.parametrize(
    "octets",
    [
        b"", b"{", b"[]", b"\xff", b"[" * 4000, b"9" * 4000, body(more=1), body(None), body([]), body({}), body({"alder": 1.0}),
        body({**RTTS, "cedar": 1.0}), body({**RTTS, "alder": "1"}), body({**RTTS, "alder": True}), body({**RTTS, "alder": 0}),
        body({**RTTS, "alder": float("nan")}), body({**RTTS, "alder": float("inf")}), body({**RTTS, "alder": 10**400}),
        body({**RTTS, "alder": -1}), body({**RTTS, "alder": 10_001}),
    ],
)  # fmt: skip
def test_what_is_no_report_is_told(octets: bytes) -> None:
    judge = make()
    with pytest.raises(ReportError):
        judge.take(octets, CLIENT, NOW)
    assert judge.counts["bad_report"] == sum(judge.counts.values()) == 1


def test_any_octets_are_harmless() -> None:
    dice, judge = Random(3), make(1e9)
    for number in range(5000):
        octets = bytearray(body())
        for _ in range(dice.randrange(1, 5)):
            octets[dice.randrange(len(octets))] = dice.randrange(256)
        try:
            judge.take(bytes(octets), number.to_bytes(4, "little"), NOW)
        except ReportError:
            continue
    assert sum(judge.counts.values()) == 5000


def test_one_network_uses_up_its_own_share_alone() -> None:
    judge = make()
    for _ in range(int(UNIT_BURST)):
        judge.take(body(), CLIENT, NOW)
    with pytest.raises(OverRate) as refused:
        judge.take(body(), ip_address("203.0.113.200").packed, NOW)
    assert refused.value.wait == 5
    assert judge.take(body(), ip_address("203.0.114.1").packed, NOW)
    assert judge.take(body(), CLIENT, NOW + 5)
    assert judge.counts["client_over_rate"] == 1


def test_there_is_a_rate_in_all_and_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beacon, "UNITS_KEPT", 100)
    judge, taken = make(rate=5.0), 0
    for number in range(1000):
        try:
            taken += bool(judge.take(body(), number.to_bytes(3) + b"\x01", NOW + number / 100))
        except OverRate:
            continue
    assert 95 <= taken <= 101
    assert judge.counts["over_rate"] == 1000 - taken
    assert len(judge._units) == 100
