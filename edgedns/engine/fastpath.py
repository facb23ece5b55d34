"""The plain-Python fast path: packets answered from prebuilt octets, what a stranger can provoke at will above all.

`reply` gives the octets to send, SILENCE, or None; where it is not None it equals the reference path byte for byte and counts
the same (law 1). None is for what is not prebuilt, such as names that a DNAME makes up; never a guess.
"""

from __future__ import annotations

from collections.abc import Sequence

from edgedns.dns import cookie, types
from edgedns.dns.edns import COOKIE, GROWTH, KEEPALIVE, NSID, OVERHEAD
from edgedns.engine import lookup
from edgedns.engine.answer import EDNS_MINIMUM, TCP_IDLE, TCP_LIMIT, UDP_PAYLOAD, UDP_PLAIN, Secrets
from edgedns.engine.asked import HEADER, LOOK_UP, Asked, Options, name_end, read
from edgedns.engine.entries import (
    NO_TRANSFER,
    NOT_IMPLEMENTED,
    QR,
    WITH_OPT,
    Entry,
    Piece,
    entry_beside,
    entry_of,
    keep,
    make_entry,
)
from edgedns.engine.forms import KNOWN_BY, MOST, OPT_HEAD, OPT_SIZE, OPTION_HEAD, SCOPES, Form, form_of
from edgedns.engine.seen import NOT_STEERED, Ring, Seen, Waiting, drawn, due, note
from edgedns.engine.snapshot import UNIT_BITS, Snapshot, View
from edgedns.engine.tally import OTHER, TCP, V6, WRAP, Tally

SILENCE = b""
TC = 0x02
OPCODE_RD, RD = 0x79, 0x01
# What is remembered: at most so many questions (110 octets each), and choices by asker or client subnet (145)
KNOWN_MOST = CHOICES_MOST = 10_240
# Entries of the sample that are written together, and seconds after which those that wait are written all the same
TOGETHER, LATEST = 64, 0.5
NO_SECRETS = Secrets(())
PLACE = 3  # octets before a client subnet's address: its family, source and scope
UNBOUND = 1 << 16
COOKIE_SIZE = 4 + cookie.CLIENT + cookie.SERVER
NSID_HEAD, COOKIE_HEAD = NSID.to_bytes(2, "big"), COOKIE.to_bytes(2, "big")
KEEPALIVE_OPTION = KEEPALIVE.to_bytes(2, "big") + b"\0\2" + round(TCP_IDLE * 10).to_bytes(2, "big")

# (the piece to send, its scope, the counter cell of a steered answer or -1, the network to count or -1)
Chosen = tuple[Piece, int, int, int]
# (the piece's place in Entry.chosen, its scope, the counter cell), which many share; and the network
Choice = tuple[tuple[int, int, int], int]
# A packet's size, what its question is answered with, and in which form
Known = tuple[int, Entry, Form]
# The counter cells of a request (over UDP, from IPv4), a response, and a steered answer or -1
Counted = tuple[int, int, int]
# A reply, what it is counted by, the network to count or -1
Usual = tuple[bytes, Counted, int]
# Who asks, when, and with which secrets: (client, transport, now, secrets)
Asker = tuple[bytes, str, float, Secrets]


def reply(
    snapshot: Snapshot, packet: bytes, client: bytes, transport: str, now: float, secrets: Secrets, tally: Tally
) -> bytes | None:
    """One packet in, one out. `client` is packed; `now` is Unix seconds; `tally` is the caller's own."""
    view = snapshot.at(now)
    usual = _usual(view, packet, client)
    if usual is None:
        return _unusual(view, packet, (client, transport, now, secrets), tally)
    octets, counted, network = usual
    _count(counted, network, client, transport, tally)
    if tally.ring is not None and due(tally.ring):
        _note_usual(tally.ring, (packet, client, octets, counted[2], now), transport)
    return octets


def replies(snapshot: Snapshot, received: Sequence[tuple[bytes, bytes]], now: float, tally: Tally) -> list[bytes | None]:
    """Replies as of `reply` to each (packet, client) of a family that came together over UDP; None: `reply` is to be asked.

    None came for a while: then what waits to be noted is, too.
    """
    view, cells, networks = snapshot.at(now), tally.cells, tally.networks
    found = [_usual(view, packet, client) for packet, client in received]
    usual = [one for one in found if one]
    six = V6 if received and len(received[0][1]) == 16 else 0
    counts: dict[Counted, int] = {}
    for _, counted, _ in usual:
        counts[counted] = counts.get(counted, 0) + 1
    for (requests, responses, answered), times in counts.items():
        cells[requests + six] += times
        cells[responses] += times
        if answered >= 0:
            cells[answered] += times
    if networks is not None:
        for _, _, network in usual:
            if network >= 0:
                networks[network] = networks[network] + 1 & WRAP
    if tally.ring is not None:
        _draw(tally.ring, received, found, usual, now)
    return [one and one[0] for one in found]


