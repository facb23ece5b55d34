"""RFC 7871 to the bit: scopes at the edges of what the rules tell apart, and between any two addresses answered otherwise."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from itertools import pairwise
from random import Random

import pytest

from tests.conformance.client import Client, rcode, subnet_of

pytestmark = pytest.mark.steered
EDGES = ["198.51.100.0/24", "203.0.113.128/25", "192.0.2.0/25", "2001:db8:ff::/48", "80.128.0.0/11", "8.8.8.0/24"]
Asked = tuple[int, list[str], int]


def bits(version: int) -> int:
    return 32 if version == 4 else 128


def ask_for(ask: Client, name: str, rtype: str, version: int, value: int, length: int) -> Asked:
    """(address, its answer, its scope)"""
    host = ip_address(value) if version == 4 else ip_address(value.to_bytes(16, "big"))
    reply = ask(name, rtype, subnet=f"{host}/{length}")
    assert rcode(reply) == "NOERROR"
    data = sorted(rdata.to_text() for rrset in reply.answer for rdata in rrset)
    return value, data, int(subnet_of(reply).rpartition("/")[2])


def sample(version: int, dice: Random) -> list[int]:
    """Both sides of each edge, and addresses made by dice, in order."""
    found = set()
    for network in (each for each in map(ip_network, EDGES) if each.version == version):
        first, last = int(network.network_address), int(network.broadcast_address)
        found |= {first - 1, first, last, last + 1}
    top = 2**32 if version == 4 else 2**128
    made = {dice.randrange(top) if version == 4 else 0x2A00 << 112 | dice.getrandbits(20) << 96 for _ in range(120)}
    return sorted(value for value in found | made if 0 <= value < top)


def common(version: int, one: int, other: int) -> int:
    """How many bits two addresses share at their beginning."""
    return bits(version) - (one ^ other).bit_length()


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize(("name", "rtype"), [("www", "A"), ("www", "AAAA"), ("v4", "A"), ("@", "A"), ("x.apps", "A")])
def test_7_2_1_no_scope_covers_two_answers(ask: Client, name: str, rtype: str, version: int) -> None:
    """Section 7.2.1: "The SCOPE PREFIX-LENGTH in the response indicates the network for which the answer is intended."; and "an
    Authoritative Nameserver MUST NOT overlap prefixes": two addresses with other answers lie in no scope together, and of two
    with the same scope neither's is covered by a shorter one."""
    dice = Random(7871)
    told = [ask_for(ask, name, rtype, version, value, bits(version)) for value in sample(version, dice)]
    for (one, data, scope), (other, others, other_scope) in pairwise(told):
        if data != others:
            assert min(scope, other_scope) > common(version, one, other)
        elif common(version, one, other) >= min(scope, other_scope):
            assert scope == other_scope


def test_6_a_source_of_24_around_a_differing_25(ask: Client) -> None:
    """The lab is 203.0.113.128/25, and 192.0.2.0/25 has an answer of its own: asked for the /24 the scope says that half of it
    was meant, the half of the address padded with zero bits."""
    for name, network in (("www", "203.0.113.0"), ("v4", "192.0.2.0")):
        value = int(ip_address(network))
        asked = ask_for(ask, name, "A", 4, value, 24)
        assert asked[2] >= 25
        assert asked == ask_for(ask, name, "A", 4, value, 32)


@pytest.mark.parametrize("source", [0, 1, 7, 8, 9, 23, 24, 25, 31, 32])
def test_7_1_1_every_length_of_source(ask: Client, source: int) -> None:
    value = int(ip_address("198.51.100.9")) >> 32 - source << 32 - source if source else 0
    _, data, scope = ask_for(ask, "www", "A", 4, value, source)
    if not source:
        assert scope == 0
    else:
        assert (data, scope) == ask_for(ask, "www", "A", 4, value, 32)[1:]


@pytest.mark.parametrize(("name", "network"), [("v4", "192.0.2.0/24"), ("www", "203.0.113.0/24")])
def test_7_2_1_every_address_of_a_24_that_holds_a_differing_25(ask: Client, name: str, network: str) -> None:
    """By brute force: each half has one answer, and its own scope of 25."""
    told = [ask_for(ask, name, "A", 4, int(address), 32) for address in ip_network(network)]
    for half in (told[:128], told[128:]):
        assert {scope for _, _, scope in half} == {25}
        assert len({tuple(data) for _, data, _ in half}) == 1
    assert told[0][1] == ["192.0.2.10"]
    assert name == "www" or told[128][1] == ["192.0.2.140"]


def test_7_4_where_some_have_an_answer_nodata_is_of_the_others_alone(ask: Client) -> None:
    """Section 7.4 would have negative answers at scope 0, lest caches that keep them so hide what others have; at scope 0 all
    caches would. `v4` gives IPv6 addresses to 192.0.2.0/25 alone: the NODATA of the rest does not cover that half."""
    inside, outside = (ask("v4", "AAAA", subnet=f"192.0.2.{octet}/32") for octet in (7, 200))
    assert [len(inside.answer), len(outside.answer)] == [1, 0]
    assert [subnet_of(reply).rpartition("/")[2] for reply in (inside, outside)] == ["25", "25"]


def test_7_4_where_nobody_has_an_answer_nodata_is_for_all(ask: Client) -> None:
    """dogwood has no IPv6 address, and nobody is given another provider: the scope is 0. IPv4 is steered as ever."""
    reply = ask("nobody6.corners.example.", "AAAA", subnet="192.0.2.7/32")
    assert (rcode(reply), len(reply.answer), subnet_of(reply)) == ("NOERROR", 0, "192.0.2.7/32/0")
    assert subnet_of(ask("nobody6.corners.example.", "A", subnet="192.0.2.7/32")) == "192.0.2.7/32/25"


@pytest.mark.parametrize(("private", "space"), [("10.1.2.0/24", 8), ("172.20.1.0/24", 12), ("192.168.1.0/24", 16)])
def test_10_a_scope_covers_private_space_and_no_more(ask: Client, private: str, space: int) -> None:
    """Section 10: "it SHOULD set SCOPE PREFIX-LENGTH to cover all of the relevant private space." The answer is the nominal one
    for any resolver (unless a rule names that space): what one told a shared cache would be as right for the next."""
    reply = ask("www", subnet=private)
    assert (rcode(reply), subnet_of(reply)) == ("NOERROR", f"{private}/{space}")


def test_a_and_aaaa_go_by_the_same_network(ask: Client) -> None:
    """A client subnet of either family steers both types, and its scope is the same for both."""
    for address in map(ip_address, ("80.128.77.1", "2001:db8:ff::9", "198.51.100.9")):
        version, value = address.version, int(address)
        scopes = {ask_for(ask, "www", rtype, version, value, bits(version))[2] for rtype in ("A", "AAAA")}
        assert len(scopes) == 1
