"""Probes by TCP connect: SYN to SYN/ACK as the kernel measured it, or SYN to a refusal. Nothing is sent after it."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import struct
import time
from collections.abc import Callable

from edgedns.probe.measure import Endpoint, OnReply, Token
from edgedns.probe.source import Source

OPEN_LIMIT = 512
_TCPI_RTT_AT = 68  # struct tcp_info, linux/tcp.h: tcpi_rtt (us); tcpi_total_retrans at 100
_TCPI_RETRANS_AT = 100
_IP_RECVERR, _IPV6_RECVERR = 11, 25  # linux/in.h, linux/in6.h
_MSG_ERRQUEUE = 0x2000

OnSettled = Callable[["Attempt", float | None], None]


class Attempt:
    """One connection that is being opened. `settled` gets milliseconds, or None where nothing of the peer's came back.

    `open` then tells a connection from a refusal. Needs the running event loop; OSError where nothing could leave.
    """

    def __init__(self, source: Source, endpoint: Endpoint, settled: OnSettled) -> None:
        self.open = False
        self.sock = _socket(source)
        self._settled = settled
        self._loop = asyncio.get_running_loop()
        self._soon: asyncio.Handle | None = None
        self._steady = time.monotonic_ns()
        code = self.sock.connect_ex(endpoint[:2])
        if code == errno.EINPROGRESS:
            self._loop.add_writer(self.sock.fileno(), self._settle)
        elif code in (0, errno.ECONNREFUSED):  # on loopback the kernel answers within the call
            self._soon = self._loop.call_soon(self._settle, code, time.monotonic_ns() - self._steady)
        else:
            self.sock.close()
            raise OSError(code, os.strerror(code))

    def close(self) -> None:
        """Let go of it, in whatever state it is."""
        self._stop_watching()
        self.sock.close()

    def _stop_watching(self) -> None:
        if self._soon is not None:
            self._soon.cancel()
        elif self.sock.fileno() >= 0:
            self._loop.remove_writer(self.sock.fileno())

    def _settle(self, code: int | None = None, took_ns: int | None = None) -> None:
        took = time.monotonic_ns() - self._steady if took_ns is None else took_ns
        self._stop_watching()
        error = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) if code is None else code
        self.open = error == 0 and _has_peer(self.sock)
        if self.open:
            self._settled(self, handshake_ms(self.sock, took))
        else:
            refused = error == errno.ECONNREFUSED and not _was_told_by_icmp(self.sock)
            self._settled(self, took / 1e6 if refused else None)


def _socket(source: Source) -> socket.socket:
    """One that keeps apart what the peer says from what a router says about it."""
    sock = source.open(socket.SOCK_STREAM)
    six = source.family == 6
    sock.setsockopt(*((socket.IPPROTO_IPV6, _IPV6_RECVERR) if six else (socket.IPPROTO_IP, _IP_RECVERR)), 1)
    return sock


def _has_peer(sock: socket.socket) -> bool:
    """Whether it is connected. An ICMP error wakes who waits before the socket has it: then it is neither, for a moment."""
    try:
        sock.getpeername()
    except OSError:
        return False
    return True


def _was_told_by_icmp(sock: socket.socket) -> bool:
    """Whether an ICMP error ended it ("port unreachable", by a firewall on the way), and not a RST of the peer's."""
    try:
        sock.recvmsg(1, 512, _MSG_ERRQUEUE)
    except OSError:
        return False
    return True


def handshake_ms(sock: socket.socket, took_ns: int) -> float | None:
    """The kernel's RTT of the handshake, else our own; None where a SYN was lost on the way."""
    raw = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    if len(raw) < _TCPI_RETRANS_AT + 4:
        return took_ns / 1e6
    if struct.unpack_from("=I", raw, _TCPI_RETRANS_AT)[0]:
        return None
    rtt_us: int = struct.unpack_from("=I", raw, _TCPI_RTT_AT)[0]
    return rtt_us / 1e3 if 0 < rtt_us * 1000 <= took_ns else took_ns / 1e6


class TcpLine:
    """Probes by TCP connect, a socket each; a refusal is a reply."""

    way = ""

    def __init__(self, source: Source) -> None:
        """NotPossible where nothing can leave from there."""
        self.strays = 0
        self._source = source
        self._open: dict[int, Attempt] = {}
        self._next = 0
        _socket(source).close()

    def send(self, endpoint: Endpoint, on_reply: OnReply) -> Token:
        if len(self._open) >= OPEN_LIMIT:
            raise OSError(errno.EMFILE, "too many connections under way")
        number = self._next
        self._next += 1

        def settled(attempt: Attempt, rtt_ms: float | None) -> None:
            del self._open[number]
            attempt.close()
            if rtt_ms is not None:
                on_reply(rtt_ms)

        self._open[number] = Attempt(self._source, endpoint, settled)
        return Token(endpoint, number)

    def forget(self, token: Token) -> None:
        attempt = self._open.pop(token.number, None)
        if attempt is not None:
            attempt.close()

    def close(self) -> None:
        for attempt in self._open.values():
            attempt.close()
        self._open.clear()
