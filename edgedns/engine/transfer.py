"""A whole zone in the messages of a transfer: AXFR (RFC 5936), and IXFR, which is answered with all of it (RFC 1995).

Over UDP there is IXFR alone, in one message.

Steered names go with the addresses of their nominal ranking. What a secondary serves is therefore the zone as it is for those
networks that nobody measured and no rule names: the records are all there, the steering is not.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from struct import Struct

from edgedns.dns import edns, types
from edgedns.dns.message import HEADER, Query, parse
from edgedns.engine.answer import TRANSFERS, Secrets, reply_limit, reply_options, steer
from edgedns.engine.lookup import lies_in
from edgedns.engine.snapshot import NODE, NONE, Snapshot, View, Zone
from edgedns.engine.tally import Tally, request_cell

# Octets of records in one message: few messages, and none that holds others up for long.
ROOM = 16_000
NOBODY = bytes(4)  # 0.0.0.0 lies in no network: its ranking is the nominal one
SERIAL = 20  # octets from a SOA record's serial to its end
QR_AA, RD, TC = 0x84, 0x01, 0x02

_FIXED = Struct("!HHIH")
_HEADER = Struct("!HBBHHHH")


def begin(
    snapshot: Snapshot, packet: bytes, client: bytes, now: float, secrets: Secrets, tally: Tally
) -> Iterator[bytes] | None:
    """The messages that answer a query over TCP for a transfer; None where it asks for none, or `client` may have none."""
    found = _permitted(snapshot, packet, client, now)
    if found is None:
        return None
    query, view, zone = found
    opt = _counted(query, view, zone, client, now, secrets, tally, "tcp")
    if _is_current(packet, query, soa := next(_records(view, zone))):
        return iter([_message(query, query.question, [soa], opt)])
    return _messages(query, _records(view, zone), opt)


def datagram(
    snapshot: Snapshot, packet: bytes, client: bytes, now: float, secrets: Secrets, tally: Tally
) -> bytes | None:
    """The reply to an IXFR query over UDP: all of the zone, or its SOA; None where it is none, or `client` may have none.

    RFC 1995 section 2: "If the UDP reply does not fit, the query is responded to with a single SOA record of the server's
    current version to inform the client that a TCP query should be initiated."
    """
    found = _permitted(snapshot, packet, client, now)
    if found is None or found[0].qtype != types.IXFR:
        return None
    query, view, zone = found
    opt = _counted(query, view, zone, client, now, secrets, tally, "udp")
    room = reply_limit(query, "udp") - HEADER - len(query.question) - len(opt)
    soa = next(_records(view, zone))
    whole = [] if _is_current(packet, query, soa) else _fitting(_records(view, zone), room)
    records = whole or _fitting([soa], room)
    return _message(query, query.question, records, opt, 0 if records else TC)


def _permitted(snapshot: Snapshot, packet: bytes, client: bytes, now: float) -> tuple[Query, View, Zone] | None:
    """A query for a transfer that `client` may have, and of what."""
    query = parse(packet)
    if not isinstance(query, Query) or query.qtype not in TRANSFERS or query.qclass != types.IN:
        return None
    view = snapshot.at(now)
    zone = view.base.apexes.get(query.folded)
    return (query, view, zone) if zone is not None and lies_in(client, zone.transfer) else None


def _counted(
    query: Query, view: View, zone: Zone, client: bytes, now: float, secrets: Secrets, tally: Tally, transport: str
) -> bytes:
    """The OPT record of the answer, which is counted."""
    tally.cells[zone.requests + request_cell(transport, client, query.qtype)] += 1
    tally.cells[zone.responses + types.NOERROR] += 1
    if query.edns is None:
        return b""
    return edns.encode(query.edns.do, 0, reply_options(view, query, None, None, client, now, secrets, transport))


def _fitting(records: Iterable[bytes], room: int) -> list[bytes]:
    """All of these, or none where they need more room."""
    found: list[bytes] = []
    for record in records:
        room -= len(record)
        if room < 0:
            return []
        found.append(record)
    return found


def _is_current(packet: bytes, query: Query, soa: bytes) -> bool:
    """Whether the SOA that an IXFR query shows has our serial, or a newer one (RFC 1982).

    RFC 1995 section 2: such a query "is replied to with a single SOA record of the server's current version".
    """
    if query.qtype != types.IXFR:
        return False
    theirs, ours = _serial_of(packet, HEADER + len(query.question)), int.from_bytes(soa[-SERIAL:][:4], "big")
    return theirs is not None and (theirs - ours) & 0xFFFFFFFF < 1 << 31


def _serial_of(packet: bytes, at: int) -> int | None:
    """The serial of the SOA record that begins at `at`; None where there is none."""
    if not int.from_bytes(packet[8:10], "big"):
        return None
    while packet[at] and packet[at] < 0xC0:
        at += 1 + packet[at]
    at += 2 if packet[at] else 1
    rtype, _, _, size = _FIXED.unpack_from(packet, at)
    rdata = packet[at + _FIXED.size : at + _FIXED.size + size]
    return int.from_bytes(rdata[-SERIAL:][:4], "big") if rtype == types.SOA and size >= SERIAL else None


def _records(view: View, zone: Zone) -> Iterator[bytes]:
    """Each record in wire form.

    RFC 5936 section 2.2: "the first message MUST begin with the SOA resource record of the zone, and the last message MUST
    conclude with the same SOA resource record."
    """
    apex = view.base.find(zone.number, zone.apex)
    assert apex is not None, "a zone has its apex"
    soa = apex.rrsets[types.SOA]
    first = _record(zone.apex, types.SOA, soa.ttl, soa.rdatas[0])
    yield first
    for name in _names(view, zone):
        node = view.base.find(zone.number, name)
        if node is None:
            continue
        for rrset in node.rrsets.values():
            if rrset.type != types.SOA:
                yield from (_record(name, rrset.type, rrset.ttl, rdata) for rdata in rrset.rdatas)
        for rtype, slot in node.dynamic.items():
            yield from _nominal(view, name, rtype, slot)
    yield first


def _names(view: View, zone: Zone) -> Iterator[bytes]:
    """Those of the zone's nodes, which lie together."""
    node, blob = view.base.node, view.base.blob
    count = len(node) // NODE
    at = bisect_left(range(count), zone.number, key=lambda index: node[index * NODE + 1] >> 16)
    while at < count and node[at * NODE + 1] >> 16 == zone.number:
        start = node[at * NODE]
        yield bytes(blob[start : start + (node[at * NODE + 1] & 0xFFFF)])
        at += 1


