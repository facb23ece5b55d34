"""Worlds: what is made anew when which input changes, SOA serials, the salt, and zones that fail their tests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgedns.engine.flat import Sections, unpack
from edgedns.engine.load import Loaded, load_rules
from edgedns.engine.world import Ground, Held, Inputs, Serial, World, held_to_tests, make_ground, make_world, salt_of
from edgedns.errors import RuleErrors, SourceError
from edgedns.model import Match, Override, Prefix
from edgedns.steer.space import asn
from tests.conftest import Places
from tests.small import write_rules, write_table, write_zone

NOW = 1_790_000_000.0
PASSES = "tests: [{name: www, type: A, from: 192.0.2.1, expect: alder}]\n"
FAILS = "tests: [{name: www, type: A, from: 192.0.2.1, expect: cedar}]\n"


class Shelf:
    """Stands in for what is published: files by name, in memory."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.puts: list[str] = []

    def put(self, kind: str, content: Any, key: str = "") -> str:
        name = f"{kind}-{key or hash(bytes(content))}.bin"
        self.files[name] = bytes(content)
        self.puts.append(kind)
        return name

    def opened(self, name: str) -> Sections:
        if name not in self.files:
            raise SourceError(f"{name} is missing")
        return unpack(self.files[name], name)


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


@pytest.fixture
def inputs(tmp_path: Path, shelf: Shelf) -> Inputs:
    table = asn.load(write_table(tmp_path / "table.tsv"))
    return Inputs(table, (), 5, Places().block, shelf.put, shelf.opened)


def rules(tmp_path: Path, **zone: Any) -> Loaded:
    return load_rules(write_rules(tmp_path / "rules", **zone))


def test_the_same_inputs_give_the_same_files(tmp_path: Path, inputs: Inputs, shelf: Shelf) -> None:
    one = made(rules(tmp_path), inputs, {}, NOW)
    assert shelf.puts == ["atoms", "base"]
    two = made(rules(tmp_path), inputs, one.serials, NOW + 60, one.ground)
    assert (two.base_name, two.ground) == (one.base_name, one.ground)
    three = made(rules(tmp_path), inputs, one.serials, NOW + 60)  # another process: atoms are read again, not made
    assert three.base_name == one.base_name
    assert shelf.puts.count("atoms") == 1


def test_atoms_are_made_anew_only_for_another_table_or_other_prefixes(tmp_path: Path, inputs: Inputs) -> None:
    loaded = rules(tmp_path)
    ground = make_ground(loaded.rules, inputs, None)
    assert make_ground(rules(tmp_path, nominal=["cedar"]).rules, inputs, ground) is ground
    pin = Override("p", "pin", "alder", "noc", "x", None, "www.example.net", Match(asns=frozenset({64512})))
    assert make_ground(loaded.rules, replace(inputs, pins=[pin]), ground) is ground
    narrow = replace(pin, match=Match(prefixes=(Prefix(4, bytes((10, 7, 0, 0)), 20),)))
    assert make_ground(loaded.rules, replace(inputs, pins=[narrow]), ground).key != ground.key
    other = asn.load(write_table(tmp_path / "other.tsv", range(10)))
    assert make_ground(loaded.rules, replace(inputs, table=other), ground).key != ground.key


def test_atoms_that_were_damaged_are_made_again(tmp_path: Path, inputs: Inputs, shelf: Shelf) -> None:
    ground = make_ground(rules(tmp_path).rules, inputs, None)
    shelf.files[ground.name] = shelf.files[ground.name][:-9]
    again = make_ground(rules(tmp_path).rules, inputs, None)
    assert again.key == ground.key
    assert shelf.puts == ["atoms", "atoms"]


def made(loaded: Loaded, inputs: Inputs, serials: Mapping[str, Serial], now: float, last: Ground | None = None) -> World:
    return make_world(Held(loaded), inputs, serials, now, last)


def serial_of(world: World) -> int:
    return world.serials["example.net"].serial


