"""TSIG (RFC 8945) as far as a server without keys has to know it: what the record looks like, and what a signer is told."""

from __future__ import annotations

from struct import Struct

from edgedns.dns import types
from edgedns.dns.name import MAX_NAME, BadName, scan

BADKEY = 17

_FIXED = Struct("!HHIH")  # of a record behind its owner: type, class, TTL, octets
_SIGNED = 8  # octets behind the algorithm's name: the time signed and the fudge
_REST = Struct("!HHH")  # behind the MAC: the original ID, the error, how much else
_QNAME = 12


def refusal(packet: bytes, start: int, field: int, question: int) -> bytes | None:
    """The record of the reply to a message whose TSIG record begins at `start`; its type is at `field`, within bounds.

    RFC 8945 section 5.3.2: "an unsigned error message (MAC Size == 0 and empty MAC)". `question` is the offset behind the
    question, 12 where there is none. None where the record can't be read.
    """
    _, klass, ttl, size = _FIXED.unpack_from(packet, field)
    rdata = packet[field + _FIXED.size :][:size]
    # Section 4.2: CLASS "MUST be ANY", TTL "MUST be 0".
    if klass != types.ANY_CLASS or ttl or not _is_plain(packet, start, question):
        return None
    try:
        signed = rdata[: scan(rdata, 0) + _SIGNED]
    except BadName:
        return None
    rest = len(signed) + 2 + int.from_bytes(rdata[len(signed) :][:2], "big")
    if rest + _REST.size > size:
        return None
    number, _, other = _REST.unpack_from(rdata, rest)
    if rest + _REST.size + other != size:
        return None
    told = signed + bytes(2) + _REST.pack(number, BADKEY, 0)
    return packet[start:field] + _FIXED.pack(types.TSIG, types.ANY_CLASS, 0, len(told)) + told


def _is_plain(packet: bytes, start: int, question: int) -> bool:
    """Whether the name at `start` means the same in the reply: it is written out, or ends in an end of the question's."""
    at = start
    while 0 < packet[at] < 0xC0:
        at += 1 + packet[at]
    if not packet[at]:
        return at + 1 - start <= MAX_NAME
    target, suffix, end = (packet[at] & 0x3F) << 8 | packet[at + 1], _QNAME, question - 5
    while suffix < min(target, end):
        suffix += 1 + packet[suffix]
    return suffix == target <= end and at - start + end + 1 - target <= MAX_NAME
