"""The plain-Python fast path: packets answered from prebuilt octets, what a stranger can provoke at will above all.

`reply` gives the octets to send, SILENCE, or None; where it is not None it equals the reference path byte for byte and counts
the same (law 1). None is for what is not prebuilt, such as names that a DNAME makes up; never a guess.
"""

from __future__ import annotations

from edgedns.dns import cookie, types
from edgedns.dns.edns import COOKIE, GROWTH, KEEPALIVE, NSID, OVERHEAD
from edgedns.engine import lookup
from edgedns.engine.answer import EDNS_MINIMUM, TCP_IDLE, TCP_LIMIT, UDP_PAYLOAD, UDP_PLAIN, Secrets
from edgedns.engine.asked import LOOK_UP, NO_OPT, NO_OPTIONS, Asked, Options, name_end, read, read_options
from edgedns.engine.entries import NOT_IMPLEMENTED, QR, Entry, Piece, make_entry
from edgedns.engine.seen import NOT_STEERED, Ring, Seen, due, note
from edgedns.engine.snapshot import UNIT_BITS, Ranking, Snapshot, View
from edgedns.engine.tally import OTHER, TCP, V6, WRAP, Tally

SILENCE = b""
TC = 0x02
OPCODE_RD, RD = 0x79, 0x01
RESOLVERS_MAX = 65536
UNBOUND = 1 << 16
COOKIE_SIZE = 4 + cookie.CLIENT + cookie.SERVER
QUERY_COUNTS = b"\0\1\0\0\0\0\0"
OPT_START = b"\0\0\x29"
OPT_HEAD = OPT_START + UDP_PAYLOAD.to_bytes(2, "big")
NSID_HEAD, COOKIE_HEAD = NSID.to_bytes(2, "big"), COOKIE.to_bytes(2, "big")
KEEPALIVE_OPTION = KEEPALIVE.to_bytes(2, "big") + b"\0\2" + round(TCP_IDLE * 10).to_bytes(2, "big")

# (the piece to send, its scope, the counter cell of a steered answer or -1, the network to count or -1)
Chosen = tuple[Piece, int, int, int]
# Who asks, when, and with which secrets: (client, transport, now, secrets)
Asker = tuple[bytes, str, float, Secrets]


def reply(
    snapshot: Snapshot, packet: bytes, client: bytes, transport: str, now: float, secrets: Secrets, tally: Tally
) -> bytes | None:
    """One packet in, one out. `client` is packed; `now` is Unix seconds; `tally` is the caller's own."""
    view, asker = snapshot.at(now), (client, transport, now, secrets)
    size = len(packet)
    if size < 12 or packet[2] & 0x80:
        return SILENCE
    if packet[2] & 0x78 or packet[4:11] != QUERY_COUNTS:
        return _unusual(view, packet, asker, tally)
    # A known question is found by its octets alone; only an unknown one has its labels walked.
    end = packet.find(b"\0", 12) + 1
    entry = view.entries.get(packet[12:end].lower() + packet[end : end + 4])
    if entry is None:
        end = name_end(packet)
        if end < 0:
            return _unusual(view, packet, asker, tally)
        entry = make_entry(view, packet[12:end].lower(), packet[end : end + 4])
        if entry is None:
            return None
    rest = end + 4
    if packet[11] == 0 and size == rest:
        return _answer(view, packet, entry, Asked(rest, LOOK_UP, NO_OPT, 0, NO_OPTIONS), asker, tally)
    options = _plain_options(packet, rest, size) if packet[11] == 1 else None
    if options is None:
        return _unusual(view, packet, asker, tally)
    asked = Asked(rest, LOOK_UP, packet[rest + 3] << 8 | packet[rest + 4], packet[rest + 7], options)
    return _answer(view, packet, entry, asked, asker, tally)


def _plain_options(packet: bytes, at: int, size: int) -> Options | None:
    """The options of the one OPT record of version 0 that ends the packet; None if it is anything else."""
    if size < at + 11 or packet[at : at + 3] != OPT_START or packet[at + 6]:
        return None
    if at + 11 + (packet[at + 9] << 8 | packet[at + 10]) != size:
        return None
    return read_options(packet, at + 11, size)


def _unusual(view: View, packet: bytes, asker: Asker, tally: Tally) -> bytes | None:
    """What a packet that is not just a question and an OPT record is answered."""
    asked = read(packet)
    if asked.rcode != LOOK_UP:
        return _reject(view, packet, asked, asker, tally)
    name_ends = asked.end - 4
    entry = make_entry(view, packet[12:name_ends].lower(), packet[name_ends : asked.end])
    return None if entry is None else _answer(view, packet, entry, asked, asker, tally)


