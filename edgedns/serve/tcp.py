"""TCP: one epoll loop in one thread, for all listening sockets of a worker (RFC 7766).

Queries are answered in the order in which they came, however they were cut into segments. Every bound gives way by
closing the connection that has done nothing for longest, so that a crowd of idle ones keeps no new client out. Who asks
much at once is answered for a moment at a time, behind those who ask little, so that no crowd of busy ones does either.
Where there is a native engine it answers whole, plain messages at once; what is cut short, slow or unusual is left to this.
"""

from __future__ import annotations

import contextlib
import os
import resource
import select
import socket
import time
from array import array
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from edgedns.engine import native
from edgedns.metrics import (
    TCP_ACCEPTED,
    TCP_IDLE_CLOSED,
    TCP_RAISED,
    TCP_RECEIVED,
    TCP_REFUSED,
    TCP_REPLIED,
    TCP_SILENT,
    TCP_UNSENT,
)
from edgedns.serve.udp import Complain, Look, Respond

if TYPE_CHECKING:
    from edgedns.config import Address
    from edgedns.engine._fastpath import Native
    from edgedns.serve.clock import Clock

# message, client's packed address, now -> the messages of a transfer, None where it asks for none
Transfer = Callable[[bytes, bytes, float], Iterator[bytes] | None]

