"""The simulated Internet for UDP probes: one socket on loopback that sends each datagram back, as late as its path is long.

The destination address tells the network (127.80.x.y, by IP_PKTINFO), the source address alone tells the provider.
A reply's time counts from the kernel's receive time (SO_TIMESTAMPNS), so that what this process does in between
adds nothing; `select` and a heap send it. Nothing comes from or goes to anywhere but 127.0.0.0/8.
"""

from __future__ import annotations

import contextlib
import errno
import heapq
import json
import select
import socket
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from edgedns.demo.networks import Network
from edgedns.demo.paths import Internet
from edgedns.demo.script import Change, Event, timeline
from edgedns.errors import EdgednsError

IP_PKTINFO = 8  # linux/in.h
SO_TIMESTAMPNS = 35  # asm-generic/socket.h
_IN_PKTINFO = struct.Struct("=I4s4s")
_TIMESPEC = struct.Struct("@ll")
_CONTROL_SPACE = socket.CMSG_SPACE(_IN_PKTINFO.size) + socket.CMSG_SPACE(_TIMESPEC.size)
_TURN = 32
_BUFFER = 4 << 20
REPLIES_LIMIT = 200_000
LONGEST_WAIT = 0.5

Tell = Callable[[dict[str, Any]], None]


def endpoint_of(index: int) -> str:
    """The loopback address that stands for the network of this index, up to 63,750 of them."""
    return f"127.80.{1 + index // 250}.{1 + index % 250}"


def targets(networks: Sequence[Network], port: int) -> list[dict[str, str]]:
    """A target for each network: its real address, and where on loopback its packets go."""
    return [
        {"address": network.address, "endpoint": f"{endpoint_of(index)}:{port}"} for index, network in enumerate(networks)
    ]


def write_targets(path: Path, networks: Sequence[Network], port: int) -> None:
    """The targets file that `edgedns probe` reads, as JSON lines."""
    path.write_text("".join(json.dumps(target) + "\n" for target in targets(networks, port)), encoding="ascii")


def open_socket(port: int) -> socket.socket:
    """A non-blocking socket for all of 127.0.0.0/8 at this port, on the loopback interface only where permitted."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    try:
        with contextlib.suppress(PermissionError):  # then what isn't from loopback is dropped on arrival
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo")
        sock.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
        sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        sock.bind(("0.0.0.0", port))
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRINUSE:
            raise EdgednsError(f"UDP port {port} is in use: give the simulator another one") from None
        raise EdgednsError(f"can't open UDP port {port}: {error.strerror}") from None
    return sock


class _Reply(NamedTuple):
    """A datagram on its way back; heaps sort by the first two."""

    due_ns: int
    number: int
    payload: bytes
    sender: tuple[str, int]
    here: bytes


class Simulator:
    """Runs one Internet over one socket. Counters: received = replied + lost + strangers + overflowed + under way."""

    def __init__(self, internet: Internet, sock: socket.socket, dice: Random, tell: Tell) -> None:
        self.received = self.replied = self.lost = self.strangers = self.overflowed = 0
        self._internet = internet
        self._sock = sock
        self._dice = dice
        self._tell = tell
        self._provider_of = {transit.source: row for row, transit in enumerate(internet.script.providers)}
        self._network_of = {socket.inet_aton(endpoint_of(index)): index for index in range(len(internet.networks))}
        self._replies: list[_Reply] = []
        self._under_way: list[Event] = []

    def run(self, wake: socket.socket, lasts: float | None = None) -> None:
        """Until `wake` has something to read, or `lasts` seconds have gone by."""
        start = time.monotonic()
        changes = timeline(self._internet.script)
        change = next(changes, None)
        while lasts is None or time.monotonic() - start < lasts:
            elapsed = time.monotonic() - start
            while change is not None and change.at <= elapsed:
                self._turn(change)
                change = next(changes, None)
            wait = LONGEST_WAIT if change is None else min(LONGEST_WAIT, change.at - elapsed)
            ready, _, _ = select.select([self._sock, wake], [], [], max(0.0, min(wait, self._until_due())))
            if wake in ready:
                return
            if ready:
                self._receive()
            self._send_due()

    def _until_due(self) -> float:
        return (self._replies[0].due_ns - time.time_ns()) / 1e9 if self._replies else LONGEST_WAIT

    def _turn(self, change: Change) -> None:
        event = change.event
        if change.begins:
            self._under_way.append(event)
        else:
            self._under_way.remove(event)
        self._internet.apply(self._under_way)
        touched = self._internet.touched(event)
        self._tell({
            "at": round(time.time(), 3),
            "kind": event.kind if change.begins else "return",
            "text": event.text if change.begins else f"Over: {event.text}",
            "provider": event.provider,
            "networks": len(touched),
            "asns": sorted(network.asn for network in touched),
            "for": event.lasts if change.begins else 0,
        })  # fmt: skip

    def _receive(self) -> None:
        for _ in range(_TURN):
            try:
                payload, control, _, sender = self._sock.recvmsg(2048, _CONTROL_SPACE)
            except BlockingIOError:
                return
            except OSError:
                continue
            self.received += 1
            here, received_ns = _told(control)
            self._take(payload, sender, here, received_ns)

    def _take(self, payload: bytes, sender: tuple[str, int], here: bytes, received_ns: int) -> None:
        provider, network = self._provider_of.get(sender[0]), self._network_of.get(here)
        if provider is None or network is None:
            self.strangers += 1
            return
        delay = self._internet.delay_ms(self._internet.paths[provider][network], received_ns / 1e9, self._dice)
        if delay is None:
            self.lost += 1
        elif len(self._replies) >= REPLIES_LIMIT:
            self.overflowed += 1
        else:
            due = received_ns + int(delay * 1e6)
            heapq.heappush(self._replies, _Reply(due, self.received, payload, sender, here))

    def _send_due(self) -> None:
        now = time.time_ns()
        for reply in self._due(now):
            control = [(socket.IPPROTO_IP, IP_PKTINFO, _IN_PKTINFO.pack(0, reply.here, bytes(4)))]
            with contextlib.suppress(OSError):  # whoever asked may be gone
                self._sock.sendmsg([reply.payload], control, 0, reply.sender)
            self.replied += 1

    def _due(self, now: int) -> Iterator[_Reply]:
        for _ in range(_TURN):
            if not self._replies or self._replies[0].due_ns > now:
                return
            yield heapq.heappop(self._replies)


def _told(control: Sequence[tuple[int, int, bytes]]) -> tuple[bytes, int]:
    """(the address that was asked, when the kernel received it) from a datagram's control messages."""
    here, received_ns = b"", 0
    for level, kind, value in control:
        if (level, kind) == (socket.IPPROTO_IP, IP_PKTINFO):
            here = _IN_PKTINFO.unpack_from(value)[2]
        elif (level, kind) == (socket.SOL_SOCKET, SO_TIMESTAMPNS):
            seconds, nanoseconds = _TIMESPEC.unpack_from(value)
            received_ns = int(seconds) * 1_000_000_000 + int(nanoseconds)
    return here, received_ns or time.time_ns()