def _answer(view: View, packet: bytes, entry: Entry, asked: Asked, asker: Asker, tally: Tally) -> bytes | None:
    """The reply to a question that can be looked up, and its counts."""
    client, transport, _, _ = asker
    chosen = choose(view, entry, asked.options[1], client)
    if chosen is None:
        return None
    piece, scope, _, _ = chosen
    opt, limit, counts = b"", UDP_PLAIN, piece.plain
    if asked.payload >= 0:
        spare = UNBOUND if piece.content or transport == "tcp" else len(packet) + GROWTH - asked.end - OVERHEAD
        opt = make_opt(view, asked, 0, scope, piece.error, spare, asker)
        # RFC 6891 section 6.2.3: "Values lower than 512 MUST be treated as equal to 512."
        limit, counts = min(max(asked.payload, EDNS_MINIMUM), UDP_PAYLOAD), piece.with_opt
    flags, content = piece.flags | packet[2] & RD, piece.content
    room = (TCP_LIMIT if transport == "tcp" else limit) - asked.end - len(opt)
    if content and len(content) > room:
        flags, counts, content = _cut(piece, flags, counts, room, bool(opt))
    _count(entry, chosen, client, transport, tally)
    if tally.ring is not None and due(tally.ring):
        _note(tally.ring, packet[12 : asked.end - 2], asked, piece.rcode, chosen[2], asker)
    return b"".join((packet[:2], bytes((flags, piece.rcode)), counts, packet[12 : asked.end], content, opt))


def _cut(piece: Piece, flags: int, counts: bytes, room: int, opt: bool) -> tuple[int, bytes, bytes]:
    """(flags, counts, content) of a piece that must not have more than `room` octets: see dns.message.fit."""
    for size, additional in reversed(piece.cuts):
        if size <= room:
            return flags, counts[:6] + (additional + opt).to_bytes(2, "big"), piece.content[:size]
    return flags | TC, b"\0\1\0\0\0\0" + opt.to_bytes(2, "big"), b""


def _reject(view: View, packet: bytes, asked: Asked, asker: Asker, tally: Tally) -> bytes:
    """The reply to a packet whose form alone earns an rcode, or that asks for nothing but a cookie."""
    client, transport, now, secrets = asker
    rcode, (nsid, _, asked_cookie, keepalive) = asked.rcode, asked.options
    if rcode == types.NOERROR and len(asked_cookie) > cookie.CLIENT:
        # RFC 7873 section 5.4: a query for a cookie alone, whose server cookie is not valid, is answered BADCOOKIE.
        rcode = types.NOERROR if cookie.check(asked_cookie, client, secrets.cookies, now) else types.BADCOOKIE
    opcode_rd = packet[2] & OPCODE_RD
    question = packet[12 : asked.end] if opcode_rd <= RD else b""
    opt = b""
    if asked.payload >= 0:
        spare = UNBOUND if transport == "tcp" else len(packet) + GROWTH - 12 - len(question) - OVERHEAD
        error = NOT_IMPLEMENTED.error if rcode == types.NOTIMP else b""
        asked = asked._replace(options=(nsid, b"", asked_cookie, keepalive))
        opt = make_opt(view, asked, rcode, 0, error, spare, asker)
    elsewhere, cells = view.base.elsewhere, tally.cells
    cells[elsewhere.requests + _transport_cell(client, transport) + OTHER] += 1
    cells[elsewhere.responses + rcode] += 1
    if tally.ring is not None and due(tally.ring):
        _note(tally.ring, b"", asked, rcode, -1, asker)
    head = (QR | opcode_rd, rcode & 0x0F, 0, 1 if question else 0, 0, 0, 0, 0, 0, 1 if opt else 0)
    return b"".join((packet[:2], bytes(head), question, opt))


def choose(view: View, entry: Entry, ecs: bytes, client: bytes) -> Chosen | None:
    """What an asker gets; `ecs` is the client subnet option whole, or empty. None where the reference must speak."""
    slot = entry.slot
    if slot is None:
        return entry.static, 0, -1, -1
    # RFC 7871 section 7.2.1: with a client subnet only the first link of a chain to a steered name is given.
    if ecs and entry.first_link is not None:
        return entry.first_link, 0, -1, -1
    forwarded = bool(ecs and ecs[6])
    family, value, offset, atom = _forwarded(view, ecs) if forwarded else _resolver(view, client)
    cell = view.base.cells[entry.cells + atom]
    rule, scope = entry.rules[cell >> 8], cell & 0xFF
    network = view.network[atom]
    ranking = view.ranking_at(rule.columns[slot.family == 6], network)
    target = _pick(view, ranking, family, value)
    piece = entry.chosen[target]
    if piece is None:
        return None
    if ranking.split:
        scope = max(scope, UNIT_BITS[family])
    if not forwarded:
        scope = 0
    elif offset:
        scope = offset + scope if scope else _outer_scope(view, entry, ecs)
    reason = ranking.reasons.get(target, ranking.reason) if ranking.split else ranking.reason
    return piece, scope, rule.answers[min(target, len(rule.answers) - 1)] + reason, network


