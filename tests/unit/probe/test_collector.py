"""The collector: what it takes, what it names, and that its counters partition."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from edgedns.model import NetworkKey, RttSample
from edgedns.probe.collector import LINE_LIMIT, LINES_LIMIT, NAMED_LIMIT, Collector, Outcome

NOW = 1_764_000_000.0
GOOD: dict[str, Any] = {"at": NOW - 1, "vantage": "fra1", "provider": "alder", "address": "203.0.113.7", "rtt_ms": 23.4}


def network_of(packed: bytes) -> NetworkKey | None:
    if packed[:3] == bytes([203, 0, 113]):
        return NetworkKey(64496, "DE", 4, 203 << 8)
    if packed[:4] == bytes.fromhex("20010db8"):
        return NetworkKey(64496, "DE", 6, 0x20010DB8)
    return None


def make(**settings: Any) -> Collector:
    return Collector(
        network_of,
        lambda asn, family: NetworkKey(asn, "", 0, -1) if asn == 64496 else None,
        {"alder", "birch"}.__contains__,
        {"cdn.example.net"}.__contains__,
        **settings,
    )


def line(**changes: Any) -> bytes:
    fields = {**GOOD, **changes}
    return json.dumps({key: value for key, value in fields.items() if value is not ...}).encode()


def one(body: bytes, **settings: Any) -> Outcome:
    return make().accept(body, NOW, **settings)


def error_of(body: bytes, **settings: Any) -> str:
    outcome = one(body, **settings)
    assert outcome.accepted == []
    assert len(outcome.rejected) == 1
    return outcome.rejected[0][1]


def test_a_good_line_becomes_a_sample() -> None:
    outcome = one(line())
    assert outcome.rejected == []
    assert outcome.accepted == [
        RttSample(NOW - 1, "fra1", "alder", NetworkKey(64496, "DE", 4, 203 << 8), 4, 23.4, "203.0.113.7", "")
    ]


def test_a_lost_probe_has_no_rtt() -> None:
    (sample,) = one(line(rtt_ms=..., lost=True)).accepted
    assert sample.rtt_ms is None


def test_lost_false_beside_an_rtt_is_a_reply() -> None:
    (sample,) = one(line(lost=False)).accepted
    assert sample.rtt_ms == 23.4


@pytest.mark.parametrize(("given", "family"), [(..., 4), (4, 4), (6, 6)])
def test_an_asn_may_replace_the_address(given: Any, family: int) -> None:
    (sample,) = one(line(address=..., asn=64496, family=given)).accepted
    assert (sample.network, sample.family, sample.address) == (NetworkKey(64496, "", 0, -1), family, "")


def test_a_mapped_address_is_the_ipv4_address() -> None:
    (sample,) = one(line(address="::ffff:203.0.113.7")).accepted
    assert (sample.family, sample.network.family) == (4, 4)


def test_v6() -> None:
    (sample,) = one(line(address="2001:db8::7", family=6)).accepted
    assert (sample.family, sample.network.block) == (6, 0x20010DB8)


def test_the_zone_is_folded() -> None:
    (sample,) = one(line(name="CDN.example.net.")).accepted
    assert sample.zone == "cdn.example.net"


@pytest.mark.parametrize(("given", "kind"), [(..., "probe"), ("probe", "probe"), ("beacon", "beacon"), ("passive", "passive")])
def test_a_sample_says_what_was_timed(given: Any, kind: str) -> None:
    (sample,) = one(line(kind=given)).accepted
    assert sample.kind == kind


def test_a_field_from_the_future_is_left_alone() -> None:
    assert len(one(line(catchment={"pop": ["ams2"]})).accepted) == 1


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"rtt_ms": 0.1}, "rtt_ms 0.1 is not within 0.2 to 10000"),
        ({"rtt_ms": 10_000.1}, "rtt_ms 10000.1 is not within 0.2 to 10000"),
        ({"rtt_ms": -5}, "rtt_ms -5 is not within 0.2 to 10000"),
        ({"rtt_ms": 1e9}, "rtt_ms 1000000000.0 is not within 0.2 to 10000"),
        ({"rtt_ms": 10**400}, "is not within 0.2 to 10000"),
        ({"rtt_ms": float("nan")}, "NaN is not a JSON number"),
        ({"rtt_ms": float("-inf")}, "-Infinity is not a JSON number"),
        ({"rtt_ms": True}, "rtt_ms is not a number of milliseconds: True"),
        ({"rtt_ms": "23"}, "rtt_ms is not a number of milliseconds: '23'"),
        ({"rtt_ms": ...}, 'give exactly one of rtt_ms and "lost": true'),
        ({"lost": True}, 'give exactly one of rtt_ms and "lost": true'),
        ({"rtt_ms": ..., "lost": 1}, "lost is not true or false: 1"),
        ({"at": NOW + 6}, "at is more than 5 s in the future"),
        ({"at": NOW - 601}, "at is more than 600 s ago"),
        ({"at": "now"}, "at is not a Unix time: 'now'"),
        ({"at": ...}, "at is missing"),
        ({"provider": "dune"}, "unknown provider 'dune'"),
        ({"provider": ["alder"]}, "provider is not a name: ['alder']"),
        ({"provider": "a" * 64}, "provider is not a name: 'aaaa"),
        ({"provider": "\ud800"}, "provider is not a name: '\\ud800'"),
        ({"vantage": ...}, "vantage is missing"),
        ({"vantage": "a b"}, "vantage is not a name: 'a b'"),
        ({"address": "203.0.113"}, "address is not an IP address: '203.0.113'"),
        ({"address": 3405803783}, "address is not an IP address: 3405803783"),
        ({"address": "203.0.113.7\x00"}, "address is not an IP address"),
        ({"address": "192.0.2.1"}, "no known network holds 192.0.2.1"),
        ({"address": ...}, "give exactly one of address and asn"),
        ({"asn": 64496}, "give exactly one of address and asn"),
        ({"address": ..., "asn": True}, "asn is not an AS number: True"),
        ({"address": ..., "asn": 2**32}, "asn is not an AS number: 4294967296"),
        ({"address": ..., "asn": 64511}, "AS64511 is in no table"),
        ({"family": 6}, "family is 6, but the address is IPv4"),
        ({"family": 5}, "family is not 4 or 6: 5"),
        ({"name": "other.example"}, "unknown zone 'other.example'"),
        ({"name": "a b"}, "name is not the name of a zone: 'a b'"),
        ({"kind": "guess"}, "kind is none of probe, beacon and passive: 'guess'"),
        ({"kind": ["beacon"]}, "kind is none of probe, beacon and passive: ['beacon']"),
        ({"kind": "beacon", "rtt_ms": ..., "lost": True}, "a beacon sample has an address and is never lost"),
        ({"kind": "passive", "address": ..., "asn": 64496}, "a passive sample has an address and is never lost"),
    ],
)
def test_a_bad_field_is_named(changes: dict[str, Any], error: str) -> None:
    assert error in error_of(line(**changes))


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"\xff\xfe", "not UTF-8 at byte 1"),
        (b"{", "not JSON: "),
        (b"[1]", "not a JSON object"),
        (b"23", "not a JSON object"),
        (b"[" * LINE_LIMIT, "not JSON: "),
        (b'{"a":' * 800, "not JSON: "),
        (b'{"vantage": "fra1", "at": 1e999}', "at is not a Unix time: inf"),
        (b'{"rtt_ms": 1, "rtt_ms": 2}', "'rtt_ms' is given twice"),
        (b" " + b"x" * LINE_LIMIT, "line is 4097 bytes long, at most 4096 are read"),
        (b"x" * 10_000_000, "line is 10000000 bytes long"),
    ],
)
def test_a_line_that_is_no_sample_is_named(body: bytes, error: str) -> None:
    assert error in error_of(body)


def test_good_lines_around_bad_ones_are_taken_and_lines_are_counted_from_one() -> None:
    outcome = one(b"\n".join([line(), b"", b"junk", line(), b"\xff", line(), b""]))
    assert len(outcome.accepted) == 3
    assert [number for number, _ in outcome.rejected] == [3, 5]
    reply = outcome.reply()
    assert reply["accepted"] == 3
    assert reply["rejected"][0]["line"] == 3
    assert "rejected_more" not in reply
    json.dumps(reply)


def test_a_flood_of_bad_lines_is_counted_but_not_all_named() -> None:
    reply = one(b"junk\n" * 5000).reply()
    assert len(reply["rejected"]) == NAMED_LIMIT
    assert reply["rejected_more"] == 5000 - NAMED_LIMIT


def test_lines_beyond_the_limit_are_not_read() -> None:
    outcome = make(burst=10.0).accept(b"\n" * LINES_LIMIT + line() + b"\n" + line(), NOW)
    assert outcome.accepted == []
    assert outcome.rejected == [(LINES_LIMIT + 1, f"more than {LINES_LIMIT} lines in one body, the rest is not read")]


def test_a_token_speaks_for_its_own_vantage_only() -> None:
    assert len(one(line(), vantage="fra1").accepted) == 1
    assert error_of(line(vantage="ams2"), vantage="fra1") == "this token speaks for vantage 'fra1', not 'ams2'"


def test_the_rate_is_bounded_for_each_vantage_alone() -> None:
    collector = make(rate=10.0, burst=5.0)
    ten = b"\n".join([line()] * 10)
    first = collector.accept(ten, NOW)
    assert (len(first.accepted), first.rejected_total) == (5, 5)
    assert first.rejected[0] == (6, "vantage 'fra1' sends more than 10 samples a second")
    assert len(collector.accept(line(vantage="ams2"), NOW).accepted) == 1
    assert len(collector.accept(ten, NOW + 0.2).accepted) == 2
    assert len(collector.accept(ten, NOW - 3600 + 3600.2).accepted) == 0


def test_a_clock_that_is_set_back_starves_nobody() -> None:
    collector = make(rate=10.0, burst=5.0)
    five = [line(at=NOW - 3600 + after) for after in (0, 0.1, 0.2, 0.3, 0.4)]
    assert len(collector.accept(b"\n".join([line()] * 5), NOW).accepted) == 5
    assert len(collector.accept(b"\n".join(five), NOW - 3600).accepted) == 0, "nothing is gained by it"
    assert len(collector.accept(b"\n".join(five), NOW - 3600 + 0.5).accepted) == 5


def test_vantages_are_bounded_and_idle_ones_forgotten() -> None:
    collector = make(rate=10.0, burst=10.0)
    names = [f"v{i}" for i in range(1100)]
    taken = collector.accept(b"\n".join(line(vantage=name) for name in names), NOW)
    assert len(taken.accepted) == 1024
    assert len(collector.accept(line(vantage="v1099", at=NOW), NOW + 2).accepted) == 1


def refusals() -> list[bytes]:
    return [
        line(),
        line(rtt_ms=..., sent_by="ams1"),
        b"x" * (LINE_LIMIT + 1),
        b"\xff",
        b"{",
        line(at=...),
        line(rtt_ms=0),
        line(at=NOW + 60),
        line(vantage="ams2"),
        line(provider="dune"),
        line(name="other.example"),
        line(address="192.0.2.1"),
        line(),
        b"",
    ]


def test_counters_partition_what_was_seen() -> None:
    collector = make(rate=1.0, burst=2.0)
    outcome = collector.accept(b"\n".join(refusals()) + b"\n" * LINES_LIMIT + b"more", NOW, vantage="fra1")
    assert collector.counts == dict.fromkeys(collector.counts, 1)
    told = len(outcome.accepted) + len(outcome.landed) + outcome.rejected_total
    assert sum(collector.counts.values()) == collector.seen == told


@pytest.mark.parametrize("change", [lambda b: b[:-1], lambda b: b + b"}", lambda b: b.replace(b":", b"", 1)])
def test_a_mangled_line_harms_only_itself(change: Callable[[bytes], bytes]) -> None:
    outcome = one(b"\n".join([line(), change(line()), line()]))
    assert len(outcome.accepted) == 2
    assert [number for number, _ in outcome.rejected] == [2]
