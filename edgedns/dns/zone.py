"""A zone's names, and what a question asked of them meets.

`lookup` reads through a `find` function alone, so that the same walk serves a Zone and a published file.
Some (name, type) pairs are *dynamic*: the zone knows only the slot number under which the engine answers them.
Chains (following a CNAME) are the engine's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

from edgedns.dns import types
from edgedns.dns.name import WILDCARD, ancestors, is_subdomain, to_text

# RFC 4035 section 2.5: these may stand beside a CNAME; a question for one is about the alias itself.
_BESIDE_CNAME = frozenset({types.RRSIG, types.NSEC})


class Kind(IntEnum):
    """What a question meets."""

    HIT = 0
    DYNAMIC = 1
    CNAME = 2
    DNAME = 3
    NODATA = 4
    NXDOMAIN = 5
    DELEGATION = 6
    NOT_OURS = 7


class RRset(NamedTuple):
    """The records of one name and type; `rdatas` are uncompressed wire form, none twice."""

    type: int
    ttl: int
    rdatas: tuple[bytes, ...]


class Node(NamedTuple):
    """A name of the zone (folded). One without records is an empty non-terminal."""

    name: bytes
    rrsets: Mapping[int, RRset]
    dynamic: Mapping[int, int]


class Found(NamedTuple):
    """What `lookup` met.

    kind        node                     rrset               slot   encloser
    HIT         where it is              the answer          -      the question's name
    DYNAMIC     where it is              -                   yes    the question's name
    CNAME       where it is              the CNAME           -      the question's name
    DNAME       the DNAME's owner        the DNAME           -      the DNAME's owner
    NODATA      the name (or wildcard)   -                   -      the question's name
    NXDOMAIN    -                        -                   -      the closest encloser
    DELEGATION  the cut                  its NS              -      the cut
    NOT_OURS    -                        -                   -      empty

    `wildcard`: `node` is the source of synthesis; `encloser` is then the closest encloser.
    `type` is the type answered, which for ANY is the one picked, else the one asked.
    """

    kind: Kind
    node: Node | None
    type: int
    wildcard: bool = False
    rrset: RRset | None = None
    slot: int | None = None
    encloser: bytes = b""


Find = Callable[[bytes], Node | None]


def lookup(find: Find, apex: bytes, qname: bytes, qtype: int) -> Found:
    """What a question for folded `qname` and `qtype` meets in the zone at `apex`."""
    if not is_subdomain(qname, apex):
        return Found(Kind.NOT_OURS, None, qtype)
    encloser = None
    for name in ancestors(qname, apex):
        node = find(name)
        if node is None:
            # RFC 1034 section 4.3.2 step 3c; the name above is the closest encloser (RFC 4592 section 3.3.1).
            return _beyond(find, encloser or apex, qtype)
        crossed = _crossing(node, name == apex, name == qname, qtype)
        if crossed is not None:
            return crossed
        encloser = name
    # RFC 4592 section 2.2.2: an empty non-terminal exists: `node` may have no records, and that is NODATA.
    return _match(node, qtype, False, qname) if node is not None else Found(Kind.NXDOMAIN, None, qtype)


def _crossing(node: Node, at_apex: bool, at_end: bool, qtype: int) -> Found | None:
    """The delegation or DNAME that stops the walk at `node`, if there is one."""
    cut = None if at_apex else node.rrsets.get(types.NS)
    # RFC 4035 section 3.1.4.1: the DS RRset lies at the parent's side of the cut, so it is ours to answer.
    if cut is not None and not (at_end and qtype == types.DS):
        return Found(Kind.DELEGATION, node, qtype, rrset=cut, encloser=node.name)
    # RFC 6672 section 2.3: "a DNAME RR redirects DNS names subordinate to its owner name; the owner name of a DNAME is
    # not redirected itself".
    redirect = None if at_end else node.rrsets.get(types.DNAME)
    if redirect is not None:
        return Found(Kind.DNAME, node, qtype, rrset=redirect, encloser=node.name)
    return None


def _beyond(find: Find, encloser: bytes, qtype: int) -> Found:
    """The name doesn't exist: synthesise from the closest encloser's wildcard, or say NXDOMAIN.

    RFC 4592 section 3.3.1: the source of synthesis is the asterisk label just below the closest encloser, the longest
    existing ancestor; no wildcard further up counts, even if this one does not exist or lacks the type.
    """
    source = find(WILDCARD + encloser)
    if source is None:
        return Found(Kind.NXDOMAIN, None, qtype, encloser=encloser)
    return _match(source, qtype, True, encloser)


def _match(node: Node, qtype: int, wildcard: bool, encloser: bytes) -> Found:
    """The answer that `node` itself holds."""
    alias = node.rrsets.get(types.CNAME)
    # RFC 1034 section 3.6.2: a CNAME stands for all types but its own; of several matches ANY is given one.
    if alias is not None and qtype not in (types.CNAME, types.ANY) and qtype not in _BESIDE_CNAME:
        return Found(Kind.CNAME, node, qtype, wildcard, alias, None, encloser)
    # RFC 8482 section 4.1: a responder "MAY decline to provide a conventional ANY response or MAY instead send a response
    # with a single RRset": here that of the lowest type.
    if qtype == types.ANY:
        qtype = min((*node.rrsets, *node.dynamic), default=types.ANY)
    if qtype in node.dynamic:
        return Found(Kind.DYNAMIC, node, qtype, wildcard, None, node.dynamic[qtype], encloser)
    rrset = node.rrsets.get(qtype)
    return Found(Kind.HIT if rrset else Kind.NODATA, node, qtype, wildcard, rrset, None, encloser)


Record = tuple[bytes, int, int, bytes]


class BadZone(ValueError):
    """Records that can't make a zone; `conflicts` says each mistake once, as (owner, type, sentence)."""

    def __init__(self, conflicts: list[tuple[bytes, int, str]]) -> None:
        self.conflicts = conflicts
        super().__init__("; ".join(sentence for _, _, sentence in conflicts))