LARGEST = 65535
AHEAD = 1 << 15  # octets of a transfer that are made before they are taken
IDLE = 10.0
BACKLOG = 1024
ACCEPTS_AT_ONCE = 64
EVENTS_AT_ONCE = 256
ROW = 17  # an address and its size
LOWEST = 64  # descriptors that are likely to be open beside connections; what is above them all this alone answers
TURN = 0.001  # seconds for which one connection is answered before it is another's turn
BEHIND = 0.003  # seconds of a round for those whose turn was too short
SENDING = 1 << 17  # octets that the kernel may keep for a slow reader, which it doubles for its own use
ROUND = 0.5  # seconds after which idle connections are looked at
QUIET = 10.0  # the same while there is none
LINGER = 0.3  # seconds for which open connections are served on when the listening sockets are let go


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one worker. `idle`: seconds without a whole query in or `progress` octets out; octets otherwise.

    `unsent` is what may wait for a slow reader before no more of its queries are read; `held` is what may lie here of all
    connections, unread or unsent.
    """

    idle: float = IDLE
    connections: int = 2000
    per_client: int = 500
    unsent: int = 1 << 17
    held: int = 1 << 26
    at_once: int = 1 << 12
    progress: int = 1 << 14


def limits(idle: float = IDLE) -> Limits:
    """The usual ones; fewer connections where descriptors don't suffice for them and for what else a worker opens."""
    usual, (descriptors, _) = Limits(idle), resource.getrlimit(resource.RLIMIT_NOFILE)
    if descriptors == resource.RLIM_INFINITY or descriptors >= usual.connections + LOWEST:
        return usual
    most = max(descriptors - LOWEST, 1)
    return replace(usual, connections=most, per_client=max(most // 4, 1))


class Connection:
    """One client's stream: octets not yet answered, octets not yet sent."""

    __slots__ = (
        *("active", "client", "crowd", "drained", "ended", "held", "inbox", "outbox", "sock", "stream", "waiting", "watched"),
    )

    def __init__(self, sock: socket.socket, client: bytes, now: float, crowd: OrderedDict[int, Connection]) -> None:
        self.sock = sock
        self.client = client
        self.crowd = crowd  # the connections that are bounded together with it
        self.active = now  # CLOCK_MONOTONIC
        self.inbox = bytearray()
        self.outbox = bytearray()
        self.held = 0  # octets in both when its turn ended
        self.waiting = 0  # replies that lie in outbox
        self.drained = 0  # octets sent since they last counted as progress
        self.ended = False  # the client sends no more
        self.stream: Iterator[bytes] | None = None  # what is left of a transfer; what was asked behind it waits
        self.watched = select.EPOLLIN

    @property
    def is_plain(self) -> bool:
        """Nothing of it waits, neither here nor for the client: the next whole message may be anybody's."""
        return not (self.inbox or self.outbox or self.stream or self.ended)

    @property
    def has_message(self) -> bool:
        inbox = self.inbox
        return len(inbox) >= 2 and len(inbox) >= 2 + (inbox[0] << 8 | inbox[1])


def open_listener(address: Address) -> socket.socket:
    """A listening socket that shares its port with the other workers'; OSError when that can't be."""
    sock = socket.socket(address.family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((address.host, address.port))
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return sock


class TcpServer:
    """`run` in a thread of its own; `stop` from any other."""

    def __init__(
        self,
        listeners: Sequence[socket.socket],
        respond: Respond,
        clock: Clock,
        cells: memoryview[int],
        complain: Complain,
        limits: Limits | None = None,
        transfer: Transfer | None = None,
        look: Look | None = None,
        bell: array[int] | None = None,
    ) -> None:
        """`bell` is added to where `look` may give another answer."""
        self._transfer = transfer or (lambda message, client, now: None)
        self._listeners = {sock.fileno(): sock for sock in listeners}
        self._respond = respond
        self._clock = clock
        self._cells = cells
        self._complain = complain
        self._limits = limits or Limits()
        self._epoll = select.epoll()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._stopping = False
        # Least recently active first: all of them, and those of each client.
        self._connections: OrderedDict[int, Connection] = OrderedDict()
        self._clients: dict[bytes, OrderedDict[int, Connection]] = {}
        self._behind: OrderedDict[int, Connection] = OrderedDict()  # who could be answered at once, in this order
        self._held = 0  # octets of all
        self._look = look if native.LOOPS else None
        self._looked = 0.0
        self._bell, self._rung = bell or array("Q", (0,)), 0
        self._native: Native | None = None
        # By descriptor, the addresses of plain connections: _fastpath.streams.
        self._plain = bytearray(ROW * (LOWEST + self._limits.connections))

    def run(self) -> None:
        """Serve until `stop`; then close everything."""
        for descriptor in (*self._listeners, self._wake):
            self._epoll.register(descriptor, select.EPOLLIN)
        while not self._stopping:
            self._round(ROUND if self._connections else QUIET)
            self._close_idle(time.monotonic())
        self._round(0)
        for descriptor in (*self._listeners, self._wake):
            self._epoll.unregister(descriptor)  # closing would not: other processes have the same socket open
        for listener in self._listeners.values():
            listener.close()
        self._listeners.clear()
        until = time.monotonic() + LINGER
        while self._connections and (left := until - time.monotonic()) > 0:
            self._round(left)  # what was accepted last has been asked already, or soon will be
        for connection in list(self._connections.values()):
            self._close(connection)
        self._epoll.close()
        os.close(self._wake)

    def stop(self) -> None:
        """To be called once. The loop itself notes that it is to end: it closes what this writes to."""
        os.eventfd_write(self._wake, 1)

    def _round(self, timeout: float) -> None:
        timeout = 0 if self._behind else timeout
        answering = self._answering()
        if answering is None:
            events = self._epoll.poll(timeout, EVENTS_AT_ONCE)
        else:
            asked = self._epoll.fileno(), timeout, self._plain, answering, self._clock.now, self._bell, self._rung
            events = self._answered(native.streams(*asked))
        self._clock.tick()  # it may have waited
        for descriptor, each in events:
            self._turn(descriptor, each)
        until = time.monotonic() + BEHIND
        for _ in range(len(self._behind)):
            self._turn(self._behind.popitem(last=False)[0], 0)
            if time.monotonic() > until:
                break

    def _answering(self) -> Native | None:
        """What the native engine answers from: looked at whenever the clock moved or the bell rang."""
        if self._look is not None and (self._looked != self._clock.now or self._rung != self._bell[0]):
            self._looked, self._rung = self._clock.now, self._bell[0]
            try:
                self._native = self._look(self._looked)
            except Exception as error:  # the last good one stands
                self._complain("looking at what is published", error)
        return self._native

    def _answered(self, done: native.Streamed) -> list[tuple[int, int]]:
        """Note what the native engine did; the events that it left to us.

        All that it read or could not send goes to its connection before anything is closed, and a descriptor used again.
        """
        served, rest = done
        for descriptor in served:
            self._touch(self._connections[descriptor])
        for descriptor, _, unread, unsent, replies in rest:
            connection = self._connections.get(descriptor)
            if connection:
                connection.inbox += unread
                connection.outbox += unsent
                connection.waiting += replies
        return [one[:2] for one in rest]

    def _turn(self, descriptor: int, events: int) -> None:
        """Let one socket go on; no events: it is one of those behind."""
        listener, connection = self._listeners.get(descriptor), self._connections.get(descriptor)
        try:
            if descriptor == self._wake:
                self._stopping = True
            elif listener:
                self._accept(listener)
            elif connection:
                self._step(connection, events)
        except Exception as error:
            self._complain("serving TCP", error)

    def _step(self, connection: Connection, events: int) -> None:
        """A bounded step, so that no client holds up the others for long; who is behind is answered in its turn only."""
        descriptor = connection.sock.fileno()
        try:
            if descriptor not in self._behind:
                if events & ~select.EPOLLOUT:
                    self._receive(connection)
                if not events & select.EPOLLOUT:
                    self._answer(connection)
            self._go_on(connection)
            self._send(connection)
            self._go_on(connection)
        except OSError:
            self._close(connection)
            return
        if connection.has_message and self._has_room(connection):
            self._behind.setdefault(descriptor, connection)
        elif connection.ended and not connection.outbox and not connection.stream:
            self._close(connection)
            return
        self._watch(connection)
        self._note_plain(connection, connection.is_plain)
        self._hold(connection)

    def _has_room(self, connection: Connection) -> bool:
        """Whether its next message may be answered: its reader keeps up, and no transfer is under way."""
        return len(connection.outbox) < self._limits.unsent and not connection.stream

    def _hold(self, connection: Connection) -> None:
        """Note what lies here; where that is too much in all, who did nothing for longest and has some of it gives way."""
        held = len(connection.inbox) + len(connection.outbox)
        self._held += held - connection.held
        connection.held = held
        while self._held > self._limits.held:
            self._cells[TCP_REFUSED] += 1
            self._close(next(one for one in self._connections.values() if one.held))

    def _note_plain(self, connection: Connection, plain: bool) -> None:
        """Whether the native engine may take its messages."""
        row = ROW * connection.sock.fileno()
        if row + ROW <= len(self._plain):
            self._plain[row] = len(connection.client) if plain else 0
            self._plain[row + 1 : row + 1 + len(connection.client)] = connection.client

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(ACCEPTS_AT_ONCE):
            try:
                sock, peer = listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError as error:  # out of descriptors or memory
                self._complain("accepting", error)
                self._make_room(self._connections)
                time.sleep(0.001)
                return
            self._cells[TCP_ACCEPTED] += 1
            self._add(sock, socket.inet_pton(sock.family, peer[0].partition("%")[0]))

    def _add(self, sock: socket.socket, client: bytes) -> None:
        own = self._clients.setdefault(_crowd(client), OrderedDict())
        if len(own) >= self._limits.per_client:
            self._make_room(own)
        elif len(self._connections) >= self._limits.connections:
            self._make_room(self._connections)
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SENDING)
        own = self._clients.setdefault(_crowd(client), own)  # making room may have ended it
        connection = self._connections[sock.fileno()] = own[sock.fileno()] = Connection(sock, client, time.monotonic(), own)
        self._note_plain(connection, True)
        self._epoll.register(sock.fileno(), select.EPOLLIN)

    def _make_room(self, among: OrderedDict[int, Connection]) -> None:
        if among:
            self._cells[TCP_REFUSED] += 1
            self._close(next(iter(among.values())))

    def _receive(self, connection: Connection) -> None:
        """Take at most `at_once` octets; nothing while as much as may wait waits for the reader."""
        if connection.ended or not self._has_room(connection):
            return
        try:
            octets = connection.sock.recv(self._limits.at_once)
        except BlockingIOError:
            return
        if octets:
            connection.inbox += octets
        else:
            connection.ended = True

    def _answer(self, connection: Connection) -> None:
        """Answer whole messages of the inbox, for a moment (RFC 1035 section 4.2.2: two octets of length before each)."""
        inbox, outbox, start = connection.inbox, connection.outbox, 0
        unsent, until = self._limits.unsent, time.monotonic() + TURN
        while len(inbox) - start >= 2 and len(outbox) < unsent and not connection.stream:
            end = start + 2 + (inbox[start] << 8 | inbox[start + 1])
            if end > len(inbox):
                break
            self._reply(connection, bytes(inbox[start + 2 : end]))
            start = end
            if time.monotonic() >= until:
                break
        if start:
            del inbox[:start]
            self._touch(connection)

    def _go_on(self, connection: Connection) -> None:
        """One more message of a transfer, where its reader keeps up: others get their turn between."""
        if connection.stream is None or len(connection.outbox) >= AHEAD:
            return
        try:
            message = next(connection.stream, None)
        except Exception as error:
            self._cells[TCP_RAISED] += 1
            self._complain("transferring", error)
            connection.stream = None
            raise ConnectionError from error  # half a zone must not look like one
        if message is not None:
            connection.outbox += len(message).to_bytes(2, "big") + message
            return
        connection.stream = None
        if connection.outbox:
            connection.waiting += 1
        else:
            self._cells[TCP_REPLIED] += 1

    def _reply(self, connection: Connection, message: bytes) -> None:
        cells = self._cells
        cells[TCP_RECEIVED] += 1
        try:
            connection.stream = self._transfer(message, connection.client, self._clock.now)
            if connection.stream is not None:
                return
            reply = self._respond(message, connection.client, "tcp", self._clock.now)
            if reply is None:
                cells[TCP_SILENT] += 1
                return
            connection.outbox += len(reply).to_bytes(2, "big")  # OverflowError over 65,535
            connection.outbox += reply
        except Exception as error:
            cells[TCP_RAISED] += 1
            self._complain("answering", error)
            return
        connection.waiting += 1

    def _send(self, connection: Connection) -> None:
        if not connection.outbox:
            return
        try:
            sent = connection.sock.send(connection.outbox)
        except BlockingIOError:
            return
        del connection.outbox[:sent]
        connection.drained += sent
        if not connection.outbox:
            self._cells[TCP_REPLIED] += connection.waiting
            connection.waiting = 0
        if not connection.outbox or connection.drained >= self._limits.progress:
            connection.drained = 0
            self._touch(connection)

    def _watch(self, connection: Connection) -> None:
        writing = bool(connection.outbox or connection.stream)
        behind = connection.sock.fileno() in self._behind
        reading = not connection.ended and not behind and self._has_room(connection)
        wanted = (select.EPOLLIN if reading else 0) | (select.EPOLLOUT if writing else 0)
        if wanted != connection.watched:
            connection.watched = wanted
            self._epoll.modify(connection.sock.fileno(), wanted)

    def _touch(self, connection: Connection) -> None:
        """The connection did something: it is the last to be closed now."""
        connection.active = time.monotonic()
        self._connections.move_to_end(connection.sock.fileno())
        connection.crowd.move_to_end(connection.sock.fileno())

    def _close_idle(self, now: float) -> None:
        while self._connections:
            oldest = next(iter(self._connections.values()))
            if now - oldest.active < self._limits.idle:
                return
            self._cells[TCP_IDLE_CLOSED] += 1
            self._close(oldest)

    def _close(self, connection: Connection) -> None:
        self._cells[TCP_UNSENT] += connection.waiting + (connection.stream is not None)
        descriptor, crowd = connection.sock.fileno(), _crowd(connection.client)
        self._note_plain(connection, False)
        self._behind.pop(descriptor, None)
        self._held -= connection.held
        del self._connections[descriptor]
        del self._clients[crowd][descriptor]
        if not self._clients[crowd]:
            del self._clients[crowd]
        with contextlib.suppress(OSError):
            self._epoll.unregister(descriptor)
        connection.sock.close()


def _crowd(client: bytes) -> bytes:
    """Whose connections are bounded together: an IPv4 address, an IPv6 /64."""
    return client[:8] if len(client) == 16 else client
