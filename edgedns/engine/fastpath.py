"""The plain-Python fast path: ordinary packets answered from prebuilt bytes, everything else handed back.

`reply` gives the bytes to send, SILENCE, or None; where it is not None it equals the reference path byte for byte and counts
the same (law 1). Static outcomes are prebuilt tails; a steered one is an atom, a cell, a ranking and prebuilt records.
Where the packet is unusual in any way the answer is None, never a guess.
"""

from __future__ import annotations

from typing import NamedTuple

from edgedns.dns import cookie, types
from edgedns.dns.name import suffixes
from edgedns.engine import lookup
from edgedns.engine.answer import EDNS_MINIMUM, TCP_LIMIT, UDP_PAYLOAD, UDP_PLAIN, Secrets
from edgedns.engine.snapshot import (
    NODE,
    NONE,
    STEERED,
    UNIT_BITS,
    WILDCARD,
    Base,
    Ranking,
    Rule,
    Slot,
    Snapshot,
    Tail,
    View,
    Zone,
)
from edgedns.engine.tally import TCP, V6, WRAP, Tally, request_cell

SILENCE = b""
ENTRIES_MAX = 16384
RESOLVERS_MAX = 65536
POINTER_REACH = 0x3E00
QUERY_COUNTS = b"\0\1\0\0\0\0\0"
OPT_START = b"\0\0\x29"
OPT_HEAD = b"\0\0\x29" + UDP_PAYLOAD.to_bytes(2, "big") + b"\0\0"
CLASS_IN = b"\0\1"
NSID_CODE, ECS_CODE, COOKIE_CODE = 3, 8, 10
POINTER_TO_QNAME = b"\xc0\x0c"
HANDED_BACK = frozenset({types.OPT, *range(128, 255)})
REFUSED_TAIL = Tail(b"", (0, 0, 0), types.REFUSED, False, (), None, 0, 0, 0)


class Piece(NamedTuple):
    """A prebuilt message less its question and OPT; `plain` and `with_opt` are the four counts in wire form."""

    plain: bytes
    with_opt: bytes
    content: bytes


class Entry(NamedTuple):
    """What one question is answered with. `slot` is None for a static answer, else `chosen` is by provider index."""

    requests: int
    responses: int
    flags: int
    rcode: int
    static: Piece
    slot: Slot | None = None
    cells: int = 0
    rules: tuple[Rule, ...] = ()
    chosen: tuple[Piece | None, ...] = ()
    first_link: Piece | None = None


def reply(
    snapshot: Snapshot, packet: bytes, client: bytes, transport: str, now: float, secrets: Secrets, tally: Tally
) -> bytes | None:
    """One packet in, one out. `client` is packed; `now` is Unix seconds; `tally` is the caller's own."""
    view = snapshot._view
    if view is None or now >= view.until:
        view = snapshot.at(now)
    size = len(packet)
    if size < 12 or packet[2] & 0x80:
        return SILENCE
    if packet[2] & 0x78 or packet[4:11] != QUERY_COUNTS:
        return None
    end = packet.find(b"\0", 12) + 1
    entry = view.entries.get(packet[12:end].lower() + packet[end : end + 4])
    if entry is None:
        end = name_end(packet)
        entry = make_entry(view, packet[12:end].lower(), packet[end : end + 4]) if end else None
        if entry is None:
            return None
    rest = end + 4
    if not packet[11]:
        return None if size != rest else _send(view, entry, packet, rest, client, transport, None, b"", tally)
    options = read_options(packet, rest, size) if packet[11] == 1 else None
    if options is None:
        return None
    asked_nsid, ecs, asked_cookie = options
    before = NSID_CODE.to_bytes(2, "big") + len(view.nsid).to_bytes(2, "big") + view.nsid if asked_nsid else b""
    after = _cookie_option(asked_cookie, client, now, secrets) if asked_cookie else b""
    return _send(view, entry, packet, rest, client, transport, (before, ecs, after), ecs, tally)


def _send(
    view: View,
    entry: Entry,
    packet: bytes,
    rest: int,
    client: bytes,
    transport: str,
    options: tuple[bytes, bytes, bytes] | None,
    ecs: bytes,
    tally: Tally,
) -> bytes | None:
    """Choose, join and count. `ecs` is the client subnet option as sent (code and length first), or empty."""
    piece, scope, counted, network = entry.static, 0, -1, -1
    if entry.slot is not None:
        if ecs and entry.first_link is not None:
            piece = entry.first_link
        else:
            chosen = _steer(view, entry, entry.slot, ecs, client)
            if chosen is None:
                return None
            piece, scope, counted, network = chosen
    if options is None:
        opt, counts, limit = b"", piece.plain, UDP_PLAIN
    else:
        before, _, after = options
        echoed = ecs[:7] + bytes((scope,)) + ecs[8:] if ecs else b""
        body = before + echoed + after
        opt = OPT_HEAD + bytes((packet[rest + 7] & 0x80, 0)) + len(body).to_bytes(2, "big") + body
        counts = piece.with_opt
        limit = min(max(packet[rest + 3] << 8 | packet[rest + 4], EDNS_MINIMUM), UDP_PAYLOAD)
    flags = bytes((entry.flags | packet[2] & 1, entry.rcode))
    message = b"".join((packet[:2], flags, counts, packet[12:rest], piece.content, opt))
    if len(message) > (TCP_LIMIT if transport == "tcp" else limit):
        return None
    cells = tally.cells
    cells[entry.requests + (TCP if transport == "tcp" else 0) + (V6 if len(client) == 16 else 0)] += 1
    cells[entry.responses] += 1
    if counted >= 0:
        cells[counted] += 1
        if tally.networks is not None:
            tally.networks[network] = tally.networks[network] + 1 & WRAP
    return message


