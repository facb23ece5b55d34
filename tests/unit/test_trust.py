"""A lying vantage among honest ones: answers of networks that others measure too stay, and no provider goes down.

The control process that serves, asked as a worker would be; on a clock that is driven.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from ipaddress import ip_address, ip_network
from pathlib import Path
from random import Random

import pytest

from edgedns.cli.server import trust
from edgedns.control import Control, Paths
from edgedns.dns import name as names
from edgedns.dns import types
from edgedns.dns.edns import ClientSubnet, Edns
from edgedns.dns.message import Query
from edgedns.engine.answer import answer
from edgedns.serve.current import Mapped
from edgedns.serve.vantages import Order
from tests.small import ADDRESS, network, subnet, write_rules, write_table

START = 1_790_000_000.0
NETWORKS = 24
TRUE = {"alder": 35.0, "birch": 20.0, "cedar": 50.0}  # birch is best everywhere
FAR = {"fra1": 5.0, "ams1": 12.0, "lhr1": 18.0, "nyc1": 75.0}
Tells = Callable[[str, float, Random], float | None]  # (provider, RTT, dice) -> what is reported

LIES: dict[str, Tells] = {
    "a rival at 1 ms": lambda provider, rtt, dice: 1.0 if provider == "cedar" else rtt,
    "the best one slow": lambda provider, rtt, dice: rtt + 400 if provider == "birch" else rtt,
    "the best one lost": lambda provider, rtt, dice: None if provider == "birch" else rtt,
    "a rival at 1 ms, all else lost": lambda provider, rtt, dice: 1.0 if provider == "cedar" else None,
    "everything lost": lambda provider, rtt, dice: None,
    "anything": lambda provider, rtt, dice: None if dice.random() < 0.3 else dice.uniform(0.2, 500.0),
}


class Scene:
    """A control process, and vantages that time each path once in ten seconds, half a second's samples a body."""

    def __init__(self, top: Path, vantages: tuple[str, ...], liars: tuple[str, ...] = ()) -> None:
        rules = write_rules(top / "rules", limit=1.0)
        paths = Paths(top / "state", rules, write_table(top / "table.tsv"))
        self.said: list[str] = []
        self.control = Control(paths, "node", self.said.append)
        self.now, self.dice = START, Random(7)
        self.control.start(self.now)
        self.vantages, self.liars, self.tells = vantages, liars, LIES["anything"]
        self.often = 1
        self.phase = {
            (vantage, number, provider): self.dice.uniform(0.0, 10.0)
            for vantage in vantages
            for number in range(NETWORKS)
            for provider in TRUE
        }

    def seconds(self, duration: float, lying: bool = False) -> None:
        until = self.now + duration
        while self.now < until:
            self.now += 0.5
            for vantage in self.vantages:
                body = b"\n".join(self.due(vantage, lying))
                if body:
                    self.control.ingest(body, self.now)
            self.control.tick(self.now)

    def due(self, vantage: str, lying: bool) -> list[bytes]:
        lines = []
        for number in range(NETWORKS):
            for provider, true in TRUE.items():
                since = (self.now - self.phase[vantage, number, provider]) % 10.0
                if since >= 0.5:
                    continue
                rtt: float | None = true + FAR[vantage] + number % 7 + self.dice.expovariate(0.5)
                if lying and vantage in self.liars and rtt is not None:
                    rtt = self.tells(provider, rtt, self.dice)
                result = {"lost": True} if rtt is None else {"rtt_ms": rtt}
                told = {"vantage": vantage, "provider": provider, "address": network(number), **result}
                for repeat in range(self.often if lying and vantage in self.liars else 1):
                    lines.append(json.dumps({"at": self.now - since - repeat / 1000, **told}).encode())
        return lines

    def answers(self) -> set[str]:
        """Which providers any network is given."""
        root = self.control.publisher.last()
        assert root is not None
        snapshot = Mapped(self.control.publisher.directory).snapshot(root)
        wire = names.from_text("www.example.net")
        of = {address: name for name, address in ADDRESS.items()}
        found = set()
        for number in range(NETWORKS):
            prefix = ip_network(subnet(number))
            edns = Edns(1232, 0, False, ClientSubnet(1, 24, 0, prefix.network_address.packed))
            given, _ = answer(
                snapshot, Query(0, 0, False, False, wire, wire, types.A, types.IN, edns, b""), bytes((127, 0, 0, 1)), self.now
            )
            found |= {of.get(str(ip_address(rr.rdata)), "?") for rr in given.response.answer}
        return found

    def watched(self, duration: float, lying: bool) -> None:
        """Nothing moves meanwhile."""
        for _ in range(round(duration / 4)):
            self.seconds(4.0, lying)
            assert self.answers() == {"birch"}, self.said[-5:]
            assert not any(self.control.measured.health.provider_down(name, 4) for name in TRUE), self.said[-5:]

    @property
    def out(self) -> list[str]:
        return self.control.measured.vantages.quarantined


@pytest.mark.parametrize(
    "often", [1, pytest.param(8, marks=pytest.mark.long)], ids=["as often as the others", "eight times as often"]
)
@pytest.mark.parametrize("tells", LIES.values(), ids=LIES.keys())
def test_a_liar_moves_no_answer_and_takes_no_provider_down(tmp_path: Path, tells: Tells, often: int) -> None:
    scene = Scene(tmp_path, ("fra1", "ams1", "lhr1"), ("lhr1",))
    scene.tells, scene.often = tells, often
    scene.seconds(40.0)
    assert scene.answers() == {"birch"}
    scene.watched(40.0, lying=True)
    scene.watched(12.0, lying=False)


