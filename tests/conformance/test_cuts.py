"""What lies above, at and below a cut, where one server has both sides of it: zones that only our own server has.

NSD and Knot answer these questions alike, but that NSD follows an alias into the other zone.
"""

from __future__ import annotations

import pytest

from tests.conformance.client import Client, flags, rcode, texts

pytestmark = pytest.mark.ours
ABOVE, BELOW, APEX_ALIAS = "corners.example.", "below.corners.example.", "aliased.example."
TYPES = ["A", "TXT", "MX", "NS", "CNAME", "DNAME", "SOA", "ANY", "TYPE65280"]


@pytest.mark.parametrize("name", ["hides", "a.hides", "b.hides", "c.hides", "x.c.hides", "any.hides", "*.hides"])
@pytest.mark.parametrize("rtype", TYPES)
def test_rfc1034_4_2_1_what_a_cut_hides_is_not_answered(either: Client, name: str, rtype: str) -> None:
    """RFC 1034 section 4.2.1: a zone's authoritative data end at its cuts; section 4.3.2 step 3b: "If a match would take us
    out of the authoritative data, we have a referral." Neither wildcards nor aliases nor the cut's own name are excepted."""
    reply = either(f"{name}.{ABOVE}", rtype)
    assert (rcode(reply), flags(reply), reply.answer) == ("NOERROR", set(), [])
    assert texts(reply.authority) == [f"hides.{ABOVE} NS ns1.{ABOVE}"]


def test_rfc4035_3_1_4_1_ds_of_what_is_cut_off_is_the_parent_s(either: Client) -> None:
    """Even where its child is served here too."""
    reply = either(BELOW, "DS")
    assert (rcode(reply), flags(reply), [rrset.rdtype.name for rrset in reply.answer]) == ("NOERROR", {"AA"}, ["DS"])
    none = either(f"hides.{ABOVE}", "DS")
    assert (rcode(none), flags(none), none.answer) == ("NOERROR", {"AA"}, [])
    assert [rrset.name.to_text() for rrset in none.authority] == [ABOVE]


def test_rfc4035_3_1_4_1_ds_where_only_the_child_is_served(either: Client) -> None:
    """Nobody here is the parent of corners.example: the child says that it has none, instead of refusing."""
    reply = either(ABOVE, "DS")
    assert (rcode(reply), flags(reply), reply.answer) == ("NOERROR", {"AA"}, [])
    assert [rrset.name.to_text() for rrset in reply.authority] == [ABOVE]


NEAREST = [("", "SOA", "NOERROR"), ("inside.", "A", "NOERROR"), ("nowhere.", "A", "NXDOMAIN")]


@pytest.mark.parametrize(("name", "rtype", "code"), NEAREST)
def test_rfc1034_4_3_2_2_the_nearest_zone_answers(either: Client, name: str, rtype: str, code: str) -> None:
    """RFC 1034 section 4.3.2 step 2: "Search the available zones for the zone which is the nearest ancestor to QNAME."."""
    reply = either(f"{name}{BELOW}", rtype)
    assert (rcode(reply), flags(reply)) == (code, {"AA"})
    owners = {rrset.name.to_text() for rrset in (*reply.answer, *reply.authority)}
    assert owners == {f"{name}{BELOW}" if reply.answer else BELOW}


@pytest.mark.parametrize(("name", "rtype"), [("nowhere.", "DS"), ("inside.", "DS"), ("", "A")])
def test_rfc4035_3_1_4_1_ds_below_the_cut_is_the_child_s(either: Client, name: str, rtype: str) -> None:
    reply = either(f"{name}{BELOW}", rtype)
    assert (flags(reply), reply.answer) == ({"AA"}, [])
    assert [rrset.name.to_text() for rrset in reply.authority] == [BELOW]


def test_an_alias_across_a_cut_ends_at_it(either: Client) -> None:
    """Downwards with the referral (AA is about the alias: RFC 1035 section 4.1.1), upwards with the alias alone."""
    down, up = either(f"into.{ABOVE}"), either(f"up.{BELOW}")
    assert (rcode(down), flags(down), texts(down.answer)) == ("NOERROR", {"AA"}, [f"into.{ABOVE} CNAME inside.{BELOW}"])
    assert texts(down.authority) == [f"{BELOW} NS ns1.{BELOW}"]
    assert (rcode(up), flags(up), texts(up.answer)) == ("NOERROR", {"AA"}, [f"up.{BELOW} CNAME zone.{ABOVE}"])
    assert up.authority == []


@pytest.mark.parametrize("name", ["a", "a.b", "*"])
@pytest.mark.parametrize("rtype", TYPES)
def test_rfc6672_2_3_a_dname_at_the_apex(either: Client, name: str, rtype: str) -> None:
    """Section 2.3: it leads away from every name below the apex, whatever the type."""
    reply = either(f"{name}.{APEX_ALIAS}", rtype)
    assert (rcode(reply), flags(reply), reply.authority) == ("NOERROR", {"AA"}, [])
    assert texts(reply.answer) == [
        f"{APEX_ALIAS} DNAME target.example.com.",
        f"{name}.{APEX_ALIAS} CNAME {name}.target.example.com.",
    ]


@pytest.mark.parametrize(("rtype", "count"), [("SOA", 1), ("NS", 1), ("MX", 1), ("DNAME", 1), ("A", 0), ("DS", 0)])
def test_rfc6672_2_3_beside_which_the_apex_keeps_its_own(either: Client, rtype: str, count: int) -> None:
    """Section 2.3: a DNAME at the apex takes the place of none of the apex' own sets."""
    reply = either(APEX_ALIAS, rtype)
    assert (rcode(reply), flags(reply), len(reply.answer), len(reply.authority)) == ("NOERROR", {"AA"}, count, 1 - count)
