"""Who asks becomes who is probed: from the workers' samples and lists to what agents are given, over restarts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest

from edgedns.config import TARGETS_METHODS
from edgedns.control import targets
from edgedns.control.targets import Answered, Targets, Terms
from edgedns.engine import seen
from edgedns.engine.seen import NOT_STEERED, Seen
from edgedns.model import METHODS, Provider
from edgedns.probe.collector import Outcome
from edgedns.probe.lists import Listed
from edgedns.probe.targets import load
from edgedns.steer.space import asn
from edgedns.steer.space.atoms import build
from edgedns.store.local import LocalStore

TABLE = "".join(f"{n}.{n}.0.0\t{n}.{n}.255.255\t{64500 + n}\tDE\tNetwork {n}\n" for n in range(4, 12))
NOW = 1_800_000_000.0


class Ground(NamedTuple):
    key: str
    atoms: Any


class Rules(NamedTuple):
    providers: dict[str, Provider]


class World(NamedTuple):
    """As much of one as targets are about."""

    ground: Ground
    rules: Rules


def world(folder: Path, table: str = TABLE, own: str = "7.7.7.7") -> Any:
    (folder / "table.tsv").write_text(table)
    provider = Provider("alder", (ip_address(own).packed,), ())
    return World(Ground(str(hash(table)), build(asn.load(folder / "table.tsv"))), Rules({"alder": provider}))


def query(client: str, subnet: str = "", answered: int = 3, proven: bool = True) -> Seen:
    address, _, length = subnet.partition("/")
    packed = ip_address(address).packed if address else b""
    return Seen(NOW - 3, ip_address(client).packed, packed, int(length or 0), b"", 1, 0, answered, proven, False)


class Case:
    """Targets over a folder, told what the ring holds."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, **terms: Any) -> None:
        self.log: list[str] = []
        self.world = world(folder)
        self.ring: list[Seen] = []
        self.now = NOW
        monkeypatch.setattr(seen, "read", lambda run, since, until: self.ring)
        self.targets = Targets(LocalStore(folder / "state"), folder, self.log.append, Terms(**terms))

    def learn(self, *queries: Seen, replied: Sequence[str] = (), lost: Sequence[str] = ()) -> list[str]:
        self.ring = list(queries)
        self.targets.learn(self.world, Answered(set(replied), set(lost)), self.now)
        self.now += 5
        return self.given()

    def given(self, networks: int = 1000) -> list[str]:
        return [json.loads(line)["address"] for line in self.targets.give("fra1", networks, self.now).splitlines()]


def test_resolvers_speak_for_themselves_and_subnets_for_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case(tmp_path, monkeypatch)
    forwarded = [query("8.8.8.8", "5.5.5.0/24"), query("4.4.4.4", "0.0.0.0/0")]
    assert case.learn(*forwarded, query("9.9.9.9"), query("9.9.9.9"), query("6.6.6.6")) == ["9.9.9.9", "6.6.6.6"]
    assert case.given(1) == ["9.9.9.9"]


def test_never_who_is_special_unmapped_ours_or_was_not_steered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case(tmp_path, monkeypatch)
    nobody = ["10.10.0.1", "127.0.0.1", "203.0.113.7", "::1", "1.2.3.4", "7.7.7.7"]
    asked = [query(text) for text in nobody] + [query("8.8.8.8", answered=NOT_STEERED)]
    assert case.learn(*asked, query("::ffff:9.9.9.1"), query("11.11.1.1")) == ["9.9.9.1", "11.11.1.1"]


def test_listed_hosts_in_subnets_that_were_asked_for_come_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "list").write_text("5.5.1.1\n5.5.2.2\n5.5.3.3\n6.6.1.1\n10.1.1.1\n")
    case = Case(tmp_path, monkeypatch, lists=(Listed(tmp_path / "list"),))
    case.targets.read(tmp_path / "list")
    assert "4 targets, 1 left out: no network's addresses" in case.log[-1]
    assert case.learn(*[query("8.8.8.8", "5.5.3.0/24")] * 2) == ["5.5.3.3", "5.5.1.1", "5.5.2.2", "6.6.1.1"]
    (tmp_path / "list").write_text("5.5.2.2\n")
    case.targets.read(tmp_path / "list")
    assert case.learn() == ["5.5.2.2"]
    (tmp_path / "list").write_text("what\n")
    case.targets.read(tmp_path / "list")
    assert case.learn() == ["5.5.2.2"]
    assert "list:1: 'what' does not appear" in case.log[-1]
    assert "it stays as it was" in case.log[-1]


