"""RFC 7766 sections 6.2.3 and 8, and 9210: those who hold connections without using them disturb nobody."""

from __future__ import annotations

import contextlib
import resource
import socket
import time
from collections.abc import Iterator

import pytest

from tests.conformance.client import Client, Server, exactly, question, receive

IDLE = 1000
SOON = 1.0


@pytest.fixture(scope="module")
def idle(server: Server) -> Iterator[list[socket.socket]]:
    """Connections from a few addresses that say nothing, or half a question."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    with contextlib.ExitStack() as held:
        made = []
        for number in range(IDLE):
            source = f"127.0.0.{10 + number % 4}"
            sock = held.enter_context(socket.create_connection((server.host, server.port), 5, (source, 0)))
            if number % 3 == 0:
                sock.sendall(b"\0\x20half"[: number % 7])
            made.append(sock)
        yield made


@pytest.mark.ours
@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_1000_idle_connections_leave_others_alone(idle: list[socket.socket], ask: Client, transport: str) -> None:
    client, slowest = ask.over(transport), 0.0
    for _ in range(50):
        start = time.monotonic()
        client.exchange(question("zero").to_wire())
        slowest = max(slowest, time.monotonic() - start)
    assert slowest < SOON
    assert len(idle) == IDLE


@pytest.mark.ours
def test_a_client_that_does_not_read_stalls_itself_alone(ask: Client) -> None:
    """Nor does it make the server keep what it does not take: its questions wait in its own buffers."""
    wire = question("large", "TXT").to_wire()
    framed = len(wire).to_bytes(2, "big") + wire
    with ask.stream() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.setblocking(False)
        sent = 0
        with contextlib.suppress(BlockingIOError):
            for _ in range(200):
                sent += slow.send(framed * 1000)
        assert ask.over("tcp").exchange(wire)[:2] == wire[:2]
        assert ask.exchange(question("zero").to_wire())
        slow.settimeout(5)
        for _ in range(20):
            assert receive(slow)[:2] == wire[:2]
    assert sent < 200 * 1000 * len(framed)


@pytest.mark.ours
@pytest.mark.long
def test_an_idle_connection_is_closed(ask: Client) -> None:
    """RFC 7766 section 6.2.3: "it is RECOMMENDED that the default server application-level idle period be on the order of
    seconds"; ours is ten."""
    with ask.stream() as sock:
        sock.settimeout(14)
        start = time.monotonic()
        assert sock.recv(1) == b""
        assert 8 < time.monotonic() - start < 13


def test_a_question_of_65535_octets(ask: Client) -> None:
    """RFC 1035 section 4.2.2's length has two octets: a query padded to all of them is read, and answered."""
    query = question("zero", edns=0)
    room = 65535 - len(query.to_wire()) - 4
    wire = bytearray(query.to_wire())
    wire[-2:] = (room + 4).to_bytes(2, "big")
    wire += b"\0\x0c" + room.to_bytes(2, "big") + bytes(room)  # RFC 7830, padding
    assert len(wire) == 65535
    with ask.stream() as sock:
        sock.sendall(len(wire).to_bytes(2, "big") + wire)
        reply = receive(sock)
    assert (reply[:2], reply[3] & 15) == (bytes(wire[:2]), 0)


@pytest.mark.ours
def test_a_message_of_no_octets_is_passed_over(ask: Client) -> None:
    wire = question("zero").to_wire()
    with ask.stream() as sock:
        sock.sendall(bytes(4) + len(wire).to_bytes(2, "big") + wire)
        assert exactly(sock, 4)[2:] == wire[:2]
