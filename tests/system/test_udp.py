"""The UDP loop on real sockets: who is answered, from which address, and what is counted."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from edgedns import metrics
from edgedns.config import Address
from edgedns.serve import udp
from edgedns.serve.clock import Clock
from edgedns.serve.complaints import Complaints
from tests.system.standin import Echo


class Served:
    """One loop in a thread, and what it counted and complained of."""

    def __init__(self, host: str, start: bool = True, replies: udp.Replies | None = None) -> None:
        address = Address(host, 0)
        self.sock = udp.open_socket(address)
        self.port: int = self.sock.getsockname()[1]
        self.cells = metrics.Counters().cells
        self.lines: list[str] = []
        complain = Complaints("test", self.lines.append)
        by = udp.Answering(Echo("/nowhere").respond, Clock(), self.cells, complain, replies=replies)
        self.thread = threading.Thread(target=udp.serve, args=(self.sock, address.is_wildcard, by), daemon=True)
        if start:
            self.thread.start()

    def client(self, host: str) -> socket.socket:
        """A connected socket: the kernel lets only replies from `host` and our port through."""
        sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
        sock.settimeout(3)
        sock.connect((host, self.port))
        return sock

    def ask(self, host: str, packet: bytes) -> bytes:
        with self.client(host) as sock:
            sock.send(packet)
            return sock.recv(65535)

    def counts(self) -> list[int]:
        return self.cells[metrics.UDP_RECEIVED : metrics.UDP_UNSENT + 1].tolist()

    def stop(self) -> None:
        udp.retire(self.sock)
        self.thread.join(3)
        self.sock.close()


@pytest.fixture
def served(request: pytest.FixtureRequest) -> Iterator[Served]:
    made = Served(getattr(request, "param", "127.0.0.1"))
    yield made
    made.stop()
    assert not made.thread.is_alive()


@pytest.mark.parametrize(
    ("served", "hosts"),
    [
        ("127.0.0.1", ["127.0.0.1"]),
        ("::1", ["::1"]),
        ("0.0.0.0", ["127.0.0.1", "127.0.0.2", "127.9.8.7"]),
        ("::", ["::1"]),
    ],
    indirect=["served"],
)
def test_replies_leave_from_the_address_that_was_asked(served: Served, hosts: list[str]) -> None:
    for host in hosts * 2:
        assert served.ask(host, b"\x12\x34hello") == b"\x12\x34hello"
        packed = socket.inet_pton(socket.AF_INET6 if ":" in host else socket.AF_INET, "::1" if ":" in host else "127.0.0.1")
        with served.client(host) as sock:
            source = sock.getsockname()[0]
            sock.send(b"client")
            assert sock.recv(100) == b"udp " + (socket.inet_pton(socket.AF_INET, source) if "." in host else packed)


def test_nobody_else_s_family_is_taken() -> None:
    both = Served("::")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("0.0.0.0", both.port))  # possible only where :: is IPv6 alone
    both.stop()


@pytest.mark.parametrize("served", ["127.0.0.1", "0.0.0.0", "::1", "::"], indirect=True)
def test_what_happens_is_counted_and_sums(served: Served) -> None:
    host = "::1" if ":" in served.sock.getsockname()[0] else "127.0.0.1"
    with served.client(host) as sock:
        for packet in (b"silence", b"raise", b"large", b"", b"truncated"):
            sock.send(packet)
        assert sock.recv(100) == b"empty"
        assert sock.recv(100) == b"\x00\x00\x82\x00"
    served.ask(host, b"end")
    # The reply leaves before it is counted.
    until = time.monotonic() + 2
    while served.counts()[0] != sum(served.counts()[1:]) and time.monotonic() < until:
        time.sleep(0.001)
    received, replied, silent, raised, unsent = served.counts()
    assert (received, replied, silent, raised, unsent) == (6, 3, 1, 1, 1)
    assert received == replied + silent + raised + unsent
    assert served.cells[metrics.TRUNCATED] == 1


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "::1", "::"])
def test_what_is_not_sent_disturbs_no_other_of_its_batch(host: str) -> None:
    waiting = Served(host, start=False)
    with waiting.client("::1" if ":" in host else "127.0.0.1") as sock:
        for packet in (b"silence", b"one", b"too large", b"raise", b"two", b"large", b"three", b"silence", b"silence", b"four"):
            sock.send(packet)
        waiting.thread.start()
        assert [sock.recv(100) for _ in range(4)] == [b"one", b"two", b"three", b"four"]
    waiting.stop()
    assert waiting.counts() == [10, 4, 3, 1, 2]


def test_a_batch_that_raises_is_answered_packet_by_packet() -> None:
    def some(received: Sequence[tuple[bytes, bytes]], now: float) -> list[bytes | None]:
        if any(packet == b"raise" for packet, _ in received):
            raise ValueError("for one of them")
        return [b"at once" if packet == b"usual" else None for packet, _ in received]

    for packets, wanted in (((b"one", b"raise", b"usual"), (b"one", b"usual")), ((b"usual", b"other"), (b"at once", b"other"))):
        waiting = Served("127.0.0.1", start=False, replies=some)
        with waiting.client("127.0.0.1") as sock:
            for packet in packets:
                sock.send(packet)
            waiting.thread.start()
            assert tuple(sock.recv(100) for _ in wanted) == wanted
        waiting.stop()
        assert waiting.counts() == [len(packets), 2, 0, len(packets) - 2, 0]
        assert len(waiting.lines) == len(packets) - 2


def test_exceptions_disturb_nobody_and_fill_no_log(served: Served) -> None:
    with served.client("127.0.0.1") as sock:
        for _ in range(200):
            sock.send(b"raise")
        sock.send(b"still here")
        assert sock.recv(100) == b"still here"
    assert served.cells[metrics.UDP_RAISED] == 200
    assert len(served.lines) == 1
    assert "answering: ValueError: as asked at " in served.lines[0]


def test_the_largest_datagram_comes_whole(served: Served) -> None:
    largest = bytes(range(256)) * 255 + bytes(227)  # 65,507 octets
    assert served.ask("127.0.0.1", largest) == largest


@pytest.mark.parametrize(("host", "asked"), [("127.0.0.1",) * 2, ("::1",) * 2, ("0.0.0.0", "127.0.0.2"), ("::", "::1")])
def test_what_is_queued_is_answered_at_the_end(host: str, asked: str) -> None:
    waiting = Served(host, start=False)
    with waiting.client(asked) as sock:
        for number in range(100):
            sock.send(b"%03d" % number)
        udp.retire(waiting.sock)
        waiting.thread.start()
        waiting.thread.join(3)
        assert not waiting.thread.is_alive()
        assert [sock.recv(100) for _ in range(100)] == [b"%03d" % number for number in range(100)]
    waiting.sock.close()


def test_path_mtu_is_not_believed() -> None:
    for host, level, option in (("127.0.0.1", socket.IPPROTO_IP, 10), ("::1", socket.IPPROTO_IPV6, 23)):
        with udp.open_socket(Address(host, 0)) as sock:
            assert sock.getsockopt(level, option) == 5  # IP_PMTUDISC_OMIT: RFC 9715 section 3.1


IN_NAMESPACE = """
import subprocess, sys
for line in ("link set lo up", "addr add 192.0.2.1/32 dev lo", "addr add 192.0.2.2/32 dev lo",
             "addr add 2001:db8::1/128 dev lo", "addr add 2001:db8::2/128 dev lo"):
    subprocess.run(["ip", *line.split()], check=True)
sys.path.insert(0, sys.argv[1])
from tests.system.test_udp import Served
for host, asked in (("0.0.0.0", ("192.0.2.1", "192.0.2.2")), ("::", ("2001:db8::1", "2001:db8::2"))):
    served = Served(host)
    for one in asked:
        assert served.ask(one, b"hello") == b"hello", one
    served.stop()
print("fine")
"""


@pytest.mark.root
def test_wildcards_answer_from_each_of_several_addresses() -> None:
    ran = subprocess.run(
        ["unshare", "-n", sys.executable, "-c", IN_NAMESPACE, str(Path(__file__).parents[2])],
        capture_output=True,
        text=True,
        timeout=30,
    )
    if "unshare failed" in ran.stderr:
        pytest.skip("no permission to make a network namespace")
    assert ran.stdout == "fine\n", ran.stderr
