"""RFC 8914: extended errors, for those who speak EDNS."""

from __future__ import annotations

import dns.edns
import dns.message
import dns.opcode
import pytest

from tests.conformance.client import Client, option, question, rcode

NOT_OURS = ["www.example.com.", "example.net.", "."]


def code(reply: dns.message.Message) -> int | None:
    found = option(reply, dns.edns.OptionType.EDE)
    return int(found.code) if isinstance(found, dns.edns.EDEOption) else None


@pytest.mark.parametrize("name", NOT_OURS)
def test_4_21_not_authoritative(either: Client, name: str) -> None:
    """Section 4.21, code 20: "An authoritative server that receives a query with the Recursion Desired (RD) bit clear, or when
    it is not configured for recursion for a domain for which it is not authoritative, SHOULD include this EDE code in the
    REFUSED response."."""
    for rd in (False, True):
        reply = either(name, edns=0, rd=rd)
        assert (rcode(reply), code(reply)) == ("REFUSED", 20)


@pytest.mark.parametrize("name", NOT_OURS)
def test_2_never_without_edns(either: Client, name: str) -> None:
    """Section 2: the option travels in OPT, which no reply has unless the query had one (RFC 6891 section 7)."""
    reply = either(name)
    assert (rcode(reply), reply.edns, reply.additional) == ("REFUSED", -1, [])


@pytest.mark.ours
def test_4_22_not_supported(either: Client) -> None:
    """Section 4.22, code 21: "The requested operation or query is not supported."."""
    query = question("zero", edns=0)
    query.set_opcode(dns.opcode.STATUS)
    reply = either.send(query.to_wire())
    assert (rcode(reply), code(reply)) == ("NOTIMP", 21)
    reply = either("zero", "MAILA", edns=0)
    assert (rcode(reply), code(reply)) == ("NOTIMP", 21)


@pytest.mark.ours
def test_4_19_prohibited(ask: Client) -> None:
    """Section 4.19, code 18: "An authoritative server or recursive resolver that receives a query from an "unauthorized" client
    can annotate its REFUSED message with this code."."""
    reply = ask.over("tcp")("corners.example.", "AXFR", edns=0)
    assert (rcode(reply), code(reply)) == ("REFUSED", 18)


@pytest.mark.ours
def test_rfc9824_3_5_nobody_asks_for_nxname(either: Client) -> None:
    """RFC 9824 section 3.5: "If an explicit query for the NXNAME RR type is received, the DNS server MUST return a Format Error
    (response code FORMERR)", with the extended error 30 if it likes."""
    for name in ("zero", "nowhere"):
        reply = either(name, "TYPE128", edns=0)
        assert (rcode(reply), code(reply), reply.answer) == ("FORMERR", 30, [])


@pytest.mark.parametrize(("name", "rtype"), [("zero", "A"), ("nowhere", "A"), ("zero", "MX"), ("host.child", "A")])
def test_answers_have_none(either: Client, name: str, rtype: str) -> None:
    assert code(either(name, rtype, edns=0)) is None