def test_who_opted_out_is_not_given_and_an_opt_out_list_that_can_not_be_read_bars_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "opt-out"
    case = Case(tmp_path, monkeypatch, opt_out=path)
    case.targets.read(path)
    assert "no targets are given out until it can be read" in case.log[-1]
    assert case.learn(query("9.9.9.9"), query("8.8.8.8")) == []
    path.write_text("8.8.0.0/16\n")
    case.targets.read(path)
    assert case.learn() == ["9.9.9.9"]
    path.write_text("8.8.0.0/16\n9.9.9.9/8\n")
    case.targets.read(path)
    assert "host bits set" in case.log[-1]
    assert case.learn() == ["9.9.9.9"], "the list that was read last holds"
    path.write_text("8.8.0.0/16\n9.0.0.0/8\n")
    case.targets.read(path)
    assert case.learn() == []


def test_who_never_answers_gives_way_to_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case(tmp_path, monkeypatch)
    hosts = [query(f"9.9.9.{n}") for n in range(1, 6) for _ in range(9 - n)]
    assert case.learn(*hosts) == ["9.9.9.1", "9.9.9.2", "9.9.9.3"]
    for _ in range(121):
        last = case.learn(lost=["9.9.9.1", "9.9.9.2"], replied=["9.9.9.2", "9.9.9.3"])
    assert last == ["9.9.9.2", "9.9.9.3", "9.9.9.4"]


def test_what_was_learnt_outlives_the_process_and_another_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case(tmp_path, monkeypatch)
    case.learn(query("9.9.9.9"), query("8.8.8.8"), query("8.8.8.8"))
    case.targets.save()
    again = Case(tmp_path, monkeypatch)
    again.targets.restore()
    assert again.learn() == ["8.8.8.8", "9.9.9.9"]
    again.world = world(tmp_path, TABLE.replace("8.8.0.0", "8.8.9.0"))
    assert again.learn() == ["9.9.9.9"], "its space is in no table any more"
    (tmp_path / "state" / "targets.npz").write_bytes(b"rubbish")
    broken = Case(tmp_path, monkeypatch)
    broken.targets.restore()
    assert broken.learn(query("9.9.9.9")) == ["9.9.9.9"]
    assert "targets.npz" in broken.log[0]


def test_the_clock_may_be_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case(tmp_path, monkeypatch)
    spans: list[tuple[float, float]] = []

    def read(run: Path, since: float, until: float) -> list[Seen]:
        spans.append((since, until))
        return []

    monkeypatch.setattr(seen, "read", read)
    for case.now in (NOW, NOW + 5, NOW - 1e6, NOW - 1e6 + 5, NOW):
        case.learn()
    assert [until - since for since, until in spans] == [targets.OFFER_EVERY, 5, targets.OFFER_EVERY, 5, targets.OFFER_EVERY]


def test_a_damaged_ring_teaches_nothing_and_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case(tmp_path, monkeypatch)
    odd = [query("9.9.9.9", "5.5.5.0/24")._replace(source=200), query("::", "::/0")._replace(source=255), query("::")]
    assert case.learn(*odd, query("9.9.9.9")) == ["9.9.9.9"]


def test_what_samples_say_of_addresses_is_noted_once_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    columns: Any = SimpleNamespace(address=["9.9.9.1", "9.9.9.2", "9.9.9.1"], rtt=np.array([3.5, np.nan, np.nan]))
    answered = Answered()
    answered.take(Outcome(columns=columns))
    assert (answered.replied, answered.lost) == ({"9.9.9.1"}, {"9.9.9.1", "9.9.9.2"})
    taken = answered.take_over()
    assert (taken.replied, answered.replied, answered.lost) == ({"9.9.9.1"}, set(), set())
    monkeypatch.setattr(targets, "ANSWERED_MOST", 0)
    answered.take(Outcome(columns=columns))
    assert answered.lost == set()


def test_what_is_given_is_a_targets_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case(tmp_path, monkeypatch, method="dns")
    case.learn(query("9.9.9.9"), query("8.8.8.8"))
    (tmp_path / "targets").write_bytes(case.targets.give("fra1", 10, 0.0))
    assert [(each.address, each.method, each.endpoint.port) for each in load(tmp_path / "targets")] == [
        ("8.8.8.8", "dns", 53), ("9.9.9.9", "dns", 53),
    ]  # fmt: skip


def test_learnt_hosts_are_probed_by_methods_that_agents_have() -> None:
    assert set(TARGETS_METHODS) < set(METHODS)
