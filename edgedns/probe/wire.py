"""The packets of a probe, and how its reply is known again. Pure: no socket, no clock, no dice.

Every packet carries the same stamp, which the peer sends back: who sent it through which provider, when, under which
number, and a keyed hash over all that and the peer's own address. Whoever has no key can neither make one up nor
pass off one peer's as another's; whoever has it (every agent of a fleet) can read all of them. Integers are big-endian:

    0  magic "EDNS"-probe   4   b"EDPR"
    4  version              1   2
    5  length of vantage    1
    6  length of provider   1
    7  zero                 1
    8  number               8
   16  send time            8   Unix nanoseconds
   24  tag                 16   BLAKE2b of all the rest and of the peer's 4 or 16 octets, keyed
   40  vantage, provider        ASCII

It travels as it is in UDP and behind an ICMP header, and as hexadecimal labels in the name that a DNS query asks for.
UDP and ICMP may have a URI and a zero before it, which says whom to turn to (RFC 9511 section 4); a name has no room for that.
"""

from __future__ import annotations

import struct
from binascii import hexlify, unhexlify
from collections.abc import Iterable
from functools import lru_cache
from hashlib import blake2b
from hmac import compare_digest
from socket import AF_INET, AF_INET6, inet_pton
from typing import NamedTuple, Protocol

from edgedns.model import Family

MAGIC = b"EDPR"
VERSION = 2
_HEAD = struct.Struct("!4sBBBxQQ")
_TAG = 16
_NAMES_AT = _HEAD.size + _TAG

_DNS_HEADER = struct.Struct("!HHHHHH")
_DNS_TYPE_CLASS = b"\x00\x10\x00\x01"  # TXT IN
_DNS_QR = 0x8000
_DNS_OPCODE = 0x7800
_LABEL = 63
_NAME_MOST = 255

_ICMP_HEADER = struct.Struct("!BBHHH")
_ICMP_TYPES: dict[Family, tuple[int, int]] = {4: (8, 0), 6: (128, 129)}  # RFC 792, RFC 4443 section 4


class Stamp(NamedTuple):
    """What a packet says of itself, once its tag was found right; `sent_ns` in Unix nanoseconds."""

    vantage: str
    provider: str
    number: int
    sent_ns: int


class Format(Protocol):
    """A request to a peer (a numeric address), and the stamp of a reply from one: None where it is no reply of ours."""

    def request(self, number: int, sent_ns: int, peer: str) -> bytes: ...

    def stamp(self, reply: bytes, peer: str) -> Stamp | None: ...


class Echo:
    """The stamp alone, behind the URI if there is one: what a UDP echo service sends back."""

    def __init__(self, key: bytes, vantage: str, provider: str, about: str = "") -> None:
        """`key` is 16 to 64 secret octets; names are ASCII, at most 63 characters, `about` is a URI or nothing."""
        vantage_name, provider_name = vantage.encode("ascii"), provider.encode("ascii")
        self._about = about.encode("ascii") + b"\0" if about else b""
        self._lengths = (len(vantage_name), len(provider_name))
        self._names = vantage_name + provider_name
        self._keyed = blake2b(key=key, digest_size=_TAG)

    @property
    def size(self) -> int:
        """Octets of a request."""
        return len(self._about) + _NAMES_AT + len(self._names)

    def request(self, number: int, sent_ns: int, peer: str) -> bytes:
        head = _HEAD.pack(MAGIC, VERSION, *self._lengths, number, sent_ns)
        return self._about + head + self._tag(head, self._names, peer) + self._names

    def stamp(self, reply: bytes, peer: str) -> Stamp | None:
        if not reply.startswith(MAGIC):
            reply = reply.partition(b"\0")[2]  # another agent of the fleet may have another URI
        if len(reply) < _NAMES_AT:
            return None
        magic, version, vantage, provider, number, sent_ns = _HEAD.unpack_from(reply)
        if magic != MAGIC or version != VERSION or reply[7] or len(reply) != _NAMES_AT + vantage + provider:
            return None
        names = reply[_NAMES_AT:]
        if not compare_digest(self._tag(reply[: _HEAD.size], names, peer), reply[_HEAD.size : _NAMES_AT]):
            return None
        return Stamp(names[:vantage].decode("ascii", "replace"), names[vantage:].decode("ascii", "replace"), number, sent_ns)

    def _tag(self, head: bytes, names: bytes, peer: str) -> bytes:
        hasher = self._keyed.copy()
        hasher.update(head + names + _packed(peer))
        return hasher.digest()


