"""RFC 4592: wildcards. The zone of its own example (section 2.2.1) is in wildcards.yaml, which only our own server has."""

from __future__ import annotations

import pytest

from tests.conformance.client import Client, flags, rcode, texts


@pytest.mark.parametrize("name", ["any", "two.labels", "a.b.c.d.e", "*", "_under._score"])
def test_3_3_1_names_below_are_synthesised(either: Client, name: str) -> None:
    """RFC 1034 section 4.3.2 step 3c: "If any match, copy them into the answer section, but set the owner of the RR to be
    QNAME, and not the node with the "*" label."."""
    reply = either(f"{name}.wild")
    assert texts(reply.answer) == [f"{name}.wild A 192.0.2.80"]
    assert (rcode(reply), flags(reply)) == ("NOERROR", {"AA"})
    assert texts(either(f"{name}.wild", "TXT").answer) == [f'{name}.wild TXT "any name below wild"']


def test_2_2_1_a_name_that_exists_is_not(either: Client) -> None:
    """Section 2.2.1: the wildcard does not apply to names that exist, whatever types they have."""
    assert texts(either("fixed.wild").answer) == ["fixed.wild A 192.0.2.81"]
    lacking = either("fixed.wild", "TXT")
    assert (rcode(lacking), lacking.answer) == ("NOERROR", [])


def test_3_3_1_nor_one_below_a_name_that_exists(either: Client) -> None:
    """Section 3.3.1: the closest encloser is the longest existing ancestor; fixed.wild has no wildcard of its own."""
    reply = either("below.fixed.wild")
    assert (rcode(reply), reply.answer) == ("NXDOMAIN", [])


def test_2_2_1_nor_one_below_the_wildcard_s_own_name(either: Client) -> None:
    """Section 2.2.1's example: ghost.*.example is not synthesised "because *.example. exists"."""
    reply = either("ghost.*.wild")
    assert (rcode(reply), reply.answer) == ("NXDOMAIN", [])


def test_2_2_2_the_wildcard_s_parent_is_not(either: Client) -> None:
    """Section 2.2.2: a name without records that has some below exists: NODATA, no synthesis from the wildcard beside."""
    reply = either("wild")
    assert (rcode(reply), reply.answer, len(reply.authority)) == ("NOERROR", [], 1)


def test_2_2_2_an_empty_non_terminal_exists(either: Client) -> None:
    for name in ("tree", "deep.tree"):
        reply = either(name)
        assert (rcode(reply), flags(reply), reply.answer) == ("NOERROR", {"AA"}, [])


def test_4_a_type_that_the_wildcard_lacks(either: Client) -> None:
    """Section 2.2.1: the name is covered, so it is NODATA and no NXDOMAIN."""
    reply = either("any.wild", "MX")
    assert (rcode(reply), flags(reply), reply.answer, len(reply.authority)) == ("NOERROR", {"AA"}, [], 1)


def test_3_3_3_a_wildcard_cname(either: Client) -> None:
    """Section 3.3.3: the CNAME is given the question's name and followed."""
    reply = either("any.cname", "HTTPS")
    assert texts(reply.answer) == ["any.cname CNAME www", 'www HTTPS 1 . alpn="h3,h2" port="443"']
    assert texts(either("any.cname", "CNAME").answer) == ["any.cname CNAME www"]


def test_2_1_1_the_asterisk_itself_may_be_asked(either: Client) -> None:
    """Section 2.1.1: a wildcard domain name is a name like others when it is asked for."""
    assert texts(either("*.wild").answer) == ["*.wild A 192.0.2.80"]
    assert texts(either("*.cname", "CNAME").answer) == ["*.cname CNAME www"]


def test_3_3_1_case_of_the_question_is_the_owner_s(ask: Client) -> None:
    """The owner is the question's name; resolvers that mix its case (0x20) get it back so by compression."""
    reply = ask("MiXeD.WiLd")
    assert reply.answer[0].name.to_text(omit_final_dot=False) == "MiXeD.WiLd.cdn.example.net."


def test_2_1_a_steered_wildcard(either: Client) -> None:
    for name in ("a", "b.c", "*"):
        (rrset,) = either(f"{name}.apps").answer
        assert rrset.name.to_text() == f"{name}.apps.cdn.example.net."
        assert rrset[0].to_text().startswith(("192.0.2.", "198.51.100.", "203.0.113."))


