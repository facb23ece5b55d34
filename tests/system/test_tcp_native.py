"""TCP with the native engine in front: the same replies in the same order however a stream is cut, and the same counts."""

from __future__ import annotations

import select
import socket
import threading
import time
from array import array
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any

import pytest

from edgedns import metrics
from edgedns.config import Address
from edgedns.engine import answer, native, seen
from edgedns.serve import tcp
from edgedns.serve.complaints import Complaints
from edgedns.serve.tcp import Limits, TcpServer
from tests.conftest import NOW, SECRETS, Example
from tests.property import strangers, test_seam
from tests.system.test_native_loop import HANDED_BACK, Standing, query

pytestmark = pytest.mark.skipif(not native.LOOPS, reason="the native engine was not built")
if TYPE_CHECKING:
    from edgedns.engine._fastpath import Native  # which need not be built

CLIENT = bytes((127, 0, 0, 1))
TRANSFER = b"\0\xfc\0\1"
MESSAGES = [bytes(20_000), b"the end of it"]


class Served:
    """A server that answers from the example; `python` counts what the round in C left, each taking `takes` seconds."""

    takes = 0.0

    def __init__(self, example: Example, limits: Limits, start: bool = True) -> None:
        self.snapshot, self.tally, self.python = example.steered, example.tally(), 0
        self.bell = array("Q", (0,))
        listener = tcp.open_listener(Address("127.0.0.1", 0))
        self.address = listener.getsockname()
        self.lines: list[str] = []
        self.server = TcpServer(
            *([listener], self.respond, Standing(), self.tally.cells, Complaints("test", self.lines.append)),
            *(limits, self.transfer, self.look, self.bell),
        )
        self.thread = threading.Thread(target=self.server.run, daemon=True)
        if start:
            self.thread.start()

    def look(self, now: float) -> Native:
        return native.native_of(self.snapshot.at(now), SECRETS, self.tally)

    def respond(self, packet: bytes, client: bytes, transport: str, now: float) -> bytes | None:
        self.python += 1
        time.sleep(self.takes)
        asked = (self.snapshot, packet, client, transport, now, SECRETS, self.tally)
        reply = native.reply(*asked)
        return answer.respond(*asked) if reply is None else reply or None

    def transfer(self, message: bytes, client: bytes, now: float) -> Iterator[bytes] | None:
        return iter(MESSAGES) if message.endswith(TRANSFER) else None

    def connect(self) -> socket.socket:
        sock = socket.create_connection(self.address, timeout=10)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock

    def stop(self) -> list[int]:
        """RECEIVED and what became of them."""
        self.server.stop()
        self.thread.join(5)
        assert not self.thread.is_alive()
        assert self.lines == []
        return self.tally.cells[metrics.TCP_RECEIVED : metrics.TCP_UNSENT + 1].tolist()


@pytest.fixture
def serve(example: Example) -> Iterator[Callable[..., Served]]:
    made: list[Served] = []

    def start(**limits: Any) -> Served:
        made.append(Served(example, Limits(**limits)))
        return made[-1]

    yield start
    for one in made:
        if one.thread.is_alive():
            one.stop()


def framed(messages: list[bytes]) -> bytes:
    return b"".join(len(message).to_bytes(2, "big") + message for message in messages)


def receive(sock: socket.socket, size: int) -> bytes:
    octets = bytearray()
    while len(octets) < size:
        more = sock.recv(1 << 16)
        assert more, f"closed after {len(octets)} of {size} octets"
        octets += more
    return bytes(octets)


def packets(example: Example, dice: Random, count: int) -> list[bytes]:
    """Of strangers, what is handed back and what earns no reply among them."""
    zone = example.loaded.rules.zones["cdn.example.net"]
    names = sorted({record.name for record in zone.records} | {rr.owner for rr in example.loaded.statics[zone.name]})
    clients = partial(test_seam.clients, example, dice)
    odd = (query(HANDED_BACK), b"", b"short", query()[:2] + b"\x80" + bytes(30))
    made = [strangers.packet(dice, names, clients, CLIENT) for _ in range(count)]
    return [dice.choice(odd) if dice.random() < 0.1 else packet for packet in made if TRANSFER not in packet]


