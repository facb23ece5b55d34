"""The packets of a probe, and how its reply is known again. Pure: no socket, no clock, no dice.

Each format makes a request for a number and finds that number in a reply, or says that the reply is none of ours.

Our own UDP echo (all integers big-endian); the peer sends it back as it came:

    0  magic "EDNS"-probe   4   b"EDPR"
    4  version              1   1
    5  length of vantage    1
    6  length of provider   1
    7  zero                 1
    8  number               8
   16  send time            8   Unix nanoseconds
   24  tag                 16   BLAKE2b of all the rest, keyed
   40  vantage, provider        ASCII
"""

from __future__ import annotations

import struct
from hashlib import blake2b
from hmac import compare_digest
from typing import Protocol

from edgedns.model import Family

MAGIC = b"EDPR"
VERSION = 1
_HEAD = struct.Struct("!4sBBBxQQ")
_TAG = 16
_NAMES_AT = _HEAD.size + _TAG

_DNS_HEADER = struct.Struct("!HHHHHH")
_DNS_QUESTION = b"\x00\x00\x02\x00\x01"  # ". NS IN": every server has an answer or a refusal at hand
_DNS_QR = 0x8000
_DNS_OPCODE = 0x7800

_ICMP_HEADER = struct.Struct("!BBHHH")
_ICMP_TYPES: dict[Family, tuple[int, int]] = {4: (8, 0), 6: (128, 129)}  # RFC 792, RFC 4443 section 4


class Format(Protocol):
    """A request and its reply as bytes; `number` returns what `request` was given, cut to the format's width."""

    width: int

    def request(self, number: int, sent_ns: int) -> bytes: ...

    def number(self, reply: bytes) -> int | None: ...


class Echo:
    """Our own payload: names its sender, and only whoever saw the packet can send it back."""

    width = 64

    def __init__(self, key: bytes, vantage: str, provider: str) -> None:
        """`key` is 16 to 64 secret bytes, fresh for each agent process; names are ASCII, at most 63 characters."""
        vantage_name, provider_name = vantage.encode("ascii"), provider.encode("ascii")
        self._lengths = (len(vantage_name), len(provider_name))
        self._start = _HEAD.pack(MAGIC, VERSION, *self._lengths, 0, 0)[:8]
        self._names = vantage_name + provider_name
        self._keyed = blake2b(self._names, key=key, digest_size=_TAG)

    def _tag(self, head: bytes) -> bytes:
        hasher = self._keyed.copy()
        hasher.update(head)
        return hasher.digest()

    def request(self, number: int, sent_ns: int) -> bytes:
        head = _HEAD.pack(MAGIC, VERSION, *self._lengths, number, sent_ns)
        return head + self._tag(head) + self._names

    def number(self, reply: bytes) -> int | None:
        if len(reply) != _NAMES_AT + len(self._names) or reply[_NAMES_AT:] != self._names:
            return None
        head = reply[: _HEAD.size]
        if not head.startswith(self._start) or not compare_digest(self._tag(head), reply[_HEAD.size : _NAMES_AT]):
            return None
        number: int = _HEAD.unpack(head)[4]
        return number


class DnsQuery:
    """A query for the root's NS without recursion; any response with its id and question is a reply.

    The id is keyed, so that it can't be told in advance; a change of the order of numbers, never a collision.
    """

    width = 16

    def __init__(self, key: bytes) -> None:
        self._mask = int.from_bytes(blake2b(key=key, digest_size=2).digest(), "big")
        self._odd = int.from_bytes(blake2b(b"odd", key=key, digest_size=2).digest(), "big") | 1
        self._inverse = pow(self._odd, -1, 1 << 16)

    def request(self, number: int, sent_ns: int) -> bytes:
        ident = (number * self._odd ^ self._mask) & 0xFFFF
        return _DNS_HEADER.pack(ident, 0, 1, 0, 0, 0) + _DNS_QUESTION

    def number(self, reply: bytes) -> int | None:
        if len(reply) < _DNS_HEADER.size:
            return None
        ident, flags, questions = _DNS_HEADER.unpack_from(reply)[:3]
        if not flags & _DNS_QR or flags & _DNS_OPCODE:
            return None
        if questions and not reply.startswith(_DNS_QUESTION, _DNS_HEADER.size):
            return None
        number: int = (ident ^ self._mask) * self._inverse & 0xFFFF
        return number


class IcmpEcho:
    """ICMP echo carrying our payload; the kernel of a datagram ICMP socket fills in identifier and checksum."""

    width = 64

    def __init__(self, family: Family, payload: Echo) -> None:
        self._request_type, self._reply_type = _ICMP_TYPES[family]
        self._payload = payload

    def request(self, number: int, sent_ns: int) -> bytes:
        return _ICMP_HEADER.pack(self._request_type, 0, 0, 0, number & 0xFFFF) + self._payload.request(number, sent_ns)

    def number(self, reply: bytes) -> int | None:
        if len(reply) < _ICMP_HEADER.size or reply[0] != self._reply_type:
            return None
        return self._payload.number(reply[_ICMP_HEADER.size :])
