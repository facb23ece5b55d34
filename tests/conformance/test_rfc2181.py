"""RFC 2181: where replies come from, and what a set of records is."""

from __future__ import annotations

import socket

import dns.message
import pytest

from tests.conformance.client import Client, Server, flags, question, rcode, texts


@pytest.mark.ours
@pytest.mark.parametrize("transport", ["udp", "tcp"])
@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "127.9.8.7", "::1"])
def test_4_1_replies_leave_from_the_address_that_was_asked(server: Server, host: str, transport: str) -> None:
    """Section 4.1: "servers when responding to queries using UDP must cause the reply to be sent with the source address
    field in the IP header set to the address that was in the destination address field of the IP header of the packet
    containing the query causing the response". Here 0.0.0.0 and :: are listened on; the sockets take no other reply."""
    asking = Client(host, server.every_port, transport)
    for name in ("zero", "www", "nowhere"):
        assert asking(name).question


@pytest.mark.ours
@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_several_addresses_are_served_alike(server: Server, transport: str) -> None:
    asking = Client(server.host, server.port, transport)
    for name, rtype in (("zero", "A"), ("pool", "A"), ("nowhere", "A"), ("host.child", "A"), ("shop", "CNAME")):
        wire = question(name, rtype, edns=0).to_wire()
        assert len({asking.at(host).exchange(wire) for host in server.hosts}) == 1


@pytest.mark.ours
def test_one_address_is_not_another(server: Server) -> None:
    """What listens at 127.0.0.1 and 127.0.0.2 doesn't at 127.0.0.3."""
    with pytest.raises(OSError, match="refused"):
        Client("127.0.0.3", server.port, "tcp")("zero")


def test_4_2_replies_go_to_the_port_that_asked(ask: Client) -> None:
    """Section 4.2: "Replies to all queries must be directed to the port from which they were sent."."""
    with ask.datagrams() as one, ask.datagrams() as other:
        first, second = question("zero").to_wire(), question("pool").to_wire()
        one.send(first)
        other.send(second)
        assert one.recv(1500)[:2] == first[:2]
        assert other.recv(1500)[:2] == second[:2]
        one.settimeout(0.1)
        with pytest.raises(socket.timeout):
            one.recv(1500)


@pytest.mark.parametrize("name", ["pool", "@", "_sip._udp", "child"])
def test_5_2_one_ttl_in_a_set(either: Client, name: str) -> None:
    """Section 5.2: "the TTLs of all RRs in an RRSet must be the same"."""
    for rtype in ("A", "MX", "NS", "SRV"):
        wire = question(name, rtype).to_wire()
        reply = dns.message.from_wire(either.exchange(wire), one_rr_per_rrset=True)
        for section in (reply.answer, reply.authority):
            ttls = {(each.name, each.rdtype, each.ttl) for each in section}
            assert len(ttls) == len({(owner, rtype) for owner, rtype, _ in ttls})


def test_5_no_record_twice(either: Client) -> None:
    """Section 5: "servers should suppress such duplicates if encountered"; dnspython would hide them: each record is read
    by itself."""
    for name, rtype in (("pool", "A"), ("@", "TXT"), ("old-shop", "A"), ("host.child", "A")):
        reply = dns.message.from_wire(either.exchange(question(name, rtype).to_wire()), one_rr_per_rrset=True)
        for section in (reply.answer, reply.authority, reply.additional):
            found = texts(section)
            assert len(found) == len(set(found))


def test_8_a_ttl_of_nothing_is_kept(either: Client) -> None:
    """Section 8: a TTL is "an unsigned number, with a minimum value of 0"."""
    assert either("zero").answer[0].ttl == 0


def test_9_tc_only_where_something_required_is_missing(either: Client) -> None:
    """Section 9: "The TC bit should be set in responses only when an RRSet is required as a part of the response, but could
    not be included in its entirety."."""
    for name, rtype in (("zero", "A"), ("@", "MX"), ("nowhere", "A"), ("host.child", "A"), ("old-shop", "A")):
        assert "TC" not in flags(either(name, rtype))


def test_10_1_a_cname_stands_alone(either: Client) -> None:
    """Section 10.1: nothing but the alias is known of an alias' name: a question for any other type is about its target."""
    for rtype in ("AAAA", "MX", "NS", "SOA", "TXT", "TYPE65280"):
        reply = either("mail", rtype)
        assert texts(reply.answer)[0] == "mail CNAME mx1"
        assert rcode(reply) == "NOERROR"