def test_a_liar_that_was_never_honest_moves_nothing_either(tmp_path: Path) -> None:
    scene = Scene(tmp_path, ("fra1", "ams1", "lhr1"), ("lhr1",))
    scene.tells = LIES["a rival at 1 ms"]
    scene.seconds(40.0, lying=True)
    scene.watched(40.0, lying=True)
    assert scene.out == ["lhr1"]


def test_a_provider_that_all_lose_goes_down_at_once(tmp_path: Path) -> None:
    scene = Scene(tmp_path, ("fra1", "ams1", "lhr1"), ("fra1", "ams1", "lhr1"))
    scene.tells = LIES["the best one lost"]
    scene.seconds(60.0)
    scene.seconds(6.0, lying=True)
    assert scene.control.measured.health.provider_down("birch", 4)
    assert scene.out == []


def test_who_is_out_is_said_everywhere_and_comes_back(tmp_path: Path) -> None:
    scene = Scene(tmp_path, ("fra1", "ams1", "lhr1"), ("lhr1",))
    scene.seconds(30.0)
    scene.seconds(40.0, lying=True)
    assert scene.out == ["lhr1"]
    assert [line for line in scene.said if "vantage lhr1 is in quarantine" in line]
    assert [note for note in scene.control.notes if "lhr1" in note["text"]]
    told = {each["name"]: each["quarantined"] for each in trust.told(scene.control, scene.now)["vantages"]}
    assert (told["fra1"], told["lhr1"]["by"]) == (None, None)
    gauges = {family.name: dict(family.samples) for family in trust.families(scene.control)}
    assert gauges["edgedns_vantage_quarantined"] == {("ams1",): 0.0, ("fra1",): 0.0, ("lhr1",): 1.0}
    assert gauges["edgedns_samples_left_out"][("quarantined",)] > 0
    scene.seconds(100.0)
    assert scene.out == []
    assert [line for line in scene.said if "vantage lhr1 is out of quarantine: it agrees" in line]


def test_an_order_is_followed_at_once_and_outlives_the_process(tmp_path: Path) -> None:
    scene = Scene(tmp_path, ("fra1", "ams1"))
    scene.seconds(20.0)
    trust.ordered(scene.control, Order("ams1", True, "noc", "uplink"), scene.now)
    before = scene.control.measured.vantages.kept_out
    scene.seconds(10.0)
    assert scene.control.measured.vantages.kept_out > before
    with pytest.raises(trust.TrustError, match="no other vantage is measuring"):
        trust.ordered(scene.control, Order("fra1", True, "noc", "uplink"), scene.now)
    again = Control(scene.control.paths, "node", scene.said.append)
    again.start(scene.now)
    assert again.measured.vantages.quarantined == ["ams1"]
    trust.ordered(again, Order("ams1", False, "noc", ""), scene.now)
    assert again.measured.vantages.quarantined == []


def test_the_same_body_counts_once_also_in_the_next_process(tmp_path: Path) -> None:
    scene = Scene(tmp_path, ("fra1",))
    scene.now += 5
    body = b"\n".join(scene.due("fra1", False))
    assert scene.control.ingest(body, scene.now).taken > 0
    repeated = scene.control.ingest(body, scene.now + 1)
    assert (repeated.taken, repeated.reply()) == (0, {"accepted": 0, "rejected": [], "repeated": True})
    scene.control.save(scene.now + 2)
    again = Control(scene.control.paths, "node", scene.said.append)
    again.start(scene.now + 3)
    assert again.ingest(body, scene.now + 4).repeated


def test_a_clock_that_is_off_is_refused_in_a_sentence(tmp_path: Path) -> None:
    scene = Scene(tmp_path, ("fra1",))
    scene.now += 5
    body = b"\n".join(scene.due("fra1", False))
    outcome = scene.control.ingest(body, scene.now, None, -37.25)
    assert outcome.taken == 0
    assert outcome.rejected[0][1] == "your clock is 37.2 s behind ours, and 5 s is the most that is borne: set it by NTP"
    assert scene.control.collector.counts["bad_time"] == outcome.rejected_total
    assert not scene.control.ingest(body + b"\n", scene.now, "fra1", -37.25).taken
    assert trust.told(scene.control, scene.now)["vantages"][0]["clock_offset"] == -37.25
    body = b"\n".join(scene.due("fra1", False))
    assert scene.control.ingest(body, scene.now, "fra1", 1.5).taken > 0
    assert trust.told(scene.control, scene.now)["vantages"][0]["clock_offset"] == 1.5


def test_samples_that_come_late_count_and_reveal_no_failure(tmp_path: Path) -> None:
    """What an agent kept while we were away: losses of minutes ago must not take anything out now."""
    scene = Scene(tmp_path, ("fra1",))
    scene.seconds(60.0)
    changes = scene.control.measured.health.changes
    old = []
    for number in range(NETWORKS):
        for k in range(20):
            told = {"at": scene.now - 200 + k, "vantage": "fra1", "address": network(number)}
            old.append(json.dumps({**told, "provider": "birch", "lost": True}).encode())
            old.append(json.dumps({**told, "provider": "alder", "rtt_ms": 30.0 + k}).encode())
    assert scene.control.ingest(b"\n".join(old), scene.now).taken == len(old)
    assert scene.control.measured.health.changes == changes
    scene.seconds(20.0)
    assert scene.answers() == {"birch"}