def _nominal(view: View, name: bytes, rtype: int, number: int) -> Iterator[bytes]:
    """What a steered name is for networks that nobody knows."""
    slot = view.base.slot_at(number)
    steered = steer(view, slot, None, NOBODY)
    if steered.provider != NONE:
        for rdata in view.base.addresses[steered.provider][slot.family == 6]:
            yield _record(name, rtype, slot.ttl, rdata)


def _record(owner: bytes, rtype: int, ttl: int, rdata: bytes) -> bytes:
    return owner + _FIXED.pack(rtype, types.IN, ttl, len(rdata)) + rdata


def _messages(query: Query, records: Iterator[bytes], opt: bytes) -> Iterator[bytes]:
    """As many records in each as it has room for; question and OPT in the first alone (RFC 5936 section 2.2)."""
    question, size = query.question, 0
    held: list[bytes] = []
    for record in records:
        if held and size + len(record) > ROOM:
            yield _message(query, question, held, opt)
            question, opt, held, size = b"", b"", [], 0
        held.append(record)
        size += len(record)
    yield _message(query, question, held, opt)


def _message(query: Query, question: bytes, records: list[bytes], opt: bytes, flags: int = 0) -> bytes:
    flags |= QR_AA | (RD if query.rd else 0)
    header = _HEADER.pack(query.id, flags, 0, bool(question), len(records), 0, bool(opt))
    return b"".join((header, question, *records, opt))
