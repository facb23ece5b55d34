"""RFC 7828: the idle timeout told over TCP."""

from __future__ import annotations

import time

import pytest

from tests.conformance.client import Client, coded, option, question, rcode, receive

KEEPALIVE = coded(11)


@pytest.mark.ours
@pytest.mark.parametrize("name", ["zero", "www", "nowhere", "host.child", "large"])
def test_3_3_2_told_to_who_asks(ask: Client, name: str) -> None:
    """Section 3.3.2: "A DNS server that receives a query sent using TCP transport that includes an OPT RR (with or without the
    edns-tcp-keepalive option) MAY include the edns-tcp-keepalive option in the response to signal the expected idle timeout on
    a connection." We tell who asks."""
    found = option(ask.over("tcp")(name, options=[KEEPALIVE]), 11)
    assert found is not None
    assert int.from_bytes(found.to_wire() or b"", "big") == 100  # 10 s in units of 100 ms


@pytest.mark.parametrize("name", ["zero", "www", "nowhere"])
def test_3_3_1_never_over_udp(ask: Client, name: str) -> None:
    """Section 3.3.1: "A DNS server that receives a query using UDP transport that includes the edns-tcp-keepalive option MUST
    ignore the option."."""
    reply = ask(name, options=[KEEPALIVE])
    assert option(reply, 11) is None
    assert rcode(reply) == rcode(ask(name))


def test_nor_unless_asked(ask: Client) -> None:
    assert option(ask.over("tcp")("zero", edns=0), 11) is None


@pytest.mark.ours
def test_3_4_the_connection_lives_for_as_long_as_it_was_told(ask: Client) -> None:
    """The idle time begins anew with each query."""
    wire = question("zero", options=[KEEPALIVE]).to_wire()
    with ask.stream() as sock:
        for _ in range(3):
            sock.sendall(len(wire).to_bytes(2, "big") + wire)
            assert receive(sock)[:2] == wire[:2]
            time.sleep(0.4)


def test_3_2_1_a_timeout_in_the_query_is_no_mistake(ask: Client) -> None:
    """Section 3.2.1: "Clients MUST specify an OPTION-LENGTH of 0 and omit the TIMEOUT value."; none is silenced."""
    assert rcode(ask.over("tcp")("zero", options=[coded(11, b"\0\x64")])) in ("NOERROR", "FORMERR")
