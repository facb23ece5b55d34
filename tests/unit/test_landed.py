"""What landings do to decisions: losses that they explain move nobody, others do, and liars in quarantine are not heard."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgedns.control import Control, Paths
from edgedns.steer.failure.health import Health
from tests.small import network, samples, write_rules, write_table

NOW = 1_790_000_000.0
GOOD: dict[str, float | None] = {"alder": 30.0, "birch": 20.0, "cedar": 40.0}
MOVED = [7]


@pytest.fixture
def control(tmp_path: Path) -> Control:
    """After two rounds in which fra1 heard everything, and ams1 too, but birch's replies to it."""
    paths = Paths(tmp_path / "state", write_rules(tmp_path / "rules"), write_table(tmp_path / "table.tsv"))
    made = Control(paths, "node", lambda line: None)
    made.start(NOW)
    for at in (NOW, NOW + 10):
        made.ingest(samples(at + 1, GOOD, vantage="fra1"), at + 1)
        made.ingest(samples(at + 1, {**GOOD, "birch": None}, vantage="ams1"), at + 1)
        made.close_round(at + 10)
    return made


def landed(at: float, vantage: str = "ams1", sent_by: str = "fra1") -> bytes:
    lines = (
        {"at": at, "vantage": vantage, "provider": "birch", "address": network(n), "sent_by": sent_by} for n in MOVED
    )
    return "\n".join(map(json.dumps, lines)).encode()


def lose(control: Control, told_by: str = "", begin: float = NOW + 21) -> None:
    """fra1 hears nothing of the moved networks through birch; somebody tells of each that it landed there."""
    at = begin
    while at < begin + 10:
        if told_by:
            assert control.ingest(landed(at, told_by), at).reply() == {"accepted": len(MOVED), "rejected": []}
        control.ingest(samples(at, {**GOOD, "birch": None}, MOVED, vantage="fra1"), at)
        at += 0.5


def is_down(control: Control) -> bool:
    health: Health = control.measured.health
    key = control.network_of(bytes(map(int, network(MOVED[0]).split("."))))
    assert key is not None
    return health.state(key, "birch", 4) == "down"


def test_losses_that_nobody_explains_are_a_failure(control: Control) -> None:
    lose(control)
    assert is_down(control)


def test_losses_that_landed_elsewhere_are_none(control: Control) -> None:
    lose(control, "ams1")
    assert not is_down(control)
    known = control.measured.catchments
    assert known.excused == 20
    assert known.told(10)["catchments"][0]["lands_at"] == "ams1"
    assert control.collector.counts["landed"] == 20


def test_what_a_vantage_in_quarantine_tells_explains_nothing(control: Control) -> None:
    control.measured.vantages.order_out("ams1", "noc", "it lies", NOW + 20)
    lose(control, "ams1")
    assert is_down(control)
    assert len(control.measured.catchments) == 0


def test_who_says_it_of_everything_all_the_time_hides_no_failure(control: Control) -> None:
    """fra1 hears replies itself where ams1 claims them: so ams1 is not believed when they fail."""
    for at in (NOW + 21, NOW + 26):
        control.ingest(landed(at), at)
        control.ingest(samples(at + 1, GOOD, vantage="fra1"), at + 1)
    control.ingest(samples(NOW + 28, GOOD, vantage="fra1"), NOW + 28)
    control.close_round(NOW + 30)
    lose(control, "ams1", begin=NOW + 31)
    assert is_down(control)
    assert control.measured.catchments.belied == 20
