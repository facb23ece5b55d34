"""Atoms of small tables, told leaf by leaf, and the figures of the real one."""

from __future__ import annotations

import time
from ipaddress import ip_address, ip_network
from typing import Literal

import numpy as np
import pytest

from edgedns.engine.lookup import walk
from edgedns.model import NetworkKey, Prefix
from edgedns.steer.space import asn, atoms
from edgedns.steer.space.asnfiles import TextTable, read_tsv
from edgedns.steer.space.atoms import Atoms

TSV = (
    "192.0.2.0\t192.0.2.255\t64496\tDE\tAlder\n"
    "198.51.100.0\t198.51.100.127\t64497\tNO\tBirch\n"
    "203.0.113.0\t203.0.113.255\t64511\t\tOpen\n"
    "10.0.0.0\t10.1.255.255\t64498\tFR\tCedar\n"
    "2001:db8::\t2001:db9:ffff:ffff:ffff:ffff:ffff:ffff\t64498\tFR\tCedar\n"
    "2002::\t2003:ffff:ffff:ffff:ffff:ffff:ffff:ffff\t64499\tUS\tRelay\n"
    "2001::\t2001:0:ffff:ffff:ffff:ffff:ffff:ffff\t64499\tUS\tRelay\n"
)


def prefix(text: str) -> Prefix:
    network = ip_network(text)
    return Prefix(4 if network.version == 4 else 6, network.network_address.packed, network.prefixlen)


def table(text: str = TSV) -> asn.AsnTable:
    return asn.from_rows(read_tsv(text), "made", "2026-11-01", "00")


def atom_of(built: Atoms, text: str) -> int:
    address = ip_address(text)
    return walk(built.index4.tolist(), built.index6.tolist(), address.version, int(address))


def leaf(built: Atoms, text: str) -> str:
    found = built.prefix(atom_of(built, text))
    return f"{ip_address(found.address)}/{found.length}"


def key(built: Atoms, text: str) -> NetworkKey:
    return built.network_key(int(built.network[atom_of(built, text)]))


@pytest.fixture(scope="module")
def plain() -> Atoms:
    return atoms.build(table())


@pytest.fixture(scope="module")
def open_() -> Atoms:
    return atoms.build(table(), [prefix("203.0.113.0/25")], {64511}, [prefix("192.0.2.0/26"), prefix("100.64.0.0/24")])


def test_a_network_is_an_asn_and_country_within_a_block(plain: Atoms) -> None:
    assert key(plain, "192.0.2.9") == NetworkKey(64496, "DE", 4, 0xC000)
    assert key(plain, "10.0.0.1") == NetworkKey(64498, "FR", 4, 0x0A00)
    assert key(plain, "10.1.0.1") == NetworkKey(64498, "FR", 4, 0x0A01)
    assert key(plain, "2001:db9::1") == NetworkKey(64498, "FR", 6, 0x20010DB9)
    assert key(plain, "172.16.0.1") == NetworkKey(0)


def test_leaves_are_as_short_as_they_can_be(plain: Atoms) -> None:
    assert leaf(plain, "192.0.2.9") == "192.0.2.0/24"
    assert leaf(plain, "198.51.100.200") == "198.51.100.128/25"
    assert leaf(plain, "10.1.2.3") == "10.1.0.0/16"
    assert leaf(plain, "10.2.0.1") == "10.2.0.0/15"
    assert leaf(plain, "255.0.0.1") == "224.0.0.0/3"
    assert leaf(plain, "8000::1") == "8000::/1"


def test_networks_in_two_ranges_of_one_block_are_one() -> None:
    built = atoms.build(table("192.0.2.0\t192.0.2.7\t64496\tDE\tA\n192.0.99.0\t192.0.99.7\t64496\tDE\tA\n"))
    assert built.network[atom_of(built, "192.0.2.1")] == built.network[atom_of(built, "192.0.99.1")] == 1


def test_rule_prefixes_cut_and_are_found_again() -> None:
    texts = ("0.0.0.0/0", "192.0.2.0/25", "192.0.2.7/32", "172.16.0.0/12", "::/0", "2001:db8:1::/48", "::1/128")
    named = [prefix(text) for text in texts]
    built = atoms.build(table(), [*named, named[1]])
    assert leaf(built, "192.0.2.7") == "192.0.2.7/32"
    assert leaf(built, "192.0.2.6") == "192.0.2.6/32"
    assert leaf(built, "192.0.2.130") == "192.0.2.128/25"
    assert leaf(built, "172.20.0.1") == "172.16.0.0/12"
    assert leaf(built, "2001:db8:1::5") == "2001:db8:1::/48"
    assert leaf(built, "::1") == "::1/128"
    for one in named:
        assert built.inside(one).tolist() == [reaches(one, built.prefix(atom)) for atom in range(len(built.network))]


def reaches(outer: Prefix, inner: Prefix) -> bool:
    if outer.family != inner.family or outer.length > inner.length:
        return False
    cut = len(outer.address) * 8 - outer.length
    return int.from_bytes(outer.address) >> cut == int.from_bytes(inner.address) >> cut


def test_space_looked_up_as_ipv4_stands_by_itself(plain: Atoms) -> None:
    found = [plain.prefix(int(atom)) for atom in plain.special()]
    assert found == [prefix("::ffff:0:0/96"), prefix("64:ff9b::/96"), prefix("2002::/16")]
    assert not plain.network[plain.special()].any()
    assert leaf(plain, "2003::1") == "2003::/32"


