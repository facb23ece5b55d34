"""The TCP loop on real sockets: order, segmentation, bounds (RFC 7766)."""

from __future__ import annotations

import os
import random
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from typing import Any

import pytest

from edgedns import metrics
from edgedns.config import Address
from edgedns.serve import tcp
from edgedns.serve.clock import Clock
from edgedns.serve.complaints import Complaints
from edgedns.serve.tcp import Limits, TcpServer
from tests.system.standin import Echo

Serve = Callable[..., "Served"]


def framed(*messages: bytes) -> bytes:
    return b"".join(len(message).to_bytes(2, "big") + message for message in messages)


def receive(sock: socket.socket, count: int) -> list[bytes]:
    """The next `count` messages; fewer where the stream ends."""
    stream, messages = sock.makefile("rb"), []
    with stream:
        for _ in range(count):
            length = stream.read(2)
            if len(length) < 2:
                break
            messages.append(stream.read(int.from_bytes(length, "big")))
    return messages


MADE = [0]


def transfer(message: bytes, client: bytes, now: float) -> Iterator[bytes] | None:
    """For `transfer N` so many messages, or with `raise` that many and a failure."""
    word, *more = message.split()[:3] or [b""]
    return numbered(int(more[0]), b"raise" in more) if word == b"transfer" else None


def numbered(count: int, fails: bool) -> Iterator[bytes]:
    for MADE[0] in range(count):
        yield bytes(16000)
    if fails:
        raise ValueError("as asked")


class Served:
    def __init__(self, host: str, limits: Limits) -> None:
        listener = tcp.open_listener(Address(host, 0))
        self.address = listener.getsockname()[:2]
        self.cells = metrics.Counters().cells
        self.lines: list[str] = []
        complain = Complaints("test", self.lines.append)
        self.server = TcpServer([listener], Echo("/nowhere").respond, Clock(), self.cells, complain, limits, transfer)
        self.thread = threading.Thread(target=self.server.run, daemon=True)
        self.thread.start()

    def connect(self) -> socket.socket:
        sock = socket.create_connection(self.address, timeout=5)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock

    def ask(self, *messages: bytes) -> list[bytes]:
        with self.connect() as sock:
            sock.sendall(framed(*messages))
            return receive(sock, len(messages))

    def counts(self) -> list[int]:
        return self.cells[metrics.TCP_RECEIVED : metrics.TCP_UNSENT + 1].tolist()

    def until(self, cell: int, value: int) -> None:
        """Wait for a count: what a client sees and what is counted are a moment apart."""
        end = time.monotonic() + 3
        while self.cells[cell] < value and time.monotonic() < end:
            time.sleep(0.002)
        assert self.cells[cell] == value

    def stop(self) -> None:
        self.server.stop()
        self.thread.join(3)


@pytest.fixture
def serve() -> Iterator[Serve]:
    made: list[Served] = []

    def start(host: str = "127.0.0.1", **limits: Any) -> Served:
        made.append(Served(host, Limits(**limits)))
        return made[-1]

    yield start
    for one in made:
        if one.thread.is_alive():
            one.stop()
        assert not one.thread.is_alive()
        assert "serving TCP" not in "".join(one.lines)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "0.0.0.0"])
def test_a_query_is_answered(serve: Serve, host: str) -> None:
    client = socket.inet_pton(socket.AF_INET6, "::1") if ":" in host else bytes([127, 0, 0, 1])
    assert serve(host).ask(b"hello", b"client") == [b"hello", b"tcp " + client]


@pytest.mark.parametrize("seed", range(5))
def test_any_segmentation_and_the_order_kept(serve: Serve, seed: int) -> None:
    dice = random.Random(seed)
    queries = [b"%d " % number + bytes(dice.choice((0, 1, 30, 300, 5000))) for number in range(60)]
    octets, served = framed(*queries), serve()
    cuts = sorted(dice.sample(range(1, len(octets)), 40))
    with served.connect() as sock:
        for start, end in zip([0, *cuts], [*cuts, len(octets)], strict=True):
            sock.sendall(octets[start:end])
            if dice.random() < 0.3:
                time.sleep(0.002)
        assert receive(sock, 60) == queries


