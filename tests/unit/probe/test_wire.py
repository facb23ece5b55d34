"""Payloads: a reply is known again by whoever asked, and by nobody else."""

from __future__ import annotations

import dnslib  # type: ignore[import-untyped,unused-ignore]
import pytest

from edgedns.probe.wire import DnsQuery, Echo, IcmpEcho

KEY = bytes(range(32))


def test_an_echo_comes_back_with_its_number() -> None:
    echo = Echo(KEY, "fra1", "alder")
    packet = echo.request(2**64 - 1, 1_764_000_000_000_000_000)
    assert packet.endswith(b"fra1alder")
    assert echo.number(packet) == 2**64 - 1


def test_every_changed_bit_is_noticed() -> None:
    echo = Echo(KEY, "fra1", "alder")
    packet = echo.request(77, 1)
    for position in range(len(packet) * 8):
        changed = bytearray(packet)
        changed[position // 8] ^= 1 << position % 8
        assert echo.number(bytes(changed)) is None


@pytest.mark.parametrize("other", [Echo(KEY[::-1], "fra1", "alder"), Echo(KEY, "fra1", "birch"), Echo(KEY, "fra", "1alder")])
def test_an_echo_of_somebody_else_is_none_of_ours(other: Echo) -> None:
    assert other.number(Echo(KEY, "fra1", "alder").request(1, 2)) is None


@pytest.mark.parametrize("size", [0, 1, 23, 40, 48])
def test_a_cut_echo_is_none_of_ours(size: int) -> None:
    echo = Echo(KEY, "fra1", "alder")
    assert echo.number(echo.request(1, 2)[:size]) is None


def test_the_dns_query_is_one_for_the_roots_ns_without_recursion() -> None:
    query = dnslib.DNSRecord.parse(DnsQuery(KEY).request(5, 0))
    assert (str(query.q.qname), query.q.qtype, query.header.rd) == (".", dnslib.QTYPE.NS, 0)


def test_dns_ids_meet_every_number_once() -> None:
    dns = DnsQuery(KEY)
    ids = {dns.request(number, 0)[:2] for number in range(65536)}
    assert len(ids) == 65536


@pytest.mark.parametrize("number", [0, 1, 4711, 65535])
def test_a_dns_response_of_any_rcode_is_a_reply(number: int) -> None:
    dns = DnsQuery(KEY)
    request = dnslib.DNSRecord.parse(dns.request(number, 0))
    for rcode in (0, 2, 5):
        reply = request.reply()
        reply.header.rcode = rcode
        assert dns.number(bytes(reply.pack())) == number
    header_only = bytearray(dns.request(number, 0)[:12])
    header_only[2], header_only[5] = 0x80, 0
    assert dns.number(bytes(header_only)) == number


def test_what_is_no_response_to_the_query_is_none_of_ours() -> None:
    dns = DnsQuery(KEY)
    request = dns.request(9, 0)
    assert dns.number(request) is None
    assert dns.number(b"") is None
    assert dns.number(request[:2] + b"\x80\x00" + request[4:12] + b"\x00\x00\x01\x00\x01") is None
    assert dns.number(request[:2] + b"\xa8\x00" + request[4:]) is None


@pytest.mark.parametrize(("family", "request_type", "reply_type"), [(4, 8, 0), (6, 128, 129)])
def test_icmp(family: int, request_type: int, reply_type: int) -> None:
    icmp = IcmpEcho(4 if family == 4 else 6, Echo(KEY, "fra1", "alder"))
    packet = icmp.request(70_000, 1)
    assert packet[0] == request_type
    assert icmp.number(packet) is None
    assert icmp.number(bytes([reply_type]) + packet[1:]) == 70_000
    assert icmp.number(bytes([reply_type])) is None