@pytest.mark.parametrize("most", [3, 300, 30_000])
def test_however_a_stream_is_cut(serve: Callable[..., Served], example: Example, most: int) -> None:
    served, dice, slow = serve(), Random(most), example.tally()
    asked = packets(example, dice, 40 if most == 3 else 1500)
    replies = (answer.respond(example.steered, one, CLIENT, "tcp", NOW, SECRETS, slow) for one in asked)
    wanted, stream = framed([reply for reply in replies if reply is not None]), framed(asked)
    with served.connect() as sock:
        got: list[bytes] = []
        hearing = threading.Thread(target=lambda: got.append(receive(sock, len(wanted))))
        hearing.start()
        at = 0
        while at < len(stream):
            size = dice.randint(1, most)
            sock.sendall(stream[at : at + size])
            at += size
        hearing.join(20)
    assert got == [wanted]
    received, replied, silent, raised, unsent = served.stop()
    assert (received, raised, unsent) == (len(asked), 0, 0)
    assert replied + silent == received
    assert bytes(served.tally.cells[metrics.FIXED :]) == bytes(slow.cells[metrics.FIXED :])
    assert served.tally.networks == slow.networks
    assert served.tally.ring is not None
    assert {one.tcp and one.proven for one in seen.parse(served.tally.ring.octets.tobytes())} == {True}


def test_plain_queries_never_reach_python(serve: Callable[..., Served]) -> None:
    served = serve()
    with served.connect() as one, served.connect() as other:
        for _ in range(20):
            for sock in (one, other):
                sock.sendall(framed([query()] * 5))
                receive(sock, 5 * 60)
    assert served.stop() == [200, 200, 0, 0, 0]
    assert served.python == 0


def test_what_comes_after_a_swap_is_answered_by_it(serve: Callable[..., Served], example: Example) -> None:
    """Also the first message of a connection that was silent: nothing was waited for with the old one at hand."""
    served, worlds = serve(), (example.steered, example.nominal)

    def replies(packet: bytes) -> list[bytes]:
        each = (answer.respond(world, packet, CLIENT, "tcp", NOW, SECRETS, example.tally()) for world in worlds)
        return [reply for reply in each if reply]

    packets = (query(subnet=f"{first}.0.0.0") for first in range(1, 200))
    packet, (steered, nominal) = next((packet, told) for packet in packets if len(set(told := replies(packet))) == 2)
    with served.connect() as sock:
        for served.snapshot, wanted in zip(worlds * 2, (steered, nominal) * 2, strict=True):
            served.bell[0] += 1
            for _ in range(3):
                sock.sendall(framed([packet]))
                assert receive(sock, 2 + len(wanted)) == framed([wanted])
    assert served.python == 0


def test_what_is_left_to_python_holds_up_nobody(serve: Callable[..., Served]) -> None:
    """Twenty clients have asked for ten seconds' work at once; plain queries of others go between."""
    served = serve()
    served.takes = 0.005
    with served.connect() as plain, ExitStack() as held:
        crowd = [held.enter_context(served.connect()) for _ in range(20)]
        for sock in crowd:
            sock.sendall(framed([query(HANDED_BACK)] * 100))
        for _ in range(5):
            begun = time.monotonic()
            ask(plain)
            assert time.monotonic() - begun < 0.2 * 3
        assert served.python < 1500
    received, replied, silent, raised, unsent = served.stop()
    assert (received, raised) == (replied + silent + unsent, 0)


