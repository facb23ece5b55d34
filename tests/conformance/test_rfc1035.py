"""RFC 1035: the message and its transports."""

from __future__ import annotations

import struct

import dns.flags
import dns.opcode
import pytest

from tests.conformance.client import APEX, Client, flags, question, rcode, receive, texts


@pytest.mark.parametrize("number", [0, 1, 0x1234, 0xFFFF])
def test_4_1_1_the_id_comes_back(either: Client, number: int) -> None:
    """Section 4.1.1: "This identifier is copied the corresponding reply"."""
    query = question("zero")
    query.id = number
    assert either.send(query).id == number


@pytest.mark.parametrize("name", ["zero", "nowhere", "host.child", "www.example.com."])
def test_4_1_1_rd_is_copied(either: Client, name: str) -> None:
    """Section 4.1.1: "this bit may be set in a query and is copied into the response"."""
    assert "RD" in flags(either(name, rd=True))
    assert "RD" not in flags(either(name))


@pytest.mark.parametrize("name", ["zero", "nowhere", "host.child"])
def test_4_1_1_no_other_bit_of_the_query_comes_back(either: Client, name: str) -> None:
    """Section 4.1.1: Z "Must be zero in all queries and responses"; AA, TC, RA and the rcode are the server's to say."""
    wire = bytearray(question(name).to_wire())
    plain = either.exchange(bytes(wire))
    wire[2] |= 0x06  # AA, TC
    wire[3] |= 0xCF  # RA, Z, an rcode
    assert either.exchange(bytes(wire)) == plain


def test_4_1_1_the_question_comes_back_alone(either: Client) -> None:
    reply = either("zero")
    assert [(each.name.to_text(), each.rdtype.name) for each in reply.question] == [(f"zero.{APEX}", "A")]


@pytest.mark.parametrize("opcode", [1, 2, 3, 4, 5, 6, 7, 9, 15])
def test_4_1_1_other_kinds_of_query_are_not_implemented(either: Client, opcode: int) -> None:
    """Section 4.1.1: "4 Not Implemented - The name server does not support the requested kind of query."."""
    query = question("zero")
    query.set_opcode(dns.opcode.Opcode(opcode))
    reply = either.send(query.to_wire())
    assert rcode(reply) in ({"NOTIMP"} if opcode not in (4, 5) else {"NOTIMP", "REFUSED", "NOTAUTH"})
    assert reply.opcode() == opcode
    assert [*reply.answer, *reply.authority] == []


def test_4_1_1_responses_are_not_answered(ask: Client) -> None:
    """Section 4.1.1: QR "specifies whether this message is a query (0), or a response (1)"."""
    query = question("zero")
    query.flags |= dns.flags.QR
    assert ask.is_silent(query.to_wire())


@pytest.mark.parametrize("length", [0, 1, 11])
def test_4_1_1_less_than_a_header_is_not_answered(ask: Client, length: int) -> None:
    assert ask.is_silent(question("zero").to_wire()[:length])


def test_4_1_1_what_can_t_be_read_is_a_format_error(either: Client) -> None:
    """Section 4.1.1: "1 Format error - The name server was unable to interpret the query."."""
    wire = question("zero").to_wire()
    for broken in (wire[:12], wire[:-1], wire[:-4], wire[:14], wire + b"\0", wire[:12] + b"\x80" + wire[13:]):
        assert rcode(either.send(broken)) == "FORMERR"


@pytest.mark.parametrize("name", ["x" * 63 + ".wild", ".".join(["y" * 60] * 3 + ["wild"]), ".".join(["z"] * 110) + ".wild"])
def test_2_3_4_the_longest_names_are_answered(either: Client, name: str) -> None:
    """Section 2.3.4: "labels 63 octets or less", "names 255 octets or less"."""
    reply = either(name)
    assert [rrset[0].to_text() for rrset in reply.answer] == ["192.0.2.80"]


def test_4_2_1_replies_over_udp_keep_to_512_octets(ask: Client) -> None:
    """Section 4.2.1: "Messages carried by UDP are restricted to 512 bytes (not counting the IP or UDP headers). Longer
    messages are truncated and the TC bit is set in the header."."""
    long = ".".join(["y" * 60] * 3 + ["wild"])
    assert len(ask.exchange(question(long, "TXT").to_wire())) <= 512
    for name, rtype in (("@", "TXT"), ("@", "MX"), ("_sip._udp", "SRV"), ("host.child", "A"), ("pool", "A")):
        assert len(ask.exchange(question(name, rtype).to_wire())) <= 512


def test_4_2_2_over_tcp_a_length_comes_first(ask: Client) -> None:
    """Section 4.2.2: "The message is prefixed with a two byte length field which gives the message length, excluding the
    two byte length field."."""
    wire = question("zero").to_wire()
    with ask.stream() as sock:
        sock.sendall(struct.pack("!H", len(wire)) + wire)
        reply = receive(sock)
    assert reply[:2] == wire[:2]
    assert reply == ask.exchange(wire)


@pytest.mark.parametrize(
    ("name", "rtype", "expected"),
    [
        ("@", "MX", ["@ MX 10 mx1", "@ MX 20 mx2"]),
        ("_dmarc", "TXT", ['_dmarc TXT "v=DMARC1; p=reject"']),
        ("@", "CAA", ['@ CAA 0 issue "ca.example.net"', '@ CAA 0 iodef "mailto:noc@example.net"']),
        ("_sip._udp", "SRV", ["_sip._udp SRV 10 60 5060 sip", "_sip._udp SRV 20 40 5060 mx1"]),
        ("_imaps._tcp", "SRV", ["_imaps._tcp SRV 0 0 0 ."]),
        ("mx1", "HINFO", ['mx1 HINFO "riscv64" "Linux"']),
        ("here", "RP", ["here RP noc.example.net. text.here"]),
        ("api", "URI", ['api URI 10 1 "https://api.cdn.example.net/v1"']),
        ("pool", "A", ["pool A 192.0.2.101", "pool A 192.0.2.102", "pool A 192.0.2.103"]),
        ("pool", "AAAA", ["pool AAAA 2001:db8:101::1"]),
        ("alias", "HTTPS", ["alias HTTPS 0 www"]),
        ("mx1", "SSHFP", ["mx1 SSHFP 4 2 123456789abcdef67890123456789abcdef67890123456789abcdef123456789"]),
    ],
)
def test_3_2_records_come_as_they_are_in_the_zone(either: Client, name: str, rtype: str, expected: list[str]) -> None:
    """Section 3.2 and the documents of each type."""
    reply = either(name, rtype)
    assert sorted(texts(reply.answer)) == sorted(expected)
    assert flags(reply) == {"AA"}


def test_3_2_4_other_classes_are_not_served(either: Client) -> None:
    """Section 3.2.4 has classes beside IN: no zone of ours is in them."""
    for rclass in ("CH", "HS", "NONE"):
        reply = either("zero", rclass=rclass)
        assert rcode(reply) in ("REFUSED", "NOTIMP")
        assert reply.answer == []