@dataclass(frozen=True, slots=True)
class Zone:
    """All nodes of a zone by folded name, empty non-terminals included."""

    apex: bytes
    nodes: Mapping[bytes, Node]

    @property
    def find(self) -> Find:
        return self.nodes.get

    @property
    def soa(self) -> RRset:
        return self.nodes[self.apex].rrsets[types.SOA]

    @classmethod
    def build(cls, apex: bytes, records: Iterable[Record], dynamic: Mapping[tuple[bytes, int], int]) -> Zone:
        """The zone of these (owner, type, ttl, rdata) records and dynamic (owner, type) -> slot pairs.

        Owners and `apex` are folded. Equal records count once; the TTL of a set is its lowest. Raises BadZone.
        """
        sets = _grouped(apex, records)
        slots: dict[bytes, dict[int, int]] = {}
        for (owner, type_), slot in dynamic.items():
            slots.setdefault(owner, {})[type_] = slot
        conflicts = list(_conflicts(apex, sets, slots))
        if conflicts:
            raise BadZone(conflicts)
        names = {name for owner in (*sets, *slots) for name in ancestors(owner, apex)}
        nodes = {name: Node(name, sets.get(name, {}), slots.get(name, {})) for name in names}
        return cls(apex, nodes)


def _grouped(apex: bytes, records: Iterable[Record]) -> dict[bytes, dict[int, RRset]]:
    """The records as RRsets by owner and type, in the order given."""
    sets: dict[bytes, dict[int, RRset]] = {apex: {}}
    for owner, type_, ttl, rdata in records:
        of_owner = sets.setdefault(owner, {})
        known = of_owner.get(type_, RRset(type_, ttl, ()))
        # RFC 2181 section 5: "servers should suppress such duplicates if encountered"; section 5.2: "the TTLs of all RRs
        # in an RRSet must be the same", and where they differ the set is to be treated as if all had the lowest.
        rdatas = known.rdatas if rdata in known.rdatas else (*known.rdatas, rdata)
        of_owner[type_] = RRset(type_, min(ttl, known.ttl), rdatas)
    return sets


def _conflicts(
    apex: bytes, sets: Mapping[bytes, Mapping[int, RRset]], slots: Mapping[bytes, Mapping[int, int]]
) -> Iterable[tuple[bytes, int, str]]:
    if types.SOA not in sets[apex]:
        yield apex, types.SOA, f"{to_text(apex)} has no SOA"
    for owner in dict.fromkeys((*sets, *slots)):
        of_owner = sets.get(owner, {})
        yield from _conflicts_at(apex, owner, of_owner, slots.get(owner, {}))


def _conflicts_at(
    apex: bytes, owner: bytes, sets: Mapping[int, RRset], slots: Mapping[int, int]
) -> Iterable[tuple[bytes, int, str]]:
    text = to_text(owner)
    if not is_subdomain(owner, apex):
        yield owner, 0, f"{text} is not in the zone {to_text(apex)}"
    if types.SOA in sets and owner != apex:
        yield owner, types.SOA, f"{text} has a SOA but is not the zone's apex"
    # RFC 1034 section 3.6.2: "If a CNAME RR is present at a node, no other data should be present".
    beside = [t for t in (*sets, *slots) if t != types.CNAME and t not in _BESIDE_CNAME]
    if types.CNAME in sets and beside:
        yield owner, types.CNAME, f"{text} has a CNAME beside {types.type_name(beside[0])}"
    # RFC 2181 section 10.1: "There may be only one such canonical name for any one alias."; RFC 6672 section 2.4: or DNAME.
    for type_ in (types.SOA, types.CNAME, types.DNAME):
        if type_ in sets and len(sets[type_].rdatas) > 1:
            yield owner, type_, f"{text} has more than one {types.type_name(type_)}"
    for type_ in slots:
        if type_ in sets:
            yield owner, type_, f"{text} {types.type_name(type_)} is both steered and static"
