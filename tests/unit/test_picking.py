"""What the control process tells agents to probe where ceilings are short: from samples to entries, vantage by vantage."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from edgedns.control import Control, Paths
from edgedns.control.wanted import A_REPLY, IDLE, QUEUE_MOST, STALE
from edgedns.control.wishing import Wishing
from tests.small import NETWORKS, PROVIDERS, write_rules, write_table

START = 1_790_000_000.0
RTT = {"alder": 35.0, "birch": 20.0, "cedar": 80.0}


class House:
    """A control process that two vantages send to; each hears half of the networks, and both hear the last ten."""

    def __init__(self, top: Path) -> None:
        paths = Paths(top / "state", write_rules(top / "rules", fresh_for="1h"), write_table(top / "table.tsv"))
        self.control = Control(paths, "node", lambda line: None)
        self.control.start(START)
        self.wishing = Wishing(self.control)
        self.now = START

    def hears(self, vantage: str, number: int) -> bool:
        return number >= NETWORKS - 10 or number % 2 == (vantage == "sin1")

    def post(self, vantage: str, providers: tuple[str, ...] = PROVIDERS, numbers: range = range(NETWORKS)) -> None:
        head = {"at": self.now, "vantage": vantage}
        lines = [
            json.dumps(head | {"provider": provider, "address": f"10.{n}.0.7", "rtt_ms": RTT[provider]})
            for n in numbers for provider in providers if self.hears(vantage, n)
        ]  # fmt: skip
        self.wishing.after(self.control.ingest("\n".join(lines).encode(), self.now), self.now)

    def round(self, seconds: float = 10.0) -> None:
        self.now += seconds
        self.control.tick(self.now)
        self.wishing.tick(self.now)

    def arrive(self, **room: float) -> None:
        for vantage, packets in room.items():
            assert self.wishing.wanted.arrive(vantage, packets, [(name, 4) for name in PROVIDERS], self.now)

    def taken(self, vantage: str, seconds: float = 10.0) -> list[dict[str, Any]]:
        """What it gets over so many seconds."""
        return [entry for k in range(int(seconds * 10)) for entry in self.wishing.take(vantage, self.now + k / 10)]


@pytest.fixture
def house(tmp_path: Path) -> House:
    made = House(tmp_path)
    for _ in range(3):
        made.post("fra1")
        made.post("sin1")
        made.round()
    return made


def arms(entries: list[dict[str, Any]]) -> list[tuple[int, str]]:
    return [(int(entry["addresses"][0].split(".")[1]), entry["provider"]) for entry in entries]


def test_who_has_no_room_is_told_nothing(house: House) -> None:
    house.arrive(fra1=0.0)
    house.round()
    assert house.taken("fra1") == []


def test_vantages_with_room_share_what_is_worth_most_and_get_what_they_hear(house: House) -> None:
    house.arrive(fra1=2.0, sin1=2.0)
    house.round()
    given = {vantage: arms(house.taken(vantage)) for vantage in ("fra1", "sin1")}
    assert {vantage: len(entries) for vantage, entries in given.items()} == {"fra1": 20, "sin1": 20}
    assert all(house.hears(vantage, number) for vantage, entries in given.items() for number, _ in entries)
    assert max(Counter(given["fra1"] + given["sin1"]).values()) == 1, "nothing twice"
    assert house.wishing.wanted.counts["schedule", "handed"] == 40


def test_a_plan_is_spread_over_its_round_and_what_is_late_lapses(house: House) -> None:
    house.arrive(fra1=2.0)
    house.round()
    by_second = [len(house.wishing.take("fra1", house.now + second)) for second in range(4)]
    assert sum(by_second) == pytest.approx(7, abs=1)
    assert house.wishing.take("fra1", house.now + 9.9 + STALE + 1.0) == []
    assert house.wishing.wanted.counts["schedule", "lapsed"] == pytest.approx(13, abs=1)


def test_an_arm_with_few_samples_is_asked_for_once_a_minute(house: House) -> None:
    """cedar is probed no more: its samples fade, and with them what is known."""
    when = []
    for k in range(30):
        house.arrive(fra1=3.0)
        house.post("fra1", ("alder", "birch"))
        house.round()
        asked = [number for number, provider in arms(house.taken("fra1")) if provider == "cedar"]
        when += [k] * len(asked)
        if asked:
            for number in asked:
                house.post("fra1", ("cedar",), range(number, number + 1))
    heard = sum(house.hears("fra1", number) for number in range(NETWORKS))
    assert len(when) >= heard * 30 * 10 / 60 / 2, "each, as far as half of the room goes"


def test_a_doubt_reaches_the_vantages_that_ask_and_no_others(house: House) -> None:
    line = {"at": house.now + 1, "vantage": "fra1", "provider": "birch", "address": f"10.{NETWORKS - 1}.0.7", "lost": True}
    house.arrive(fra1=0.0, sin1=0.0)
    house.wishing.after(house.control.ingest(json.dumps(line).encode(), house.now + 1), house.now + 1)
    entries = {vantage: house.wishing.take(vantage, house.now + 1) for vantage in ("fra1", "sin1")}
    assert {(vantage, entry["provider"] == "birch") for vantage in entries for entry in entries[vantage]} == {
        ("fra1", True), ("fra1", False), ("sin1", True), ("sin1", False),
    }  # fmt: skip
    assert {tuple(entry["addresses"]) for each in entries.values() for entry in each} == {(f"10.{NETWORKS - 1}.0.7",)}
    assert house.wishing.take("fra1", house.now + 1.1) == []


def test_queues_and_replies_are_bounded(house: House) -> None:
    wanted = house.wishing.wanted
    house.arrive(fra1=0.0)
    want = house.control.measured.health.wants(house.now)
    assert want == []
    line = {"at": house.now + 1, "vantage": "fra1", "provider": "birch", "address": "10.0.0.7", "lost": True}
    house.control.ingest(json.dumps(line).encode(), house.now + 1)
    wants = house.control.measured.health.wants(house.now + 1)
    wanted.doubt(wants[:1] * (QUEUE_MOST + 7), house.now + 1)
    assert wanted.counts["doubt", "full"] == 7
    assert len(wanted.take("fra1", house.now + 1)) == A_REPLY
    assert wanted.take("fra1", house.now + 1 + STALE + 0.1) == []
    wanted.doubt(wants[:1], house.now + IDLE + 1.0)
    assert wanted.take("fra1", house.now + IDLE + 1.0) == [], "it asks no more"
    assert sum(wanted.counts.values()) == QUEUE_MOST + 7 + 1