def test_who_reads_late_gets_all(serve: Callable[..., Served]) -> None:
    served, sent = serve(), 0
    with served.connect() as sock:
        sock.settimeout(0.3)
        stream = framed([query("text.cdn.example.net.", "TXT"), query()] * 50)
        try:
            while sent < 40_000_000:
                sent += sock.send(stream[sent % len(stream) :])
        except TimeoutError:
            pass  # neither side takes any more
        sock.settimeout(10)
        whole = sent // len(stream)
        assert whole > 100
        sock.shutdown(socket.SHUT_WR)
        octets = bytearray()
        while more := sock.recv(1 << 20):
            octets += more
    received, replied, *others = served.stop()
    assert others == [0, 0, 0]
    assert received == replied >= 100 * whole
    at = count = 0
    while at < len(octets):
        at += 2 + int.from_bytes(octets[at : at + 2], "big")
        count += 1
    assert (at, count) == (len(octets), received)


def test_a_transfer_keeps_its_place(serve: Callable[..., Served], example: Example) -> None:
    served, plain = serve(), query()
    wanted = answer.respond(example.steered, plain, CLIENT, "tcp", NOW, SECRETS, example.tally())
    assert wanted is not None
    asked = plain[:2] + b"\0\0\0\1\0\0\0\0\0\0\3cdn\7example\3net\0" + TRANSFER
    whole = framed([wanted, *MESSAGES, wanted])
    with served.connect() as sock:
        for _ in range(3):
            sock.sendall(framed([plain, asked, plain]))
            assert receive(sock, len(whole)) == whole
    assert served.stop() == [9, 9, 0, 0, 0]


def test_who_is_reset_leaves_nothing_behind(serve: Callable[..., Served]) -> None:
    """In the midst of questions, of answers that nobody reads, and of a message."""
    served, large = serve(), query("text.cdn.example.net.", "TXT")
    for number in range(60):
        sock = served.connect()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, bytes((1, 0, 0, 0, 0, 0, 0, 0)))
        sock.sendall(framed([large, query(HANDED_BACK)] * (1, 20, 200)[number % 3])[: -number % 7 or None])
        sock.close()
    with served.connect() as sock:
        ask(sock)
        until = time.monotonic() + 5
        while len(served.server._connections) > 1 and time.monotonic() < until:
            time.sleep(0.01)
        assert len(served.server._connections) == 1
        assert (served.server._held, len(served.server._behind)) == (0, 0)
    received, replied, silent, raised, unsent = served.stop()
    assert (received, raised) == (replied + silent + unsent, 0)


def test_idle_ones_are_closed_and_busy_ones_are_not(serve: Callable[..., Served]) -> None:
    served = serve(idle=0.6)
    with served.connect() as busy, served.connect() as idle:
        for _ in range(12):
            ask(busy)
            time.sleep(0.1)
        idle.settimeout(5)
        assert idle.recv(1) == b""
        ask(busy)


def test_the_least_recently_active_gives_way(serve: Callable[..., Served]) -> None:
    served = serve(connections=3)
    with served.connect() as first, served.connect() as second, served.connect() as third, ExitStack() as later:
        for sock in (first, second, third, first):
            ask(sock)
        for _ in range(2):
            ask(later.enter_context(served.connect()))
        assert (second.recv(1), third.recv(1)) == (b"", b"")
        ask(first)


def test_who_gets_a_descriptor_again_gets_nothing_of_who_had_it(example: Example) -> None:
    """In one round a connection is read, then closed for others, and its descriptor is that of the last of them."""
    served = Served(example, Limits(connections=1), start=False)
    server = served.server
    for descriptor in server._listeners:
        server._epoll.register(descriptor, select.EPOLLIN)
    with served.connect() as first:
        server._round(1)
        (old,) = server._connections
        with served.connect(), served.connect() as third:
            first.sendall(b"\0")  # of a length, behind the two that wait to be accepted
            server._round(1)
            assert list(server._connections) == [old]
            packet = query()
            third.sendall(framed([packet]))
            server._round(1)
            assert third.recv(4096)[2:4] == packet[:2]
    for descriptor in server._listeners:
        server._epoll.unregister(descriptor)
    served.thread.start()  # which closes what is open
    assert served.stop() == [1, 1, 0, 0, 0]


def ask(sock: socket.socket) -> None:
    sock.sendall(framed([query()]))
    assert sock.recv(4096)
