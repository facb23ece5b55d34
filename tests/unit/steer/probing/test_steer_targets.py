"""Whom to probe: who asks most, who answers, who is listed; bounded, and nobody who may have been made up."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgedns.engine.lookup import client_key, walk
from edgedns.special import SPECIAL, Prefixes
from edgedns.steer.probing import targets
from edgedns.steer.probing.targets import ADDRESS, DEMAND, HOST, Rows
from edgedns.steer.space.asn import load
from edgedns.steer.space.atoms import Atoms, build
from edgedns.steer.table.rows import Ints

TABLE = (
    "8.8.0.0\t8.8.255.255\t64500\tDE\tOne\n9.9.0.0\t9.9.255.255\t64501\tFR\tTwo\n"
    "11.0.0.0\t11.255.255.255\t64502\tUS\tThree\n2a00:10::\t2a00:1f:ffff:ffff:ffff:ffff:ffff:ffff\t64503\tNL\tFour\n"
)
NOBODY = np.zeros(0, ADDRESS)


@pytest.fixture(scope="module")
def atoms(tmp_path_factory: pytest.TempPathFactory) -> Atoms:
    path = tmp_path_factory.mktemp("table") / "table.tsv"
    path.write_text(TABLE)
    return build(load(path))


def column(*texts: str) -> targets.Addresses:
    return np.array([targets.key(ip_address(text).packed) for text in texts], ADDRESS)


def asked(hosts: Rows, atoms: Atoms, *texts: str, proven: bool = False) -> Rows:
    addresses = column(*texts)
    return targets.with_hosts(hosts, addresses, targets.networks_of(atoms, addresses), np.full(len(texts), proven))


def wanting(atoms: Atoms, **queries: int) -> Rows:
    """The demand of networks by one of their addresses, dots and colons written as underscores."""
    addresses = column(*(text.strip("_").replace("_", "." if text.startswith("_") else ":") for text in queries))
    return targets.with_demand(
        np.zeros(0, DEMAND), addresses, targets.networks_of(atoms, addresses), np.array(list(queries.values()), np.float64)
    )


def texts(hosts: Rows, places: Ints) -> list[str]:
    return [str(ip_address(targets.packed(one))) for one in hosts["address"][places].tolist()]


def best(hosts: Rows, demand: Rows | None = None, each: int = 2, now: float = 0.0) -> list[str]:
    none = np.zeros(len(hosts), np.bool_)
    return texts(hosts, targets.chosen(hosts, np.zeros(0, DEMAND) if demand is None else demand, none, each, now))


@settings(max_examples=300, deadline=None)
@given(st.lists(st.integers(0, 2**32 - 1) | st.integers(0, 2**128 - 1), max_size=20))
def test_networks_of_many_addresses_are_those_of_each(atoms: Atoms, numbers: list[int]) -> None:
    near = [0x08080000 + number % 70_000 for number in numbers] + [0x2A00_0010 << 96 | number for number in numbers]
    packed = [ip_address(number).packed for number in numbers + near]
    found = targets.networks_of(atoms, np.array([targets.key(one) for one in packed], ADDRESS))
    for one, network in zip(packed, found.tolist(), strict=True):
        family, value, _ = client_key(one, False)
        if (family == 4) == (len(one) == 4):  # the others are no host's address, and never get here
            assert network == atoms.network[walk(atoms.index4.data, atoms.index6.data, family, value)]


@given(st.lists(st.binary(min_size=4, max_size=4) | st.binary(min_size=16, max_size=16), max_size=20))
def test_what_is_inside_of_prefixes_is_inside_for_many_too(packed: list[bytes]) -> None:
    prefixes = Prefixes([ip_network("0.0.0.0/1"), ip_network("::/1"), ip_network("ff00::/8")])
    for one in (prefixes, SPECIAL):
        found = targets.inside(one, np.array([targets.key(each) for each in packed], ADDRESS))
        wanted = [(each[12:] if each.startswith(bytes(10) + b"\xff\xff") else each) in one for each in packed]
        assert found.tolist() == wanted


@given(st.binary(min_size=4, max_size=4) | st.binary(min_size=16, max_size=16))
def test_addresses_come_back_as_they_were(packed: bytes) -> None:
    kept = np.array([targets.key(packed)], ADDRESS).tolist()[0]
    assert targets.packed(kept) == (packed[12:] if packed.startswith(bytes(10) + b"\xff\xff") else packed)


def test_who_asks_most_speaks_for_its_network(atoms: Atoms) -> None:
    hosts = np.zeros(0, HOST)
    for _ in range(3):
        hosts = asked(hosts, atoms, "8.8.1.1", *["8.8.2.2"] * 3, *["8.8.3.3"] * 2, "9.9.1.1", "2a00:10::1")
    assert best(hosts, wanting(atoms, _9_9_1_1=9, _8_8_1_1=5)) == ["9.9.1.1", "8.8.2.2", "8.8.3.3", "2a00:10::1"]


def test_an_address_that_may_be_borrowed_must_ask_again_and_again(atoms: Atoms) -> None:
    hosts = asked(np.zeros(0, HOST), atoms, *["8.8.1.1"] * 1000)
    assert best(hosts) == []
    proven = asked(hosts, atoms, "8.8.2.2", proven=True)
    assert best(proven) == ["8.8.2.2"]
    for _ in range(2):
        hosts = asked(hosts, atoms, "8.8.1.1")
    assert best(hosts) == ["8.8.1.1"]


def test_unmapped_space_and_who_is_barred_are_never_chosen(atoms: Atoms) -> None:
    hosts = asked(np.zeros(0, HOST), atoms, "8.8.1.1", "8.8.2.2", "7.7.7.7", proven=True)
    barred = targets.inside(Prefixes([ip_network("8.8.1.0/24")]), hosts["address"])
    assert texts(hosts, targets.chosen(hosts, np.zeros(0, DEMAND), barred, 2, 0.0)) == ["8.8.2.2"]


def test_who_never_answers_gives_way_and_is_tried_again_after_a_day(atoms: Atoms) -> None:
    hosts = asked(np.zeros(0, HOST), atoms, *["8.8.1.1"] * 5, "8.8.2.2", proven=True)
    hosts = targets.heard(hosts, column("8.8.2.2"), column("8.8.1.1", "8.8.2.2"), 1000.0)
    assert best(hosts, each=1, now=1100.0) == ["8.8.2.2"], "who answers is better"
    assert best(hosts, each=2, now=1000.0 + targets.TRY_NEW - 1) == ["8.8.2.2", "8.8.1.1"]
    assert best(hosts, each=2, now=1000.0 + targets.TRY_NEW) == ["8.8.2.2"]
    assert best(hosts, each=2, now=1000.0 + targets.TRY_NEW + targets.REST) == ["8.8.2.2", "8.8.1.1"]
    hosts = targets.heard(hosts, NOBODY, column("8.8.2.2"), 5000.0)
    assert best(hosts, each=1, now=5000.0 + targets.TRY_OLD - 1) == ["8.8.2.2"], "who once did is believed for a day"
    assert "8.8.2.2" not in best(hosts, each=2, now=5000.0 + targets.TRY_OLD)
    hosts = targets.heard(hosts, column("8.8.1.1"), NOBODY, 6000.0)
    assert best(hosts, each=1, now=6000.0 + targets.TRY_NEW) == ["8.8.1.1"]


def test_who_was_chosen_stays_until_another_is_twice_as_good(atoms: Atoms) -> None:
    hosts = asked(np.zeros(0, HOST), atoms, *["8.8.1.1"] * 9, *["8.8.2.2"] * 15, proven=True)
    hosts["given"] = hosts["address"] == column("8.8.1.1")[0]
    assert best(hosts, each=1) == ["8.8.1.1"]
    assert best(asked(hosts, atoms, *["8.8.2.2"] * 6, proven=True), each=1) == ["8.8.2.2"]


def test_listed_hosts_serve_where_nobody_asks_with_an_address_of_its_own(atoms: Atoms) -> None:
    hosts = asked(np.zeros(0, HOST), atoms, "8.8.1.1", proven=True)
    listed = column("8.8.9.9", "9.9.9.9", "8.8.1.1")
    hosts = targets.with_list(hosts, listed, targets.networks_of(atoms, listed))
    assert best(hosts, wanting(atoms, _9_9_0_0=5)) == ["9.9.9.9", "8.8.1.1", "8.8.9.9"]
    hosts = targets.with_list(hosts, NOBODY, np.zeros(0, np.uint32))
    assert best(hosts) == ["8.8.1.1"], "a list that names it no more says nothing of it any more"


def test_other_atoms_number_everything_anew(atoms: Atoms, tmp_path: Path) -> None:
    (tmp_path / "table").write_text("8.0.0.0\t9.255.255.255\t64510\tDE\tBoth\n")
    others = build(load(tmp_path / "table"))
    hosts = asked(np.zeros(0, HOST), atoms, "8.8.1.1", "9.9.1.1", "11.1.1.1", proven=True)
    demand = wanting(atoms, _8_8_0_0=3, _8_8_1_1=4, _9_9_0_0=5, _11_0_0_1=6)
    assert sorted(demand["queries"].tolist()) == [5, 6, 7]
    hosts, demand = targets.renumbered(hosts, demand, others)
    assert sorted(demand["queries"].tolist()) == [5, 7]
    assert best(hosts, demand) == ["8.8.1.1", "9.9.1.1"]


def test_memory_is_bounded_by_networks_and_hosts_of_each(atoms: Atoms, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "NETWORKS_MOST", 10)
    hosts, demand = np.zeros(0, HOST), np.zeros(0, DEMAND)
    for third in range(20):
        names = [f"11.{third}.0.{number}" for number in range(1, 30)]
        hosts = asked(hosts, atoms, *names, *names[: third + 1], proven=True)
        some = column(*names[: third + 1])
        demand = targets.with_demand(demand, some, targets.networks_of(atoms, some), np.ones(len(some)))
    assert (len(hosts), len(demand)) == (20 * 29, 20)
    hosts, demand = targets.trimmed(hosts, demand, 0.0)
    assert (len(hosts), len(demand)) == (10 * targets.KEPT, 10)
    assert {text.split(".")[1] for text in texts(hosts, np.arange(len(hosts)))} == {str(n) for n in range(10, 20)}
    silent = targets.heard(hosts, NOBODY, hosts["address"][: targets.KEPT], 100.0)
    kept, _ = targets.trimmed(asked(silent, atoms, "11.10.9.9"), demand, 100.0 + targets.TRY_NEW)
    assert len(kept) == len(hosts) + 1, "those that rest are remembered beside those that don't"


def test_what_was_asked_fades(atoms: Atoms) -> None:
    hosts = asked(np.zeros(0, HOST), atoms, *["8.8.1.1"] * 8)
    assert targets.decayed(hosts, targets.HALF_LIFE)["queries"].tolist() == [4.0]
    assert hosts["queries"].tolist() == [8.0]
