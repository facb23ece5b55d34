"""Documents of which few sentences concern us yet: RFC 3597, 4035, 6672, 8482, 8906, 9471."""

from __future__ import annotations

import dns.message
import pytest

from tests.conformance.client import Client, flags, question, rcode, texts


def test_3597_unknown_types_are_octets(either: Client) -> None:
    """RFC 3597 section 3: name servers "must treat the RDATA section of such RRs as unstructured binary data, storing and
    transmitting it without change"."""
    assert texts(either("odd", "TYPE65280").answer) == ["odd TYPE65280 \\# 4 0a000001"]
    assert rcode(either("odd", "TYPE65281")) == "NOERROR"


@pytest.mark.parametrize(("name", "rtype"), [("enum", "NAPTR"), ("_sip._udp", "SRV"), ("_dns", "SVCB"), ("alias", "HTTPS")])
def test_3597_4_names_in_newer_types_are_not_compressed(either: Client, name: str, rtype: str) -> None:
    """RFC 3597 section 4: "servers MUST NOT compress domain names embedded in the RDATA of types that are class-specific or
    not well-known"."""
    wire = either.exchange(question(name, rtype).to_wire())
    (rrset,) = dns.message.from_wire(wire).answer
    for rdata in rrset:
        assert rdata.to_wire() in wire  # uncompressed, whole


def test_4035_3_1_4_1_ds_is_the_parent_s_to_answer(either: Client) -> None:
    """RFC 4035 section 3.1.4.1: the DS RRset is authoritative in the zone above the cut, and answered from there."""
    reply = either("signed", "DS")
    assert (rcode(reply), flags(reply), len(reply.answer)) == ("NOERROR", {"AA"}, 1)
    none = either("child", "DS")
    assert (rcode(none), flags(none), none.answer, len(none.authority)) == ("NOERROR", {"AA"}, [], 1)
    assert either("host.signed", "DS").answer == []


def test_6672_3_1_names_below_a_dname(either: Client) -> None:
    """RFC 6672 section 3.1: the DNAME goes into the answer with a CNAME made from it, which has the DNAME's TTL."""
    reply = either("x.y.moved", "MX")
    assert texts(reply.answer)[:2] == ["moved DNAME apps", "x.y.moved CNAME x.y.apps"]
    assert reply.answer[0].ttl == reply.answer[1].ttl
    assert flags(reply) == {"AA"}


def test_6672_2_3_the_owner_itself_is_not_redirected(either: Client) -> None:
    """RFC 6672 section 2.3: "the owner name of a DNAME is not redirected itself"."""
    reply = either("moved")
    assert (rcode(reply), reply.answer, len(reply.authority)) == ("NOERROR", [], 1)
    assert texts(either("moved", "DNAME").answer) == ["moved DNAME apps"]


def test_8482_4_1_any_is_given_one_set(either: Client) -> None:
    """RFC 8482 section 4.1: a responder "MAY instead send a response with a single RRset (or a larger subset of available
    RRsets) in the answer section"."""
    for name in ("@", "www", "mx1", "pool", "ns1", "any.wild", "odd"):
        reply = either(name, "ANY")
        assert (rcode(reply), flags(reply)) == ("NOERROR", {"AA"})
        assert len(reply.answer) >= 1


@pytest.mark.ours
def test_8482_4_1_and_no_more(either: Client) -> None:
    for name in ("@", "www", "mx1", "pool", "ns1", "any.wild"):
        assert len(either(name, "ANY").answer) == 1


@pytest.mark.parametrize("rtype", ["TYPE1000", "TYPE65279", "TYPE65535", "NULL", "SPF", "TKEY"])
def test_8906_3_1_2_unknown_types_are_answered(either: Client, rtype: str) -> None:
    """RFC 8906 section 3.1.2: unknown types are answered as those that a name lacks, whatever they may come to mean."""
    reply = either("zero", rtype)
    assert rcode(reply) in ("NOERROR", "NOTIMP", "FORMERR", "REFUSED")
    assert reply.answer == []


@pytest.mark.parametrize("flag", [0x10, 0x20, 0x40])
def test_8906_3_1_3_unknown_or_odd_flags_are_answered(either: Client, flag: int) -> None:
    """RFC 8906 section 3.1.3: CD, AD and Z in a query don't silence the server, nor come back from an authoritative one."""
    wire = bytearray(question("zero").to_wire())
    wire[3] |= flag
    reply = either.send(bytes(wire))
    assert texts(reply.answer) == ["zero A 192.0.2.104"]
    assert flags(reply) == {"AA"}


def test_9471_3_1_glue_is_complete_or_tc(ask: Client) -> None:
    """RFC 9471 section 3.1: "when a name server generates a referral response, it MUST include all available glue records for
    in-domain name servers in the additional section", or set TC."""
    for length in range(1, 125, 4):
        name = ".".join(part for part in ("g" * min(60, length), "h" * max(0, length - 61)) if part)
        reply = ask(f"{name}.{'i' * 60}.child")
        assert "TC" in flags(reply) or len(texts(reply.additional)) == 3


@pytest.mark.ours
@pytest.mark.parametrize("rtype", ["AXFR", "IXFR"])
def test_5936_2_2_transfers_are_refused_here(either: Client, rtype: str) -> None:
    """RFC 5936 section 2.2: a server that won't transfer to this client says so."""
    reply = either("corners.example.", rtype, edns=0)
    assert (rcode(reply), reply.answer, reply.authority) == ("REFUSED", [], [])


@pytest.mark.parametrize("rtype", ["AXFR", "IXFR"])
@pytest.mark.parametrize("name", ["www", "nowhere", "child", "x.wild", "example.net.", "www.example.com.", "."])
@pytest.mark.parametrize("edns", [-1, 0])
def test_5936_2_2_1_what_is_no_zone_of_ours(ask: Client, name: str, rtype: str, edns: int) -> None:
    """RFC 5936 section 2.2.1: "If a server is not authoritative for the queried zone, the server SHOULD set the value to
    NotAuth(9)."."""
    reply = ask.over("tcp")(name, rtype, edns=edns)
    assert (rcode(reply), reply.answer, reply.authority) == ("NOTAUTH", [], [])


@pytest.mark.ours
def test_5936_2_2_1_over_udp_too(ask: Client) -> None:
    assert [rcode(ask("www", rtype)) for rtype in ("AXFR", "IXFR")] == ["NOTAUTH", "NOTAUTH"]
    assert rcode(ask("www", "AXFR", rclass="HS")) == "REFUSED"