def test_octet_by_octet(serve: Serve) -> None:
    with serve().connect() as sock:
        for octet in framed(b"hello", b"", b"world"):
            sock.send(bytes([octet]))
        assert receive(sock, 3) == [b"hello", b"empty", b"world"]


def test_the_largest_message_both_ways(serve: Serve) -> None:
    largest = random.Random(1).randbytes(65535)
    assert serve().ask(largest, b"large", b"small") == [largest, bytes(65535), b"small"]


def test_what_happens_is_counted_and_sums(serve: Serve) -> None:
    served = serve()
    with served.connect() as sock:
        sock.sendall(framed(b"silence", b"one", b"raise", b"too large", b"two"))
        assert receive(sock, 2) == [b"one", b"two"]
    served.until(metrics.TCP_REPLIED, 2)
    received, replied, silent, raised, unsent = served.counts()
    assert (received, replied, silent, raised, unsent) == (5, 2, 1, 2, 0)
    assert received == replied + silent + raised + unsent
    assert served.cells[metrics.TCP_ACCEPTED] == 1


def test_what_is_asked_before_a_half_close_is_answered(serve: Serve) -> None:
    with serve().connect() as sock:
        sock.sendall(framed(b"one", b"two") + b"\x00\x10cut off")
        sock.shutdown(socket.SHUT_WR)
        assert receive(sock, 3) == [b"one", b"two"]


def test_idle_connections_are_closed_and_half_a_query_is_no_excuse(serve: Serve) -> None:
    served = serve(idle=0.4)
    with served.connect() as idle, served.connect() as slow, served.connect() as busy:
        begun, closed = time.monotonic(), 0.0
        slow.settimeout(0.05)
        for _ in range(40):
            busy.sendall(framed(b"again"))
            assert receive(busy, 1) == [b"again"]
            try:
                slow.send(b"\x00")  # a query of no octets needs two; this is a long one of which one octet comes at a time
                if slow.recv(10) == b"":
                    closed = closed or time.monotonic() - begun
                    break
            except TimeoutError:
                continue
            except OSError:
                closed = closed or time.monotonic() - begun
                break
        assert receive(idle, 1) == []
    assert served.cells[metrics.TCP_IDLE_CLOSED] >= 1


def test_an_unfinished_query_ends_with_the_idle_time(serve: Serve) -> None:
    served = serve(idle=0.3)
    with served.connect() as sock:
        begun = time.monotonic()
        sock.sendall(b"\x10\x00")
        sock.settimeout(0.05)
        while time.monotonic() - begun < 3:
            try:
                sock.send(b"x")
                if not sock.recv(1):
                    break
            except TimeoutError:
                continue
            except OSError:
                break
        assert 0.25 < time.monotonic() - begun < 1.5
    assert served.cells[metrics.TCP_IDLE_CLOSED] == 1


def test_a_crowd_of_one_client_makes_room_and_the_newest_are_served(serve: Serve) -> None:
    served = serve(per_client=10)
    crowd = [served.connect() for _ in range(10)]
    for sock in crowd[:3]:  # the first three are the last to be idle now
        sock.sendall(framed(b"hello"))
        assert receive(sock, 1) == [b"hello"]
    late = [served.connect() for _ in range(5)]
    for sock in (*late, *crowd[:3]):
        sock.sendall(framed(b"hello"))
        assert receive(sock, 1) == [b"hello"]
    served.until(metrics.TCP_REFUSED, 5)
    assert [receive(sock, 1) for sock in crowd[3:8]] == [[]] * 5
    for sock in (*crowd, *late):
        sock.close()


