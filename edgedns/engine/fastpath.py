"""The plain-Python fast path: ordinary packets answered from prebuilt octets, everything else handed back.

`reply` gives the octets to send, SILENCE, or None; where it is not None it equals the reference path byte for byte and counts
the same (law 1). Where the packet is unusual in any way the answer is None, never a guess.
"""

from __future__ import annotations

from edgedns.dns import cookie
from edgedns.dns.edns import COOKIE, NSID, SUBNET
from edgedns.engine import lookup
from edgedns.engine.answer import EDNS_MINIMUM, TCP_LIMIT, UDP_PAYLOAD, UDP_PLAIN, Secrets
from edgedns.engine.entries import Entry, Piece, make_entry
from edgedns.engine.snapshot import UNIT_BITS, Ranking, Snapshot, View
from edgedns.engine.tally import TCP, V6, WRAP, Tally

SILENCE = b""
RESOLVERS_MAX = 65536
QUERY_COUNTS = b"\0\1\0\0\0\0\0"
OPT_START = b"\0\0\x29"
OPT_HEAD = OPT_START + UDP_PAYLOAD.to_bytes(2, "big") + b"\0\0"
NSID_HEAD, COOKIE_HEAD = NSID.to_bytes(2, "big"), COOKIE.to_bytes(2, "big")
NO_OPTIONS = (False, b"", b"")

# (the piece to send, its scope, the counter cell of a steered answer or -1, the network to count or -1)
Chosen = tuple[Piece, int, int, int]


def reply(
    snapshot: Snapshot, packet: bytes, client: bytes, transport: str, now: float, secrets: Secrets, tally: Tally
) -> bytes | None:
    """One packet in, one out. `client` is packed; `now` is Unix seconds; `tally` is the caller's own."""
    view = snapshot.at(now)
    size = len(packet)
    if size < 12 or packet[2] & 0x80:
        return SILENCE
    if packet[2] & 0x78 or packet[4:11] != QUERY_COUNTS:
        return None
    # A known question is found by its octets alone; only an unknown one has its labels walked.
    end = packet.find(b"\0", 12) + 1
    entry = view.entries.get(packet[12:end].lower() + packet[end : end + 4])
    if entry is None:
        end = name_end(packet)
        entry = make_entry(view, packet[12:end].lower(), packet[end : end + 4]) if end else None
        if entry is None:
            return None
    rest = end + 4
    options = read_options(packet, rest, size) if packet[11] == 1 else NO_OPTIONS if packet[11] == 0 and size == rest else None
    if options is None:
        return None
    chosen = choose(view, entry, options[1], client)
    if chosen is None:
        return None
    opt, limit = b"", UDP_PLAIN
    if packet[11]:
        opt = make_opt(view, options, chosen[1], client, now, secrets, packet[rest + 7] & 0x80)
        limit = min(max(packet[rest + 3] << 8 | packet[rest + 4], EDNS_MINIMUM), UDP_PAYLOAD)
    piece, flags = chosen[0], bytes((entry.flags | packet[2] & 1, entry.rcode))
    counts = piece.with_opt if opt else piece.plain
    message = b"".join((packet[:2], flags, counts, packet[12:rest], piece.content, opt))
    if len(message) > (TCP_LIMIT if transport == "tcp" else limit):
        return None
    _count(entry, chosen, client, transport, tally)
    return message


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
    if ranking.down > 1 or (offset and not scope):
        return None
    target = _pick(view, ranking, family, value)
    piece = entry.chosen[target]
    if piece is None:
        return None
    if ranking.split:
        scope = max(scope, UNIT_BITS[family])
    reason = ranking.reasons.get(target, ranking.reason) if ranking.split else ranking.reason
    return piece, offset + scope if forwarded else 0, rule.answers[target] + reason, network


def _pick(view: View, ranking: Ranking, family: int, value: int) -> int:
    """The provider index, or the index after the last where the ranking gives none."""
    if ranking.down:
        return len(view.base.providers)
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
        if code == SUBNET and not ecs and plain_subnet(packet, at, length):
            ecs = packet[at:end]
        elif code == COOKIE and not cookies and (length == 8 or 16 <= length <= 40):
            cookies = packet[at + 4 : end]
        elif code == NSID and not nsid and not length:
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


def make_opt(
    view: View, options: tuple[bool, bytes, bytes], scope: int, client: bytes, now: float, secrets: Secrets, do: int
) -> bytes:
    """The reply's OPT record; its options in the order of answer.reply_options."""
    nsid, ecs, asked = options
    body = ecs[:7] + bytes((scope,)) + ecs[8:] if ecs else b""
    if nsid:
        body = NSID_HEAD + len(view.nsid).to_bytes(2, "big") + view.nsid + body
    if asked:
        _, given = cookie.renew(asked, client, secrets.cookies, now)
        body += COOKIE_HEAD + len(given).to_bytes(2, "big") + given
    return OPT_HEAD + bytes((do, 0)) + len(body).to_bytes(2, "big") + body


def _count(entry: Entry, chosen: Chosen, client: bytes, transport: str, tally: Tally) -> None:
    _, _, answered, network = chosen
    cells = tally.cells
    cells[entry.requests + (TCP if transport == "tcp" else 0) + (V6 if len(client) == 16 else 0)] += 1
    cells[entry.responses] += 1
    if answered >= 0:
        cells[answered] += 1
        if tally.networks is not None:
            tally.networks[network] = tally.networks[network] + 1 & WRAP