def _steer(view: View, entry: Entry, slot: Slot, ecs: bytes, client: bytes) -> tuple[Piece, int, int, int] | None:
    """(records, scope, counter cell, network) for one asker, or None where the reference must speak."""
    if ecs and ecs[6]:
        if ecs[5] == 1:
            family, value, offset = 4, int.from_bytes(ecs[8:], "big") << 8 * (12 - len(ecs)), 0
        else:
            family, value, offset = lookup.client_key(ecs[8:].ljust(16, b"\0"), False)
        atom = lookup.walk(view.index4, view.index6, family, value)
    else:
        family, value, offset, atom = _resolver(view, client)
    cell = view.base.cells[entry.cells + atom]
    rule, scope = entry.rules[cell >> 8], cell & 0xFF
    network = view.network[atom]
    ranking = view.ranking_at(rule.columns[slot.family == 6], network)
    if ranking.down > 1 or (offset and not scope):
        return None
    target = _pick(view, ranking, family, value)
    piece = entry.chosen[target]
    if piece is None:
        return None
    if ranking.split:
        scope = max(scope, UNIT_BITS[family])
    scope = offset + scope if ecs and ecs[6] else 0
    return piece, scope, rule.answers[target] + ranking.reason, network


def _pick(view: View, ranking: Ranking, family: int, value: int) -> int:
    """The provider index, or the index after the last where the ranking gives none."""
    if ranking.down:
        return len(view.base.providers)
    if not ranking.split:
        return ranking.targets[0]
    return view.pick(ranking, value >> (8 if family == 4 else 80))


def _resolver(view: View, client: bytes) -> tuple[int, int, int, int]:
    """(family, value, offset, atom) of a resolver's own address; few ask often, so they are remembered."""
    known = view.resolvers.get(client)
    if known is None:
        family, value, offset = lookup.client_key(client, True)
        atom = lookup.walk(view.index4, view.index6, family, value)
        if atom < view.public_atoms:
            atom += view.public_atoms
        if len(view.resolvers) >= RESOLVERS_MAX:
            view.resolvers.clear()
        known = view.resolvers[client] = (family, value, offset, atom)
    return known


def name_end(packet: bytes) -> int:
    """The offset after the question's name and before its type, or 0 where it is no plain well-formed name."""
    at, size = 12, len(packet)
    while at < size:
        label = packet[at]
        at += label + 1
        if not label:
            return at if at - 12 <= 255 and at + 4 <= size else 0
        if label > 63:
            return 0
    return 0


def read_options(packet: bytes, at: int, size: int) -> tuple[bool, bytes, bytes] | None:
    """(NSID asked, client subnet option whole, cookie) of the one OPT record that must end the packet; None if unusual."""
    if size < at + 11 or packet[at : at + 3] != OPT_START or packet[at + 6]:
        return None
    if at + 11 + (packet[at + 9] << 8 | packet[at + 10]) != size:
        return None
    nsid, ecs, cookies, at = False, b"", b"", at + 11
    while at < size:
        if at + 4 > size:
            return None
        code, length = packet[at] << 8 | packet[at + 1], packet[at + 2] << 8 | packet[at + 3]
        end = at + 4 + length
        if end > size:
            return None
        if code == ECS_CODE and not ecs and plain_subnet(packet, at, length):
            ecs = packet[at:end]
        elif code == COOKIE_CODE and not cookies and (length == 8 or 16 <= length <= 40):
            cookies = packet[at + 4 : end]
        elif code == NSID_CODE and not nsid and not length:
            nsid = True
        else:
            return None
        at = end
    return nsid, ecs, cookies


def plain_subnet(packet: bytes, at: int, length: int) -> bool:
    """Whether the client subnet option at `at` is well-formed (RFC 7871 section 6): see dns.edns for the letter."""
    if length < 4 or packet[at + 4] or packet[at + 7]:
        return False
    family, source = packet[at + 5], packet[at + 6]
    if not family and not source:
        return length == 4
    if family not in (1, 2) or source > (32 if family == 1 else 128) or length != 4 + (source + 7 >> 3):
        return False
    return not source & 7 or not packet[at + 3 + length] & (0xFF >> (source & 7))


def _cookie_option(asked: bytes, client: bytes, now: float, secrets: Secrets) -> bytes:
    given = cookie.renew(asked, client, secrets.cookies, now)[1]
    return COOKIE_CODE.to_bytes(2, "big") + len(given).to_bytes(2, "big") + given


