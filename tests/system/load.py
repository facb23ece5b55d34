"""A steady load of queries, each sent once, every reply checked against the snapshot whose serial it carries (NSID)."""

from __future__ import annotations

import contextlib
import re
import select
import socket
import threading
import time
from dataclasses import dataclass, field
from ipaddress import ip_network
from pathlib import Path
from random import Random
from typing import Any

import dns.edns
import dns.message

from edgedns.engine.answer import Secrets, respond
from edgedns.engine.snapshot import Snapshot, View
from edgedns.engine.tally import Tally
from edgedns.errors import EdgednsError
from edgedns.metrics import CELLS
from edgedns.publish import read_root
from edgedns.serve.current import Mapped
from tests.small import NETWORKS, subnet
from tests.system.serving import SLACK

RATE = 500
LATE = 2.0  # seconds until an unanswered query counts as lost
BEHIND = 0.5 * SLACK  # a worker is told of a new root, or looks each 100 ms; on a busy machine later
UNSEEN = 0.1  # the share of replies from roots that were gone before we could look, which nobody can judge
STEERED = ("www", "split", "one", "alias")
NAMES = (*STEERED, "plain", "nowhere")
CLIENT = bytes((127, 0, 0, 1))
NSID = re.compile(rb"\x00\x03\x00.[!-~]+:(\d+)", re.DOTALL)  # option 3: node and serial


@dataclass(slots=True)
class Asked:
    packet: bytes
    name: str
    sent: float
    reply: bytes = b""
    received: float = 0.0


@dataclass
class Published:
    """Every root that was there, each opened twice, for looking a little back and a little ahead in time.

    `seen` has (early, late) by serial; `at` when each was seen first, in that order.
    """

    directory: Path
    seen: dict[int, tuple[Snapshot, Snapshot]] = field(default_factory=dict)
    at: dict[int, float] = field(default_factory=dict)

    def look(self) -> None:
        """Open what is published now, if it can be and is new."""
        with contextlib.suppress(EdgednsError, KeyError, TypeError, ValueError):
            root = read_root(self.directory)
            if root and root["serial"] not in self.seen:
                early = Mapped(self.directory).snapshot(root)
                self.seen[early.serial] = early, Snapshot(root, early.files, early.base)
                self.at[early.serial] = time.time()

    def replaced_at(self, serial: int) -> float:
        """When the next one was seen."""
        serials = [*self.at]
        after = serials[serials.index(serial) + 1 :]
        return self.at[after[0]] if after else float("inf")