class DnsQuery:
    """A query without recursion for a name that is the stamp; any response that repeats the question is a reply.

    `zone` is where such names lie: `.invalid` has none (RFC 6761 section 6.4), so that nobody is asked further.
    """

    def __init__(self, payload: Echo, zone: str) -> None:
        """ValueError where the names of vantage and provider are too long to be asked for."""
        self._payload = payload
        labels = [label for label in zone.lower().encode("ascii").split(b".") if label]
        self._zone = _joined(labels) + b"\0"
        if len(self._question(bytes(payload.size))) > _NAME_MOST + len(_DNS_TYPE_CLASS):
            raise ValueError("the names of vantage and provider are too long together to be part of a DNS name")

    def request(self, number: int, sent_ns: int, peer: str) -> bytes:
        stamp = self._payload.request(number, sent_ns, peer)
        return _DNS_HEADER.pack(number & 0xFFFF, 0, 1, 0, 0, 0) + self._question(stamp)

    def stamp(self, reply: bytes, peer: str) -> Stamp | None:
        if len(reply) < _DNS_HEADER.size:
            return None
        ident, flags, questions = _DNS_HEADER.unpack_from(reply)[:3]
        if not flags & _DNS_QR or flags & _DNS_OPCODE or questions != 1:
            return None
        stamp = self._payload.stamp(self._asked(reply), peer)
        return stamp if stamp is not None and stamp.number & 0xFFFF == ident else None

    def _question(self, stamp: bytes) -> bytes:
        text = hexlify(stamp)
        return _joined(text[at : at + _LABEL] for at in range(0, len(text), _LABEL)) + self._zone + _DNS_TYPE_CLASS

    def _asked(self, reply: bytes) -> bytes:
        """The octets that the question's name spells; b"" where it is not one of ours."""
        text, at = b"", _DNS_HEADER.size
        while not reply[at:].lower().startswith(self._zone + _DNS_TYPE_CLASS):
            length = reply[at] if at < len(reply) else 0
            if not 0 < length <= _LABEL or at > _NAME_MOST:
                return b""
            text += reply[at + 1 : at + 1 + length]
            at += 1 + length
        try:
            return unhexlify(text)
        except ValueError:
            return b""


class IcmpEcho:
    """ICMP echo carrying the stamp.

    The kernel of a datagram ICMP socket fills in identifier and checksum, and strips the IP header of what comes. On a
    raw one (`raw`) we do (RFC 1071; over IPv6 the checksum is the kernel's all the same), and look at the identifier.
    """

    def __init__(self, family: Family, payload: Echo, identifier: int = 0, raw: bool = False) -> None:
        self._request_type, self._reply_type = _ICMP_TYPES[family]
        self._payload = payload
        self._identifier = identifier
        self._raw = raw
        self._has_ip_header = raw and family == 4

    def request(self, number: int, sent_ns: int, peer: str) -> bytes:
        stamp = self._payload.request(number, sent_ns, peer)
        fields = (self._request_type, 0, 0, self._identifier, number & 0xFFFF)
        if self._has_ip_header:
            fields = (*fields[:2], checksum(_ICMP_HEADER.pack(*fields) + stamp), *fields[3:])
        return _ICMP_HEADER.pack(*fields) + stamp

    def stamp(self, reply: bytes, peer: str) -> Stamp | None:
        start = 4 * (reply[0] & 0xF) if self._has_ip_header and reply else 0
        if len(reply) < start + _ICMP_HEADER.size:
            return None
        kind, code, _, identifier, _ = _ICMP_HEADER.unpack_from(reply, start)
        if kind != self._reply_type or code or (self._raw and identifier != self._identifier):
            return None
        return self._payload.stamp(reply[start + _ICMP_HEADER.size :], peer)


def checksum(packet: bytes) -> int:
    """The Internet checksum (RFC 1071): the ones' complement of the ones' complement sum of 16-bit words."""
    words = packet + bytes(len(packet) % 2)
    total: int = sum(struct.unpack(f"!{len(words) // 2}H", words))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF


def _joined(labels: Iterable[bytes]) -> bytes:
    return b"".join(bytes([len(label)]) + label for label in labels)


@lru_cache(maxsize=1 << 16)
def _packed(address: str) -> bytes:
    """A numeric address as the kernel writes it, packed; an interface after it does not belong to it."""
    return inet_pton(AF_INET6 if ":" in address else AF_INET, address.partition("%")[0])