def make_entry(view: View, name: bytes, type_class: bytes) -> Entry | None:
    """The Entry for a folded name and its four octets of type and class; those of existing names are kept."""
    base, qtype = view.base, int.from_bytes(type_class[:2], "big")
    if type_class[2:] != CLASS_IN or qtype in HANDED_BACK:
        return None
    zone = base.zone_of(name, parent_side=qtype == types.DS)
    if zone is None:
        return _entry(base.elsewhere, qtype, REFUSED_TAIL, Piece(b"\0\1" + bytes(6), b"\0\1" + bytes(5) + b"\1", b""))
    node, outcome, exact = find_outcome(base, zone, name, qtype)
    if outcome == NONE:
        return None
    entry = _outcome_entry(view, zone, qtype, name, node, outcome)
    if entry is not None and exact:
        if len(view.entries) >= ENTRIES_MAX:
            view.entries.clear()
        view.entries[name + type_class] = entry
    return entry


def find_outcome(base: Base, zone: Zone, name: bytes, qtype: int) -> tuple[int, int, bool]:
    """(node, outcome, True) for a node of that very name, else (.., False) what the closest encloser says (RFC 4592)."""
    index = base.node_index(zone.number, name)
    if index >= 0:
        return index, base.outcome_of(index, qtype), True
    for encloser in suffixes(name):
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
    return None if piece is None else _entry(zone, qtype, tail, piece)


def _steered_entry(view: View, zone: Zone, qtype: int, name: bytes, node: int, number: int) -> Entry | None:
    """A steered name itself: its records by provider, and its NODATA for the family that a provider lacks."""
    nothing = view.base.tail_at(view.base.node[node * NODE + 7])
    without = make_piece(nothing, len(name))
    if without is None:
        return None
    slot = view.base.slot_at(number)
    chosen = (*_choices(view.base, slot, b"", (0, 0, 0), POINTER_TO_QNAME), without)
    return _with_slot(view, _entry(zone, qtype, nothing, without), slot, chosen, None)


def _chain_entry(view: View, zone: Zone, qtype: int, name: bytes, tail: Tail, number: int) -> Entry | None:
    """CNAMEs of ours that end at a steered name: the chain, then the records of the provider chosen."""
    links, first = make_piece(tail, len(name)), make_piece(view.base.tail_at(tail.first), len(name))
    if links is None or first is None:
        return None
    slot = view.base.slot_at(number)
    owner = shift(tail.owner.to_bytes(2, "big"), (0,), len(name) - tail.length)
    chosen = (*_choices(view.base, slot, links.content, tail.counts, owner), None)
    return _with_slot(view, _entry(zone, qtype, tail, links), slot, chosen, first)


def _choices(
    base: Base, slot: Slot, links: bytes, counts: tuple[int, int, int], owner: bytes
) -> tuple[Piece, ...]:
    """By provider: what precedes, then its records, owned by the name at `owner` (a compression pointer)."""
    pieces = []
    for provider in range(len(base.providers)):
        records, count = base.records(slot.ttl_index, slot.family, provider)
        size = len(records) // count if count else 1
        owned = b"".join(owner + records[at + 2 : at + size] for at in range(0, len(records), size))
        pieces.append(_piece(links + owned, (counts[0] + count, counts[1], counts[2])))
    return tuple(pieces)


def _with_slot(view: View, entry: Entry, slot: Slot, chosen: tuple[Piece | None, ...], first: Piece | None) -> Entry:
    return entry._replace(
        slot=slot,
        cells=view.rows[slot.policy] * view.atom_count,
        rules=view.base.policies[slot.policy],
        chosen=chosen,
        first_link=first,
    )


def _entry(zone: Zone, qtype: int, tail: Tail, static: Piece) -> Entry:
    return Entry(
        requests=zone.requests + request_cell("udp", b"", qtype),
        responses=zone.responses + tail.rcode,
        flags=0x84 if tail.aa else 0x80,
        rcode=tail.rcode,
        static=static,
    )


def make_piece(tail: Tail, length: int) -> Piece | None:
    """The piece of a tail for a question whose name has `length` octets; None past the reach of compression pointers."""
    delta = length - tail.length
    if delta and len(tail.content) > POINTER_REACH:
        return None
    return _piece(shift(tail.content, tail.pointers, delta) if delta else tail.content, tail.counts)


def _piece(content: bytes, counts: tuple[int, int, int]) -> Piece:
    plain = b"\0\1" + b"".join(count.to_bytes(2, "big") for count in counts)
    return Piece(plain, plain[:6] + (counts[2] + 1).to_bytes(2, "big"), content)


def shift(content: bytes, pointers: tuple[int, ...], delta: int) -> bytes:
    """Move the compression pointers at these places by `delta`; the pointer to the whole question name stays."""
    moved = bytearray(content)
    for at in pointers:
        value = int.from_bytes(moved[at : at + 2], "big")
        moved[at : at + 2] = (value if value == 0xC00C else value + delta).to_bytes(2, "big")
    return bytes(moved)