def test_special_space_takes_no_rule_and_no_neighbour() -> None:
    built = atoms.build(table(), [prefix("2002:c000::/24"), prefix("2002::/15")], (), [prefix("2000::/3")])
    assert leaf(built, "2002:c000::1") == "2002::/16"
    assert not built.inside(prefix("2002:c000::/24")).any()
    assert atom_of(built, "2002::1") >= 2 * built.public_atoms


def test_teredo_is_unmapped_but_a_rule_may_cut_it() -> None:
    built = atoms.build(table(), [prefix("2001:0:c000::/34")])
    assert key(built, "2001::1") == NetworkKey(0)
    assert leaf(built, "2001:0:c000::1") == "2001:0:c000::/34"
    assert leaf(atoms.build(table()), "2001::1") == "2001::/32"


def test_whoever_holds_teredo_does_not_make_it_public() -> None:
    built = atoms.build(table(), (), {64499})
    assert leaf(built, "2001::1") == "2001::/32"
    assert atom_of(built, "2001::1") >= 2 * built.public_atoms


def test_public_space_comes_first_with_its_twins(open_: Atoms) -> None:
    count = open_.public_atoms
    cut = [f"{ip_address(p.address)}/{p.length}" for p in map(open_.prefix, range(count))]
    assert cut == ["100.64.0.0/24", "192.0.2.0/26", "203.0.113.0/25", "203.0.113.128/25"]
    for atom in range(count):
        assert open_.prefix(atom) == open_.prefix(atom + count)
    assert atom_of(open_, "203.0.113.1") == 2


def test_twins_have_networks_of_their_own_without_levels(open_: Atoms) -> None:
    count, own = open_.public_atoms, open_.public_networks
    networks, twins = open_.network[:count].tolist(), open_.network[count : 2 * count].tolist()
    assert own == 2
    assert networks[0] == twins[0] == 0  # unmapped space has nothing to be told apart by
    assert twins[1:] == [network + own for network in networks[1:]]
    assert [open_.network_key(network) for network in networks] == [open_.network_key(network) for network in twins]
    for level in (open_.net_asncc, open_.net_asn_ix, open_.net_cc_ix):
        assert (level[own + 1 : 2 * own + 1] == -1).all()


def test_a_network_partly_public_stays_one_network(open_: Atoms) -> None:
    assert open_.network[atom_of(open_, "192.0.2.1")] == open_.network[atom_of(open_, "192.0.2.100")]
    assert atom_of(open_, "192.0.2.100") >= 2 * open_.public_atoms


def test_levels_lead_upwards(plain: Atoms) -> None:
    network = int(plain.network[atom_of(plain, "198.51.100.1")])
    pair = int(plain.net_asncc[network])
    assert (plain.level_asncc_asn[pair], plain.level_asncc_country[pair]) == (64497, b"NO")
    assert plain.level_asn[plain.net_asn_ix[network]] == 64497
    assert plain.level_country[plain.net_cc_ix[network]] == b"NO"


def test_no_country_means_no_country_levels(plain: Atoms) -> None:
    network = int(plain.network[atom_of(plain, "203.0.113.1")])
    assert plain.net_asncc[network] == plain.net_cc_ix[network] == -1
    assert plain.level_asn[plain.net_asn_ix[network]] == 64511
    assert b"" not in plain.level_country.tolist() + plain.level_asncc_country.tolist()


def test_unmapped_has_no_levels(plain: Atoms) -> None:
    assert plain.net_asncc[0] == plain.net_asn_ix[0] == plain.net_cc_ix[0] == -1


def test_sections_give_the_same_atoms_back(open_: Atoms) -> None:
    codes: dict[str, Literal["B", "H", "I", "Q", "i"]] = {"u1": "B", "u2": "H", "u4": "I", "u8": "Q", "i4": "i"}
    flat = {name: memoryview(column.tobytes()).cast(codes[column.dtype.str[1:]]) for name, column in open_.sections().items()}
    again = Atoms.from_sections(flat)
    for name in Atoms.__dataclass_fields__:
        assert np.array_equal(getattr(again, name), getattr(open_, name)), name
    assert again.network_key(1) == open_.network_key(1)
    assert again.slices(prefix("203.0.113.0/24")) == open_.slices(prefix("203.0.113.0/24"))


def test_a_table_of_one_family_tiles_the_other_as_unmapped() -> None:
    rows = TextTable()
    rows.add(4, (0, (1 << 32) - 1, 64496, b"DE"))
    built = atoms.build(asn.from_rows(rows, "made", "2026-11-01", ""))
    assert key(built, "255.255.255.255") == NetworkKey(64496, "DE", 4, 0xFFFF)
    assert key(built, "ffff::") == NetworkKey(0)
    rows = TextTable()
    rows.add(6, ((1 << 128) - 2, (1 << 128) - 1, 64496, b""))
    built = atoms.build(asn.from_rows(rows, "made", "2026-11-01", ""))
    assert leaf(built, "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff") == "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe/127"
    assert leaf(built, "1.2.3.4") == "0.0.0.0/0"


def test_the_real_table() -> None:
    began = time.process_time()
    built = atoms.build(asn.embedded(), (), {15169, 13335, 19281, 36692})
    took = time.process_time() - began
    own = np.ones(len(built.net_asn), bool)
    own[: built.public_networks + 1] = False  # keeps each twin instead of its network
    assert np.count_nonzero(built.net_family[own] == 4) == 305_354
    assert np.count_nonzero(built.net_family[own] == 6) == 267_037
    assert built.index4.nbytes < 21 << 20
    assert built.index6.nbytes < 23 << 20
    assert took < 6  # CPU: 1.0 s by itself; three times the 2 s aimed at
