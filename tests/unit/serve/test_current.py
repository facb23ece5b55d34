"""What a worker answers from: it follows root, refuses what is not whole, and swaps what belongs together at once."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgedns import metrics
from edgedns.control import Control, Paths
from edgedns.errors import SourceError
from edgedns.serve.current import Current, engine_name
from tests.small import replace as save
from tests.small import write_rules, write_table, write_zone

NOW = 1_790_000_000.0
QUERY = bytes.fromhex("000100000001000000000000") + b"\3www\7example\3net\0\0\1\0\1"
CLIENT = bytes((10, 7, 1, 1))


@pytest.fixture
def control(tmp_path: Path) -> Control:
    made = Control(
        Paths(tmp_path / "state", write_rules(tmp_path / "rules"), write_table(tmp_path / "t")), "node", lambda _: None
    )
    made.start(NOW)
    return made


@pytest.fixture
def current(control: Control) -> Current:
    return Current(control.paths.state, metrics.Counters(metrics.counters_path(control.run, 0)))


def answered(current: Current) -> bytes:
    reply = current.respond(QUERY, CLIENT, "udp", NOW)
    assert reply is not None
    return reply[-4:]


def publish(control: Control, **changed: Any) -> None:
    root = control.publisher.last()
    assert root is not None
    save(control.publisher.directory / "root.json", json.dumps(root | {"serial": root["serial"] + 1} | changed))


def test_nothing_published_is_silence(tmp_path: Path) -> None:
    current = Current(tmp_path, metrics.Counters())
    current.refresh(NOW)
    assert current.serial == 0
    assert current.snapshot is None
    assert current.respond(QUERY, CLIENT, "udp", NOW) is None


def test_root_is_followed(control: Control, current: Current) -> None:
    current.refresh(NOW)
    assert current.serial == 1
    assert answered(current) == bytes((192, 0, 2, 10))
    write_zone(control.paths.rules, nominal=["cedar", "alder"])
    control.take_rules(control.worlds.read_rules(NOW), NOW)
    assert answered(current) == bytes((192, 0, 2, 10))
    current.refresh(NOW)
    assert answered(current) == bytes((203, 0, 113, 10))


def test_what_did_not_change_is_not_opened_again(control: Control, current: Current) -> None:
    current.refresh(NOW)
    first = current.snapshot
    publish(control, fresh_until=NOW + 900)
    current.refresh(NOW)
    second = current.snapshot
    assert first is not None
    assert second is not None
    assert second.serial == first.serial + 1
    assert second.base is first.base
    assert second.files.atoms is first.files.atoms
    assert second.files.overlays[0] is first.files.overlays[0]
    current.refresh(NOW)
    assert current.snapshot is second


def publish_foreign(control: Control) -> None:
    control.publisher.put("base", b"no base at all", "x")
    publish(control, base="base-x.bin")


def publish_half(control: Control) -> None:
    control.publisher.put("base", control.world.compiled.content[:-64], "half")
    publish(control, base="base-half.bin")


WRONG: dict[str, Callable[[Control], object]] = {
    "root is no JSON": lambda c: save(c.publisher.directory / "root.json", "{"),
    "root is another's": lambda c: publish(c, format=99),
    "root lacks a key": lambda c: save(c.publisher.directory / "root.json", '{"format": 1, "serial": 5}'),
    "a file is missing": lambda c: publish(c, base="base-none.bin"),
    "a file is foreign": publish_foreign,
    "a file is half": publish_half,
    "a file is of another kind": lambda c: publish(c, base=c.world.ground.name),
    "there is nothing in the schedule": lambda c: publish(c, schedule=[]),
    "a number is text": lambda c: publish(c, serial="seven"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_not_whole_is_refused_and_the_last_good_stands(control: Control, current: Current, wrong: str) -> None:
    current.refresh(NOW)
    good = current.snapshot
    WRONG[wrong](control)
    for _ in range(2):
        with pytest.raises(Exception):  # noqa: B017, PT011 - the worker's loop takes them all
            current.refresh(NOW)
    assert current.snapshot is good
    assert answered(current) == bytes((192, 0, 2, 10))
    (control.publisher.directory / "root.json").unlink()
    control._heal()
    control.publish(control.force, NOW)
    current.refresh(NOW)
    assert current.snapshot is not good


def test_root_and_files_deleted_change_nothing(control: Control, current: Current) -> None:
    current.refresh(NOW)
    for path in control.publisher.directory.iterdir():
        path.unlink()
    current.refresh(NOW)
    assert answered(current) == bytes((192, 0, 2, 10))


def test_damaged_secrets_do_not_hold_up_answers(control: Control, current: Current) -> None:
    current.refresh(NOW)
    keys = current._secrets
    save(control.paths.state / "secrets.json", '{"cookies": ["00"]}')
    publish(control)
    with pytest.raises(SourceError, match="cookie secrets are 16 octets each"):
        current.refresh(NOW)
    assert current.serial == 2
    assert current._secrets == keys
    (control.paths.state / "secrets.json").unlink()
    current.refresh(NOW)
    assert current._secrets == keys


def test_a_snapshot_and_its_counters_change_together(control: Control, current: Current) -> None:
    current.refresh(NOW)
    before = current._serving
    write_table(control.paths.asn or Path(), range(3))  # fewer networks: another array
    control.take_table(control.worlds.read_table(NOW), NOW)
    current.refresh(NOW)
    after = current._serving
    assert before is not None
    assert after is not None
    assert before.tally.networks is not None
    assert after.tally.networks is not None
    assert len(after.tally.networks) == len(after.snapshot.files.atoms["net_asn"]) < len(before.tally.networks)
    assert answered(current)


def test_it_answers_where_it_cannot_count(control: Control, current: Current) -> None:
    (control.run / f"worker-0-{control.world.ground.key}.networks").mkdir()
    current.refresh(NOW)
    assert answered(current) == bytes((192, 0, 2, 10))


@pytest.mark.parametrize(("value", "name"), [("python", "python"), ("reference", "reference")])
def test_an_engine_can_be_forced(value: str, name: str) -> None:
    assert engine_name({"EDGEDNS_ENGINE": value}) == name


def test_an_unknown_engine_is_an_error() -> None:
    assert engine_name({}) in ("python", "native")
    assert engine_name({"EDGEDNS_ENGINE": ""}) == engine_name({})
    with pytest.raises(SourceError, match="EDGEDNS_ENGINE is 'warp'"):
        engine_name({"EDGEDNS_ENGINE": "warp"})


def test_the_reference_path_gives_the_same(control: Control, current: Current, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "EDGEDNS_ENGINE", "reference")
    forced = Current(control.paths.state, metrics.Counters())
    for each in (current, forced):
        each.refresh(NOW)
    assert current.respond(QUERY, CLIENT, "udp", NOW) == forced.respond(QUERY, CLIENT, "udp", NOW)