def _draw(
    ring: Ring, received: Sequence[tuple[bytes, bytes]], found: list[Usual | None], usual: list[Usual], now: float
) -> None:
    """Let those of the sample wait, and note all that wait where they are many, or old."""
    places, waiting = drawn(ring, len(usual)), ring.waiting
    if places:
        asked = received if len(usual) == len(found) else [one for one, said in zip(received, found, strict=True) if said]
        for place in places:
            (packet, client), (octets, (_, _, answered), _) = asked[place], usual[place]
            waiting.append((packet, client, octets, answered, now))
    due_now = waiting and (len(waiting) >= TOGETHER or not received or now - waiting[0][4] >= LATEST)
    if due_now and ring.waiting is waiting:
        ring.waiting = []  # no other thread comes between these two lines
        for one in waiting:
            _note_usual(ring, one, "udp")


def _usual(view: View, packet: bytes, client: bytes) -> Usual | None:
    """The reply to one question and one of the usual OPT records, by look-ups alone; None where that is not enough."""
    end = packet.find(b"\0", HEADER) + 5
    after = end + KNOWN_BY
    known = view.known.get(packet[2:after]) or _look_up(view, packet, end)
    if known is None or known[0] != len(packet):
        return None
    _, entry, form = known
    if entry.slot is None:
        piece, scope, counted, network = entry.static, 0, entry.counted, -1
    else:
        asker = entry.marks[1] + packet[after - PLACE :] if form.forwarded else entry.marks[0] + client
        choice = view.choices.get(asker)
        if choice is None:
            choice = _decide(view, entry, asker, packet[end + OPT_SIZE :] if form.forwarded else b"", client)
        (target, scope, answered), network = choice
        steered = entry.chosen[target]
        if steered is None:
            return None
        piece, counted = steered, (entry.requests, entry.responses + steered.rcode, answered)
    content = piece.content
    if len(content) > form.room - end:
        return None
    opt = form.head + SCOPES[scope] + packet[after:] if form.subnet else form.head
    return b"".join((packet[:2], piece.heads[form.which], packet[HEADER:end], content, opt)), counted, network


def _look_up(view: View, packet: bytes, end: int) -> Known | None:
    """What is known of a packet whose question seems to end at `end`, and of all that differ in ID and address alone."""
    form = view.forms.get(packet[2:HEADER] + packet[end : end + KNOWN_BY])
    if form is None or len(packet) != end + form.size or end < HEADER + 5:
        return None
    name, type_class = packet[HEADER : end - 4].lower(), packet[end - 4 : end]
    entry = view.entries.get(name + type_class)
    exists = entry is not None
    if entry is None:
        entry = entry_beside(view, name, type_class)
    if entry is None and name_end(packet) + 4 == end:
        entry, exists = make_entry(view, name, type_class)
        if exists and name != packet[HEADER : end - 4]:  # else `known` has it, but for its other spellings
            keep(view, name + type_class, entry)
    if entry is None or (entry.static.error and form.head) or entry.static is NO_TRANSFER:
        return None
    # RFC 7871 section 7.2.1: with a client subnet only the first link of a chain to a steered name is given.
    known = len(packet), (entry.first_link or entry) if form.subnet else entry, form
    # A flood of names that don't exist must not drive out what is asked for again and again.
    if exists:
        if len(view.known) >= KNOWN_MOST:
            view.known.clear()
            view.alike.clear()
        view.known[packet[2 : end + KNOWN_BY]] = view.alike.setdefault(known, known)
    return known


def _unusual(view: View, packet: bytes, asker: Asker, tally: Tally) -> bytes | None:
    """The reply to what is not of a form that is known already; the usual ones are known from then on."""
    if len(packet) < 12 or packet[2] & 0x80:
        return SILENCE
    asked = read(packet)
    if asked.rcode != LOOK_UP:
        return _reject(view, packet, asked, asker, tally)
    end = asked.end
    name, type_class = packet[12 : end - 4].lower(), packet[end - 4 : end]
    entry = entry_of(view, name, type_class)
    if entry is None or (entry.static is NO_TRANSFER and lookup.lies_in(asker[0], view.base.secondaries)):
        return None
    form = form_of(packet, asked)
    if form is not None:
        if len(view.forms) >= MOST:
            view.forms.clear()
        view.forms[packet[2:HEADER] + packet[end : end + KNOWN_BY]] = form
    return _answer(view, packet, entry, asked, asker, tally)


