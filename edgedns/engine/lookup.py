"""From an address to its atom by plain array reads; what a C or XDP reader does too. Standard library only.

The form of the index arrays is told in steer/space/shape.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate

from edgedns.steer.space.shape import POINTER, STRIDES6

_POSITION = POINTER - 1
_MAPPED = bytes(10) + b"\xff\xff"  # ::ffff:0:0/96, RFC 4291 section 2.5.5.2
_NAT64 = b"\x00\x64\xff\x9b" + bytes(8)  # 64:ff9b::/96, RFC 6052 section 2.1
_SIX_TO_FOUR = b"\x20\x02"  # 2002::/16, RFC 3056 section 2
_TEREDO = b"\x20\x01\x00\x00"  # 2001::/32, RFC 4380 section 4


def _steps(strides: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    """How far to shift an address right, and what to keep of it, at each step."""
    return tuple((sum(strides) - depth, (1 << bits) - 1) for bits, depth in zip(strides, accumulate(strides), strict=True))


_STEPS6 = _steps(STRIDES6)


def lies_in(address: bytes, prefixes: Iterable[tuple[bytes, int]]) -> bool:
    """Whether a packed address lies in one of these (packed address, length)."""
    value, bits = int.from_bytes(address, "big"), len(address) * 8
    return any(
        bits == len(prefix) * 8 and value >> bits - length == int.from_bytes(prefix, "big") >> bits - length
        for prefix, length in prefixes
    )


def client_key(packed: bytes, resolver: bool) -> tuple[int, int, int]:
    """(family, address as int, offset) under which a packed address is looked up.

    IPv4 clients written as IPv6 are IPv4 clients: `offset` is the place of their first bit in the IPv6 form, by which a
    scope counted on the IPv4 address is longer on the one that was asked with; 0 where the address is taken as it stands.
    Teredo hides its client, inverted, in the last 32 bits; only a resolver's own address (`resolver`) is read so.
    """
    if len(packed) == 4:
        return 4, int.from_bytes(packed, "big"), 0
    head = packed[:12]
    if head in (_MAPPED, _NAT64):
        return 4, int.from_bytes(packed[12:], "big"), 96
    if packed[:2] == _SIX_TO_FOUR:
        return 4, int.from_bytes(packed[2:6], "big"), 16
    if resolver and packed[:4] == _TEREDO:
        return 4, int.from_bytes(packed[12:], "big") ^ 0xFFFFFFFF, 96
    return 6, int.from_bytes(packed, "big"), 0


def walk(index4: Sequence[int], index6: Sequence[int], family: int, address: int) -> int:
    """The atom of an address (an int of 32 or 128 bits), never a twin. An index is anything that gives ints by place."""
    if family == 4:
        return walk4(index4, address)
    entry = 0
    for shift, mask in _STEPS6:
        entry = index6[(entry & _POSITION) + (address >> shift & mask)]
        if entry < POINTER:
            return entry
    raise IndexError("the index ends in a pointer: it is not of the form told in steer/space/shape.py")


def walk4(index: Sequence[int], address: int) -> int:
    """The same for IPv4, its three steps written out: each query with a client subnet takes them."""
    entry = index[address >> 16]
    if entry >= POINTER:
        entry = index[(entry & _POSITION) + (address >> 8 & 0xFF)]
        if entry >= POINTER:
            entry = index[(entry & _POSITION) + (address & 0xFF)]
            if entry >= POINTER:
                raise IndexError("the index ends in a pointer: it is not of the form told in steer/space/shape.py")
    return entry
