"""RFC 1035 section 4.1.4, octet by octet: a reader of our own goes through whole replies, since dnspython is lenient."""

from __future__ import annotations

import struct

import dns.rdatatype
import pytest

from tests.conformance.client import Client, question

NAMES = ["@", "zero", "nowhere", "host.crowd", "host.signed", "old-shop", "x.y.moved", "to-moved", "any.wild", "_sip._udp"]
NAMES += ["_dns", "alias", "at-wild", "enum", "here", "child", "ring-a", "_http._tcp"]
NAMES += ["nest.corners.example.", "x.again.corners.example.", f"{'x' * 63}.{'y' * 63}.wild"]
TYPES = ["A", "NS", "MX", "SOA", "TXT", "SRV", "NAPTR", "HTTPS", "SVCB", "RP", "PTR", "ANY"]
HOPS = 10  # as many pointers in a row as the least patient readers of names take
# RFC 3597 section 4: names may be compressed in the data of these types of RFC 1035 alone: what stands before how many names.
COMPRESSED = {2: (0, 1), 5: (0, 1), 6: (0, 2), 12: (0, 1), 15: (2, 1)}


def name_at(wire: bytes, at: int) -> int:
    """Read the name that begins here, with each pointer in it to where a name was before; the offset behind it."""
    after, hops, size, least = 0, 0, 1, at
    while True:
        length = wire[at]
        if length >= 0xC0:
            target = (length & 0x3F) << 8 | wire[at + 1]
            assert 12 <= target < least, "a pointer is to a prior occurrence"
            after = after or at + 2
            at = least = target
            hops += 1
            assert hops <= HOPS
            continue
        assert length <= 63
        size += 1 + length
        assert size <= 256
        at += 1 + length
        if not length:
            return after or at


def record_at(wire: bytes, at: int) -> int:
    at = name_at(wire, at)
    rtype, size = int.from_bytes(wire[at : at + 2], "big"), int.from_bytes(wire[at + 8 : at + 10], "big")
    at, end = at + 10, at + 10 + size
    if rtype in COMPRESSED:
        skip, names = COMPRESSED[rtype]
        at += skip
        for _ in range(names):
            at = name_at(wire, at)
        assert at + (20 if rtype == dns.rdatatype.SOA else 0) == end
    return end


@pytest.mark.parametrize("name", NAMES)
def test_4_1_4_every_octet_is_accounted_for(either: Client, name: str) -> None:
    """Section 4.1.4: "a pointer to a prior occurance of the same name"; the counts are those of what is there, and nothing is
    behind it."""
    for rtype in TYPES:
        for edns in (-1, 0):
            wire = either.exchange(question(name, rtype, edns=edns).to_wire())
            questions, *counts = struct.unpack_from("!4H", wire, 4)
            assert questions == 1
            at = name_at(wire, 12) + 4
            for _ in range(sum(counts)):
                at = record_at(wire, at)
            assert at == len(wire)