def _answer(view: View, packet: bytes, entry: Entry, asked: Asked, asker: Asker, tally: Tally) -> bytes | None:
    """The reply to a question that can be looked up, and its counts."""
    client, transport, _, _ = asker
    chosen = choose(view, entry, asked.options[1], client)
    if chosen is None:
        return None
    piece, scope, answered, network = chosen
    opt = b""
    if asked.payload >= 0:
        spare = UNBOUND if piece.content or transport == "tcp" else len(packet) + GROWTH - asked.end - OVERHEAD
        opt = make_opt(view, asked, 0, scope, piece.error, spare, asker)
    head, content = piece.heads[packet[2] & RD | (WITH_OPT if opt else 0)], piece.content
    room = _limit(asked, transport) - asked.end - len(opt)
    if content and len(content) > room:
        head, content = _cut(piece, head, room, bool(opt))
    _count((entry.requests, entry.responses + piece.rcode, answered), network, client, transport, tally)
    if tally.ring is not None and due(tally.ring):
        _note(tally.ring, packet[12 : asked.end - 2], asked.options, piece.rcode, answered, asker)
    return b"".join((packet[:2], head, packet[12 : asked.end], content, opt))


def _limit(asked: Asked, transport: str) -> int:
    """As answer.reply_limit."""
    if transport == "tcp":
        return TCP_LIMIT
    # RFC 6891 section 6.2.3: "Values lower than 512 MUST be treated as equal to 512."
    return min(max(asked.payload, EDNS_MINIMUM), UDP_PAYLOAD) if asked.payload >= 0 else UDP_PLAIN


def _cut(piece: Piece, head: bytes, room: int, opt: bool) -> tuple[bytes, bytes]:
    """(head, content) of a piece that must not have more than `room` octets: see dns.message.fit."""
    for size, additional in reversed(piece.cuts):
        if size <= room:
            return head[:8] + (additional + opt).to_bytes(2, "big"), piece.content[:size]
    return bytes((head[0] | TC, head[1], 0, 1, 0, 0, 0, 0, 0, opt)), b""


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
        spare = UNBOUND if transport == "tcp" else len(packet) + GROWTH - 12 - len(question) - OVERHEAD - len(asked.tsig)
        error = NOT_IMPLEMENTED.error if rcode == types.NOTIMP else b""
        asked = asked._replace(options=(nsid, b"", asked_cookie, keepalive))
        opt = make_opt(view, asked, rcode, 0, error, spare, asker)
    signed = asked.tsig
    if len(signed) > _limit(asked, transport) - 12 - len(question) - len(opt):
        signed = b""
    elsewhere, cells = view.base.elsewhere, tally.cells
    cells[elsewhere.requests + (TCP if transport == "tcp" else 0) + (V6 if len(client) == 16 else 0) + OTHER] += 1
    cells[elsewhere.responses + rcode] += 1
    if tally.ring is not None and due(tally.ring):
        _note(tally.ring, b"", asked.options, rcode, -1, asker)
    head = (QR | opcode_rd, rcode & 0x0F, 0, 1 if question else 0, 0, 0, 0, 0, 0, bool(opt) + bool(signed))
    return b"".join((packet[:2], bytes(head), question, opt, signed))


def choose(view: View, entry: Entry, ecs: bytes, client: bytes) -> Chosen | None:
    """What an asker gets; `ecs` is the client subnet option whole, or empty. None where the reference must speak."""
    if entry.slot is None:
        return entry.static, 0, -1, -1
    if ecs and entry.first_link is not None:
        return entry.first_link.static, 0, -1, -1
    forwarded = bool(ecs and ecs[6])
    asker = entry.marks[1] + ecs[OPTION_HEAD + 1 :] if forwarded else entry.marks[0] + client
    choice = view.choices.get(asker) or _decide(view, entry, asker, ecs if forwarded else b"", client)
    (target, scope, answered), network = choice
    piece = entry.chosen[target]
    return None if piece is None else (piece, scope, answered, network)


def _decide(view: View, entry: Entry, asker: bytes, ecs: bytes, client: bytes) -> Choice:
    """What a steered name's policy says for a client subnet of at least one bit, or for a resolver's own address.

    It is remembered by `asker`, for all names of that policy.
    """
    target, scope, answered, network = _decided(view, entry, ecs, client)
    if len(view.choices) >= CHOICES_MOST:
        view.choices.clear()
        view.outcomes.clear()
    outcome = target, scope, answered
    choice = view.choices[asker] = view.outcomes.setdefault(outcome, outcome), network
    return choice


