"""RFC 7828: the idle timeout told over TCP."""

from __future__ import annotations

import dns.edns
import pytest
from client import Client, option, rcode

KEEPALIVE = dns.edns.GenericOption(11, b"")


@pytest.mark.ours
@pytest.mark.parametrize("name", ["zero", "www", "nowhere", "host.child", "large"])
def test_3_3_2_told_to_who_asks(ask: Client, name: str) -> None:
    """Section 3.3.2: "A DNS server that receives a query ... including the edns-tcp-keepalive option MAY include the
    edns-tcp-keepalive option in the response to advertise the idle timeout"."""
    found = option(ask.over("tcp")(name, options=[KEEPALIVE]), 11)
    assert found is not None
    assert int.from_bytes(found.to_wire() or b"", "big") == 100  # 10 s in units of 100 ms


@pytest.mark.parametrize("name", ["zero", "www", "nowhere"])
def test_3_3_2_never_over_udp(ask: Client, name: str) -> None:
    """Section 3.3.2: "A DNS server MUST NOT include the edns-tcp-keepalive option in responses sent over UDP"; section 3.2.1:
    servers ignore it there."""
    reply = ask(name, options=[KEEPALIVE])
    assert option(reply, 11) is None
    assert rcode(reply) == rcode(ask(name))


def test_nor_unless_asked(ask: Client) -> None:
    assert option(ask.over("tcp")("zero", edns=0), 11) is None
