"""EDNS: the OPT record of a query and the options we know; the OPT record of a reply.

RFC 6891 (EDNS), 7871 (client subnet), 7873 (cookies), 5001 (NSID), 7828 (keepalive), 8914 (extended errors).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from struct import Struct, error
from typing import NamedTuple

from edgedns.dns import types

NSID = 3
SUBNET = 8
COOKIE = 10
KEEPALIVE = 11
PADDING = 12
EXTENDED_ERROR = 15

# Extended errors (RFC 8914 section 4; 30 is RFC 9824's).
PROHIBITED = 18
NOT_AUTHORITATIVE = 20
NOT_SUPPORTED = 21
INVALID_QUERY_TYPE = 30

VERSION = 0
LEAST_PAYLOAD = 512
# What we offer to receive, and by default the most we send over UDP (RFC 9715 section 3.1: avoid fragments).
PAYLOAD = 1232
DO = 0x8000
# Owner (root), type, class, TTL, RDLENGTH.
OVERHEAD = 11
# How much longer than its query a reply over UDP may be that holds no record: nobody is to be flooded with errors.
GROWTH = 32

_PAIR = Struct("!HH")
_OPT = Struct("!BHHBBHH")
_ADDRESS_BITS = {1: 32, 2: 128}

Option = tuple[int, bytes]


class BadOption(ValueError):
    """OPT content that earns a FORMERR, and why."""


class ClientSubnet(NamedTuple):
    """The client subnet option. `address` is padded with zero octets to 4 or 16 (empty for family 0)."""

    family: int
    source: int
    scope: int
    address: bytes


class Edns(NamedTuple):
    """What a query's OPT says. `payload` is at least 512; `cookie` is client part and server part as sent."""

    payload: int
    version: int
    do: bool
    subnet: ClientSubnet | None = None
    cookie: bytes | None = None
    nsid: bool = False
    keepalive: bool = False


def parse(klass: int, ttl: int, rdata: bytes) -> Edns:
    """The OPT record with these fields. Raises BadOption.

    Of an unknown version nothing but the fixed part is read: its options may have another form.
    """
    # RFC 6891 section 6.2.3: "Values lower than 512 MUST be treated as equal to 512."
    payload = max(klass, LEAST_PAYLOAD)
    version = (ttl >> 16) & 0xFF
    do = bool(ttl & DO)
    if version != VERSION:
        return Edns(payload, version, do)
    first: dict[int, bytes] = {}
    for code, content in options(rdata):
        # RFC 7873 section 5.2: "In all cases of multiple COOKIE options in a request, only the first (the one
        # closest to the DNS header) is considered. All others are ignored." Other RFCs are silent: alike here.
        first.setdefault(code, content)
    return Edns(
        payload,
        version,
        do,
        subnet=parse_subnet(first[SUBNET]) if SUBNET in first else None,
        cookie=_cookie(first[COOKIE]) if COOKIE in first else None,
        # RFC 5001 section 2.2: "The name server MUST ignore any NSID payload data that might be present in the query
        # message." A keepalive should be empty too (RFC 7828 section 3.2.1), but nothing asks for a FORMERR.
        nsid=NSID in first,
        keepalive=KEEPALIVE in first,
    )


def options(rdata: bytes) -> Iterator[Option]:
    """The (code, content) pairs of OPT RDATA, as they come. Raises BadOption where they don't fill it exactly."""
    at = 0
    while at < len(rdata):
        try:
            code, length = _PAIR.unpack_from(rdata, at)
        except error:
            raise BadOption("an option header that is cut off") from None
        at += 4 + length
        if at > len(rdata):
            raise BadOption("an option longer than its record")
        yield code, rdata[at - length : at]