def _outer_scope(view: View, entry: Entry, ecs: bytes) -> int:
    """As in engine.answer: the scope of IPv4 as a whole, inside IPv6, is that of the IPv6 space around it."""
    value = int.from_bytes(ecs[8:].ljust(16, b"\0"), "big")
    return view.base.cells[entry.cells + lookup.walk(view.index4, view.index6, 6, value)] & 0xFF


def _pick(view: View, ranking: Ranking, family: int, value: int) -> int:
    """The provider index; where the ranking gives none one after the last, or two for SERVFAIL."""
    if ranking.down:
        return len(view.base.providers) - 1 + ranking.down
    if not ranking.split:
        return ranking.targets[0]
    return view.pick(ranking, value >> (8 if family == 4 else 80))


def _forwarded(view: View, ecs: bytes) -> tuple[int, int, int, int]:
    """(family, value, offset, atom) of a client subnet of at least one bit."""
    if ecs[5] == 1:
        family, value, offset = 4, int.from_bytes(ecs[8:], "big") << 8 * (12 - len(ecs)), 0
    else:
        family, value, offset = lookup.client_key(ecs[8:].ljust(16, b"\0"), False)
    return family, value, offset, lookup.walk(view.index4, view.index6, family, value)


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


def make_opt(view: View, asked: Asked, rcode: int, scope: int, error: bytes, spare: int, asker: Asker) -> bytes:
    """The reply's OPT record; its options in the order of answer.reply_options, in `spare` octets as by dns.edns.modest."""
    nsid, ecs, asked_cookie, keepalive = asked.options
    if spare != UNBOUND:
        spare -= len(ecs) + (COOKIE_SIZE if asked_cookie else 0)
        name = 4 + len(view.nsid) if nsid and view.nsid else 0
        error = error if name + len(error) <= spare else b""
        nsid = nsid and name + len(error) <= spare
    body = ecs[:7] + bytes((scope,)) + ecs[8:] + error if ecs else error
    if nsid and view.nsid:
        body = NSID_HEAD + len(view.nsid).to_bytes(2, "big") + view.nsid + body
    if asked_cookie:
        client, _, now, secrets = asker
        _, given = cookie.renew(asked_cookie, client, secrets.cookies, now)
        body += COOKIE_HEAD + len(given).to_bytes(2, "big") + given
    # RFC 7828 section 3.2.1: "DNS servers MUST NOT send the edns-tcp-keepalive option ... over UDP".
    if keepalive and asker[1] == "tcp":
        body += KEEPALIVE_OPTION
    return OPT_HEAD + bytes((rcode >> 4, 0, asked.do & 0x80, 0)) + len(body).to_bytes(2, "big") + body


def _transport_cell(client: bytes, transport: str) -> int:
    return (TCP if transport == "tcp" else 0) + (V6 if len(client) == 16 else 0)


def _count(entry: Entry, chosen: Chosen, client: bytes, transport: str, tally: Tally) -> None:
    piece, _, answered, network = chosen
    cells = tally.cells
    cells[entry.requests + _transport_cell(client, transport)] += 1
    cells[entry.responses + piece.rcode] += 1
    if answered >= 0:
        cells[answered] += 1
        if tally.networks is not None:
            tally.networks[network] = tally.networks[network] + 1 & WRAP


def _note(ring: Ring, question: bytes, asked: Asked, rcode: int, cell: int, asker: Asker) -> None:
    """Write a query of the sample; `question` is its name and type, empty where its form alone settled the reply."""
    (client, transport, now, secrets), (_, ecs, given, _) = asker, asked.options
    name, qtype = question[:-2].lower(), int.from_bytes(question[-2:], "big")
    tcp = transport == "tcp"
    proven = tcp or bool(cookie.check(given, client, secrets.cookies, now))
    subnet, source = b"", 0
    if ecs and ecs[6]:
        subnet, source = ecs[8:].ljust(4 if ecs[5] == 1 else 16, b"\0"), ecs[6]
    note(ring, Seen(now, client, subnet, source, name, qtype, rcode, cell if cell >= 0 else NOT_STEERED, proven, tcp))
