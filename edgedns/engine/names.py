"""Prebuilds the names of a base file: nodes, their sets, and the tails that the fast path answers with.

Every tail is made by the same walk and the same encoder as the reference path, so that both say the same (law 1).
"""

from __future__ import annotations

import zlib
from array import array
from collections.abc import Iterable
from itertools import chain
from typing import NamedTuple

from edgedns.dns import types
from edgedns.dns.message import RR, Response, encode_tail
from edgedns.dns.name import is_subdomain
from edgedns.dns.zone import Kind, Node, Zone, lookup
from edgedns.engine.flat import Buffer
from edgedns.engine.resolve import CHAIN_LIMIT, Walk, follow, walk
from edgedns.engine.snapshot import EXPLAIN, NODE, NONE, STEERED, TAIL, WILDCARD

TAIL_MAX = 60_000
PROBE_TYPES = (65280, 65281, 65282)


class Outcomes(NamedTuple):
    """What a node answers: by type, for any other type, and for names below it that don't exist."""

    by_type: tuple[tuple[int, int], ...]
    default: int
    child: int


class NameBuilder:
    """Collects the flat arrays of all zones; `sections()` gives them (layout: engine.snapshot.Base)."""

    def __init__(self) -> None:
        self.blob = bytearray()
        self.nodes: list[int] = []
        self.rrsets: list[int] = []
        self.rdatas: list[int] = []
        self.outcomes: list[int] = []
        self.tails: list[int] = []
        self.pointers: list[int] = []
        self.cuts: list[int] = []
        self.keys: list[tuple[int, bytes]] = []
        self._blobs: dict[bytes, int] = {}
        self._tails: dict[tuple[object, ...], int] = {}

    def store(self, content: bytes) -> tuple[int, int]:
        """(offset, length) of `content` in the blob; the same octets are stored once."""
        at = self._blobs.get(content)
        if at is None:
            at = self._blobs[content] = len(self.blob)
            self.blob += content
        return at, len(content)

    def add_zone(self, number: int, zone: Zone) -> None:
        first = len(self.keys)
        nodes = dict(sorted(zone.nodes.items()))
        order = {name: first + i for i, name in enumerate(nodes)}
        self.keys += [(number, name) for name in nodes]
        builder = _ZoneTails(self, zone, order)
        for name, node in nodes.items():
            self._add_node(number, name, node, builder.outcomes_of(name, node))

    def _add_node(self, number: int, name: bytes, node: Node, outcomes: Outcomes) -> None:
        start, size = self.store(name)
        first = len(self.rrsets) // 4
        for rrset in node.rrsets.values():
            self.rrsets += (rrset.type, rrset.ttl, len(self.rdatas) // 2, len(rrset.rdatas))
            for rdata in rrset.rdatas:
                self.rdatas += self.store(rdata)
        for rtype, slot in node.dynamic.items():
            self.rrsets += (rtype | STEERED, 0, slot, 0)
        out = len(self.outcomes) // 2
        for rtype, outcome in outcomes.by_type:
            self.outcomes += (rtype, outcome)
        count = len(self.rrsets) // 4 - first
        row = (start, size | number << 16, first, count, out, len(outcomes.by_type), outcomes.child, outcomes.default)
        assert len(row) == NODE
        self.nodes += row

    def tail(self, qname: bytes, response: Response) -> int:
        """The number of the tail that answers `qname` with `response`."""
        made = encode_tail(qname, response)
        return self._add_tail(made.body, made.counts, response, made.pointers, NONE, 0, 0, len(qname), made.cuts[:-1])

    def chain_tail(self, qname: bytes, found: Walk) -> int:
        """The tail of a CNAME chain that a steered name ends: a stand-in record shows how its owner is pointed to."""
        links = found.response.answer
        first = next(i for i, rr in enumerate(links) if rr.type == types.CNAME) + 1
        first_tail = self.tail(qname, found.response._replace(answer=links[:first]))
        stand_in = RR(found.owner, types.A, 0, bytes(4))
        made = encode_tail(qname, found.response._replace(answer=(*links, stand_in)))
        content, owner = made.body[:-16], int.from_bytes(made.body[-16:-14], "big")
        pointers = tuple(at for at in made.pointers if at < len(content))
        counts = (made.counts[0] - 1, made.counts[1], made.counts[2])
        slot = NONE if found.slot is None else found.slot
        return self._add_tail(content, counts, found.response, pointers, slot, owner, first_tail, len(qname))

    def _add_tail(
        self,
        content: bytes,
        counts: tuple[int, int, int],
        response: Response,
        pointers: tuple[int, ...],
        slot: int,
        owner: int,
        first: int,
        length: int,
        cuts: tuple[tuple[int, int], ...] = (),
    ) -> int:
        if len(content) > TAIL_MAX:
            return NONE
        start, size = self.store(content)
        head = (start, size, counts[0] | counts[1] << 16, counts[2], response.rcode | response.aa << 8)
        key = (head, pointers, slot, owner, first, length, cuts)
        number = self._tails.get(key)
        if number is None:
            number = self._tails[key] = len(self.tails) // TAIL
            row = (*head, len(self.pointers), len(pointers), slot, owner, first, length, len(self.cuts) // 2, len(cuts))
            assert len(row) == TAIL
            self.tails += row
            self.pointers += pointers
            self.cuts += chain.from_iterable(cuts)
        return number

    def sections(self) -> dict[str, tuple[str, Buffer]]:
        return {
            "hash": ("I", array("I", self.hash_table())),
            "node": ("I", array("I", self.nodes)),
            "rrset": ("I", array("I", self.rrsets)),
            "rdata": ("I", array("I", self.rdatas)),
            "outcome": ("I", array("I", self.outcomes)),
            "tail": ("I", array("I", self.tails)),
            "pointer": ("H", array("H", self.pointers)),
            "cut": ("H", array("H", self.cuts)),
            "blob": ("B", bytes(self.blob)),
        }

    def hash_table(self) -> list[int]:
        """Open addressing over CRC-32 of the name, started with the zone's number; at most half full."""
        size = 1 << max(4, (2 * len(self.keys)).bit_length())
        table = [0] * size
        for index, (zone, name) in enumerate(self.keys):
            at = zlib.crc32(name, zone) & (size - 1)
            while table[at]:
                at = at + 1 & (size - 1)
            table[at] = index + 1
        return table


class _ZoneTails:
    """The outcomes of one zone's nodes, each tail made once."""

    def __init__(self, names: NameBuilder, zone: Zone, order: dict[bytes, int]) -> None:
        self.names = names
        self.zone = zone
        self.order = order
        self._hole: int | None = None
        self._missing: int | None = None

    def outcomes_of(self, name: bytes, node: Node) -> Outcomes:
        if name == EXPLAIN + self.zone.apex:
            return Outcomes((), NONE, NONE)
        by_type = tuple((rtype, self.outcome(name, rtype)) for rtype in sorted(self._types(name)))
        unused = next(rtype for rtype in PROBE_TYPES if rtype not in dict(by_type))
        return Outcomes(by_type, self._default(name, unused), self._child(name, unused))

    def outcome(self, qname: bytes, qtype: int) -> int:
        found = walk(self.zone.find, self.zone.apex, qname, qtype)
        links = found.response.answer
        if qname.startswith(b"\1*") and links and links[0].type == types.CNAME and not self._plain_link(found):
            return NONE
        if found.slot is None:
            return self.names.tail(qname, found.response)
        return self.names.chain_tail(qname, found) if links else STEERED | found.slot

    def _plain_link(self, found: Walk) -> bool:
        """Whether a wildcard's CNAME answers alike whatever the question's name: its target exists, or is elsewhere."""
        links = [rr for rr in found.response.answer if rr.type == types.CNAME]
        target = links[0].rdata.lower()
        if target == links[0].owner:  # a circle of one for itself, of two for the names that it makes
            return False
        return len(links) == 1 and (not is_subdomain(target, self.zone.apex) or self.zone.find(target) is not None)

    def _types(self, name: bytes) -> set[int]:
        """The types that a node answers in ways of their own, those at the end of its CNAME chain included.

        DS is one of them at a delegation: the parent's side answers it, with or without one. RRSIG and NSEC may stand
        beside a CNAME, so that a question for one is not about where it leads.
        """
        wanted: set[int] = {types.ANY, types.DS, types.RRSIG, types.NSEC}
        for _ in range(CHAIN_LIMIT + 1):  # the last link is followed by a look-up, too
            # The chain may lead to a wildcard, or through a DNAME.
            found = lookup(self.zone.find, self.zone.apex, name, PROBE_TYPES[0])
            if found.node is not None:
                wanted |= {*found.node.rrsets, *found.node.dynamic}
            target, _ = follow(found, name, ())
            if target is None:
                break
            name = target
        return wanted

    def _default(self, name: bytes, unused: int) -> int:
        found = walk(self.zone.find, self.zone.apex, name, unused)
        if found.kind is not Kind.NODATA or found.response.answer or name == self.zone.apex:
            return self.outcome(name, unused)
        if self._hole is None:
            self._hole = self.names.tail(name, found.response)
        return self._hole

    def _child(self, name: bytes, unused: int) -> int:
        wildcard = b"\1*" + name
        # Where a cut or a DNAME above hides it, the closest encloser is another.
        met = lookup(self.zone.find, self.zone.apex, wildcard, unused)
        if wildcard in self.order and met.encloser == wildcard:
            # A wildcard with NS is a cut for its own name alone (RFC 4592 section 4.2): the reference tells the two apart.
            return NONE if met.kind is Kind.DELEGATION else WILDCARD | self.order[wildcard]
        label = next(f"-{i}".encode() for i in range(len(self.order) + 1) if self._free(f"-{i}".encode(), name))
        below = bytes((len(label),)) + label + name
        if len(below) > 255:
            return NONE
        found = walk(self.zone.find, self.zone.apex, below, unused)
        if found.kind is not Kind.NXDOMAIN or found.response.answer:
            return NONE if found.response.answer else self.names.tail(below, found.response)
        if self._missing is None:
            self._missing = self.names.tail(below, found.response)
        return self._missing

    def _free(self, label: bytes, name: bytes) -> bool:
        return bytes((len(label),)) + label + name not in self.order


def add_zones(zones: Iterable[Zone]) -> NameBuilder:
    """All zones of a base, numbered in order."""
    names = NameBuilder()
    for number, zone in enumerate(zones):
        names.add_zone(number, zone)
    return names
