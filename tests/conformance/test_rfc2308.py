"""RFC 2308 (and 8020): what is said of what does not exist."""

from __future__ import annotations

import dns.message
import pytest

from tests.conformance.client import Client, flags, rcode, texts

MISSING = ["nowhere", "a.b.c.nowhere", "below.zero", "no.deep.tree", "below.www", "x.ns1"]
LACKING = [("zero", "MX"), ("deep.tree", "A"), ("tree", "AAAA"), ("@", "SRV"), ("www", "TXT"), ("ns1", "TYPE65280")]


def soa_ttl(reply: dns.message.Message) -> int:
    """The TTL of the SOA, checked to be all there is beside an answer."""
    (soa,) = reply.authority
    assert texts([soa])[0].startswith("@ SOA ns1 noc.example.net. ")
    return int(soa.ttl)


@pytest.mark.parametrize("name", MISSING)
@pytest.mark.parametrize("rtype", ["A", "AAAA", "TXT", "DS", "ANY"])
def test_2_1_a_name_that_does_not_exist(either: Client, name: str, rtype: str) -> None:
    """Section 2.1: "Name errors (NXDOMAIN) are indicated by the presence of "Name Error" in the RCODE field."."""
    reply = either(name, rtype)
    assert (rcode(reply), flags(reply), reply.answer, reply.additional) == ("NXDOMAIN", {"AA"}, [], [])
    soa_ttl(reply)


@pytest.mark.parametrize(("name", "rtype"), LACKING)
def test_2_2_a_type_that_a_name_lacks(either: Client, name: str, rtype: str) -> None:
    """Section 2.2: "NODATA is indicated by an answer with the RCODE set to NOERROR and no relevant answers in the answer
    section."."""
    reply = either(name, rtype)
    assert (rcode(reply), flags(reply), reply.answer, reply.additional) == ("NOERROR", {"AA"}, [], [])
    soa_ttl(reply)


def test_2_1_the_end_of_a_chain_decides(either: Client) -> None:
    """Section 2.1: the NXDOMAIN is that of the last name: with a CNAME in the answer, the SOA is beside it."""
    reply = either("dangling")
    assert (rcode(reply), flags(reply)) == ("NXDOMAIN", {"AA"})
    assert texts(reply.answer) == ["dangling CNAME nowhere"]
    soa_ttl(reply)


def test_2_2_1_a_chain_may_end_without_the_type(either: Client) -> None:
    reply = either("mail", "SRV")
    assert (rcode(reply), flags(reply)) == ("NOERROR", {"AA"})
    assert texts(reply.answer) == ["mail CNAME mx1"]
    soa_ttl(reply)


def test_3_the_soa_is_always_there(either: Client) -> None:
    """Section 3: "Name servers authoritative for a zone MUST include the SOA record of the zone in the authority section of
    the response when reporting an NXDOMAIN or indicating that no data of the requested type exists."."""
    for name, rtype in [*((name, "A") for name in MISSING), *LACKING]:
        assert soa_ttl(either(name, rtype, edns=0)) > 0


def test_3_its_ttl_is_that_of_negative_answers(either: Client) -> None:
    """Section 3: "The TTL of this record is set from the minimum of the MINIMUM field of the SOA record and the TTL of the
    SOA itself"."""
    (own,) = either("@", "SOA").answer
    assert own.ttl > own[0].minimum == 60
    assert soa_ttl(either("nowhere")) == soa_ttl(either("zero", "MX")) == 60


@pytest.mark.ours
def test_3_or_that_of_the_soa_where_it_is_lower(either: Client) -> None:
    """Section 3, the other way round: the SOA of full.example has TTL 5 and MINIMUM 300."""
    for name in ("nowhere.full.example.", "full.full.example."):
        (soa,) = either(name).authority
        assert (soa.ttl, soa[0].minimum) == (5, 300)


def test_8020_2_nothing_is_underneath_what_does_not_exist(either: Client) -> None:
    """RFC 8020 section 2: NXDOMAIN says that nothing is below either; so what has a name below is never NXDOMAIN."""
    for name in ("tree", "deep.tree", "_udp", "_tcp", "_443._tcp.www", "_tcp.www", "wild", "moved", "cname"):
        assert rcode(either(name, "LOC")) == "NOERROR"
