"""RFC 7871: client subnets."""

from __future__ import annotations

import dns.message
import pytest

from tests.conformance.client import Client, flags, question, rcode, subnet_of, texts
from tests.conformance.test_rfc6891 import opt, with_records

OFFICE = ["203.0.113.10", "203.0.113.11"]  # cedar
UNSTEERED = [("zero", "A"), ("nowhere", "A"), ("zero", "MX"), ("@", "TXT"), ("any.wild", "A"), ("mail", "A"), ("www", "TXT")]
SUBNETS = ["198.51.100.0/24", "198.51.100.9/32", "80.128.0.0/11", "203.0.113.128/25", "0.0.0.0/1", "2001:db8:ff::/48"]
SUBNETS += ["2001:db8:ff::9/128", "2a00::/12", "::/1", "10.0.0.0/8"]


def addresses(reply: dns.message.Message) -> list[str]:
    return sorted(rdata.to_text() for rrset in reply.answer if rrset.rdtype.name in ("A", "AAAA") for rdata in rrset)


def scope(reply: dns.message.Message) -> int:
    return int(subnet_of(reply).rpartition("/")[2])


@pytest.mark.steered
@pytest.mark.parametrize("subnet", SUBNETS)
@pytest.mark.parametrize(("name", "rtype"), [("www", "A"), ("www", "AAAA"), *UNSTEERED, ("host.child", "A")])
def test_7_2_1_the_option_comes_back(either: Client, name: str, rtype: str, subnet: str) -> None:
    """Section 7.2.1: "FAMILY, SOURCE PREFIX-LENGTH, and ADDRESS in the response MUST match those in the query."."""
    reply = either(name, rtype, subnet=subnet)
    assert subnet_of(reply).rpartition("/")[0] == subnet


@pytest.mark.parametrize("name", ["www", "zero", "nowhere", "shop"])
def test_7_2_1_none_unless_asked(either: Client, name: str) -> None:
    """Section 7.2.1: "If an ECS option was not included in a query, one MUST NOT be included in the response"."""
    assert subnet_of(either(name, edns=0)) == ""
    assert either(name).edns == -1


@pytest.mark.steered
@pytest.mark.parametrize("subnet", SUBNETS)
@pytest.mark.parametrize(("name", "rtype"), UNSTEERED)
def test_7_2_1_scope_0_where_nothing_depends_on_it(either: Client, name: str, rtype: str, subnet: str) -> None:
    """Section 12.1: "If the option is supported but not actually used for generating a response, its SCOPE PREFIX-LENGTH
    MUST be set to 0."; section 7.4 says so of negative answers."""
    assert scope(either(name, rtype, subnet=subnet)) == 0


@pytest.mark.steered
def test_7_2_1_the_subnet_decides_and_not_the_resolver(either: Client) -> None:
    assert addresses(either("www", subnet="198.51.100.0/24")) == OFFICE
    assert addresses(either("www", subnet="192.0.2.0/24")) != OFFICE
    assert addresses(either("www", "AAAA", subnet="2001:db8:ff::/48")) == ["2001:db8:c1::10", "2001:db8:c1::11"]
    assert addresses(either("www", "A", subnet="2001:db8:ff::/48")) == OFFICE
    assert addresses(either("www", "AAAA", subnet="198.51.100.0/24")) == ["2001:db8:c1::10", "2001:db8:c1::11"]


@pytest.mark.steered
def test_7_2_1_a_scope_covers_nobody_with_another_answer(either: Client) -> None:
    """The office is 198.51.100.0/24, and 192.0.2.0/25 is pinned by one rule: their scopes separate them from neighbours."""
    assert scope(either("www", subnet="198.51.100.0/24")) == 24
    assert scope(either("www", subnet="198.51.100.9/32")) == 24
    assert scope(either("www", subnet="198.51.0.0/16")) >= 18  # the first address of it is outside; the office is not covered
    assert scope(either("v4", subnet="192.0.2.0/25")) == scope(either("v4", subnet="192.0.2.7/32")) == 25
    assert scope(either("v4", subnet="192.0.2.128/25")) == 25
    assert scope(either("v4", subnet="192.0.2.0/24")) == 25


@pytest.mark.steered
def test_7_2_1_addresses_of_a_scope_are_answered_alike(ask: Client) -> None:
    for subnet in ("198.51.100.0/24", "80.128.0.0/24", "203.0.113.128/25", "10.0.0.0/8", "1.1.1.0/24"):
        first = ask("www", subnet=subnet)
        base, covered = subnet.partition("/")[0], scope(first)
        value = int.from_bytes(bytes(map(int, base.split("."))), "big") >> 32 - covered << 32 - covered if covered else 0
        for offset in (0, (1 << 32 - covered) - 1, (1 << 32 - covered) // 3):
            text = ".".join(map(str, ((value + offset) % 2**32).to_bytes(4, "big")))
            other = ask("www", subnet=f"{text}/32")
            assert (addresses(other), scope(other)) == (addresses(first), covered)


@pytest.mark.steered
@pytest.mark.parametrize("subnet", ["0.0.0.0/0", "::/0"])
def test_7_2_1_a_source_of_0_asks_for_the_resolver_s_own(either: Client, subnet: str) -> None:
    """Section 7.1.2: with SOURCE PREFIX-LENGTH 0 nothing of a client is known; the answer's scope is 0 too."""
    reply = either("www", subnet=subnet)
    assert subnet_of(reply) == f"{subnet}/0"
    assert addresses(reply) == addresses(either("www"))


@pytest.mark.steered
@pytest.mark.parametrize("name", ["shop", "old-shop", "any.cname"])
def test_7_2_1_a_chain_to_a_steered_name_stops_after_its_first_link(either: Client, name: str) -> None:
    """Section 7.2.1: "For the specific case of a Canonical Name (CNAME) chain, the Authoritative Nameserver SHOULD only place
    the initial CNAME record in the Answer section, to have it cached unambiguously and appropriately."."""
    reply = either(name, subnet="198.51.100.0/24")
    assert len(reply.answer) == 1
    assert texts(reply.answer)[0].startswith(f"{name} CNAME ")
    assert (scope(reply), flags(reply)) == (0, {"AA"})
    assert len(either(name, edns=0).answer) > 1


MALFORMED = {
    "an unknown family": b"\0\x03\x18\0\xc6\x33\x64",
    "family 0 with a prefix": b"\0\0\x18\0\xc6\x33\x64",
    "too long a prefix": b"\0\x01\x21\0\xc6\x33\x64\0\0",
    "too few octets": b"\0\x01\x18\0\xc6\x33",
    "too many octets": b"\0\x01\x18\0\xc6\x33\x64\0",
    "set host bits": b"\0\x01\x17\0\xc6\x33\x65",
    "a scope in a query": b"\0\x01\x18\x18\xc6\x33\x64",
    "no octet at all": b"",
    "three octets": b"\0\x01\x18",
    "IPv6 of 129 bits": b"\0\x02\x81\0" + bytes(17),
}


@pytest.mark.steered
@pytest.mark.parametrize("wrong", MALFORMED)
def test_7_2_1_a_wrong_option_is_a_format_error(either: Client, wrong: str) -> None:
    """Section 7.2.1: "A query with a wrongly formatted option (e.g., an unknown FAMILY) MUST be rejected and a FORMERR
    response MUST be returned to the sender"."""
    for name in ("www", "zero"):
        reply = either.send(with_records(question(name).to_wire(), opt(8, MALFORMED[wrong])))
        assert (rcode(reply), reply.edns, reply.answer) == ("FORMERR", 0, [])
        assert subnet_of(reply) == ""
