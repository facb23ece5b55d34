"""What a question is answered with, prebuilt: made once per name and type from the flat files, kept by the View.

An Entry is static (one Piece) or steered (a Piece for each provider). A flood of names that don't exist fills nothing: they
share entries.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from struct import Struct

from edgedns.dns import edns, types
from edgedns.dns.message import Response, encode_tail
from edgedns.dns.name import suffixes
from edgedns.engine.answer import TRANSFERS
from edgedns.engine.identity import chaos
from edgedns.engine.snapshot import NODE, NONE, STEERED, WILDCARD, Base, Slot, Tail, View, Zone
from edgedns.engine.tally import request_cell

ENTRIES_MAX = 10_240
LABEL_MOST = 63
# Past this a compression pointer might not reach what it would have to after a shift.
POINTER_REACH = 0x3E00
IN, CH, ANY_CLASS = b"\0\1", b"\0\3", b"\0\xff"
POINTER_TO_QNAME = b"\xc0\x0c"
QR, AA, RD = 0x80, 0x04, 0x01
WITH_OPT = 2  # beside RD: which of a piece's heads
HEAD = Struct("!BBHHHH")  # a message's from the flags on


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """A prebuilt message less its ID, question and OPT.

    `flags` is the first octet of the flags. `heads` are flags and counts in wire form: without and with RD, then the same two
    with an OPT record. `cuts` are shorter ends of `content`, each with the additional records left. `error` is an extended
    error's whole option, or empty.
    """

    flags: int
    rcode: int
    heads: tuple[bytes, bytes, bytes, bytes]
    content: bytes
    cuts: tuple[tuple[int, int], ...] = ()
    error: bytes = b""


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """What one question is answered with.

    `slot` is None for a static answer. Else `ways` are the policy's rules, each as the column of rankings and the counter
    cells of its answers; those, like `chosen`, are by provider index, and behind the last come what is said without a
    provider and what is said where that is to be SERVFAIL. `marks` tell apart what is decided alike for all of an address:
    the policy and its family, for an asker's own address and for a client subnet. `first_link`: of a chain to a steered name,
    alone. `counted`: the cells of a static answer.
    """

    zone: int
    requests: int
    responses: int
    static: Piece
    counted: tuple[int, int, int]
    slot: Slot | None = None
    cells: int = 0
    marks: tuple[bytes, bytes] = (b"", b"")
    ways: tuple[tuple[int, tuple[int, ...]], ...] = ()
    chosen: tuple[Piece | None, ...] = ()
    first_link: Entry | None = None


def entry_of(view: View, name: bytes, type_class: bytes) -> Entry | None:
    """The Entry for a folded name and its four octets of type and class."""
    entry: Entry | None = view.entries.get(name + type_class) or entry_beside(view, name, type_class)
    if entry is None:
        entry, exists = make_entry(view, name, type_class)
        if exists:
            keep(view, name + type_class, entry)
    return entry


def make_entry(view: View, name: bytes, type_class: bytes) -> tuple[Entry | None, bool]:
    """The same, made anew; and whether the name exists, so that the caller may remember it.

    What names share is kept for the next time.
    """
    base, qtype = view.base, int.from_bytes(type_class[:2], "big")
    zone = base.zone_of(name, parent_side=qtype == types.DS)
    by_form = _by_form(view, zone, name, qtype, type_class[2:])
    if by_form is not None or zone is None:
        return _entry(base.elsewhere, qtype, by_form or REFUSED), False
    node, outcome, exact = find_outcome(base, zone, name, qtype)
    if outcome == NONE:
        return None, False
    # Names of one length share what they are answered alike, those that don't exist above all: nothing else differs.
    place = (zone.number, -1 if exact and not outcome & STEERED else node)
    key = (*place, outcome, len(name), request_cell("udp", b"", qtype), type_class[3])
    entry: Entry | None = view.entries.get(key)
    if entry is None:
        entry = _outcome_entry(view, zone, qtype, name, node, outcome)
        # RFC 1035 section 6.2: to QCLASS=* the response should never be authoritative.
        if entry is not None and type_class[2:] == ANY_CLASS:
            entry = _without_aa(entry)
        if entry is not None:
            keep(view, key, entry)
    if entry is not None and not exact and base.node_index(zone.number, parent := name[1 + name[0] :]) >= 0:
        keep(view, (parent, type_class, len(name)), entry)
    return entry, exact and entry is not None


def entry_beside(view: View, name: bytes, type_class: bytes) -> Entry | None:
    """The Entry of a name that doesn't exist, by one of its length below the same parent; None where none is known.

    Most of a flood of random names are below names that do exist. `name` need be none: what then follows its first label is.
    """
    known: Entry | None = view.entries.get((name[1 + name[0] :], type_class, len(name)))
    if known is None or name[0] > LABEL_MOST or name in view.base.apexes or view.base.node_index(known.zone, name) >= 0:
        return None
    return known


def keep(view: View, key: bytes | tuple[object, ...], entry: Entry | None) -> None:
    if len(view.entries) >= ENTRIES_MAX:
        view.entries.clear()
    view.entries[key] = entry


def _by_form(view: View, zone: Zone | None, name: bytes, qtype: int, qclass: bytes) -> Piece | None:
    """What is answered whatever the zone holds: as in engine.answer, where the RFCs are."""
    if qclass == CH:
        return _from_response(name, chaos(view.node, name, qtype))
    if qclass not in (IN, ANY_CLASS):
        return REFUSED
    if qtype in TRANSFERS:
        return NO_TRANSFER if name in view.base.apexes else NO_ZONE
    return REFUSED if zone is None else BY_TYPE.get(qtype)


def _from_response(name: bytes, response: Response) -> Piece:
    if not response.answer:
        return _refusal(response.rcode, response.error)
    made = encode_tail(name, response)
    return _piece(QR, response.rcode, made.body, made.counts)


def _without_aa(entry: Entry) -> Entry:
    chosen = tuple(piece and _unauthoritative(piece) for piece in entry.chosen)
    first = entry.first_link and _without_aa(entry.first_link)
    return replace(entry, static=_unauthoritative(entry.static), chosen=chosen, first_link=first)


def _unauthoritative(piece: Piece) -> Piece:
    plain, rd, with_opt, rd_with_opt = (bytes((head[0] & ~AA,)) + head[1:] for head in piece.heads)
    return replace(piece, flags=piece.flags & ~AA, heads=(plain, rd, with_opt, rd_with_opt))


def find_outcome(base: Base, zone: Zone, name: bytes, qtype: int) -> tuple[int, int, bool]:
    """(node, outcome, True) for a node of that very name, else (.., False) what the closest encloser says (RFC 4592)."""
    index = base.node_index(zone.number, name)
    if index >= 0:
        return index, base.outcome_of(index, qtype), True
    for encloser in suffixes(name, zone.depth):
        index = base.node_index(zone.number, encloser)
        if index >= 0:
            child = base.node[index * NODE + 6]
            if child == NONE or not child & WILDCARD:
                return index, child, False
            wildcard = child & ~WILDCARD
            return wildcard, base.outcome_of(wildcard, qtype), False
    return -1, NONE, False


def _outcome_entry(view: View, zone: Zone, qtype: int, name: bytes, node: int, outcome: int) -> Entry | None:
    if outcome & STEERED:
        return _steered_entry(view, zone, qtype, name, node, outcome & ~STEERED)
    tail = view.base.tail_at(outcome)
    if tail.slot is not None:
        return _chain_entry(view, zone, qtype, name, tail, tail.slot)
    piece = make_piece(tail, len(name))
    return None if piece is None else _entry(zone, qtype, piece)


def _steered_entry(view: View, zone: Zone, qtype: int, name: bytes, node: int, number: int) -> Entry | None:
    """A steered name itself: its records by provider, and its NODATA for the family that a provider lacks."""
    nothing = view.base.tail_at(view.base.node[node * NODE + 7])
    without = make_piece(nothing, len(name))
    if without is None:
        return None
    slot = view.base.slot_at(number)
    chosen = (*_choices(view.base, slot, without, b"", (0, 0, 0), POINTER_TO_QNAME), without, FAILED)
    return _with_slot(view, _entry(zone, qtype, without), slot, chosen, None)


def _chain_entry(view: View, zone: Zone, qtype: int, name: bytes, tail: Tail, number: int) -> Entry | None:
    """CNAMEs of ours that end at a steered name: the chain, then the records of the provider chosen."""
    links, first = make_piece(tail, len(name)), make_piece(view.base.tail_at(tail.first), len(name))
    if links is None or first is None:
        return None
    slot = view.base.slot_at(number)
    owner = shift(tail.owner.to_bytes(2, "big"), (0,), len(name) - tail.length)
    chosen = (*_choices(view.base, slot, links, links.content, tail.counts, owner), None, FAILED)
    return _with_slot(view, _entry(zone, qtype, links), slot, chosen, _entry(zone, qtype, first))


def _choices(
    base: Base, slot: Slot, like: Piece, links: bytes, counts: tuple[int, int, int], owner: bytes
) -> tuple[Piece, ...]:
    """By provider: what precedes, then its records, owned by the name at `owner` (a compression pointer)."""
    pieces = []
    for provider in range(len(base.providers)):
        records, count = base.records(slot.ttl_index, slot.family, provider)
        size = len(records) // count if count else 1
        owned = b"".join(owner + records[at + 2 : at + size] for at in range(0, len(records), size))
        pieces.append(_piece(like.flags, like.rcode, links + owned, (counts[0] + count, counts[1], counts[2])))
    return tuple(pieces)


def _with_slot(view: View, entry: Entry, slot: Slot, chosen: tuple[Piece | None, ...], first: Entry | None) -> Entry:
    rules = view.base.policies[slot.policy]
    return replace(
        entry,
        slot=slot,
        cells=view.rows[slot.policy] * view.atom_count,
        marks=_marks(slot),
        ways=tuple((rule.columns[slot.family == 6], (*rule.answers, rule.answers[-1])) for rule in rules),
        chosen=chosen,
        first_link=first,
    )


def _marks(slot: Slot) -> tuple[bytes, bytes]:
    number = slot.policy << 2 | (slot.family == 6) << 1
    return number.to_bytes(4, "big"), (number | 1).to_bytes(4, "big")


def _entry(zone: Zone, qtype: int, static: Piece) -> Entry:
    requests = zone.requests + request_cell("udp", b"", qtype)
    return Entry(zone.number, requests, zone.responses, static, (requests, zone.responses + static.rcode, -1))


def make_piece(tail: Tail, length: int) -> Piece | None:
    """The piece of a tail for a question whose name has `length` octets; None past the reach of compression pointers."""
    delta = length - tail.length
    if delta and len(tail.content) > POINTER_REACH:
        return None
    content = shift(tail.content, tail.pointers, delta) if delta else tail.content
    return _piece(QR | AA if tail.aa else QR, tail.rcode, content, tail.counts, cuts=tail.cuts)


def _piece(
    flags: int,
    rcode: int,
    content: bytes,
    counts: tuple[int, int, int],
    cuts: tuple[tuple[int, int], ...] = (),
    error: bytes = b"",
) -> Piece:
    return Piece(flags, rcode, _heads(flags, rcode, counts), content, cuts, error)


@cache
def _heads(flags: int, rcode: int, counts: tuple[int, int, int]) -> tuple[bytes, bytes, bytes, bytes]:
    """They are few, and shared."""
    answers, authorities, additionals = counts
    plain, rd, with_opt, rd_with_opt = (
        HEAD.pack(flags | rd, rcode, 1, answers, authorities, additionals + opt) for opt in (0, 1) for rd in (0, RD)
    )
    return plain, rd, with_opt, rd_with_opt


def _refusal(rcode: int, error: int | None) -> Piece:
    option = b"" if error is None else b"\0\x0f\0\2" + error.to_bytes(2, "big")
    return _piece(QR, rcode, b"", (0, 0, 0), error=option)


REFUSED = _refusal(types.REFUSED, edns.NOT_AUTHORITATIVE)
NOT_IMPLEMENTED = _refusal(types.NOTIMP, edns.NOT_SUPPORTED)
FAILED = _refusal(types.SERVFAIL, None)
NO_TRANSFER, NO_ZONE = _refusal(types.REFUSED, edns.PROHIBITED), _refusal(types.NOTAUTH, edns.NOT_AUTHORITATIVE)
BY_TYPE = {
    types.NXNAME: _refusal(types.FORMERR, edns.INVALID_QUERY_TYPE),
    types.MAILA: NOT_IMPLEMENTED,
    types.MAILB: NOT_IMPLEMENTED,
}


def shift(content: bytes, pointers: tuple[int, ...], delta: int) -> bytes:
    """Move the compression pointers at these places by `delta`; the pointer to the whole question name stays."""
    moved = bytearray(content)
    for at in pointers:
        value = int.from_bytes(moved[at : at + 2], "big")
        moved[at : at + 2] = (value if value == 0xC00C else value + delta).to_bytes(2, "big")
    return bytes(moved)