def test_a_serial_follows_the_static_data_and_always_grows(tmp_path: Path, inputs: Inputs) -> None:
    one = made(rules(tmp_path), inputs, {}, NOW)
    assert serial_of(one) == int(NOW)
    same = made(rules(tmp_path, nominal=["birch"]), inputs, one.serials, NOW + 100)
    assert serial_of(same) == int(NOW)  # rules are no static data
    twice = made(rules(tmp_path, plain="192.0.2.81"), inputs, one.serials, NOW)
    assert serial_of(twice) == int(NOW) + 1
    back = made(rules(tmp_path, plain="192.0.2.82"), inputs, twice.serials, NOW - 1000)
    assert serial_of(back) == int(NOW) + 2
    later = made(rules(tmp_path, plain="192.0.2.83"), inputs, twice.serials, NOW + 1000)
    assert serial_of(later) == int(NOW) + 1000
    wrapped = made(rules(tmp_path), inputs, {"example.net": Serial(2**32 - 1, "other")}, NOW)
    assert serial_of(wrapped) == 0


def test_a_serial_that_is_given_is_used(tmp_path: Path, inputs: Inputs) -> None:
    path = write_rules(tmp_path / "rules") / "example.net.yaml"
    path.write_text(path.read_text().replace("minimum: 60s", "minimum: 60s, serial: 7"))
    assert serial_of(made(load_rules(path.parent), inputs, {}, NOW)) == 7


def test_the_salt_of_the_rules_comes_first(tmp_path: Path, inputs: Inputs) -> None:
    own = made(rules(tmp_path), inputs, {}, NOW)
    assert own.salt == 5
    given = made(rules(tmp_path, more="salt: spice"), inputs, own.serials, NOW)
    assert given.salt == salt_of(given.rules, 9) != 5
    assert given.base_name != own.base_name


def test_a_zone_that_fails_its_tests_is_held_back(tmp_path: Path, inputs: Inputs) -> None:
    directory = write_rules(tmp_path / "rules")
    write_zone(directory, "example.org")
    good = load_rules(directory)
    write_zone(directory, more=FAILS, plain="192.0.2.99")
    write_zone(directory, "example.org", more=PASSES, plain="192.0.2.99")
    new = load_rules(directory)
    held = held_to_tests(new, inputs, {}, NOW, None, good).loaded
    assert held.failed_zones == {"example.net"}
    assert held.statics["example.net"] == good.statics["example.net"]
    assert held.statics["example.org"] == new.statics["example.org"]
    assert [problem.code for problem in held.problems if problem.severity == "error"] == ["E190"]
    out = held_to_tests(new, inputs, {}, NOW, None, None).loaded
    assert set(out.rules.zones) == {"example.org"}


def test_without_a_zone_left_there_is_nothing_to_compile(tmp_path: Path, inputs: Inputs) -> None:
    rules(tmp_path)
    loaded = zone_with(tmp_path, FAILS)
    with pytest.raises(RuleErrors, match=r"test failed: www\.example\.net\. A gives alder, expected cedar"):
        held_to_tests(loaded, inputs, {}, NOW, None, None)


def zone_with(tmp_path: Path, more: str) -> Loaded:
    write_zone(tmp_path / "rules", more=more)
    return load_rules(tmp_path / "rules")


def test_tests_look_at_the_rules_without_orders(tmp_path: Path, inputs: Inputs) -> None:
    pin = Override("p", "pin", "cedar", "noc", "x", None, "www.example.net")
    rules(tmp_path)
    loaded = zone_with(tmp_path, PASSES)
    rules_held = held_to_tests(loaded, replace(inputs, pins=[pin]), {}, NOW, None, None)
    assert rules_held.loaded.failed_zones == frozenset()
    pinned = make_world(rules_held, replace(inputs, pins=[pin]), {}, NOW)
    assert pinned.base_name != make_world(rules_held, inputs, {}, NOW).base_name  # what was compiled for the tests has no pin
    assert make_world(rules_held, inputs, {}, NOW).base_name == made(loaded, inputs, {}, NOW).base_name


def test_a_good_version_that_fails_its_own_tests_by_now_ends_there(tmp_path: Path, inputs: Inputs) -> None:
    rules(tmp_path)
    good = zone_with(tmp_path, FAILS)
    held = held_to_tests(zone_with(tmp_path, FAILS), inputs, {}, NOW, None, good).loaded
    assert held.failed_zones == {"example.net"}
    assert "example.net" in held.rules.zones
