"""What is too large, too long or circular: the zone of corners.yaml, which only our own server has."""

from __future__ import annotations

import dns.message
import pytest

from tests.conformance.client import Client, How, flags, question, rcode

pytestmark = pytest.mark.ours
ZONE = "corners.example."


@pytest.mark.parametrize("payload", [None, 512, 600, 800, 1232, 4096])
@pytest.mark.parametrize(("name", "rtype", "count"), [("twenty", "AAAA", 20), ("sixty", "AAAA", 60), ("huge", "TXT", 40)])
def test_2181_9_all_of_a_set_or_tc(ask: Client, name: str, rtype: str, count: int, payload: int | None) -> None:
    """RFC 2181 section 9 sets TC where a set that is required does not fit whole; we leave no part of it behind."""
    how: How = {} if payload is None else {"edns": 0, "payload": payload}
    query = question(f"{name}.{ZONE}", rtype, **how)
    wire = ask.exchange(query.to_wire())
    reply = ask.send(query)
    assert len(wire) <= min(max(payload or 512, 512), 1232)
    whole = ask.over("tcp").send(query)
    assert [len(rrset) for rrset in whole.answer] == [count]
    assert "TC" not in flags(whole)
    fits = len(ask.over("tcp").exchange(query.to_wire())) <= min(max(payload or 512, 512), 1232)
    assert flags(reply) == ({"AA"} if fits else {"AA", "TC"})
    assert [len(rrset) for rrset in reply.answer] == ([count] if fits else [])


def test_6891_7_truncated_replies_keep_their_opt(ask: Client) -> None:
    """RFC 6891 section 7: "The minimal response MUST be the DNS header, question section, and an OPT record. This MUST also
    occur when a truncated response (using the DNS header's TC bit) is returned."."""
    reply = ask(f"huge.{ZONE}", "TXT", do=True)
    assert "TC" in flags(reply)
    assert (reply.edns, len(reply.question)) == (0, 1)


def test_a_chain_to_what_does_not_fit(ask: Client) -> None:
    reply = ask(f"to-huge.{ZONE}", "TXT", edns=0)
    assert "TC" in flags(reply)
    assert [len(rrset) for rrset in ask.over("tcp")(f"to-huge.{ZONE}", "TXT").answer] == [1, 40]


@pytest.mark.parametrize(("name", "links"), [("self", 1), ("ping", 2), ("pong", 2)])
def test_1034_3_6_2_circles_end(either: Client, name: str, links: int) -> None:
    """RFC 1034 section 3.6.2: "CNAME chains should be followed and CNAME loops signalled as an error": by who resolves them.
    The server gives each link once."""
    reply = either(f"{name}.{ZONE}")
    assert rcode(reply) in ("NOERROR", "SERVFAIL")
    assert sum(len(rrset) for rrset in reply.answer) == links


@pytest.mark.parametrize("rtype", ["A", "AAAA", "TYPE65280"])
def test_1034_4_3_2_3a_sixteen_links_have_an_end(either: Client, rtype: str) -> None:
    """RFC 1034 section 4.3.2 step 3a sets no bound; this is ours."""
    reply = either(f"link00.{ZONE}", rtype)
    assert [rrset.rdtype.name for rrset in reply.answer][:16] == ["CNAME"] * 16
    assert [rrset[0].to_text() for rrset in reply.answer[16:]] == (["192.0.2.16"] if rtype == "A" else [])
    assert [rrset.rdtype.name for rrset in reply.authority] == ([] if rtype == "A" else ["SOA"])


def test_2181_5_a_dname_met_twice_is_given_once(either: Client) -> None:
    """RFC 2181 section 5: "servers should suppress such duplicates if encountered"."""
    wire = either.exchange(question(f"one.again.{ZONE}").to_wire())
    reply = dns.message.from_wire(wire, one_rr_per_rrset=True)  # else it would merge them
    assert [rrset.rdtype.name for rrset in reply.answer] == ["DNAME", "CNAME", "CNAME", "CNAME", "A"]


@pytest.mark.parametrize("rtype", ["A", "DNAME", "ANY"])
def test_6672_a_dname_to_below_itself_is_followed_once(either: Client, rtype: str) -> None:
    """It would be met again by a longer name each time, until none longer can be made."""
    reply = either(f"x.grows.{ZONE}", rtype)
    assert (rcode(reply), flags(reply), reply.authority) == ("NOERROR", {"AA"}, [])
    assert [rrset.rdtype.name for rrset in reply.answer] == ["DNAME", "CNAME"]
    assert reply.answer[1][0].to_text() == f"x.deeper.grows.{ZONE}"


def test_6672_2_2_too_long_a_name_is_yxdomain(either: Client) -> None:
    """RFC 6672 section 2.2: a substitution that makes a name longer than 255 octets is answered YXDOMAIN, with the DNAME."""
    fits, too_long = ".".join(["f" * 50] * 3), ".".join(["t" * 50] * 4)
    assert rcode(either(f"{fits}.short.{ZONE}")) == "NXDOMAIN"
    reply = either(f"{too_long}.short.{ZONE}")
    assert (rcode(reply), flags(reply)) == ("YXDOMAIN", {"AA"})
    assert [rrset.rdtype.name for rrset in reply.answer] == ["DNAME"]


@pytest.mark.parametrize("payload", [None, 512, 1232])
def test_9471_3_1_glue_that_does_not_fit_means_tc(ask: Client, payload: int | None) -> None:
    """RFC 9471 section 3.1: it "MUST set TC=1 if constrained by message size"."""
    how: How = {} if payload is None else {"edns": 0, "payload": payload}
    query = question(f"host.many.{ZONE}", "A", **how)
    reply, whole = ask.send(query), ask.over("tcp").send(query)
    assert len(whole.additional) == 26
    assert "TC" in flags(reply) or len(reply.additional) == 26
    assert ("TC" in flags(reply)) == (payload != 1232)


def test_7766_5_a_reply_may_fill_a_message(ask: Client) -> None:
    """65,535 octets are what the length of RFC 1035 section 4.2.2 can say; a set may have 65,000 of them."""
    query = question("full.full.example.", "TXT", edns=0, payload=512)
    wire = ask.over("tcp").exchange(query.to_wire())
    assert 64_850 < len(wire) <= 65_535
    assert [len(rrset) for rrset in ask.over("tcp").send(query).answer] == [242]
    assert "TC" in flags(ask.send(query))
