"""RFC 9460 (SVCB, HTTPS), and what else goes into the additional section beside glue: RFC 1034 section 4.3.2 step 6."""

from __future__ import annotations

import pytest

from tests.conformance.client import Client, flags, texts

HOSTS = [
    ("_dns", "SVCB", ["ns1 A 192.0.2.53", "ns1 AAAA 2001:db8:53::1"]),
    ("@", "MX", ["mx1 A 192.0.2.25", "mx1 AAAA 2001:db8:25::1", "mx2 A 198.51.100.25"]),
    ("_sip._udp", "SRV", ["mx1 A 192.0.2.25", "mx1 AAAA 2001:db8:25::1", "sip A 192.0.2.60"]),
    ("@", "NS", ["ns1 A 192.0.2.53", "ns1 AAAA 2001:db8:53::1", "ns2 A 198.51.100.53", "ns2 AAAA 2001:db8:53::2"]),
]


@pytest.mark.parametrize(("name", "rtype", "hosts"), HOSTS)
def test_4_1_addresses_of_target_names(either: Client, name: str, rtype: str, hosts: list[str]) -> None:
    """Section 4.1: "When replying to an SVCB query, authoritative DNS servers SHOULD return A, AAAA, and SVCB records in the
    Additional section for any TargetNames that are in the zone."; RFC 1035 section 3.3 for MX, NS; RFC 2782: SRV."""
    reply = either(name, rtype, edns=0)
    assert set(hosts) <= set(texts(reply.additional))
    assert flags(reply) == {"AA"}


@pytest.mark.ours
@pytest.mark.parametrize(("name", "rtype", "hosts"), HOSTS)
def test_4_1_and_nothing_else(either: Client, name: str, rtype: str, hosts: list[str]) -> None:
    reply = either(name, rtype, edns=0)
    assert sorted(texts(reply.additional)) == hosts
    assert reply.authority == []


@pytest.mark.ours
def test_4_1_the_alias_form_gets_the_target_s_records(either: Client) -> None:
    assert texts(either("alias", "HTTPS").additional) == ['www HTTPS 1 . alpn="h3,h2" port="443"']


@pytest.mark.steered
@pytest.mark.parametrize(("name", "subnet"), [("www", ""), ("alias", ""), ("@", ""), ("www", "198.51.100.0/24")])
def test_steered_addresses_are_not_added(either: Client, name: str, subnet: str) -> None:
    """Section 4.4: "Authoritative servers MUST omit such records if they are not suitable for use by any stub resolvers that
    set SOURCE PREFIX-LENGTH to zero.": who wants them asks, and gets their own."""
    reply = either(name, "HTTPS", subnet=subnet)
    assert not [text for text in texts(reply.additional) if " A " in text or " AAAA " in text]


def test_2_2_parameters_are_in_order(either: Client) -> None:
    """Section 2.2: "SvcParamKeys SHALL appear in increasing numeric order." in the wire format."""
    ((record,),) = either("_dns", "SVCB").answer
    assert list(record.params) == sorted(record.params)


def test_2_5_a_root_target_stands_for_the_owner(either: Client) -> None:
    """Section 2.5.2: "For ServiceMode SVCB RRs, if TargetName has the value ".", then the owner name of this record MUST be
    used as the effective TargetName.": by the client; in the record it stays as it is."""
    assert texts(either("@", "HTTPS").answer) == ['@ HTTPS 1 . alpn="h3,h2"']


def test_extra_addresses_never_set_tc(ask: Client) -> None:
    """RFC 2181 section 9: "The TC bit should not be set merely because some extra information could have been included, but
    there was insufficient room."."""
    reply = ask("@", "NS")
    assert "TC" not in flags(reply)


def test_4_1_a_target_that_only_a_wildcard_makes(either: Client) -> None:
    reply = either("at-wild", "HTTPS")
    assert texts(reply.answer) == ['at-wild HTTPS 1 any.wild alpn="h2"']
    owners = {text.split()[0] for text in texts(reply.additional)}
    assert owners - {"ns1", "ns2"} <= {"any.wild"}


@pytest.mark.ours
def test_4_1_it_is_in_the_zone_too(either: Client) -> None:
    assert texts(either("at-wild", "HTTPS").additional) == ["any.wild A 192.0.2.80"]


def test_2_5_1_a_service_that_does_not_exist_has_no_address(either: Client) -> None:
    """Section 2.5.1: "For AliasMode SVCB RRs, a TargetName of "." indicates that the service is not available or does not
    exist.": the owner's own addresses are not the service's."""
    reply = either("closed", "HTTPS")
    assert texts(reply.answer) == ["closed HTTPS 0 ."]
    assert "closed A 192.0.2.106" not in texts(reply.additional)
    assert texts(either("closed").answer) == ["closed A 192.0.2.106"]
