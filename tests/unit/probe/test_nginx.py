"""nginx's log lines as samples: which count, for whom, and what hostile ones come to."""

from __future__ import annotations

import json
from random import Random
from typing import Any

import pytest

from edgedns.probe import nginx
from edgedns.probe.nginx import AccessLog

NOW = 1_790_000_000.0
OURS = {"192.0.2.10": "alder", "2001:db8:a1::10": "alder", "198.51.100.10": "birch"}
GOOD: dict[str, Any] = {
    "at": NOW - 0.5, "client": "203.0.113.77", "peer": "203.0.113.77", "server": "192.0.2.10", "rtt_us": "23456", "via": "",
}  # fmt: skip


def make(ceiling: float = 1000.0) -> AccessLog:
    return AccessLog("fra1", OURS, ceiling)


def line(**changes: Any) -> bytes:
    fields = {**GOOD, **changes}
    if "client" in changes and "peer" not in changes:
        fields["peer"] = fields["client"]
    return json.dumps({key: value for key, value in fields.items() if value is not ...}).encode()


def test_a_line_becomes_a_sample_of_its_24() -> None:
    judge = make()
    sample = judge.sample(line(), NOW)
    assert sample is not None
    assert json.loads(sample) == {
        "at": NOW - 0.5, "vantage": "fra1", "kind": "passive", "provider": "alder", "address": "203.0.113.0", "rtt_ms": 23.456,
    }  # fmt: skip
    assert judge.counts["sampled"] == sum(judge.counts.values()) == 1


@pytest.mark.parametrize(
    ("client", "server", "provider", "address"),
    [
        ("2001:db8:7:8::9", "2001:0db8:00a1::10", "alder", "2001:db8:7::"),
        ("::ffff:203.0.113.9", "::ffff:198.51.100.10", "birch", "203.0.113.0"),
    ],
)
def test_addresses_are_read_however_they_are_written(client: str, server: str, provider: str, address: str) -> None:
    sample = make().sample(line(client=client, server=server), NOW)
    assert sample is not None
    told = json.loads(sample)
    assert (told["provider"], told["address"]) == (provider, address)


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({"server": "192.0.2.11"}, "other_server"),
        ({"server": "unix:/run/nginx.sock"}, "other_server"),
        ({"server": ...}, "bad_field"),
        ({"peer": "10.0.0.1"}, "proxied"),
        ({"client": "unix:"}, "proxied"),
        ({"via": "198.51.100.9"}, "proxied"),
        ({"client": "203.0.113"}, "bad_field"),
        ({"client": 7}, "bad_field"),
        ({"client": "203.0.113.7\x00"}, "bad_field"),
        ({"client": "\ud800"}, "bad_field"),
        ({"rtt_us": ""}, "no_rtt"),
        ({"rtt_us": "-"}, "no_rtt"),
        ({"rtt_us": "0"}, "no_rtt"),
        ({"rtt_us": 23456}, "bad_field"),
        ({"rtt_us": "1e5"}, "bad_field"),
        ({"rtt_us": "٣"}, "bad_field"),
        ({"rtt_us": "9" * 4000}, "bad_field"),
        ({"rtt_us": "199"}, "implausible"),
        ({"rtt_us": "10000001"}, "implausible"),
        ({"at": "now"}, "bad_field"),
        ({"at": True}, "bad_field"),
        ({"at": NOW - 61}, "untimely"),
        ({"at": NOW + 6}, "untimely"),
        ({"at": float("nan")}, "untimely"),
        ({"at": 10**400}, "untimely"),
    ],
)
def test_what_gives_no_sample_is_counted_by_its_reason(changes: dict[str, Any], verdict: str) -> None:
    judge = make()
    assert judge.sample(line(**changes), NOW) is None
    assert {name for name, count in judge.counts.items() if count} == {verdict}


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"7", b"\xff\xfe", b"[" * 10_000, b'{"at":' * 3000, b"9" * 5000])
def test_what_is_no_json_object_is_counted(text: bytes) -> None:
    judge = make()
    assert judge.sample(text, NOW) is None
    assert judge.counts["not_json"] == 1


def test_a_client_gives_one_sample_a_second_and_provider() -> None:
    judge = make()
    taken = [judge.sample(line(at=NOW - 3 + k / 10), NOW) for k in range(30)]
    assert sum(each is not None for each in taken) == 3
    assert judge.sample(line(at=NOW - 3, server="198.51.100.10"), NOW) is not None
    assert judge.sample(line(at=NOW - 3, client="203.0.113.78"), NOW) is not None


def test_there_is_a_ceiling_and_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nginx, "SEEN_KEPT", 50)
    judge = make(ceiling=10.0)
    taken = [judge.sample(line(client=f"10.0.{k // 250}.{k % 250}"), NOW + k / 100) for k in range(1000)]
    assert 105 <= sum(each is not None for each in taken) <= 111
    assert judge.counts["too_many"] == 1000 - judge.counts["sampled"]
    assert len(judge._seen) == 50


def test_any_octets_are_harmless() -> None:
    dice, judge, good = Random(5), make(), line()
    for _ in range(5000):
        octets = bytearray(good)
        for _ in range(dice.randrange(1, 6)):
            octets[dice.randrange(len(octets))] = dice.randrange(256)
        judge.sample(bytes(octets[: dice.randrange(len(octets) + 1)]) if dice.random() < 0.3 else bytes(octets), NOW)
    assert sum(judge.counts.values()) == 5000


def test_a_source_that_is_no_address_is_told() -> None:
    with pytest.raises(ValueError, match="not an IP address"):
        AccessLog("fra1", {"alder": "192.0.2.10"}, 1.0)