class Load:
    """Use as a context; at its end all is answered and checked, and `report` says what came of it.

    `rate` queries a second, from `sockets` ports in turn, which the kernel spreads over the workers.
    """

    def __init__(self, port: int, state: Path, rate: int = RATE, sockets: int = 1) -> None:
        self.asked: list[Asked] = []
        self._rate, self._sockets = rate, sockets
        self._published = Published(state / "published")
        self._published.look()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._watch), threading.Thread(target=self._ask, args=(port,))]
        self._cells = Tally(memoryview(bytearray(8 * CELLS)).cast("Q"))
        self._known: dict[tuple[View, bytes], bytes] = {}

    def __enter__(self) -> Load:
        watching, asking = self._threads
        watching.start()
        time.sleep(0.4)  # until no worker serves a root from before we looked
        asking.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    @property
    def roots(self) -> int:
        return len(self._published.seen)

    def report(self) -> dict[str, int]:
        """How many were lost, SERVFAIL, empty though steered, or not what any snapshot around then gives."""
        found, unseen = {"lost": 0, "servfail": 0, "empty": 0, "wrong": 0}, 0
        for one in self.asked:
            if not one.reply:
                found["lost"] += 1
                continue
            found["servfail"] += one.reply[3] & 15 == 2
            found["empty"] += one.name in STEERED and one.reply[6:8] == b"\0\0"
            right = self._is_right(one)
            unseen += right is None
            found["wrong"] += right is False
        assert unseen <= UNSEEN * len(self.asked), (unseen, sorted(self._published.seen))
        return found

    def waits(self, since: float = 0.0, until: float = float("inf")) -> list[float]:
        """Seconds that each query asked within these Unix times waited for its reply, sorted."""
        return sorted(one.received - one.sent for one in self.asked if one.reply and since <= one.sent < until)

    def _is_right(self, one: Asked) -> bool | None:
        """Whether it is what the snapshot of its serial gives, and that was not old; None where we never saw that one."""
        told = NSID.search(one.reply)
        serial = int(told[1]) if told else -1
        if told and serial not in self._published.seen:
            return None
        if not told or self._published.replaced_at(serial) + BEHIND < one.sent:
            return False
        early, late = self._published.seen[serial]
        expected = (self._expected(early, one.sent - 0.5, one.packet), self._expected(late, one.received + 0.5, one.packet))
        return one.reply[2:] in expected

    def _expected(self, snapshot: Snapshot, at: float, packet: bytes) -> bytes:
        """The reference path's reply without its id."""
        view = snapshot.at(at)
        key = view, packet[2:]
        if key not in self._known:
            reply = respond(snapshot, packet, CLIENT, "udp", at, Secrets((bytes(16),)), self._cells)
            assert reply is not None
            self._known[key] = reply[2:]
        return self._known[key]

    def _watch(self) -> None:
        while not self._stop.is_set():
            self._published.look()
            time.sleep(0.01)

    def _ask(self, port: int) -> None:
        dice, packets = Random(7), _packets()
        waiting: dict[socket.socket, dict[bytes, Asked]] = {_socket(port): {} for _ in range(self._sockets)}
        asking, poller = list(waiting), select.epoll()
        for sock in asking:
            poller.register(sock, select.EPOLLIN)
        begun, sent = time.monotonic(), 0
        while not self._stop.is_set():
            while sent < (time.monotonic() - begun) * self._rate:
                name, packet = dice.choice(packets)
                packet = (sent & 0xFFFF).to_bytes(2, "big") + packet[2:]
                sock = asking[sent % len(asking)]
                one = waiting[sock][packet[:2]] = Asked(packet, name, time.time())
                self.asked.append(one)
                sock.send(packet)
                sent += 1
            _receive(poller, waiting, 0.002)
        until = time.monotonic() + LATE
        while any(waiting.values()) and time.monotonic() < until:
            _receive(poller, waiting, 0.05)
        poller.close()
        for sock in asking:
            sock.close()


def _socket(port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    sock.connect(("127.0.0.1", port))
    sock.setblocking(False)
    return sock


def _receive(poller: select.epoll, waiting: dict[socket.socket, dict[bytes, Asked]], pause: float) -> None:
    """Whatever came on any of the sockets; wait for the first one at most `pause` seconds."""
    ready = {descriptor for descriptor, _ in poller.poll(pause)}
    for sock, asked in waiting.items():
        with contextlib.suppress(BlockingIOError):
            while sock.fileno() in ready:
                reply = sock.recv(4096)
                one = asked.pop(reply[:2], None)
                assert one is not None, "a reply that nobody waits for"
                one.reply, one.received = reply, time.time()


def _packets() -> list[tuple[str, bytes]]:
    made: list[tuple[str, bytes]] = []
    for number in range(0, NETWORKS, 3):
        prefix = ip_network(subnet(number))
        options: list[Any] = [dns.edns.ECSOption(str(prefix.network_address), prefix.prefixlen), dns.edns.NSIDOption(b"")]
        for name in NAMES:
            for rtype in ("A", "AAAA") if name in ("www", "split") else ("A",):
                message = dns.message.make_query(f"{name}.example.net", rtype, use_edns=0, payload=1232, options=options)
                made.append((name, message.to_wire()))
    return made
