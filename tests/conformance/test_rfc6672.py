"""RFC 6672: DNAME; and circles of aliases, which it can make."""

from __future__ import annotations

import pytest

from tests.conformance.client import APEX, Client, flags, rcode, subnet_of, texts

FAR = 3 * 64 + len("apps.") + len(APEX) + 1  # octets of far's target
ROOM = 255 - FAR


def test_2_2_a_name_too_long_to_be_made(either: Client) -> None:
    """Section 3.2 step 3c: where the substitution would overflow the legal size of a name, the rcode is YXDOMAIN; the DNAME is
    in the answer by then, and no CNAME."""
    for name in (f"{'x' * (ROOM)}.far", f"{'x' * 63}.{'y' * 63}.far"):
        reply = either(name)
        assert (rcode(reply), flags(reply)) == ("YXDOMAIN", {"AA"})
        assert [text.split()[:2] for text in texts(reply.answer)] == [["far", "DNAME"]]


def test_2_2_the_longest_that_can(either: Client) -> None:
    reply = either(f"{'x' * (ROOM - 1)}.far", edns=0)
    assert rcode(reply) == "NOERROR"
    assert [text.split()[1] for text in texts(reply.answer)][:2] == ["DNAME", "CNAME"]
    assert len(reply.answer[1][0].target.to_wire()) == 255


@pytest.mark.parametrize("name", ["a.moved", "a.b.moved", "MiXeD.MoVeD"])
def test_3_1_the_cname_is_owned_by_the_question(either: Client, name: str) -> None:
    """Section 3.1: "The owner name of the CNAME is the QNAME of the query.", here as the asker wrote it."""
    reply = either(name)
    assert reply.answer[1].name.to_text() == f"{name}.{APEX}"
    assert reply.answer[1].ttl == reply.answer[0].ttl


@pytest.mark.steered
def test_3_1_a_dname_to_steered_names_is_one_link(either: Client) -> None:
    """RFC 7871 section 7.2.1: with a client subnet the DNAME and its CNAME are given, and the rest left to ask for."""
    reply = either("a.moved", subnet="198.51.100.0/24")
    assert texts(reply.answer) == ["moved DNAME apps", "a.moved CNAME a.apps"]
    assert subnet_of(reply) == "198.51.100.0/24/0"


@pytest.mark.parametrize("name", ["ring-a", "ring-b"])
def test_rfc1034_3_6_2_circles_end(either: Client, name: str) -> None:
    """RFC 1034 section 3.6.2: "CNAME chains should be followed and CNAME loops signalled as an error", by the resolver: the
    server gives each link once and leaves it at that."""
    reply = either(name)
    assert rcode(reply) in ("NOERROR", "SERVFAIL")
    assert len(texts(reply.answer)) <= 17
    assert len(set(texts(reply.answer))) == 2


@pytest.mark.parametrize(("rtype", "end"), [("A", "any.wild A 192.0.2.80"), ("TXT", 'any.wild TXT "any name below wild"')])
def test_rfc4592_3_3_aliases_of_names_that_a_wildcard_makes(either: Client, rtype: str, end: str) -> None:
    """RFC 1034 section 4.3.2 step 3a goes back to step 1: the alias' target meets wildcards as a question for it would."""
    assert texts(either("to-wild", rtype).answer) == ["to-wild CNAME any.wild", end]
    reply = either("to-wild", "MX")
    assert (rcode(reply), texts(reply.answer), len(reply.authority)) == ("NOERROR", ["to-wild CNAME any.wild"], 1)


def test_aliases_of_names_that_a_dname_makes(either: Client) -> None:
    chain = ["to-moved CNAME any.moved", "moved DNAME apps", "any.moved CNAME any.apps"]
    for rtype in ("A", "AAAA"):
        found = texts(either("to-moved", rtype).answer)
        assert found[:3] == chain
        assert found[3].startswith(f"any.apps {rtype} ")
    assert texts(either("to-moved", "TXT").answer) == chain


@pytest.mark.parametrize("rtype", ["CNAME", pytest.param("ANY", marks=pytest.mark.ours)])
@pytest.mark.parametrize("name", ["none.moved", "x.far"])
def test_3_2_a_question_for_the_cname_ends_with_it(either: Client, name: str, rtype: str) -> None:
    """Section 3.2 makes a CNAME and goes back to step 1, which RFC 1034 section 3.6.2 exempts queries for CNAMEs from."""
    reply = either(name, rtype, edns=0)
    assert (rcode(reply), flags(reply), reply.authority) == ("NOERROR", {"AA"}, [])
    assert [rrset.rdtype.name for rrset in reply.answer] == ["DNAME", "CNAME"]
