"""One timed exchange: a packet leaves from a provider's source address, its reply comes back, or doesn't.

A *line* is one source address and one method. Its socket is shared by all exchanges on it; each reply finds its
exchange by peer and number (`wire.py`). Send times are read just before the system call, receive times are the
kernel's (SO_TIMESTAMPNS; TCP's own measure of its handshake), so a busy event loop doesn't lengthen an RTT.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import struct
import time
from collections.abc import Callable
from typing import Literal, NamedTuple, Protocol

from edgedns.errors import EdgednsError
from edgedns.model import Family
from edgedns.probe.wire import DnsQuery, Echo, Format, IcmpEcho

Method = Literal["udp", "tcp", "dns", "icmp"]
METHODS: tuple[Method, ...] = ("udp", "tcp", "dns", "icmp")

SO_TIMESTAMPNS = 35  # linux/asm-generic/socket.h; also the type of the control message
_TIMESPEC = struct.Struct("@ll")
_CONTROL_SPACE = socket.CMSG_SPACE(_TIMESPEC.size)
_BUFFER = 4 << 20
_DRAIN = 256
_TCP_OPEN_LIMIT = 512
_TCPI_RTT_AT = 68  # struct tcp_info, linux/tcp.h: tcpi_rtt (us); tcpi_total_retrans at 100
_TCPI_RETRANS_AT = 100
_IP_BIND_ADDRESS_NO_PORT = 24

OnReply = Callable[[float], None]


class NotPossible(EdgednsError):
    """This process can't probe that way from there, and why."""


class Endpoint(NamedTuple):
    """Where packets go: a numeric address as the kernel writes it, and a port (0 for ICMP)."""

    host: str
    port: int


class Token(NamedTuple):
    """One exchange under way; gives the way back to `forget`."""

    endpoint: Endpoint
    number: int


class Line(Protocol):
    """One source address and method. `send` raises OSError where nothing could leave; `on_reply` gets milliseconds."""

    strays: int

    def send(self, endpoint: Endpoint, on_reply: OnReply) -> Token: ...

    def forget(self, token: Token) -> None: ...

    def close(self) -> None: ...


class _Waiting(NamedTuple):
    sent_ns: int
    sent_steady_ns: int
    on_reply: OnReply


class DatagramLine:
    """Probes by datagrams over one socket: our UDP echo, DNS, ICMP echo. Needs the running event loop."""

    def __init__(self, sock: socket.socket, format: Format, first: int = 0) -> None:  # noqa: A002
        self.strays = 0
        self._sock = sock
        self._format = format
        self._mask = (1 << format.width) - 1
        self._next = first & self._mask
        self._waiting: dict[Token, _Waiting] = {}
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(sock.fileno(), self._drain)

    def send(self, endpoint: Endpoint, on_reply: OnReply) -> Token:
        number = self._next
        self._next = (number + 1) & self._mask
        token = Token(endpoint, number)
        steady, sent = time.monotonic_ns(), time.time_ns()
        packet = self._format.request(number, sent)
        sent = time.time_ns()
        self._sock.sendto(packet, endpoint)
        self._waiting[token] = _Waiting(sent, steady, on_reply)
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
        number = self._format.number(packet)
        waiting = None if number is None else self._waiting.pop(Token(Endpoint(peer[0], peer[1]), number), None)
        if waiting is None:
            self.strays += 1
            return
        elapsed = received_ns - waiting.sent_ns
        steady = time.monotonic_ns() - waiting.sent_steady_ns
        if not 0 <= elapsed <= steady + 1_000_000:  # somebody set the clock meanwhile
            elapsed = steady
        waiting.on_reply(elapsed / 1e6)


