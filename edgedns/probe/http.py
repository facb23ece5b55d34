"""Probes by HTTP and HTTPS: a HEAD for `/`, which any status line answers, whatever it says.

What is timed by default is the TCP handshake before it, as the kernel saw it: nobody but the peer's kernel has a hand in
that, so it is the closest to the path's own RTT; the HEAD only shows that something still serves there. `first-byte` times
the HEAD itself instead, on a connection that is kept: that reaches through whatever ends TCP on the way (a load
balancer, a proxy), and has the server's own time in it, and this process'. A kept connection keeps its path, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import re
import socket
import time
from collections.abc import Callable
from functools import partial
from typing import Literal, NamedTuple

from edgedns.probe import tls
from edgedns.probe.connect import OPEN_LIMIT, Attempt
from edgedns.probe.measure import Endpoint, OnReply, Token
from edgedns.probe.source import Source

HttpTime = Literal["connect", "first-byte"]
HTTP_TIMES: tuple[HttpTime, ...] = ("connect", "first-byte")
HEAD_LIMIT = 16 << 10
KEPT_LIMIT = 512
_STATUS = re.compile(rb"HTTP/1\.[01] [1-5]\d\d[ \r]")
_STATUS_SIZE = 13
_LASTS = re.compile(rb"HTTP/1\.1 [2-5](?!.*\nconnection:[^\r\n]*close)", re.IGNORECASE | re.DOTALL)

OnAnswer = Callable[[float | None], None]


class Connection(asyncio.Protocol):
    """An open connection on which a HEAD at a time is asked."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._answered: OnAnswer | None = None
        self._head = b""
        self._asked_ns = self._first_ns = 0

    @property
    def is_open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def ask(self, request: bytes, answered: OnAnswer) -> None:
        """`answered` gets the milliseconds to the first octet once the head is complete; None when there will be none."""
        self._head, self._first_ns, self._answered = b"", 0, answered
        self._asked_ns = time.monotonic_ns()
        if self._transport is not None:
            self._transport.write(request)

    def abort(self) -> None:
        """Let go of it, without a word to whoever asked."""
        self._answered = None
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._first_ns = self._first_ns or time.monotonic_ns()
        self._head += data
        end = self._head.find(b"\r\n\r\n")
        if self._answered is None or not _is_http(self._head) or len(self._head) > HEAD_LIMIT:
            self._end(None)
        elif end >= 0:
            if end + 4 != len(self._head) or not _LASTS.match(self._head):
                self._close()
            self._end((self._first_ns - self._asked_ns) / 1e6)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(None)

    def _end(self, first_ms: float | None) -> None:
        answered, self._answered = self._answered, None
        if first_ms is None:
            self._close()
        if answered is not None:
            answered(first_ms)

    def _close(self) -> None:
        if self._transport is not None:
            self._transport.abort()


def _is_http(head: bytes) -> bool:
    """Whether a reply may have begun like this."""
    return bool(_STATUS.match(head)) if len(head) >= _STATUS_SIZE else b"HTTP/1."[: len(head)] == head[:7]


class _Probe(NamedTuple):
    number: int
    endpoint: Endpoint
    on_reply: OnReply


class HttpLine:
    """Probes by HTTP from one source. Needs the running event loop."""

    def __init__(self, source: Source, secure: bool, user_agent: str, timed: HttpTime = "connect") -> None:
        """NotPossible where nothing can leave from there."""
        self.strays = 0
        self.way = f"timing {'the TCP handshake' if timed == 'connect' else 'the first octet of the reply'}"
        self._source = source
        self._secure = secure
        self._user_agent = user_agent
        self._keeps = timed == "first-byte"
        self._under_way: dict[int, Callable[[], object]] = {}  # how to let go of each
        self._kept: dict[Endpoint, Connection] = {}
        self._next = 0
        self._loop = asyncio.get_running_loop()
        if secure:
            tls.judging()  # not between two probes
        source.open(socket.SOCK_STREAM).close()

    def send(self, endpoint: Endpoint, on_reply: OnReply) -> Token:
        if len(self._under_way) >= OPEN_LIMIT:
            raise OSError(errno.EMFILE, "too many connections under way")
        probe = _Probe(self._next, endpoint, on_reply)
        self._next += 1
        kept = self._kept.pop(endpoint, None)
        if kept is not None and kept.is_open:
            self._ask(probe, kept, None)
        else:
            self._connect(probe)
        return Token(endpoint, probe.number)

    def forget(self, token: Token) -> None:
        let_go = self._under_way.pop(token.number, None)
        if let_go is not None:
            let_go()

    def close(self) -> None:
        for let_go in (*self._under_way.values(), *(kept.abort for kept in self._kept.values())):
            let_go()
        self._under_way.clear()
        self._kept.clear()

    def _connect(self, probe: _Probe) -> None:
        attempt = Attempt(self._source, probe.endpoint, partial(self._connected, probe))
        self._under_way[probe.number] = attempt.close

    def _connected(self, probe: _Probe, attempt: Attempt, handshake_ms: float | None) -> None:
        if not attempt.open or handshake_ms is None:
            self.forget(Token(probe.endpoint, probe.number))
            return
        task = self._loop.create_task(self._greet(probe, attempt.sock, handshake_ms))
        task.add_done_callback(lambda done: attempt.sock.close() if done.cancelled() else None)
        self._under_way[probe.number] = task.cancel

    async def _greet(self, probe: _Probe, sock: socket.socket, handshake_ms: float) -> None:
        """TLS where there is to be any, and the HEAD."""
        name = probe.endpoint.server
        context = (tls.judging() if name else tls.trusting()) if self._secure else None
        try:
            _, connection = await self._loop.create_connection(
                Connection, sock=sock, ssl=context, server_hostname=name or probe.endpoint.host if self._secure else None
            )
        except (OSError, ValueError):  # TLS' own errors are OSErrors; a name that no certificate can have is none
            self._under_way.pop(probe.number, None)
            sock.close()
            return
        self._ask(probe, connection, handshake_ms)

    def _ask(self, probe: _Probe, connection: Connection, handshake_ms: float | None) -> None:
        """handshake_ms: None for a connection that was kept."""
        self._under_way[probe.number] = connection.abort
        connection.ask(self._request(probe.endpoint), partial(self._answered, probe, connection, handshake_ms))

    def _answered(self, probe: _Probe, connection: Connection, handshake_ms: float | None, first_ms: float | None) -> None:
        self._under_way.pop(probe.number, None)
        if first_ms is not None:
            self._keep(probe.endpoint, connection)
            probe.on_reply(first_ms if self._keeps or handshake_ms is None else handshake_ms)
        elif handshake_ms is None:  # the server ended meanwhile what we had kept
            with contextlib.suppress(OSError):
                self._connect(probe)

    def _keep(self, endpoint: Endpoint, connection: Connection) -> None:
        if not self._keeps or endpoint in self._kept or not connection.is_open:
            connection.abort()
            return
        self._kept[endpoint] = connection
        if len(self._kept) > KEPT_LIMIT:
            self._kept.pop(next(iter(self._kept))).abort()

    def _request(self, endpoint: Endpoint) -> bytes:
        name = endpoint.server or (f"[{endpoint.host}]" if ":" in endpoint.host else endpoint.host)
        port = "" if endpoint.port == (443 if self._secure else 80) else f":{endpoint.port}"
        fate = "keep-alive" if self._keeps else "close"
        fields = (f"Host: {name}{port}", f"User-Agent: {self._user_agent}", "Accept: */*", f"Connection: {fate}")
        return "\r\n".join(("HEAD / HTTP/1.1", *fields, "", "")).encode("ascii")
