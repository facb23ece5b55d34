"""RFC 7766 (and 5966): TCP."""

from __future__ import annotations

import socket
import struct
import time

import dns.message
import pytest

from tests.conformance.client import Client, question, receive, texts

NAMES = ["zero", "pool", "mail", "nowhere", "host.child", "any.wild", "@", "www"]


def framed(*wires: bytes) -> bytes:
    return b"".join(struct.pack("!H", len(wire)) + wire for wire in wires)


def queries(count: int) -> list[bytes]:
    found = []
    for number in range(count):
        query = question(NAMES[number % len(NAMES)])
        query.id = number
        found.append(query.to_wire())
    return found


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("rtype", ["A", "AAAA", "TXT"])
def test_5_both_transports_say_the_same(ask: Client, name: str, rtype: str) -> None:
    """Section 5: "All general-purpose DNS implementations MUST support both UDP and TCP transport."."""
    wire = question(name, rtype, edns=0).to_wire()
    assert ask.exchange(wire) == ask.over("tcp").exchange(wire)


def test_6_2_1_1_queries_are_pipelined(ask: Client) -> None:
    """Section 6.2.1.1: clients send queries without waiting for the replies; each is answered, matched by its id."""
    wires = queries(200)
    with ask.stream() as sock:
        sock.sendall(framed(*wires))
        replies = [receive(sock) for _ in wires]
    assert sorted(reply[:2] for reply in replies) == sorted(wire[:2] for wire in wires)
    by_id = {reply[:2]: reply for reply in replies}
    for wire in wires[:8]:
        assert by_id[wire[:2]] == ask.exchange(wire)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 50])
def test_8_messages_may_be_cut_anywhere(ask: Client, size: int) -> None:
    """Section 8: the length field and the message may come in several segments, and several messages in one."""
    wires = queries(6)
    octets = framed(*wires)
    with ask.stream() as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(0, len(octets), size):
            sock.send(octets[at : at + size])
            if at < 120:
                time.sleep(0.001)  # so that these at least leave one by one
        assert [receive(sock)[:2] for _ in wires] == [wire[:2] for wire in wires]


def test_6_2_1_a_connection_is_used_again(ask: Client) -> None:
    """Section 6.2.1: servers keep a connection open for further queries."""
    with ask.stream() as sock:
        for wire in queries(20):
            sock.sendall(framed(wire))
            assert receive(sock)[:2] == wire[:2]


def test_6_2_1_a_half_closed_connection_is_answered(ask: Client) -> None:
    wire = question("zero").to_wire()
    with ask.stream() as sock:
        sock.sendall(framed(wire))
        sock.shutdown(socket.SHUT_WR)
        assert receive(sock)[:2] == wire[:2]
        assert sock.recv(1) == b""


def test_one_slow_client_delays_nobody(ask: Client) -> None:
    with ask.stream() as slow:
        slow.sendall(framed(question("zero").to_wire())[:5])
        began = time.monotonic()
        for _ in range(5):
            assert texts(ask.over("tcp")("zero").answer) == ["zero A 192.0.2.104"]
        assert time.monotonic() - began < 2


def test_an_empty_message_ends_nothing_for_others(ask: Client) -> None:
    with ask.stream() as sock:
        sock.sendall(b"\0\0")
    with ask.stream() as sock:
        sock.sendall(b"\xff\xff" + bytes(100))
    assert texts(ask.over("tcp")("zero").answer) == ["zero A 192.0.2.104"]


def test_5_replies_over_tcp_are_not_truncated(ask: Client) -> None:
    """Section 5: servers support TCP "so that they do not limit the size of responses to what fits in a single UDP packet"."""
    for name in NAMES:
        reply = dns.message.from_wire(ask.over("tcp").exchange(question(name).to_wire()))
        assert not reply.flags & 0x0200


@pytest.mark.parametrize("said", [b"", b"\0", b"\0\x20", b"\0\x20abc", b"\xff\xff" + bytes(1000)])
@pytest.mark.parametrize("half", [True, False])
def test_8_a_stream_that_ends_within_a_message_is_closed_and_nothing_answered(ask: Client, said: bytes, half: bool) -> None:
    """Section 8: only whole messages are messages; what is left of one is dropped with the connection."""
    wire = question("zero").to_wire()
    with ask.stream() as sock:
        sock.sendall(framed(wire) + said)
        assert receive(sock)[:2] == wire[:2]
        if half:
            sock.shutdown(socket.SHUT_WR)
            assert sock.recv(1) == b""
    assert texts(ask.over("tcp")("zero").answer) == ["zero A 192.0.2.104"]


def test_8_each_octet_a_segment_of_its_own_on_many_connections_at_once(ask: Client) -> None:
    """Nobody waits for another's octets: thirty clients take turns, one octet each."""
    wires = queries(30)
    streams = [framed(wire) for wire in wires]
    socks = [ask.stream() for _ in wires]
    try:
        for sock in socks:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(max(map(len, streams))):
            for sock, stream in zip(socks, streams, strict=True):
                sock.send(stream[at : at + 1])
        assert [receive(sock)[:2] for sock in socks] == [wire[:2] for wire in wires]
    finally:
        for sock in socks:
            sock.close()


def test_6_2_1_1_questions_of_every_size_behind_one_another(ask: Client) -> None:
    """Large answers, refusals and what can't be read come back in full, none held up by, or mixed with, another."""
    wires = [question(name, rtype).to_wire() for name in NAMES for rtype in ("A", "TXT", "ANY")]
    wires += [question("large", "TXT").to_wire(), question("www.example.com.").to_wire(), b"\x12\x34" + bytes(10)] * 20
    wires = [number.to_bytes(2, "big") + wire[2:] for number, wire in enumerate(wires)]
    with ask.stream() as sock:
        sock.sendall(framed(*wires))
        replies = {reply[:2]: reply for reply in (receive(sock) for _ in wires)}
    assert replies.keys() == {wire[:2] for wire in wires}
    for wire in wires:
        assert replies[wire[:2]] == ask.over("tcp").exchange(wire)
        assert not replies[wire[:2]][2] & 2