class TcpLine:
    """Probes by TCP connect, a socket each; a refusal is a reply. Needs the running event loop."""

    def __init__(self, source: str) -> None:
        self.strays = 0
        self._source = source
        self._family = socket.AF_INET6 if ":" in source else socket.AF_INET
        self._open: dict[int, tuple[socket.socket, int, OnReply]] = {}
        self._next = 0
        self._loop = asyncio.get_running_loop()
        self._socket().close()

    def _socket(self) -> socket.socket:
        sock = socket.socket(self._family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            sock.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
            sock.bind((self._source, 0))
        except OSError:
            sock.close()
            raise
        return sock

    def send(self, endpoint: Endpoint, on_reply: OnReply) -> Token:
        if len(self._open) >= _TCP_OPEN_LIMIT:
            raise OSError(errno.EMFILE, "too many connections under way")
        sock = self._socket()
        number = self._next
        self._next += 1
        steady = time.monotonic_ns()
        code = sock.connect_ex(endpoint)
        if code not in (0, errno.EINPROGRESS, errno.ECONNREFUSED):
            sock.close()
            raise OSError(code, os.strerror(code))
        self._open[number] = (sock, steady, on_reply)
        if code == errno.EINPROGRESS:
            self._loop.add_writer(sock.fileno(), self._settle, number)
        else:  # on loopback the kernel answers within the call
            took = time.monotonic_ns() - steady
            self._loop.call_soon(self._settle, number, took, code)
        return Token(endpoint, number)

    def forget(self, token: Token) -> None:
        entry = self._open.pop(token.number, None)
        if entry is not None:
            self._drop(entry[0])

    def close(self) -> None:
        for sock, _, _ in self._open.values():
            self._drop(sock)
        self._open.clear()

    def _drop(self, sock: socket.socket) -> None:
        self._loop.remove_writer(sock.fileno())
        sock.close()

    def _settle(self, number: int, took_ns: int | None = None, code: int | None = None) -> None:
        entry = self._open.pop(number, None)
        if entry is None:
            return
        sock, steady, on_reply = entry
        took = time.monotonic_ns() - steady if took_ns is None else took_ns
        error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) if code is None else code
        rtt_ms = _handshake_ms(sock, took) if error == 0 else took / 1e6
        self._drop(sock)
        if error in (0, errno.ECONNREFUSED) and rtt_ms is not None:
            on_reply(rtt_ms)


def _handshake_ms(sock: socket.socket, took_ns: int) -> float | None:
    """The kernel's RTT of the handshake, else our own; None where a SYN was lost on the way."""
    raw = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    if len(raw) < _TCPI_RETRANS_AT + 4:
        return took_ns / 1e6
    if struct.unpack_from("=I", raw, _TCPI_RETRANS_AT)[0]:
        return None
    rtt_us: int = struct.unpack_from("=I", raw, _TCPI_RTT_AT)[0]
    return rtt_us / 1e3 if 0 < rtt_us * 1000 <= took_ns else took_ns / 1e6


def _received_ns(control: list[tuple[int, int, bytes]]) -> int:
    for level, kind, value in control:
        if level == socket.SOL_SOCKET and kind == SO_TIMESTAMPNS and len(value) >= _TIMESPEC.size:
            seconds, nanoseconds = _TIMESPEC.unpack_from(value)
            return int(seconds) * 1_000_000_000 + int(nanoseconds)
    return time.time_ns()


def datagram_socket(source: str, method: Method) -> socket.socket:
    """A non-blocking socket bound to `source` with kernel receive times; raises OSError."""
    six = ":" in source
    protocol = 0
    if method == "icmp":
        protocol = socket.IPPROTO_ICMPV6 if six else socket.IPPROTO_ICMP
    kind = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK
    sock = socket.socket(socket.AF_INET6 if six else socket.AF_INET, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        sock.bind((source, 0))
    except OSError:
        sock.close()
        raise
    return sock


def open_line(method: Method, source: str, vantage: str, provider: str, key: bytes) -> Line:
    """The line for a method from a source address, in the running event loop; NotPossible says what is in the way."""
    try:
        if method == "tcp":
            return TcpLine(source)
        sock = datagram_socket(source, method)
    except OSError as error:
        raise NotPossible(_why_not(method, source, error)) from None
    first = int.from_bytes(key[:6], "big")
    return DatagramLine(sock, _format(method, 6 if ":" in source else 4, vantage, provider, key), first)


def _format(method: Method, family: Family, vantage: str, provider: str, key: bytes) -> Format:
    if method == "dns":
        return DnsQuery(key)
    echo = Echo(key, vantage, provider)
    return IcmpEcho(family, echo) if method == "icmp" else echo


def _why_not(method: Method, source: str, error: OSError) -> str:
    if method == "icmp" and error.errno in (errno.EACCES, errno.EPERM):
        return (
            f"can't probe by ICMP from {source}: this group may not open ICMP sockets "
            "(sysctl net.ipv4.ping_group_range decides)"
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return f"can't probe by {method} from {source}: no interface here has that address"
    return f"can't probe by {method} from {source}: {error.strerror or error}"


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
