"""What a packet asks, read in plain steps without an object for each part: the fast path's eyes.

`read` comes to the verdicts of dns.message.parse, where the RFC's sentence stands beside each of them, for whatever octets a
stranger sends.
"""

from __future__ import annotations

from struct import Struct
from typing import NamedTuple

from edgedns.dns import tsig, types
from edgedns.dns.edns import COOKIE, KEEPALIVE, NSID, SUBNET

HEADER = 12
LOOK_UP = -1
NO_OPT = -1
COUNTS = Struct("!HHHH")
FIELDS = Struct("!HHBBHH")  # of an OPT record behind its owner: type, payload, rcode, version, flags, octets
IXFR_TYPE = types.IXFR.to_bytes(2, "big")
OPT_TYPE, TSIG_TYPE = types.OPT.to_bytes(2, "big"), types.TSIG.to_bytes(2, "big")

# (NSID asked, client subnet option whole, cookie, keepalive asked)
Options = tuple[bool, bytes, bytes, bool]
NO_OPTIONS: Options = (False, b"", b"", False)


class Asked(NamedTuple):
    """What a packet of at least a header asks.

    `end` is the offset behind the question, HEADER where none could be read; `rcode` what the form alone earns, or LOOK_UP.
    `payload` is NO_OPT without an OPT record; `do` is the upper octet of its flags. `tsig` is the reply's TSIG record, where
    the rcode is NOTAUTH.
    """

    end: int
    rcode: int
    payload: int
    do: int
    options: Options
    tsig: bytes = b""


def read(packet: bytes) -> Asked:
    """Never raises, whatever the octets."""
    asked, signed = _read(packet)
    return asked._replace(rcode=types.NOTAUTH, tsig=signed) if signed and asked.rcode in (LOOK_UP, types.NOERROR) else asked


def _read(packet: bytes) -> tuple[Asked, bytes]:
    """What is asked, and the reply's TSIG record if the query has one."""
    questions, answers, authorities, additionals = COUNTS.unpack_from(packet, 4)
    end = name_end(packet) + 4 if questions == 1 else HEADER
    if questions > 1 or end < HEADER:
        return Asked(HEADER, _verdict(packet, False, True, 0), NO_OPT, 0, NO_OPTIONS), b""
    strange = answers or (authorities and (not questions or packet[end - 4 : end - 2] != IXFR_TYPE))
    at, opt, broken, signed = end, None, False, b""
    last = answers + authorities + additionals - 1
    for number in range(last + 1):
        field = owner_end(packet, at)
        after = field and record_end(packet, field)
        if not after:
            broken = True
            break
        if packet[field : field + 2] == OPT_TYPE:
            # One alone, at the root, in the additional section.
            broken |= opt is not None or number < answers + authorities or field != at + 1
            opt = opt or (field if number >= answers + authorities else None)
        elif packet[field : field + 2] == TSIG_TYPE:
            made = tsig.refusal(packet, at, field, end) if number == last and additionals else None
            broken, signed = broken or made is None, made or b""
        at = after
    if opt is None:
        bad = bool(strange) or broken or at != len(packet) or not questions
        return Asked(end, _verdict(packet, bool(questions), bad, 0), NO_OPT, 0, NO_OPTIONS), signed
    return _with_opt(packet, end, opt, bool(strange) or broken or at != len(packet)), signed


def _with_opt(packet: bytes, end: int, field: int, bad: bool) -> Asked:
    """The rest of `read`, where there is an OPT record whose type is at `field`."""
    _, payload, _, version, flags, size = FIELDS.unpack_from(packet, field)
    options = read_options(packet, field + 10, field + 10 + size) if version == 0 else NO_OPTIONS
    asked = end > HEADER
    bad = bad or options is None or (not asked and not options[2] and version == 0)
    return Asked(end, _verdict(packet, asked, bad, version), payload, flags >> 8, options or NO_OPTIONS)


def _verdict(packet: bytes, asked: bool, bad: bool, version: int) -> int:
    if packet[2] & 0x78:
        return types.NOTIMP
    if bad:
        return types.FORMERR
    if version:
        return types.BADVERS
    return LOOK_UP if asked else types.NOERROR


def name_end(packet: bytes) -> int:
    """The offset after the question's name and before its type; negative where it can't be read or is no plain name."""
    at, size = HEADER, len(packet)
    while at < size:
        label = packet[at]
        at += label + 1
        if not label:
            return at if at - HEADER <= 255 and at + 4 <= size else -HEADER
        if label > 63:
            break
    return -HEADER


def owner_end(packet: bytes, at: int) -> int:
    """The offset after a record's owner, compressed or not; 0 where it is cut off or broken."""
    size = len(packet)
    while at < size:
        label = packet[at]
        if label >= 0xC0:
            return at + 2
        at += label + 1
        if not label:
            return at
        if label > 63:
            break
    return 0


def record_end(packet: bytes, field: int) -> int:
    """The offset after the record whose type is at `field`; 0 where it is cut off."""
    if field + 10 > len(packet):
        return 0
    end = field + 10 + (packet[field + 8] << 8 | packet[field + 9])
    return end if end <= len(packet) else 0


def read_options(packet: bytes, at: int, end: int) -> Options | None:
    """The options of an OPT record, of each kind the first; None where they earn a FORMERR."""
    nsid, ecs, cookies, keepalive = False, b"", b"", False
    while at < end:
        if at + 4 > end:
            return None
        code, length = packet[at] << 8 | packet[at + 1], packet[at + 2] << 8 | packet[at + 3]
        after = at + 4 + length
        if after > end:
            return None
        if code == SUBNET:
            if not ecs:
                if not plain_subnet(packet, at, length):
                    return None
                ecs = packet[at:after]
        elif code == COOKIE:
            if not cookies:
                if length != 8 and not 16 <= length <= 40:
                    return None
                cookies = packet[at + 4 : after]
        elif code == NSID:
            nsid = True
        elif code == KEEPALIVE:
            keepalive = True
        at = after
    return nsid, ecs, cookies, keepalive


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