@pytest.mark.parametrize(
    ("one", "other", "together"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8:0:1::1", "2001:db8:0:1:ffff::2", True),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
    ],
)
def test_a_client_is_an_ipv4_address_or_an_ipv6_64(one: str, other: str, together: bool) -> None:
    crowds = {tcp._crowd(ip_address(text).packed) for text in (one, other)}
    assert (len(crowds) == 1) is together


def test_connections_in_all_are_bounded(serve: Serve) -> None:
    served = serve(connections=20)
    crowd = [served.connect() for _ in range(50)]
    assert served.ask(b"hello") == [b"hello"]
    served.until(metrics.TCP_ACCEPTED, 51)
    served.until(metrics.TCP_REFUSED, 31)
    for sock in crowd:
        sock.close()


def test_a_reader_that_does_not_read_is_held_and_others_are_not(serve: Serve) -> None:
    served = serve(unsent=100_000)
    with socket.socket() as greedy:
        greedy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        greedy.settimeout(0.5)
        greedy.connect(served.address)
        with pytest.raises(TimeoutError):  # our own send buffer is full: the server reads no more
            greedy.sendall(framed(b"large") * 1_000_000)
        assert served.ask(b"hello") == [b"hello"]
        # What waits in the server, and what the two sockets' buffers hold: far less than was asked for.
        assert served.cells[metrics.TCP_RECEIVED] < 500
        greedy.settimeout(5)
        assert receive(greedy, 100) == [bytes(65535)] * 100


def test_a_reader_that_never_reads_is_closed(serve: Serve) -> None:
    served = serve(unsent=100_000, idle=0.3)
    with socket.socket() as greedy:
        greedy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        greedy.connect(served.address)
        greedy.sendall(framed(b"large") * 400)
        served.until(metrics.TCP_IDLE_CLOSED, 1)
    received, replied, silent, raised, unsent = served.counts()
    assert unsent > 0
    assert received == replied + silent + raised + unsent


def test_a_reader_that_is_slow_but_reads_is_kept(serve: Serve) -> None:
    served = serve(idle=0.3)
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
        sock.connect(served.address)
        sock.sendall(framed(*[b"large"] * 60))
        total = 0
        while total < 60 * 65537:
            octets = sock.recv(65536)
            assert octets, f"closed after {total} octets"
            total += len(octets)
            time.sleep(0.005)


def test_much_that_takes_long_is_answered_between_what_others_ask(serve: Serve) -> None:
    """Forty clients have asked for half a minute's work at once; who comes then waits for a moment of each at most."""
    served, work = serve(), [b"work %d" % number for number in range(150)]
    crowd = [served.connect() for _ in range(40)]
    for sock in crowd:
        sock.sendall(framed(*work))
    for _ in range(3):
        begun = time.monotonic()
        assert served.ask(b"hello") == [b"hello"]
        assert time.monotonic() - begun < 0.7 * 3
    for sock in crowd:
        sock.close()


def test_all_that_was_asked_at_once_is_answered_in_order_also_after_a_half_close(serve: Serve) -> None:
    served, work = serve(), [b"work %d" % number for number in range(60)]
    with served.connect() as one, served.connect() as other:
        for sock in (one, other):
            sock.sendall(framed(*work, b"silence", b"last"))
        one.shutdown(socket.SHUT_WR)
        assert receive(one, 62) == [*work, b"last"]
        assert receive(other, 61) == [*work, b"last"]
        other.sendall(framed(b"again"))
        assert receive(other, 1) == [b"again"]
    served.until(metrics.TCP_REPLIED, 123)
    assert served.counts() == [125, 123, 2, 0, 0]


def test_who_is_reset_with_much_unanswered_is_let_go(serve: Serve) -> None:
    served = serve()
    sock = served.connect()
    sock.sendall(framed(*[b"work"] * 150))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    sock.close()
    assert served.ask(b"hello") == [b"hello"]
    served.until(metrics.TCP_UNSENT, 1)
    assert served.cells[metrics.TCP_RECEIVED] < 150