EXAMPLE = "rfc4592.example."
SYNTHESIZED = [
    ("host3", "MX", ["MX 10 host1.rfc4592.example."]),
    ("host3", "A", []),
    ("foo.bar", "TXT", ['TXT "this is a wildcard"']),
]


@pytest.mark.ours
@pytest.mark.parametrize(("name", "rtype", "expected"), SYNTHESIZED)
def test_2_2_1_the_example_is_synthesized(either: Client, name: str, rtype: str, expected: list[str]) -> None:
    """Section 2.2.1: "The following responses would be synthesized from one of the wildcards in the zone"."""
    reply = either(f"{name}.{EXAMPLE}", rtype)
    assert (rcode(reply), flags(reply)) == ("NOERROR", {"AA"})
    assert [text.split(" ", 1) for text in texts(reply.answer)] == [[f"{name}.{EXAMPLE}", data] for data in expected]
    assert len(reply.authority) == (not expected)


EXISTING = [
    ("host1", "MX", "NOERROR"),  # because host1.example. exists
    ("sub.*", "MX", "NOERROR"),  # because sub.*.example. exists
    ("_telnet._tcp.host1", "SRV", "NXDOMAIN"),  # because _tcp.host1.example. exists (without data)
    ("ghost.*", "MX", "NXDOMAIN"),  # because *.example. exists
]


@pytest.mark.ours
@pytest.mark.parametrize(("name", "rtype", "expected"), EXISTING)
def test_2_2_1_the_example_is_not_synthesized(either: Client, name: str, rtype: str, expected: str) -> None:
    """Section 2.2.1: "The following responses would not be synthesized from any of the wildcards in the zone"."""
    reply = either(f"{name}.{EXAMPLE}", rtype)
    assert (rcode(reply), flags(reply), reply.answer, len(reply.authority)) == (expected, {"AA"}, [], 1)


@pytest.mark.ours
def test_2_2_1_nor_below_a_zone_cut(either: Client) -> None:
    """The last of them: host.subdel.example, A, "because subdel.example. exists (and is a zone cut)"."""
    reply = either(f"host.subdel.{EXAMPLE}")
    assert (rcode(reply), flags(reply), reply.answer) == ("NOERROR", set(), [])
    assert [rrset.name.to_text() for rrset in reply.authority] == [f"subdel.{EXAMPLE}"]


@pytest.mark.ours
@pytest.mark.parametrize("rtype", ["A", "NS", "DS", "TXT"])
def test_4_2_a_wildcard_with_ns_is_no_cut_for_what_it_makes(either: Client, rtype: str) -> None:
    """Section 4.2 leaves open what it means: what it owns is synthesised, as NSD does, and only its own name is cut."""
    made = either(f"any.ns.{EXAMPLE}", rtype)
    assert (rcode(made), flags(made)) == ("NOERROR", {"AA"})
    assert [rrset.rdtype.name for rrset in made.answer] == (["NS"] if rtype == "NS" else [])
    assert flags(either(f"below.*.ns.{EXAMPLE}", rtype)) == set()


@pytest.mark.ours
def test_4_4_a_wildcard_with_dname_redirects_nothing_that_it_makes(either: Client) -> None:
    """Section 4.4: a DNAME that is synthesised does not lead to a CNAME for names below it: those are synthesised alike."""
    reply = either(f"a.b.dname.{EXAMPLE}")
    assert (rcode(reply), reply.answer, len(reply.authority)) == ("NOERROR", [], 1)
    (rrset,) = either(f"a.b.dname.{EXAMPLE}", "DNAME").answer
    assert rrset.name.to_text() == f"a.b.dname.{EXAMPLE}"


@pytest.mark.ours
def test_4_5_a_wildcard_with_srv(either: Client) -> None:
    (rrset,) = either(f"_ssh._tcp.srv.{EXAMPLE}", "SRV").answer
    assert rrset.name.to_text() == f"_ssh._tcp.srv.{EXAMPLE}"


@pytest.mark.ours
def test_4_9_an_empty_source_of_synthesis(either: Client) -> None:
    """Section 4.9: "If a source of synthesis is an empty non-terminal, then the response will be one of no error in the return
    code and no RRSet in the answer section."."""
    reply = either(f"any.empty.{EXAMPLE}")
    assert (rcode(reply), flags(reply), reply.answer, len(reply.authority)) == ("NOERROR", {"AA"}, [], 1)
    assert rcode(either(f"any.leaf.*.empty.{EXAMPLE}")) == "NXDOMAIN"
