"""The native loop on real sockets: equal to the fast path, counted, swapped under way, limited, and stopped."""

from __future__ import annotations

import socket
import threading
import time
from array import array
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

import dns.edns
import dns.flags
import dns.message
import pytest

from edgedns import metrics
from edgedns.config import Address
from edgedns.engine import answer, fastpath, native, seen
from edgedns.engine.limit import Terms
from edgedns.engine.snapshot import Snapshot
from edgedns.serve import udp
from edgedns.serve.clock import Clock
from edgedns.serve.complaints import Complaints
from tests.conftest import NOW, SECRETS, Example

if TYPE_CHECKING:
    from edgedns.engine._fastpath import Native  # which need not be built

pytestmark = pytest.mark.skipif(not native.LOOPS, reason="the native engine was not built")
HANDED_BACK = "x.moved.cdn.example.net."
HOSTS = {"127.0.0.1": ["127.0.0.1"], "::1": ["::1"], "0.0.0.0": ["127.0.0.1", "127.0.0.2", "127.9.8.7"], "::": ["::1"]}


class Standing(Clock):
    """A clock that stands at the example's time."""

    def __init__(self) -> None:
        super().__init__(wall=lambda: NOW, monotonic=lambda: 0.0)


class Served:
    """One native loop in a thread; `snapshot` may be swapped."""

    def __init__(self, example: Example, host: str = "127.0.0.1", terms: Terms = udp.NO_LIMIT, start: bool = True) -> None:
        self.snapshot: Snapshot = example.steered
        self.tally = example.tally()
        self.failing = False
        self.lines: list[str] = []
        self.bell = array("Q", (0,))
        address = Address(host, 0)
        self.sock = udp.open_socket(address)
        self.port: int = self.sock.getsockname()[1]
        complain = Complaints("test", self.lines.append)
        by = udp.Answering(self.respond, Standing(), self.tally.cells, complain, self.look, terms, bell=self.bell)
        self.thread = threading.Thread(target=udp.serve, args=(self.sock, address.is_wildcard, by), daemon=True)
        if start:
            self.thread.start()

    def look(self, now: float) -> Native:
        return native.native_of(self.snapshot.at(now), SECRETS, self.tally)

    def respond(self, packet: bytes, client: bytes, transport: str, now: float) -> bytes | None:
        if self.failing:
            raise ValueError("as asked")
        return answer.respond(self.snapshot, packet, client, transport, now, SECRETS, self.tally)

    def client(self, host: str = "127.0.0.1") -> socket.socket:
        """A connected socket: the kernel lets only replies from `host` and our port through."""
        sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
        sock.settimeout(3)
        sock.connect((host, self.port))
        return sock

    def ask(self, packet: bytes, host: str = "127.0.0.1") -> bytes:
        with self.client(host) as sock:
            sock.send(packet)
            return sock.recv(65535)

    def stop(self) -> None:
        udp.retire(self.sock)
        self.thread.join(3)
        assert not self.thread.is_alive()
        self.sock.close()

    def counted(self) -> list[int]:
        """RECEIVED and what became of them; whole once the loop has stopped."""
        return self.tally.cells[metrics.UDP_RECEIVED : metrics.UDP_UNSENT + 1].tolist()


@pytest.fixture
def served(request: pytest.FixtureRequest, example: Example) -> Iterator[Served]:
    made = Served(example, getattr(request, "param", "127.0.0.1"))
    yield made
    if made.thread.is_alive():
        made.stop()


def query(name: str = "www.cdn.example.net.", rtype: str = "A", subnet: str = "") -> bytes:
    message = dns.message.make_query(name, rtype, use_edns=False)
    message.use_edns(0, 0, 1232, options=[dns.edns.ECSOption(subnet, 24)] if subnet else [])
    return message.to_wire()


@pytest.mark.parametrize("served", HOSTS, indirect=True)
def test_replies_leave_from_the_address_that_was_asked(served: Served, example: Example) -> None:
    tally, hosts = example.tally(), HOSTS[served.sock.getsockname()[0]]
    plain = (query(), query(subnet="203.0.113.0"), query("no.cdn.example.net."), query("example.org."))
    for host in hosts * 3:
        packed = socket.inet_pton(socket.AF_INET6 if ":" in host else socket.AF_INET, "::1" if ":" in host else "127.0.0.1")
        for packet in (*plain, bytes(11) + b"\1"):
            wanted = fastpath.reply(example.steered, packet, packed, "udp", NOW, SECRETS, tally)
            assert served.ask(packet, host) == wanted
    served.stop()
    received = served.counted()
    assert received == [15 * len(hosts), 15 * len(hosts), 0, 0, 0]
    assert bytes(served.tally.cells[metrics.FIXED :]) == bytes(tally.cells[metrics.FIXED :])
    assert served.tally.networks == tally.networks


