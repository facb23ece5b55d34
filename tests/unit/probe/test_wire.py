"""Stamps: a reply is known again by whoever has the key, from whom it was asked, and by nobody else."""

from __future__ import annotations

from collections.abc import Callable

import dnslib
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgedns.probe.wire import DnsQuery, Echo, Format, IcmpEcho, Stamp, checksum

KEY = bytes(range(32))
PEER = "192.0.2.77"
SENT = 1_764_000_000_000_000_000
STAMP = Stamp("fra1", "alder", 2**64 - 1, SENT)
ZONE = "edgedns-probe.invalid"


def echo(key: bytes = KEY, vantage: str = "fra1", provider: str = "alder") -> Echo:
    return Echo(key, vantage, provider)


def reply_of(query: bytes, rcode: int = 5) -> bytes:
    return query[:2] + bytes((0x80, rcode)) + query[4:]


FORMATS: dict[str, tuple[Format, Callable[[bytes], bytes]]] = {
    "udp": (echo(), lambda request: request),
    "dns": (DnsQuery(echo(), ZONE), reply_of),
    "icmp": (IcmpEcho(4, echo()), lambda request: b"\0" + request[1:]),
    "icmp, IPv6": (IcmpEcho(6, echo()), lambda request: b"\x81" + request[1:]),
    "raw icmp": (IcmpEcho(4, echo(), 4711, raw=True), lambda request: b"\x46" + bytes(23) + b"\0" + request[1:]),
    "raw icmp, IPv6": (IcmpEcho(6, echo(), 4711, raw=True), lambda request: b"\x81" + request[1:]),
}
formats = pytest.mark.parametrize(("packets", "reply"), FORMATS.values(), ids=FORMATS)


@formats
def test_a_reply_tells_what_was_sent(packets: Format, reply: Callable[[bytes], bytes]) -> None:
    assert packets.stamp(reply(packets.request(2**64 - 1, SENT, PEER)), PEER) == STAMP


@formats
def test_a_request_to_one_peer_is_no_reply_of_another(packets: Format, reply: Callable[[bytes], bytes]) -> None:
    assert packets.stamp(reply(packets.request(1, SENT, PEER)), "192.0.2.78") is None


@formats
def test_a_cut_reply_is_none_of_ours(packets: Format, reply: Callable[[bytes], bytes]) -> None:
    whole = reply(packets.request(1, SENT, "2001:db8::7"))
    assert packets.stamp(whole, "2001:db8::7") is not None
    assert [size for size in range(len(whole) - 4) if packets.stamp(whole[:size], "2001:db8::7")] == []


