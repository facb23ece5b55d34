"""No reply is worth spoofing a question for: bounds on what goes out for what came in (RFC 9715, 8482; issue: abuse)."""

from __future__ import annotations

import dns.edns
import pytest

from tests.conformance.client import Client, coded, option, question, rcode

PAYLOAD = 1232
QUESTIONS = [
    *((name, rtype) for name in ("@", "www", "mx1", "pool", "large", "crowd", "any.wild", "far") for rtype in ("ANY", "TXT")),
    *(("host.crowd", rtype) for rtype in ("A", "DS", "ANY")),
    *(("@", rtype) for rtype in ("SOA", "NS", "MX", "HTTPS", "DNSKEY", "RRSIG", "CAA")),
    ("nowhere", "A"),
    ("_sip._udp", "SRV"),
]
REFUSED = [("www.example.com.", "A"), (".", "NS"), ("com.", "ANY"), ("isc.org.", "ANY"), ("cdn.example.net.", "MAILB")]
NSID, COOKIE = coded(3), coded(10, b"12345678")
SPOKEN = [
    [],
    [NSID],
    [NSID, COOKIE],
    [NSID, COOKIE, dns.edns.ECSOption("198.51.100.0", 24)],
    [COOKIE],
    [dns.edns.ECSOption("198.51.100.0", 24), COOKIE],
    [coded(65001, bytes(100))],
]


@pytest.mark.parametrize(("name", "rtype"), QUESTIONS)
def test_rfc1035_4_2_1_512_octets_without_edns(ask: Client, name: str, rtype: str) -> None:
    assert len(ask.exchange(question(name, rtype).to_wire())) <= 512


@pytest.mark.ours
@pytest.mark.parametrize(("name", "rtype"), QUESTIONS)
def test_rfc9715_3_1_1232_octets_with_it(ask: Client, name: str, rtype: str) -> None:
    for payload in (4096, 65535):
        assert len(ask.exchange(question(name, rtype, edns=0, payload=payload, do=True).to_wire())) <= PAYLOAD


@pytest.mark.ours
@pytest.mark.parametrize("options", SPOKEN)
@pytest.mark.parametrize(("name", "rtype"), REFUSED)
def test_errors_are_hardly_longer_than_questions(ask: Client, name: str, rtype: str, options: list[dns.edns.Option]) -> None:
    for wire in (question(name, rtype).to_wire(), question(name, rtype, edns=0, options=options).to_wire()):
        reply = ask.send(wire)
        assert rcode(reply) in ("REFUSED", "NOTIMP")
        assert len(reply.to_wire()) <= len(wire) + 32


@pytest.mark.ours
@pytest.mark.parametrize("options", SPOKEN)
def test_so_are_those_for_what_can_t_be_read(ask: Client, options: list[dns.edns.Option]) -> None:
    wire = question("zero", edns=0, options=options).to_wire()
    other_opcode = wire[:2] + b"\x28" + wire[3:]
    for broken in (wire + b"\0", wire[:-1], wire[:4] + b"\0\2" + wire[6:], other_opcode, other_opcode[:12]):
        assert len(ask.exchange(broken)) <= len(broken) + 32


@pytest.mark.ours
@pytest.mark.parametrize("name", ["@", "www", "mx1", "mail", "any.wild", "a.moved"])
def test_rfc8482_any_is_one_set(ask: Client, name: str) -> None:
    """One, beside the DNAME and CNAME that lead to it."""
    reply = ask(name, "ANY", edns=0)
    assert len([rrset for rrset in reply.answer if rrset.rdtype.name not in ("DNAME", "CNAME")]) <= 1
    assert len(reply.answer) == (2 if name == "a.moved" else 1)
    assert reply.additional == []


@pytest.mark.ours
@pytest.mark.parametrize("options", [[NSID], [NSID, COOKIE]])
def test_who_asks_over_tcp_or_for_what_there_is_is_told_the_node(ask: Client, options: list[dns.edns.Option]) -> None:
    """RFC 5001 section 2.2: an answer holds it always; an error over UDP only where it makes that no 32 octets longer."""
    for reply in (ask("www", options=options), ask("nowhere", options=options)):
        assert option(reply, 3) is not None
    refused = ask.over("tcp")("www.example.com.", options=options)
    assert rcode(refused) == "REFUSED"
    assert option(refused, 3) is not None
    assert option(refused, 15) is not None


@pytest.mark.ours
def test_a_short_name_fits_into_an_error(ask: Client) -> None:
    """NSID before the extended error, which tells no more than the rcode; a padded query has room for both."""
    bare = ask("www.example.com.", options=[NSID])
    padded = ask("www.example.com.", options=[NSID, coded(12, bytes(64))])
    nsid = option(padded, 3)
    assert nsid is not None
    assert option(padded, 15) is not None
    size = len(nsid.to_wire() or b"")
    assert (option(bare, 3) is not None) == (size <= 32)
    assert (option(bare, 15) is not None) == (size + 6 <= 32 or size > 32)