def test_a_sample_of_the_queries_is_noted(served: Served) -> None:
    """Both by the loop, which has dice of its own, and by who answers what it hands back."""
    with served.client() as sock:
        for _ in range(600):
            sock.send(query(subnet="203.0.113.0"))
            assert sock.recv(1232)
        for _ in range(20):
            sock.send(query(HANDED_BACK))
            assert sock.recv(1232)
    served.stop()
    assert served.tally.ring is not None
    noted = seen.parse(served.tally.ring.octets.tobytes())
    assert {(one.client, one.rcode, one.tcp) for one in noted} == {(bytes((127, 0, 0, 1)), 0, False)}
    assert all(0 <= one.at - NOW < 1 for one in noted)  # what passes between two looks counts
    names = Counter(one.name for one in noted)
    assert 100 < names.pop(b"\3www\3cdn\7example\3net\0") < 300
    assert 1 <= names.pop(b"\1x\5moved\3cdn\7example\3net\0") <= 20
    assert not names


def test_what_it_does_not_know_python_answers(served: Served) -> None:
    reply = dns.message.from_wire(served.ask(query(HANDED_BACK)))
    assert [rrset.rdtype.name for rrset in reply.answer] == ["DNAME", "CNAME", "A"]
    served.failing = True
    with served.client() as sock:
        sock.send(query(HANDED_BACK))
        sock.send(b"")
        sock.send(query())
        assert sock.recv(1232)
    served.stop()
    assert served.counted() == [4, 2, 1, 1, 0]
    assert served.tally.cells[metrics.HANDED_BACK] == 2
    assert any("as asked" in line for line in served.lines)


def test_a_flood_of_what_is_handed_back_is_bounded(example: Example) -> None:
    """All of one batch, which waits in the socket's queue: sixteen are answered, and every plain question."""
    served = Served(example, start=False)
    with served.client() as sock:
        for _ in range(40):
            sock.send(query(HANDED_BACK))
        for _ in range(20):
            sock.send(query())
        served.thread.start()
        for _ in range(36):
            assert sock.recv(1232)
    served.stop()
    assert served.counted() == [60, 36, 24, 0, 0]
    assert served.tally.cells[metrics.HANDED_BACK] == 40
    assert served.tally.cells[metrics.SHED] == 24


def test_a_swapped_snapshot_is_followed(served: Served, example: Example) -> None:
    packet = query(subnet="203.0.113.0")
    served.ask(packet)
    served.snapshot = example.nominal
    served.bell[0] += 1
    wanted = fastpath.reply(example.nominal, packet, b"\x7f\0\0\1", "udp", NOW, SECRETS, example.tally())
    assert served.ask(packet) == wanted


def test_counts_of_an_idle_socket_are_kept(served: Served) -> None:
    served.ask(query())
    time.sleep(0.3)
    assert served.counted() == [1, 1, 0, 0, 0]


def test_what_is_queued_is_answered_before_it_ends(example: Example) -> None:
    served = Served(example, start=False)
    with served.client() as sock:
        for _ in range(200):
            sock.send(query())
        udp.retire(served.sock)
        served.thread.start()
        for _ in range(200):
            assert sock.recv(1232)
    served.thread.join(3)
    assert not served.thread.is_alive()
    served.sock.close()
    assert served.counted() == [200, 200, 0, 0, 0]


def test_odd_datagrams_disturb_nobody(served: Served) -> None:
    with served.client() as sock:
        sock.send(b"")
        sock.send(bytes(60_000))
        assert sock.recv(1232)[3] == 1
        sock.send(query()[:2] + b"\x80" + bytes(20))
        sock.send(query())
        assert sock.recv(1232)
    served.stop()
    assert served.counted() == [4, 2, 2, 0, 0]


def test_what_is_limited_and_has_no_question_stays_without(example: Example) -> None:
    served = Served(example, terms=Terms(rate=10, slip=1), start=False)
    with served.client() as sock:
        for _ in range(20):
            sock.send(b"\x12\x34" + bytes(10))
        served.thread.start()
        got = {sock.recv(1232) for _ in range(20)}
    served.stop()
    assert got == {b"\x12\x34\x80\x01" + bytes(8), b"\x12\x34\x82\x01" + bytes(8)}


@pytest.mark.parametrize(("dry_run", "replies"), [(False, 10 + 45), (True, 100)])
def test_rate_limiting(example: Example, dry_run: bool, replies: int) -> None:
    served = Served(example, terms=Terms(rate=10, slip=2, dry_run=dry_run), start=False)
    with served.client() as sock:
        for _ in range(100):
            sock.send(query())
        served.thread.start()
        got = [dns.message.from_wire(sock.recv(1232)) for _ in range(replies)]
    served.stop()
    assert served.counted() == [100, replies, 100 - replies, 0, 0]
    assert sum(bool(reply.flags & dns.flags.TC) for reply in got) == (0 if dry_run else 45)
    assert served.tally.cells[metrics.RATE_SLIPPED : metrics.RATE_SLIPPED + 1].tolist() == [45]
    assert served.tally.cells[metrics.RATE_DROPPED] == 45