def test_what_lies_here_of_all_is_bounded(serve: Serve) -> None:
    """Those whose octets lie there for longest give way; who keeps nothing here stays, however long it was idle."""
    served = serve(held=200_000)
    with served.connect() as quiet:
        assert served.ask(b"hello") == [b"hello"]
        crowd = [served.connect() for _ in range(10)]
        for number, sock in enumerate(crowd, 1):
            sock.sendall(b"\xff\xff" + bytes(50_000))
            served.until(metrics.TCP_REFUSED, max(0, number - 3))
        assert [receive(sock, 1) for sock in crowd[:7]] == [[]] * 7
        for sock in crowd[7:]:
            sock.sendall(bytes(15_535))
            assert receive(sock, 1) == [bytes(65535)]
        quiet.sendall(framed(b"hello"))
        assert receive(quiet, 1) == [b"hello"]
    for sock in crowd:
        sock.close()


@pytest.mark.parametrize(("descriptors", "connections", "per_client"), [(resource.RLIM_INFINITY, 2000, 500), (164, 100, 25)])
def test_no_more_connections_than_there_are_descriptors(
    monkeypatch: pytest.MonkeyPatch, descriptors: int, connections: int, per_client: int
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda which: (descriptors, descriptors))
    made = tcp.limits(3.0)
    assert (made.idle, made.connections, made.per_client) == (3.0, connections, per_client)


def test_resets_disturb_nobody(serve: Serve) -> None:
    served = serve()
    for _ in range(50):
        sock = served.connect()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        sock.sendall(framed(b"large", b"large"))
        sock.close()
    assert served.ask(b"hello") == [b"hello"]


def test_a_transfer_is_sent_message_by_message_and_what_is_behind_it_waits(serve: Serve) -> None:
    """Also to a client that sends no more."""
    served = serve()
    with served.connect() as sock:
        sock.sendall(framed(b"before", b"transfer 40", b"behind"))
        sock.shutdown(socket.SHUT_WR)
        found = receive(sock, 43)
    assert [len(message) for message in found] == [6, *[16000] * 40, 6]
    served.until(metrics.TCP_REPLIED, 3)
    assert served.counts() == [3, 3, 0, 0, 0]


def test_a_transfer_that_fails_half_way_does_not_look_whole(serve: Serve) -> None:
    served = serve()
    with served.connect() as sock:
        sock.sendall(framed(b"transfer 2 raise", b"behind"))
        assert len(receive(sock, 4)) <= 2
    served.until(metrics.TCP_RAISED, 1)
    assert served.counts() == [1, 0, 0, 1, 0]


def test_a_transfer_that_nobody_reads_is_made_no_further(serve: Serve) -> None:
    served = serve(idle=0.4)
    with served.connect() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.sendall(framed(b"transfer 100000"))
        assert served.ask(b"other") == [b"other"]
        served.until(metrics.TCP_IDLE_CLOSED, 1)
    assert MADE[0] < 1000
    assert served.counts() == [2, 1, 0, 0, 1]


def test_no_client_holds_up_another_for_long(serve: Serve) -> None:
    served, stop = serve(), threading.Event()

    def flood() -> None:
        with served.connect() as sock:
            while not stop.is_set():
                sock.sendall(framed(b"x" * 20) * 200)
                receive(sock, 200)

    threads = [threading.Thread(target=flood) for _ in range(3)]
    for thread in threads:
        thread.start()
    worst = 0.0
    for _ in range(20):
        begun = time.monotonic()
        assert served.ask(b"hello") == [b"hello"]
        worst = max(worst, time.monotonic() - begun)
    stop.set()
    for thread in threads:
        thread.join()
    assert worst < 0.5


def test_stops_whatever_the_loop_does_meanwhile(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop closes what `stop` writes to: never before it was written, though it looks twice a second by itself."""
    write, one = os.eventfd_write, serve()

    def late(descriptor: int, value: int) -> None:
        time.sleep(0.7)
        write(descriptor, value)

    monkeypatch.setattr(os, "eventfd_write", late)
    one.stop()
    assert not one.thread.is_alive()