def parse_subnet(content: bytes) -> ClientSubnet:
    """The content of a query's client subnet option. Raises BadOption where RFC 7871 asks for FORMERR."""
    if len(content) < 4:
        raise BadOption("a client subnet of less than four octets")
    family, source, scope = content[0] << 8 | content[1], content[2], content[3]
    # RFC 7871 section 6, on SCOPE PREFIX-LENGTH: "In queries, it MUST be set to 0."
    if scope:
        raise BadOption("a client subnet whose scope is not 0")
    # Section 7.1.2: "If there is no ADDRESS set, i.e., SOURCE PREFIX-LENGTH is set to 0, then FAMILY SHOULD be set
    # to the transport": only a SHOULD, and `dig +subnet=0` sends family 0. It says "don't use an address".
    if not family and not source and len(content) == 4:
        return ClientSubnet(0, 0, 0, b"")
    return _checked_subnet(family, source, content[4:])


def _checked_subnet(family: int, source: int, octets: bytes) -> ClientSubnet:
    bits = _ADDRESS_BITS.get(family)
    if bits is None:
        raise BadOption("a client subnet of an unknown family")
    if source > bits:
        raise BadOption("a client subnet longer than its address")
    # RFC 7871 section 6: "A server receiving an ECS option that uses either too few or too many ADDRESS octets, or
    # that has non-zero ADDRESS bits set beyond SOURCE PREFIX-LENGTH, SHOULD return FORMERR to reject the packet".
    if len(octets) != (source + 7) >> 3:
        raise BadOption("a client subnet with too few or too many address octets")
    if source & 7 and octets[-1] & (0xFF >> (source & 7)):
        raise BadOption("a client subnet with bits set beyond its length")
    return ClientSubnet(family, source, 0, octets.ljust(bits >> 3, b"\0"))


def _cookie(content: bytes) -> bytes:
    # RFC 7873 section 5.2.2: "If the COOKIE option is too short to contain a Client Cookie, then FORMERR is
    # generated"; also for a length between 8 and 16, and above 40.
    if len(content) != 8 and not 16 <= len(content) <= 40:
        raise BadOption("a cookie of an impossible length")
    return content


def subnet_option(subnet: ClientSubnet, scope: int) -> Option:
    """The reply's client subnet: the query's own fields and our scope.

    RFC 7871 section 11.2: "the ECS option in a response packet MUST contain the full FAMILY, ADDRESS, and SOURCE
    PREFIX-LENGTH fields from the corresponding query."
    """
    head = _PAIR.pack(subnet.family, subnet.source << 8 | scope)
    return SUBNET, head + subnet.address[: (subnet.source + 7) >> 3]


def modest(options: Sequence[Option], room: int) -> list[Option]:
    """`options` without the extended error, and without NSID, where they would take more than `room` octets.

    Both may be left out: RFC 8914 section 2 says that an extended error "can be included in any response", and RFC 5001
    section 2.2 lets a server choose which requests for NSID it honours. What is left is a cookie, or the query's own subnet.
    """
    left = list(options)
    for least in (EXTENDED_ERROR, NSID):
        if sum(4 + len(content) for _, content in left) > room:
            left = [option for option in left if option[0] != least]
    return left


def extended_error(code: int, text: str = "") -> Option:
    """An extended DNS error (RFC 8914 section 2)."""
    return EXTENDED_ERROR, code.to_bytes(2, "big") + text.encode()


def keepalive_option(seconds: float) -> Option:
    """The idle timeout granted to a TCP client, sent in units of 100 milliseconds (RFC 7828 section 3.1)."""
    return KEEPALIVE, min(0xFFFF, round(seconds * 10)).to_bytes(2, "big")


def encode(do: bool, rcode: int, reply_options: Sequence[Option] = ()) -> bytes:
    """A reply's whole OPT record: DO as asked, the upper eight bits of `rcode`, options in the order given."""
    rdata = b"".join(_PAIR.pack(code, len(content)) + content for code, content in reply_options)
    # RFC 6891 section 6.1.3: "the VERSION of each response SHOULD be the highest implementation level of the responder".
    # RFC 3225 section 3: "The DO bit of the query MUST be copied in the response." The Z bits are zero.
    return _OPT.pack(0, types.OPT, PAYLOAD, rcode >> 4, VERSION, DO if do else 0, len(rdata)) + rdata
