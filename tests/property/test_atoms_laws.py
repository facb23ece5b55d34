"""What atoms promise, on small made tables: they tile the space, are uniform, are as short as can be, and twins equal."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from edgedns.engine.lookup import walk
from edgedns.model import Family, NetworkKey, Prefix
from edgedns.steer.space import asn, atoms
from edgedns.steer.space.asnfiles import Row, TextTable
from edgedns.steer.space.atoms import Atoms
from edgedns.steer.space.leaves import BLOCK, CANONICAL, TEREDO, WIDTH, span

PUBLIC = 64496
PLACES: dict[Family, list[int]] = {
    4: [0, 0xC0000200, 0xC000FFF0, 0xC6336400, (1 << 32) - 64],
    6: [
        0,
        0xFFFF << 32,
        0x64FF9B << 96,
        0x2001 << 112,
        (0x20010DB8 << 96),
        (0x20010DB9 << 96) - 16,
        (0x2002 << 112) - 64,
        0x2003 << 112,
        (1 << 128) - 64,
    ],
}


class Made(NamedTuple):
    family: Family
    rows: list[Row]
    prefixes: list[Prefix]
    open_: list[Prefix]

    def build(self) -> Atoms:
        rows = TextTable()
        for row in [*self.rows, (1 << 20, 1 << 21, 64511, b"")]:
            rows.add(self.family, row)
        return atoms.build(asn.from_rows(rows, "made", "2026-11-01", ""), self.prefixes, {PUBLIC}, self.open_)


@st.composite
def addresses(draw: st.DrawFn, family: Family) -> int:
    near = draw(st.sampled_from(PLACES[family])) + draw(st.integers(0, 40))
    return near % (1 << WIDTH[family])


@st.composite
def rows(draw: st.DrawFn, family: Family) -> Row:
    first = draw(addresses(family))
    size = draw(st.one_of(st.integers(0, 40), st.sampled_from([255, 1 << (WIDTH[family] - BLOCK[family])])))
    number = draw(st.sampled_from([0, PUBLIC, 64497, 64498]))
    return first, min(first + size, (1 << WIDTH[family]) - 1), number, draw(st.sampled_from([b"", b"DE", b"NO"]))


@st.composite
def prefixes(draw: st.DrawFn, family: Family) -> Prefix:
    width = WIDTH[family]
    length = draw(st.one_of(st.integers(0, width), st.integers(width - 6, width), st.sampled_from([0, width])))
    cut = width - length
    return Prefix(family, (draw(addresses(family)) >> cut << cut).to_bytes(width // 8), length)


@st.composite
def made(draw: st.DrawFn) -> Made:
    family: Family = draw(st.sampled_from([4, 6]))
    named = draw(st.lists(prefixes(family), max_size=6))
    return Made(family, draw(st.lists(rows(family), max_size=8)), named, draw(st.lists(prefixes(family), max_size=2)))


def covers(prefix: Prefix, address: int) -> bool:
    first, last = span(prefix)
    return first <= address <= last


class Truth:
    """The same by the definition, one address at a time."""

    def __init__(self, case: Made) -> None:
        self.case = case
        self.rows = [*case.rows, (1 << 20, 1 << 21, 64511, b"")]

    def network(self, address: int) -> NetworkKey:
        family = self.case.family
        if family == 6 and any(covers(special, address) for special in (*CANONICAL, TEREDO)):
            return NetworkKey(0)
        over = [(row[0], -row[1], place) for place, row in enumerate(self.rows) if row[0] <= address <= row[1]]
        number, country = self.rows[max(over)[2]][2:] if over else (0, b"")
        block = address >> WIDTH[family] - BLOCK[family]
        return NetworkKey(number, country.decode(), family, block) if number else NetworkKey(0)

    def label(self, address: int) -> object:
        canonical = [special for special in CANONICAL if self.case.family == 6 and covers(special, address)]
        if canonical:
            return canonical
        around = frozenset(prefix for prefix in self.case.prefixes if covers(prefix, address))
        teredo = self.case.family == 6 and covers(TEREDO, address)
        return self.network(address), around, self.public(address), teredo

    def public(self, address: int) -> bool:
        if self.case.family == 6 and any(covers(special, address) for special in CANONICAL):
            return False
        return self.network(address).asn == PUBLIC or any(covers(prefix, address) for prefix in self.case.open_)

    def turns(self) -> list[int]:
        """Every address at which a label may begin."""
        width = WIDTH[self.case.family]
        block = width - BLOCK[self.case.family]
        special = (*CANONICAL, TEREDO) if self.case.family == 6 else ()
        ends = [*map(span, (*self.case.prefixes, *self.case.open_, *special)), *((row[0], row[1]) for row in self.rows)]
        edges = {edge for first, last in ends for edge in (first, last + 1)}
        edges |= {number << block for row in self.rows for number in range(row[0] >> block, (row[1] >> block) + 1)}
        return sorted(edge for edge in edges | {0} if edge < 1 << width)


def leaves(built: Atoms, family: Family) -> Iterator[tuple[int, int, int, int]]:
    """(first, last, length, atom) in address order, twins left out."""
    found = []
    for atom in range(len(built.network)):
        prefix = built.prefix(atom)
        if prefix.family == family and not built.public_atoms <= atom < 2 * built.public_atoms:
            found.append((*span(prefix), prefix.length, atom))
    yield from sorted(found)


@settings(deadline=None, max_examples=50)
@given(made())
def test_leaves_tile_uniformly_and_minimally(case: Made) -> None:
    built, truth = case.build(), Truth(case)
    width, turns = WIDTH[case.family], truth.turns()
    labels = {turn: truth.label(turn) for turn in turns}
    found = list(leaves(built, case.family))
    assert found[0][0] == 0
    assert found[-1][1] == (1 << width) - 1
    assert all(one[1] + 1 == other[0] for one, other in pairwise(found))
    for first, last, length, atom in found:
        label = truth.label(first)
        assert all(labels[turn] == label for turn in turns if first < turn <= last)
        assert built.network_key(int(built.network[atom])) == truth.network(first)
        assert (atom < built.public_atoms) == truth.public(first)
        if length:
            wider_first, wider_last = first & ~(last - first + 1), last | (last - first + 1)
            around = [truth.label(wider_first), *(labels[turn] for turn in turns if wider_first < turn <= wider_last)]
            assert any(other != label for other in around)


@settings(deadline=None, max_examples=50)
@given(made())
def test_the_arrays_lead_every_edge_to_its_leaf(case: Made) -> None:
    built = case.build()
    index4, index6 = (memoryview(index.tobytes()).cast("I") for index in (built.index4, built.index6))
    for first, last, _, atom in leaves(built, case.family):
        assert walk(index4, index6, case.family, first) == walk(index4, index6, case.family, last) == atom


@settings(deadline=None, max_examples=30)
@given(made())
def test_twins_are_the_same_leaves_with_networks_of_their_own(case: Made) -> None:
    built = case.build()
    for atom in range(built.public_atoms):
        twin, network = atom + built.public_atoms, int(built.network[atom])
        assert built.prefix(twin) == built.prefix(atom)
        assert int(built.network[twin]) == (network + built.public_networks if network else 0)
        assert network <= built.public_networks
    twins = {int(network) for network in built.network[built.public_atoms : 2 * built.public_atoms]} - {0}
    assert twins == set(range(built.public_networks + 1, 2 * built.public_networks + 1))


@settings(deadline=None, max_examples=30)
@given(made())
def test_a_prefix_holds_the_atoms_inside_it(case: Made) -> None:
    built = case.build()
    for prefix in [*case.prefixes, *case.open_]:
        first, last = span(prefix)
        spans = [span(one) if one.family == case.family else (-1, -1) for one in map(built.prefix, range(len(built.network)))]
        assert built.inside(prefix).tolist() == [first <= start and stop <= last for start, stop in spans]
