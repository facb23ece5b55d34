"""Law 2: what a returned scope covers is answered alike, and a scope one bit shorter would cover somebody treated otherwise.

Over the real ASN table, through the fast path; a tenth of the full count in CI (`make test-long` runs all of it).
"""

from __future__ import annotations

import bisect
from dataclasses import dataclass, field
from functools import cached_property
from ipaddress import ip_address
from random import Random

import dns.edns
import dns.message
import numpy as np
import pytest

from edgedns.engine import answer, fastpath
from edgedns.engine.snapshot import UNIT_BITS, Snapshot
from edgedns.engine.tally import Tally
from tests.conftest import NOW, SECRETS, Example

NAMES = ("www", "img", "v4", "dl", "some.apps", "@")
WIDTH = {4: 32, 6: 128}
OPT = 11 + 4 + 4  # of the reply, with a client subnet option but for its address


@dataclass
class Treatments:
    """Told apart from the cells' own scopes: each leaf's (rule, network), in address order."""

    example: Example
    snapshot: Snapshot
    known: dict[tuple[int, int], np.ndarray] = field(default_factory=dict)

    @cached_property
    def leaves(self) -> dict[int, tuple[list[int], np.ndarray]]:
        atoms, found = self.example.atoms, {}
        own = np.ones(len(atoms.network), bool)
        own[atoms.public_atoms : 2 * atoms.public_atoms] = False
        for family in (4, 6):
            which = np.flatnonzero(own & (atoms.family == family))
            high, low = atoms.start_hi[which].tolist(), atoms.start_lo[which].tolist()
            pairs = sorted((hi << 64 | lo, int(atom)) for hi, lo, atom in zip(high, low, which, strict=True))
            found[family] = ([start for start, _ in pairs], np.array([atom for _, atom in pairs]))
        return found

    def differ(self, policy: int, family: int, first: int, last: int) -> bool:
        """Whether the policy treats two addresses of first..last differently."""
        starts, atoms = self.leaves[family]
        inside = slice(bisect.bisect_right(starts, first) - 1, bisect.bisect_right(starts, last))
        treated = self.treated(policy, family)[inside]
        if (treated != treated[0]).any():
            return True
        unit = WIDTH[family] - UNIT_BITS[family]
        return self._splits(policy, int(atoms[inside.start])) and first >> unit != last >> unit

    def treated(self, policy: int, family: int) -> np.ndarray:
        """By leaf: which rule, and which network where the rule looks at networks; IPv4 inside IPv6 is of its own kind."""
        if (policy, family) not in self.known:
            view, atoms = self.snapshot.at(NOW), self.leaves[family][1]
            row = view.rows[policy] * view.atom_count
            place = np.array(view.base.cells[row : row + view.atom_count])[atoms] >> 8
            rules = view.base.policies[policy]
            by_network = np.array([rule.kind != "pin" for rule in rules])[place]
            kinds = place * np.int64(1 << 32) + np.where(by_network, self.example.atoms.network[atoms], 0)
            special = np.isin(atoms, self.example.atoms.special())
            kinds[special] = -atoms[special]
            self.known[policy, family] = kinds
        return self.known[policy, family]

    def _splits(self, policy: int, atom: int) -> bool:
        view = self.snapshot.at(NOW)
        rule = view.base.policies[policy][view.cell(policy, atom)[0]]
        return rule.unit or any(view.ranking_at(column, view.network[atom]).split for column in rule.columns)


@pytest.fixture(scope="module", params=["nominal", "steered"])
def treatments(request: pytest.FixtureRequest, example: Example) -> Treatments:
    return Treatments(example, getattr(example, request.param))


def test_scope_law(treatments: Treatments) -> None:
    check_scopes(treatments, 1000, 20, seed=11)


@pytest.mark.long
def test_scope_law_in_full(treatments: Treatments) -> None:
    check_scopes(treatments, 10_000, 100, seed=12)