@pytest.mark.parametrize("name", ["udp", "icmp"])
def test_every_changed_bit_of_a_stamp_is_noticed(name: str) -> None:
    packets, reply = FORMATS[name]
    whole = reply(packets.request(77, 1, PEER))
    for position in range((len(whole) - echo().size) * 8, len(whole) * 8):
        changed = bytearray(whole)
        changed[position // 8] ^= 1 << position % 8
        assert packets.stamp(bytes(changed), PEER) is None


@formats
@settings(max_examples=100, deadline=None)
@given(junk=st.binary(max_size=300), at=st.integers(0, 200))
def test_garbage_is_none_of_ours(packets: Format, reply: Callable[[bytes], bytes], junk: bytes, at: int) -> None:
    whole = reply(packets.request(1, SENT, PEER))
    changed = whole[:at] + junk + whole[at + len(junk) :]
    assert packets.stamp(junk, PEER) is None
    assert packets.stamp(changed, PEER) in (None, Stamp("fra1", "alder", 1, SENT))


def test_agents_that_share_a_key_read_each_others_stamps() -> None:
    assert echo(vantage="ams1", provider="birch").stamp(echo().request(5, 6, PEER), PEER) == Stamp("fra1", "alder", 5, 6)


def test_another_fleets_stamp_is_none_of_ours() -> None:
    assert echo(key=KEY[::-1]).stamp(echo().request(1, 2, PEER), PEER) is None


def test_names_can_not_be_moved_into_one_another() -> None:
    packet = bytearray(echo().request(1, 2, PEER))
    packet[5], packet[6] = 3, 6
    assert echo().stamp(bytes(packet), PEER) is None


def test_the_dns_query_is_one_for_a_name_of_the_probes_own_without_recursion() -> None:
    query = dnslib.DNSRecord.parse(DnsQuery(echo(), ZONE).request(5, 0, PEER))
    assert str(query.q.qname).endswith(f".{ZONE}.")
    assert (query.q.qtype, query.header.rd) == (dnslib.QTYPE.TXT, 0)
    assert max(map(len, query.q.qname.label)) <= 63


@pytest.mark.parametrize("rcode", [0, 2, 3, 5])
def test_a_dns_response_of_any_rcode_is_a_reply_in_whatever_case(rcode: int) -> None:
    dns = DnsQuery(echo(), ZONE)
    request = dnslib.DNSRecord.parse(dns.request(5, SENT, PEER))
    reply = request.reply()
    reply.header.rcode = rcode
    reply.add_auth(*dnslib.RR.fromZone("invalid. 60 SOA a. b. 1 2 3 4 5"))
    packed = bytes(reply.pack())
    assert dns.stamp(packed, PEER) == Stamp("fra1", "alder", 5, SENT)
    assert dns.stamp(packed[:12] + packed[12:].upper(), PEER) == Stamp("fra1", "alder", 5, SENT)


@pytest.mark.parametrize(
    "change",
    [
        lambda query: query,  # no response
        lambda query: b"",
        lambda query: query[:2] + b"\xa8\x00" + query[4:],  # another opcode
        lambda query: query[:1] + b"\xff\x80\x00" + query[4:],  # another id
        lambda query: query[:2] + b"\x80\x01\x00\x00" + query[6:12],  # no question
        lambda query: reply_of(query[:-4] + b"\x00\x01\x00\x01"),  # another type
        lambda query: reply_of(query[:12] + b"\xc0\x0c" + query[-4:]),  # a name that points at itself
        lambda query: reply_of(query[:12] + (b"\x3f" + b"a" * 63) * 200),
        lambda query: reply_of(query[:12] + b"\x02zz" + query[-27:]),
    ],
)
def test_what_is_no_response_to_the_query_is_none_of_ours(change: Callable[[bytes], bytes]) -> None:
    dns = DnsQuery(echo(), ZONE)
    assert dns.stamp(change(dns.request(9, 0, PEER)), PEER) is None


def test_names_too_long_for_a_question_are_said() -> None:
    DnsQuery(echo(vantage="v" * 36, provider="p" * 36), ZONE).request(1, 2, PEER)
    with pytest.raises(ValueError, match="too long together"):
        DnsQuery(echo(vantage="v" * 63, provider="p" * 63), ZONE)


@pytest.mark.parametrize(("family", "request_type"), [(4, 8), (6, 128)])
def test_icmp_requests_errors_and_other_codes_are_no_replies(family: int, request_type: int) -> None:
    icmp = IcmpEcho(4 if family == 4 else 6, echo())
    request = icmp.request(70_000, 1, PEER)
    assert request[0] == request_type
    for start in (bytes([request_type, 0]), b"\x03\x01", b"\x0b\x00", b"\x01\x04", bytes([0 if family == 4 else 129, 1])):
        assert icmp.stamp(start + request[2:], PEER) is None


def test_a_raw_socket_passes_over_other_identifiers() -> None:
    mine, other = (IcmpEcho(6, echo(), number, raw=True) for number in (1, 2))
    reply = b"\x81" + mine.request(1, 2, PEER)[1:]
    assert mine.stamp(reply, PEER) is not None
    assert other.stamp(reply, PEER) is None


def test_the_checksum_is_that_of_rfc_1071() -> None:
    assert checksum(bytes.fromhex("0001f203f4f5f6f7")) == 0x220D  # section 3's example
    packet = IcmpEcho(4, echo(), 7, raw=True).request(1, 2, PEER)
    assert checksum(packet) == 0
    assert checksum(b"\x01") == 0xFEFF


def test_a_uri_stands_first_and_other_agents_read_past_it() -> None:
    """RFC 9511 section 4: it begins at the first octet of the payload, and a zero ends it."""
    told, silent = Echo(KEY, "fra1", "alder", "mailto:noc@example.net"), echo()
    request = told.request(2**64 - 1, SENT, PEER)
    assert request.startswith(b"mailto:noc@example.net\0EDPR")
    assert len(request) == told.size
    assert silent.stamp(request, PEER) == told.stamp(silent.request(2**64 - 1, SENT, PEER), PEER) == STAMP
    ping = IcmpEcho(4, told).request(1, SENT, PEER)
    assert ping[8:].startswith(b"mailto:noc@example.net\0")
    assert IcmpEcho(4, silent).stamp(b"\0" + ping[1:], PEER) == STAMP._replace(number=1)
    assert all(silent.stamp(reply, PEER) is None for reply in (b"mailto:noc", b"a\0", b"a\0" * 60, b"a\0" + request))