def _decided(view: View, entry: Entry, ecs: bytes, client: bytes) -> tuple[int, int, int, int]:
    family, value, offset, atom = _forwarded(view, ecs) if ecs else _resolver(view, client)
    cell = view.base.cells[entry.cells + atom]
    column, answers = entry.ways[cell >> 8]
    network = view.network[atom]
    targets, reason, down, split, reasons = view.ranking_at(column, network)
    if down:
        target = len(entry.chosen) - 3 + down  # behind the providers: see Entry
    elif split:
        target = view.pick_split(split, value >> (8 if family == 4 else 80))
        reason = reasons.get(target, reason)
    else:
        target = targets[0]
    if not ecs:
        return target, 0, answers[target] + reason, network
    scope = cell & 0xFF
    if split and scope < UNIT_BITS[family]:
        scope = UNIT_BITS[family]
    if offset:
        scope = offset + scope if scope else _outer_scope(view, entry, ecs)
    return target, scope, answers[target] + reason, network


def _outer_scope(view: View, entry: Entry, ecs: bytes) -> int:
    """As in engine.answer: the scope of IPv4 as a whole, inside IPv6, is that of the IPv6 space around it."""
    value = int.from_bytes(ecs[8:].ljust(16, b"\0"), "big")
    return view.base.cells[entry.cells + lookup.walk(view.index4, view.index6, 6, value)] & 0xFF


def _forwarded(view: View, ecs: bytes) -> tuple[int, int, int, int]:
    """(family, value, offset, atom) of a client subnet of at least one bit."""
    if ecs[5] == 1:
        value = int.from_bytes(ecs[8:], "big") << 8 * (12 - len(ecs))
        return 4, value, 0, lookup.walk4(view.index4, value)
    family, value, offset = lookup.client_key(ecs[8:].ljust(16, b"\0"), False)
    return family, value, offset, lookup.walk(view.index4, view.index6, family, value)


def _resolver(view: View, client: bytes) -> tuple[int, int, int, int]:
    """(family, value, offset, atom) of a resolver's own address."""
    family, value, offset = lookup.client_key(client, True)
    atom = lookup.walk(view.index4, view.index6, family, value)
    return family, value, offset, atom + view.public_atoms if atom < view.public_atoms else atom


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
    # RFC 7828 section 3.3.1: "A DNS server that receives a query using UDP transport that includes the edns-tcp-keepalive
    # option MUST ignore the option."
    if keepalive and asker[1] == "tcp":
        body += KEEPALIVE_OPTION
    return OPT_HEAD + bytes((rcode >> 4, 0, asked.do & 0x80, 0)) + len(body).to_bytes(2, "big") + body


def _count(counted: Counted, network: int, client: bytes, transport: str, tally: Tally) -> None:
    cells, networks = tally.cells, tally.networks
    requests, responses, answered = counted
    cells[requests + (TCP if transport == "tcp" else 0) + (V6 if len(client) == 16 else 0)] += 1
    cells[responses] += 1
    if answered >= 0:
        cells[answered] += 1
        if networks is not None:
            networks[network] = networks[network] + 1 & WRAP


def _note_usual(ring: Ring, one: Waiting, transport: str) -> None:
    """Such a packet's only option, if any, is a client subnet."""
    packet, client, octets, answered, now = one
    end = packet.find(b"\0", HEADER) + 5
    options = False, packet[end + OPT_SIZE :], b"", False
    _note(ring, packet[HEADER : end - 2], options, octets[3] & 0x0F, answered, (client, transport, now, NO_SECRETS))


def _note(ring: Ring, question: bytes, options: Options, rcode: int, cell: int, asker: Asker) -> None:
    """Write a query of the sample; `question` is its name and type, empty where its form alone settled the reply."""
    (client, transport, now, secrets), (_, ecs, given, _) = asker, options
    name, qtype = question[:-2].lower(), int.from_bytes(question[-2:], "big")
    tcp = transport == "tcp"
    proven = tcp or bool(cookie.check(given, client, secrets.cookies, now))
    subnet, source = b"", 0
    if ecs and ecs[6]:
        subnet, source = ecs[8:].ljust(4 if ecs[5] == 1 else 16, b"\0"), ecs[6]
    note(ring, Seen(now, client, subnet, source, name, qtype, rcode, cell if cell >= 0 else NOT_STEERED, proven, tcp))
