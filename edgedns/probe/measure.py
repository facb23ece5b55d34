"""One timed exchange: a packet leaves from a provider's source address, its reply comes back, or doesn't.

A *line* is one source and one method. Its socket is shared by all exchanges on it; each reply finds its exchange by
peer and stamp (`wire.py`). Send times are read just before the system call, receive times are the kernel's
(SO_TIMESTAMPNS; TCP's own measure of its handshake), so a busy event loop doesn't lengthen an RTT.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections.abc import Callable
from typing import NamedTuple, Protocol

from edgedns.probe.source import SO_TIMESTAMPNS
from edgedns.probe.wire import Format, Stamp

_TIMESPEC = struct.Struct("@ll")
_CONTROL_SPACE = socket.CMSG_SPACE(_TIMESPEC.size)
_DRAIN = 256

OnReply = Callable[[float], None]
OnForeign = Callable[[Stamp, str], None]


class Endpoint(NamedTuple):
    """Where packets go: a numeric address as the kernel writes it, and a port (0 for ICMP).

    `server` is the name that an HTTP(S) server is asked for, and its certificate held to; without one that is not judged.
    """

    host: str
    port: int
    server: str = ""


class Token(NamedTuple):
    """One exchange under way; gives the way back to `forget`."""

    endpoint: Endpoint
    number: int


class Line(Protocol):
    """One source and method. `send` raises OSError where nothing could leave; `on_reply` gets milliseconds.

    `way` says how it is done, where the system leaves a choice; `strays` counts what came and answered nothing of ours.
    """

    strays: int
    way: str

    def send(self, endpoint: Endpoint, on_reply: OnReply) -> Token: ...

    def forget(self, token: Token) -> None: ...

    def close(self) -> None: ...


class _Waiting(NamedTuple):
    stamped_ns: int
    sent_ns: int
    sent_steady_ns: int
    on_reply: OnReply


class DatagramLine:
    """Probes by datagrams over one socket: our UDP echo, DNS, ICMP echo. Needs the running event loop.

    `speaker` is (vantage, provider) of what we send. A reply to somebody else of the fleet, through the same provider,
    goes to `on_foreign` with the address that it came from.
    """

    def __init__(
        self,
        sock: socket.socket,
        format: Format,  # noqa: A002
        speaker: tuple[str, str],
        first: int,
        on_foreign: OnForeign | None = None,
        way: str = "",
    ) -> None:
        self.strays = 0
        self.way = way
        self._sock = sock
        self._format = format
        self._vantage, self._provider = speaker
        self._next = first
        self._on_foreign = on_foreign
        self._waiting: dict[Token, _Waiting] = {}
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(sock.fileno(), self._drain)

    def send(self, endpoint: Endpoint, on_reply: OnReply) -> Token:
        token = Token(endpoint, self._next)
        steady, stamped = time.monotonic_ns(), time.time_ns()
        packet = self._format.request(token.number, stamped, endpoint.host)
        sent = time.time_ns()
        self._sock.sendto(packet, endpoint[:2])
        self._next = (token.number + 1) & 0xFFFFFFFFFFFFFFFF
        self._waiting[token] = _Waiting(stamped, sent, steady, on_reply)
        return token

    def forget(self, token: Token) -> None:
        self._waiting.pop(token, None)

    def close(self) -> None:
        self._loop.remove_reader(self._sock.fileno())
        self._sock.close()

    def _drain(self) -> None:
        for _ in range(_DRAIN):
            try:
                packet, control, _, peer = self._sock.recvmsg(2048, _CONTROL_SPACE)
            except BlockingIOError:
                return
            except OSError:  # an ICMP error that came for the socket: the probe it was about just gets no reply
                continue
            self._take(packet, peer, _received_ns(control))

    def _take(self, packet: bytes, peer: tuple[str, int], received_ns: int) -> None:
        stamp = self._format.stamp(packet, peer[0])
        if stamp is None or stamp.provider != self._provider:
            self.strays += 1
        elif stamp.vantage == self._vantage:
            self._settle(stamp, Endpoint(*peer[:2]), received_ns)
        elif self._on_foreign is not None:
            self._on_foreign(stamp, peer[0])

    def _settle(self, stamp: Stamp, endpoint: Endpoint, received_ns: int) -> None:
        token = Token(endpoint, stamp.number)
        waiting = self._waiting.get(token)
        if waiting is None or waiting.stamped_ns != stamp.sent_ns:
            self.strays += 1
            return
        del self._waiting[token]
        elapsed = received_ns - waiting.sent_ns
        steady = time.monotonic_ns() - waiting.sent_steady_ns
        if not 0 <= elapsed <= steady + 1_000_000:  # somebody set the clock meanwhile
            elapsed = steady
        waiting.on_reply(elapsed / 1e6)


def _received_ns(control: list[tuple[int, int, bytes]]) -> int:
    for level, kind, value in control:
        if level == socket.SOL_SOCKET and kind == SO_TIMESTAMPNS and len(value) >= _TIMESPEC.size:
            seconds, nanoseconds = _TIMESPEC.unpack_from(value)
            return int(seconds) * 1_000_000_000 + int(nanoseconds)
    return time.time_ns()


async def exchange(line: Line, endpoint: Endpoint, timeout: float) -> float | None:
    """One packet and its reply: RTT in ms, or None after `timeout` seconds. OSError where nothing could leave."""
    reply: asyncio.Future[float] = asyncio.get_running_loop().create_future()
    token = line.send(endpoint, lambda rtt_ms: None if reply.done() else reply.set_result(rtt_ms))
    try:
        return await asyncio.wait_for(reply, timeout)
    except TimeoutError:
        return None
    finally:
        line.forget(token)
