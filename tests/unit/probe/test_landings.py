"""Replies that landed elsewhere: told seldom and fresh by the agent where they land, and no samples for the collector."""

from __future__ import annotations

import json

import pytest

from edgedns.model import LandedReply, NetworkKey
from edgedns.probe import catchment
from edgedns.probe.catchment import OLDEST, REPEAT, Landing, Landings
from edgedns.probe.collector import REASONS, Collector
from edgedns.probe.targets import target_of
from edgedns.probe.wire import Stamp

NOW = 1_764_000_000.0
NETWORK = NetworkKey(64496, "DE", 4, 203 << 8)


def stamp(age: float = 0.0, vantage: str = "fra1") -> Stamp:
    return Stamp(vantage, "alder", 7, int((NOW - age) * 1e9))


def test_each_path_is_told_at_most_every_few_seconds() -> None:
    now = [NOW]
    landings = Landings(lambda: now[0])
    told = []
    for step in range(12):
        now[0] = NOW + step
        told.append(landings.is_news(stamp(-step), "203.0.113.7"))
    assert [step for step, yes in enumerate(told) if yes] == [0, int(REPEAT), 2 * int(REPEAT)]
    assert landings.is_news(stamp(-12, "iad1"), "203.0.113.7")
    assert landings.is_news(stamp(-12), "203.0.113.8")
    assert (landings.seen, landings.told) == (14, 5)


@pytest.mark.parametrize("age", [OLDEST + 1, 3600.0, -6.0])
def test_a_stamp_of_another_time_is_not_told(age: float) -> None:
    landings = Landings(lambda: NOW)
    assert not landings.is_news(stamp(age), "203.0.113.7")
    assert (landings.seen, landings.old, landings.told) == (1, 1, 0)


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catchment, "PATHS_LIMIT", 3)
    landings = Landings(lambda: NOW)
    assert [landings.is_news(stamp(), f"203.0.113.{n}") for n in range(5)] == [True, True, True, False, False]


def collected(body: bytes, vantage: str | None = None) -> tuple[Collector, list[LandedReply], list[str]]:
    collector = Collector(lambda packed: NETWORK, lambda asn, family: NetworkKey(asn), {"alder"}.__contains__)
    outcome = collector.accept(body, NOW, vantage)
    assert sum(collector.counts.values()) == collector.seen
    assert outcome.accepted == []
    assert outcome.reply()["accepted"] == len(outcome.landed) == collector.counts["landed"]
    return collector, outcome.landed, [error for _, error in outcome.rejected]


def test_the_collector_takes_what_the_agent_tells() -> None:
    address = target_of({"address": "203.0.113.7", "endpoint": "192.0.2.1:7"})
    asn = target_of({"asn": 64496, "endpoint": "192.0.2.1:7"})
    lines = [Landing(NOW, "ams1", "alder", target, "192.0.2.1", "fra1").line() for target in (address, asn, None)]
    assert json.loads(lines[0])["address"] == "203.0.113.7"
    assert json.loads(lines[2])["address"] == "192.0.2.1"
    _, landed, errors = collected(b"\n".join(lines), "ams1")
    assert errors == []
    assert landed[0] == LandedReply(NOW, "ams1", "alder", NETWORK, 4, "fra1")
    assert [each.network for each in landed] == [NETWORK, NetworkKey(64496), NETWORK]
    assert "landed" in REASONS


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"sent_by": "ams1"}, "sent_by is the vantage itself"),
        ({"sent_by": 5}, "sent_by is not a name: 5"),
        ({"sent_by": None}, "sent_by is missing"),
        ({"sent_by": "a b"}, "sent_by is not a name: 'a b'"),
        ({"vantage": "iad1"}, "this token speaks for vantage 'ams1', not 'iad1'"),
        ({"provider": "elm"}, "unknown provider 'elm'"),
        ({"at": NOW + 60}, "at is more than 5 s in the future"),
        ({"at": NOW - 3600}, "at is more than 600 s ago"),
        ({"address": "x"}, "address is not an IP address: 'x'"),
    ],
)
def test_what_is_wrong_with_a_landing_is_named(change: dict[str, object], error: str) -> None:
    good = {"at": NOW, "vantage": "ams1", "provider": "alder", "address": "203.0.113.7", "sent_by": "fra1"}
    _, landed, errors = collected(json.dumps({**good, **change}).encode(), "ams1")
    assert landed == []
    assert len(errors) == 1
    assert error in errors[0]


def test_who_says_how_long_it_took_gives_a_sample() -> None:
    """Both readers of the collector's see it alike."""
    collector = Collector(lambda packed: NETWORK, lambda asn, family: None, {"alder"}.__contains__)
    line = {"at": NOW, "vantage": "ams1", "provider": "alder", "address": "203.0.113.7", "sent_by": "fra1", "rtt_ms": 5.0}
    for body in (json.dumps(line).encode(), json.dumps({**line, "note": "\u00e9"}, ensure_ascii=False).encode()):
        outcome = collector.accept(body, NOW)
        assert (len(outcome.accepted), outcome.landed) == (1, [])
