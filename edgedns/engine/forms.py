"""The usual OPT records, known again by their octets: none, one without options, one with a client subnet alone.

All that such a record asks lies in its first KNOWN_BY octets; what may follow is the subnet's address. So it is read once,
together with the packet's header, and for each further query a look-up is all there is to do.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgedns.engine.answer import EDNS_MINIMUM, UDP_PAYLOAD, UDP_PLAIN
from edgedns.engine.asked import HEADER, NO_OPT, Asked
from edgedns.engine.entries import RD, WITH_OPT

OPT_SIZE = 11
OPTION_HEAD = 4
KNOWN_BY = OPT_SIZE + OPTION_HEAD + 4  # the record, the option's head, its family, source and scope
MOST = 1024
OPT_START = b"\0\0\x29"
OPT_HEAD = OPT_START + UDP_PAYLOAD.to_bytes(2, "big")
ONE_QUESTION = b"\0\1\0\0\0\0\0"
SCOPES = tuple(bytes((scope,)) for scope in range(256))


@dataclass(frozen=True, slots=True, eq=False)
class Form:
    """`which`: of a Piece's heads. `size`: the octets of the packet's OPT record. `room`: what a reply may have beside its own.

    `head` is the reply's own record: whole, or (`subnet`) all before the scope, behind which the address is repeated.
    `forwarded`: the subnet is of at least one bit.
    """

    which: int
    size: int
    room: int
    head: bytes
    subnet: bool
    forwarded: bool


def form_of(packet: bytes, asked: Asked) -> Form | None:
    """The form of a well-formed query, None if it is none of the usual.

    To be kept by the header behind the ID and `packet[end : end + KNOWN_BY]`.
    """
    at, size = asked.end, len(packet) - asked.end
    nsid, ecs, cookie, keepalive = asked.options
    if at == HEADER or packet[4:11] != ONE_QUESTION or nsid or cookie or keepalive:
        return None
    if asked.payload == NO_OPT:
        return Form(packet[2] & RD, 0, UDP_PLAIN, b"", False, False) if not size else None
    # The subnet's last octet may have to end in zeros, which the look-up does not see: only whole octets are known again.
    if size != OPT_SIZE + len(ecs) or not packet.startswith(OPT_START, at) or (ecs and ecs[6] & 7):
        return None
    # RFC 6891 section 6.2.3: "Values lower than 512 MUST be treated as equal to 512."
    room = min(max(asked.payload, EDNS_MINIMUM), UDP_PAYLOAD) - size
    head = OPT_HEAD + bytes((0, 0, asked.do & 0x80, 0)) + len(ecs).to_bytes(2, "big") + ecs[:7]
    return Form(packet[2] & RD | WITH_OPT, size, room, head, bool(ecs), bool(ecs and ecs[6]))
