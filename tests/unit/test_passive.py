"""Kinds of samples side by side in the control process: what steers, what is evidence, and what may not mix."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgedns.control import Control
from edgedns.control.measured import BEACONS_ALONE
from edgedns.dns import name as names
from edgedns.dns import types
from edgedns.engine.explain import Question, explain
from edgedns.model import NetworkKey
from edgedns.steer.table.rtt import beside
from tests.small import network
from tests.unit.test_control import ALDER, BIRCH, CEDAR, GOOD, NOW, Place, ask, measure

CLIENTS = range(1, 9)
SEVENTH = NetworkKey(64512 + 7, "DE", 4, 10 << 8 | 7)
FOR_CEDAR = {"alder": 60.0, "birch": 50.0, "cedar": 15.0}


@pytest.fixture
def control(tmp_path: Path) -> Control:
    return Place(tmp_path).control()


def lines(kind: str, at: float, rtts: Mapping[str, float], number: int, clients: Iterable[int] = CLIENTS) -> bytes:
    found = [
        {"at": at, "vantage": "web", "kind": kind, "provider": provider, "address": f"10.{number}.{client}.0", "rtt_ms": rtt}
        for client in clients
        for provider, rtt in rtts.items()
    ]
    return "\n".join(map(json.dumps, found)).encode()


def told(control: Control, kind: str, rtts: Mapping[str, float], now: float, rounds: int = 3, number: int = 7) -> float:
    for _ in range(rounds):
        assert not control.ingest(lines(kind, now + 1, rtts, number), now + 1).rejected
        now += 10
        control.close_round(now)
    return now


def explained(control: Control, number: int, now: float) -> dict[str, Any]:
    client = bytes(map(int, network(number).split(".")))
    question = Question(names.from_text("www.example.net"), types.A, client)
    return explain(control.snapshot(), question, control.evidence(now), now)


def test_beacons_steer_a_network_that_nobody_probes(control: Control) -> None:
    now = measure(control, GOOD, rounds=2, networks=range(7))
    assert ask(control, of=7, at=now) == [BIRCH]  # as the level above
    now = told(control, "beacon", FOR_CEDAR, now)
    assert ask(control, of=7, at=now) == [CEDAR]
    assert ask(control, of=6, at=now) == [BIRCH]


def test_beacons_move_no_network_that_is_probed(control: Control) -> None:
    now = measure(control, GOOD, rounds=2)
    rows = control.force.table.lookup(SEVENTH, 4)
    now = told(control, "beacon", FOR_CEDAR, now)
    assert ask(control, of=7, at=now) == [BIRCH]
    assert control.passive.crowd.counts["probed"] == 3 * 8 * 3
    again = control.force.table.lookup(SEVENTH, 4)
    assert [one.rtt_ms for one in again] == [one.rtt_ms for one in rows]


def test_no_row_is_of_two_kinds(control: Control) -> None:
    """A network of beacons alone stands beside its country, which was probed elsewhere: each by its own kind."""
    now = measure(control, GOOD, rounds=2, networks=range(7))
    level = NetworkKey(-1, "DE", 0, -1)
    before = {one.provider: one for one in control.force.table.lookup(level, 4)}
    now = told(control, "beacon", FOR_CEDAR, now)
    measure(control, GOOD, networks=range(7), now=now - 10)
    own = {one.provider: one for one in control.force.table.lookup(SEVENTH, 4)}
    country = {one.provider: one for one in control.force.table.lookup(level, 4)}
    assert {one.level for one in own.values()} == {"network"}
    assert own["cedar"].rtt_ms == pytest.approx(15.0, rel=0.09)
    assert country["cedar"].rtt_ms == before["cedar"].rtt_ms
    rtt, beacons = (control.measured.rtt.cells(), control.measured.beacons.cells())
    both = beside(rtt, beacons)
    assert both.weights.sum() < rtt.weights.sum() + beacons.weights.sum()
    assert (np.diff(both.codes) > 0).all()
    assert (np.diff(both.arms) > 0).all()


def test_a_restart_goes_on_with_beacons(tmp_path: Path) -> None:
    place = Place(tmp_path)
    control = place.control()
    now = told(control, "beacon", FOR_CEDAR, NOW)
    control.save(now)
    control = place.control(now + 1)
    control.close_round(now + 10)
    assert {one.level for one in control.force.table.lookup(SEVENTH, 4)} == {"network"}
    assert ask(control, of=7, at=now + 10) == [CEDAR]


def test_one_client_moves_nothing(control: Control) -> None:
    now = measure(control, GOOD, rounds=2, networks=range(7))
    for _ in range(5):
        control.ingest(lines("beacon", now + 1, FOR_CEDAR, 7, clients=[5]), now + 1)
        now += 10
        control.close_round(now)
    assert ask(control, of=7, at=now) == [BIRCH]


def test_users_connections_are_evidence_and_decide_nothing(control: Control) -> None:
    now = measure(control, GOOD, rounds=2)
    now = told(control, "passive", {"alder": 3.0}, now)  # as if alder were far better than any probe says
    assert ask(control, of=7, at=now) == [BIRCH]
    estimates = {one.provider: one for one in control.force.table.lookup(SEVENTH, 4)}
    assert estimates["alder"].rtt_ms == pytest.approx(30.0, rel=0.09)
    candidates = {one["provider"]: one for one in explained(control, 7, now)["candidates"]}
    users = candidates["alder"]["users"]
    assert users["rtt_ms"] == pytest.approx(3.0, rel=0.09)
    assert users["connections"] == pytest.approx(24, rel=0.1)
    assert users["age"] == pytest.approx(9.0)
    assert "users" not in candidates["birch"]


def test_beacons_keep_no_table_alive_that_probes_made(control: Control) -> None:
    now = measure(control, GOOD, rounds=2, networks=range(7))
    last = control.force.taken_at
    now = told(control, "beacon", FOR_CEDAR, now, rounds=12)
    assert control.passive.crowd.counts["counted"] > 0
    assert control.force.taken_at <= last + 20
    now = told(control, "beacon", FOR_CEDAR, last + BEACONS_ALONE + 1)
    assert control.force.taken_at == now


def test_beacons_alone_make_a_table(control: Control) -> None:
    now = told(control, "beacon", FOR_CEDAR, NOW)
    assert control.force.taken_at == now
    assert ask(control, of=7, at=now) == [CEDAR]
    assert ask(control, of=7, at=NOW + 2 * BEACONS_ALONE) == [ALDER]  # the nominal order again


def test_metrics_partition(control: Control) -> None:
    told(control, "beacon", FOR_CEDAR, NOW, rounds=2)
    told(control, "passive", FOR_CEDAR, NOW + 20, rounds=1)
    families = {family.name: dict(family.samples) for family in control.passive.families()}
    assert sum(families["edgedns_beacon_samples"].values()) == 2 * 8 * 3
    assert families["edgedns_passive_samples"] == {(): 24.0}
