"""RFC 1034: names, aliases, referrals, wildcards' place in the algorithm."""

from __future__ import annotations

import pytest

from tests.conformance.client import APEX, Client, flags, full, question, rcode, texts


def test_3_1_names_are_compared_without_case(either: Client) -> None:
    """Section 3.1: "domain name comparisons for all present domain functions are done in a case-insensitive manner"."""
    reply = either("ZeRo.CdN.eXaMpLe.NeT.")
    assert [str(rdata) for rrset in reply.answer for rdata in rrset] == ["192.0.2.104"]


def test_3_1_the_question_comes_back_as_it_was_written(either: Client) -> None:
    """Section 3.1: "When you receive a domain name or label, you should preserve its case"."""
    for name in ("ZeRo.CdN.eXaMpLe.NeT.", "NoWhErE.cDn.ExAmPlE.nEt.", "a.MoVeD.cdn.example.net."):
        wire = question(name).to_wire()
        assert either.exchange(wire)[12 : len(wire)] == wire[12:]


def test_3_6_2_a_cname_is_followed(either: Client) -> None:
    """Section 3.6.2: the server "includes the CNAME record in the response and restarts the query at the domain name
    specified in the data field of the CNAME record"."""
    reply = either("mail")
    assert texts(reply.answer) == ["mail CNAME mx1", "mx1 A 192.0.2.25"]
    assert flags(reply) == {"AA"}


def test_3_6_2_a_question_for_the_cname_is_not_restarted(either: Client) -> None:
    """Section 3.6.2: "The one exception to this rule is that queries which match the CNAME type are not restarted."."""
    assert texts(either("mail", "CNAME").answer) == ["mail CNAME mx1"]
    assert texts(either("old-shop", "CNAME").answer) == ["old-shop CNAME shop"]


def test_3_6_2_chains_are_followed_in_the_zone(either: Client) -> None:
    """Section 4.3.2 step 3a: "copy the CNAME RR into the answer section of the response, change QNAME to the canonical
    name in the CNAME RR, and go back to step 1"."""
    assert texts(either("old-shop", "HTTPS").answer) == [
        "old-shop CNAME shop",
        "shop CNAME www",
        'www HTTPS 1 . alpn="h3,h2" port="443"',
    ]


def test_3_6_2_a_chain_ends_where_the_zone_ends(either: Client) -> None:
    reply = either("partner")
    assert texts(reply.answer) == ["partner CNAME edge.partner.example."]
    assert (rcode(reply), flags(reply), reply.authority, reply.additional) == ("NOERROR", {"AA"}, [], [])


def test_3_7_recursion_is_not_offered(either: Client) -> None:
    """Section 3.7.1 / RFC 1035 section 4.1.1: RA "denotes whether recursive query support is available in the name server"."""
    for name in ("zero", "nowhere", "host.child", "www.example.com."):
        assert "RA" not in flags(either(name, rd=True))


@pytest.mark.parametrize("name", ["child", "host.child", "a.b.c.child", "ns1.child"])
def test_4_3_2_3b_a_referral(either: Client, name: str) -> None:
    """Section 4.3.2 step 3b: "Copy the NS RRs for the subzone into the authority section of the reply. Put whatever
    addresses are available into the additional section"."""
    for rtype in ("A", "NS", "ANY"):
        reply = either(name, rtype)
        assert (rcode(reply), flags(reply), reply.answer) == ("NOERROR", set(), [])
        assert sorted(texts(reply.authority)) == ["child NS ns1.child", "child NS ns2.child"]
        assert sorted(texts(reply.additional)) == [
            "ns1.child A 192.0.2.90",
            "ns1.child AAAA 2001:db8:90::1",
            "ns2.child A 198.51.100.90",
        ]


def test_4_3_2_3b_servers_elsewhere_have_no_glue(either: Client) -> None:
    reply = either("host.sub")
    assert (rcode(reply), flags(reply), reply.answer) == ("NOERROR", set(), [])
    assert texts(reply.authority) == ["sub NS ns.elsewhere.example."]
    assert reply.additional == []


def test_4_2_1_the_zone_s_own_servers_are_an_answer(either: Client) -> None:
    """Section 4.2.1: the NS RRs at the top of a zone are authoritative, those at the bottom are not."""
    reply = either("@", "NS")
    assert sorted(texts(reply.answer)) == ["@ NS ns1", "@ NS ns2"]
    assert flags(reply) == {"AA"}
    assert not any(text.startswith("@ SOA") for text in texts(reply.authority))


def test_4_3_2_2_other_zones_are_refused(either: Client) -> None:
    """Section 4.3.2 step 2 finds no zone for these; RFC 1035 section 4.1.1: "5 Refused - The name server refuses to
    perform the specified operation for policy reasons."."""
    for name in ("www.example.com.", "example.net.", "net.", ".", f"x{APEX}"):
        reply = either(name)
        assert (rcode(reply), flags(reply)) == ("REFUSED", set())
        assert [*reply.answer, *reply.authority, *reply.additional] == []


def test_4_3_2_labels_are_matched_whole(either: Client) -> None:
    r"""A label may hold any octet (RFC 2181 section 11), a dot too: "a\.b" is one label, and names nothing here."""
    assert rcode(either(full(r"leaf\.deep.tree"))) == "NXDOMAIN"
    assert rcode(either(full(r"any\.thing.wild"))) == "NOERROR"
    assert rcode(either(full(r"\000\255\032.wild"))) == "NOERROR"
