"""Whether octets are a well-formed reply to a packet, read by hand: no DNS library's leniency comes between."""

from __future__ import annotations

import struct

HEADER = struct.Struct("!HHHHHH")
FIXED = struct.Struct("!HHIH")


def expects_silence(packet: bytes) -> bool:
    """RFC 8906: only what has no header, or is itself a reply, goes unanswered."""
    return len(packet) < 12 or bool(packet[2] & 0x80)


def check(packet: bytes, reply: bytes, limit: int) -> None:
    """AssertionError where `reply` is no well-formed reply to `packet` of at most `limit` octets."""
    assert 12 <= len(reply) <= limit, len(reply)
    number, flags, *counts = HEADER.unpack_from(reply)
    assert number == int.from_bytes(packet[:2], "big"), "another id"
    assert flags & 0x8000, "no QR"
    assert flags >> 11 & 15 == packet[2] >> 3 & 15, "another opcode"
    assert flags & 0x00F0 == 0, "RA, Z, AD or CD"
    assert flags >> 8 & 1 == packet[2] & 1, "RD is not the query's"
    assert counts[0] <= 1
    at = 12
    if counts[0]:
        at = name(reply, at, False) + 4
        assert reply[12:at] == packet[12:at], "another question"
    opts = 0
    for section, count in enumerate(counts[1:]):
        for _ in range(count):
            at, is_opt = record(reply, at)
            assert not is_opt or section == 2, "OPT outside the additional section"
            opts += is_opt
    assert at == len(reply), "octets after the end"
    assert opts <= 1
    assert not opts or b"\0\x29" in packet, "OPT unasked"


def check_size(packet: bytes, reply: bytes) -> None:
    """AssertionError where `reply`, over UDP, is longer than a stranger's packet may make it."""
    records, opt = sum(HEADER.unpack_from(reply)[3:]), has_opt(reply)
    assert len(reply) <= (1232 if opt else 512), f"{len(reply)} octets, {'with' if opt else 'without'} EDNS"
    assert records - opt or len(reply) <= len(packet) + 32, f"{len(packet)} octets and no record, answered by {len(reply)}"


def has_opt(reply: bytes) -> bool:
    """Whether a well-formed reply has an OPT record."""
    _, _, questions, *counts = HEADER.unpack_from(reply)
    at = name(reply, 12, False) + 4 if questions else 12
    for _ in range(sum(counts)):
        at, is_opt = record(reply, at)
        if is_opt:
            return True
    return False


def record(reply: bytes, at: int) -> tuple[int, bool]:
    """Where the record at `at` ends, and whether it is OPT."""
    at = name(reply, at, True)
    rtype, _, _, length = FIXED.unpack_from(reply, at)
    assert at + FIXED.size + length <= len(reply), "RDATA cut off"
    if rtype == 41:
        options(reply[at + FIXED.size : at + FIXED.size + length])
    return at + FIXED.size + length, rtype == 41


def options(rdata: bytes) -> None:
    at = 0
    while at < len(rdata):
        (length,) = struct.unpack_from("!H", rdata, at + 2)
        at += 4 + length
    assert at == len(rdata), "an option cut off"


def name(reply: bytes, at: int, compressed: bool) -> int:
    """Where the name at `at` ends; its pointers all lead back, to the whole of a name of at most 255 octets."""
    end, size, limit = 0, 0, at
    while length := reply[at]:
        if length >= 0xC0:
            assert compressed, "a pointer in the question"
            target = (length & 0x3F) << 8 | reply[at + 1]
            assert 12 <= target < limit, "a pointer forward"
            end, at, limit = end or at + 2, target, target
            continue
        assert length <= 63, "a reserved label type"
        size += 1 + length
        at += 1 + length
    assert size < 255
    return end or at + 1