def check_scopes(treatments: Treatments, clients: int, within: int, seed: int) -> None:
    dice, example = Random(seed), treatments.example
    tally = example.tally()
    lengths = set()
    for _ in range(clients):
        name, rtype = dice.choice(NAMES), dice.choice(("A", "AAAA"))
        family, value = address(example, dice)
        source = dice.choice((WIDTH[family], UNIT_BITS[family]))
        value = value >> WIDTH[family] - source << WIDTH[family] - source
        given, scope = ask(treatments.snapshot, name, rtype, family, value, source, tally)
        lengths.add(scope)
        rest = WIDTH[family] - scope
        first = value >> rest << rest
        for _ in range(within):
            other = first | dice.getrandbits(rest) if rest else first
            told = ask(treatments.snapshot, name, rtype, family, other, WIDTH[family], tally)
            assert told == (given, scope), (name, rtype, str(ip_address(value)), family, scope, other)
        assert_shortest(treatments, name, family, value, scope)
    assert len(lengths) > 20


def assert_shortest(treatments: Treatments, name: str, family: int, value: int, scope: int) -> None:
    """One bit less would cover an address that the policy treats otherwise. IPv4 inside IPv6 is judged as IPv4."""
    family, value, offset = inner(family, value)
    length = scope - offset
    if length <= 0:
        return
    policy = policy_of(treatments.snapshot, name)
    rest = WIDTH[family] - length + 1
    first = value >> rest << rest
    assert treatments.differ(policy, family, first, first | (1 << rest) - 1), (name, str(ip_address(value)), scope)


def inner(family: int, value: int) -> tuple[int, int, int]:
    if family == 6:
        if value >> 32 in (0xFFFF, 0x0064FF9B << 64):
            return 4, value & 0xFFFFFFFF, 96
        if value >> 112 == 0x2002:
            return 4, value >> 80 & 0xFFFFFFFF, 16
    return family, value, 0


def policy_of(snapshot: Snapshot, name: str) -> int:
    wanted = {"some.apps": "*.apps"}.get(name, name)
    wire = b"".join(bytes((len(label),)) + label.encode() for label in wanted.split(".") if label != "@")
    slots = len(snapshot.base.slot) // 4
    return next(s.policy for s in map(snapshot.base.slot_at, range(slots)) if s.name == wire + b"\3cdn\7example\3net\0")


def address(example: Example, dice: Random) -> tuple[int, int]:
    """Mapped and unmapped space, rules' prefixes, edges of ranges, IPv4 written as IPv6."""
    table, kind = example.table, dice.randrange(10)
    if kind < 4:
        row = dice.randrange(len(table.start4))
        first, last = int(table.start4[row]), int(table.end4[row])
        return 4, dice.choice((first, last, dice.randint(first, last)))
    if kind == 4:
        return 4, dice.getrandbits(32)
    if kind == 5:
        return 4, dice.choice((0xC6336400, 0xCB007180, 0xC0000200, 0xC6336300, 0xCB007100)) + dice.randrange(256)
    if kind == 6:
        return 6, dice.choice((0xFFFF, 0x0064FF9B << 64)) << 32 | dice.getrandbits(32)
    if kind == 7:
        return 6, 0x20010DB800FF << 80 | dice.getrandbits(dice.choice((64, 80)))
    if kind == 8:
        return 6, dice.getrandbits(128)
    row = dice.randrange(len(table.start6_hi))
    return 6, int(table.start6_hi[row]) << 64 | dice.getrandbits(dice.choice((0, 40, 64)) or 1)


def ask(
    snapshot: Snapshot, name: str, rtype: str, family: int, value: int, source: int, tally: Tally
) -> tuple[bytes, int]:
    """(the answer's octets, the scope) that the fast path gives a client subnet; servfail is the reference path's."""
    qname = "cdn.example.net." if name == "@" else f"{name}.cdn.example.net."
    key = (qname, rtype, family, source)
    if key not in TEMPLATES:
        zero = "0.0.0.0" if family == 4 else "::"
        message = dns.message.make_query(qname, rtype, use_edns=False)
        message.id = 1
        message.use_edns(0, 0, 1232, options=[dns.edns.ECSOption(zero, source)])
        TEMPLATES[key] = message.to_wire()[: -(source // 8)] if source else message.to_wire()
    octets = value.to_bytes(WIDTH[family] // 8, "big")[: source // 8]
    packet = TEMPLATES[key] + octets
    reply = fastpath.reply(snapshot, packet, b"\xc0\0\2\1", "udp", NOW, SECRETS, tally)
    if reply is None:
        reply = answer.respond(snapshot, packet, b"\xc0\0\2\1", "udp", NOW, SECRETS, tally)
    assert reply
    scope = reply[-1 - len(octets)]
    return reply[: -OPT - len(octets)], scope


TEMPLATES: dict[tuple[str, str, int, int], bytes] = {}
