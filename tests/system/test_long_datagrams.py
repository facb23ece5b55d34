"""Datagrams as long as IP lets them be: both loops read them whole and answer as the reference path does."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

import dns.message
import pytest

from edgedns.config import Address
from edgedns.engine import answer, native
from edgedns.serve import udp
from edgedns.serve.clock import Clock
from edgedns.serve.complaints import Complaints
from tests.conftest import NOW, SECRETS, Example

if TYPE_CHECKING:
    from edgedns.engine._fastpath import Native  # which need not be built

LOOPBACK = bytes((127, 0, 0, 1))
HEADER, OPT = 12, 11
NAME = b"\3www\3cdn\7example\3net\0"
SIZES = (4095, 4096, 4097, 4160, 9000, 40_000, 65_507)


@pytest.fixture(params=["python", "native"])
def client(request: pytest.FixtureRequest, example: Example) -> Iterator[socket.socket]:
    """A socket connected to one loop."""
    if request.param == "native" and not native.LOOPS:
        pytest.skip("the native engine was not built")
    address, tally = Address("127.0.0.1", 0), example.tally()
    served = udp.open_socket(address)

    def respond(packet: bytes, asker: bytes, transport: str, now: float) -> bytes | None:
        return answer.respond(example.steered, packet, asker, transport, now, SECRETS, tally)

    def look(now: float) -> Native:
        return native.native_of(example.steered.at(now), SECRETS, tally)

    answering = look if request.param == "native" else None
    by = udp.Answering(respond, Clock(wall=lambda: NOW), tally.cells, Complaints("test", print), answering)
    thread = threading.Thread(target=udp.serve, args=(served, False, by))
    thread.start()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(3)
        sock.connect(served.getsockname())
        yield sock
    udp.retire(served)
    thread.join(3)
    served.close()
    assert not thread.is_alive()


def padded(size: int) -> bytes:
    """A good query that RFC 7830's padding makes this long; the client subnet comes last."""
    question = NAME + b"\0\1\0\1"
    subnet = b"\0\x08\0\x07\0\1\x18\0\xc6\x33\x64"
    padding = size - HEADER - len(question) - OPT - 4 - len(subnet)
    options = b"\0\x0c" + padding.to_bytes(2, "big") + bytes(padding) + subnet
    opt = b"\0\0\x29\x04\xd0\0\0\0\0" + len(options).to_bytes(2, "big")
    return size.to_bytes(2, "big") + b"\0\0\0\1\0\0\0\0\0\1" + question + opt + options


def reference(example: Example, packet: bytes) -> bytes | None:
    return answer.respond(example.steered, packet, LOOPBACK, "udp", NOW, SECRETS, example.tally())


def ask(client: socket.socket, packet: bytes) -> bytes:
    client.send(packet)
    return client.recv(65535)


@pytest.mark.parametrize("size", SIZES)
def test_a_long_query_is_answered(client: socket.socket, example: Example, size: int) -> None:
    packet = padded(size)
    assert len(packet) == size
    reply = ask(client, packet)
    assert dns.message.from_wire(reply).answer
    assert reply == reference(example, packet)


@pytest.mark.parametrize("size", SIZES)
def test_a_message_cut_short_or_too_long_is_a_format_error(client: socket.socket, example: Example, size: int) -> None:
    """What is whole in the first 4,096 octets is not taken for the message; nor is one with its last octet gone."""
    for packet in (padded(size)[:-1], padded(4096) + bytes(max(1, size - 4096))):
        reply = ask(client, packet)
        assert reply[3] & 0x0F == 1
        assert reply == reference(example, packet)
