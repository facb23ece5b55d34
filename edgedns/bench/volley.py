"""The loop that asks and hears, in plain Python; `_volley.c` is its native twin, many times as fast.

Open loop: query i is due at start + i * interval whatever comes back, and its latency counts from there even when it left late,
so that a server which stalls is charged for all whom it kept waiting. Closed loop: `window` queries are always on their way.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import time
from array import array
from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple, Protocol

from edgedns.bench.latency import BUCKETS, bucket

FORM = 1  # of the cells and signatures that this module and the C code agree on
try:
    from edgedns.bench import _volley
except ImportError:  # there was no compiler
    NATIVE = False
else:
    NATIVE = getattr(_volley, "FORM", 0) == FORM  # else it was built from older sources

SENDABLE = 64  # in one go
RECEIVE_ROOM = 4096
HEADER = 12
BEHIND_NS = 1_000_000
PATIENCE_NS = 10_000_000
PASSING = {errno.EAGAIN, errno.EWOULDBLOCK, errno.ENOBUFS, errno.EINTR}


class Cell(IntEnum):
    """Where it is counted; always sent = answered + lost + on their way.

    Late ones were given up before; wrong ones answer another question, strange ones none; refused are errors of the network;
    behind are queries that left over a millisecond after they were due.
    """

    SENT = 0
    ANSWERED = 1
    LOST = 2
    LATE = 3
    WRONG = 4
    STRANGE = 5
    REFUSED = 6
    BEHIND = 7
    TRUNCATED = 8
    TOTAL_NS = 9
    MOST_NS = 10
    OCTETS_OUT = 11
    OCTETS_IN = 12
    RCODE = 13
    HISTOGRAM = 29


CELLS = Cell.HISTOGRAM + BUCKETS


class Magazine(NamedTuple):
    """Packets one after the other, and a row for each: offset, size, where its question ends (u32)."""

    packets: bytes
    rows: array[int]


class Volley(Protocol):
    """Asks from the sockets and counts in the cells."""

    def fire(self, until: int, asking: bool, /) -> None:
        """Ask and hear until that moment (ns, monotonic); not asking: hear only, and end once nothing is on its way."""


class _Slot:
    """A query on its way, or given up."""

    __slots__ = ("due", "given_up", "row")

    def __init__(self, due: int, row: int) -> None:
        self.due, self.row, self.given_up = due, row, False


class _Port:
    """One socket: the queries that left it, by ID, in the order they left."""

    def __init__(self, fd: int, mask: int) -> None:
        self.sock = socket.socket(fileno=os.dup(fd))
        self.mask, self.next, self.oldest = mask, 0, 0
        self.slots: dict[int, _Slot] = {}


class Plain:
    """The twin of _volley.Volley.

    `fds`: connected UDP sockets. `slots`: how many may be on their way from each, a power of two up to 65536. `interval`: ns
    between queries, 0 for the closed loop with `window` on their way. `burst`: so many leave together. `timeout`, `start`: ns.
    """

    def __init__(
        self, fds: tuple[int, ...], magazine: bytes, rows: array[int], cells: array[int], slots: int,
        interval: float, window: int, burst: int, timeout: int, start: int, /,
    ) -> None:  # fmt: skip
        self._packets = [magazine[at : at + size] for at, size, _ in zip(rows[::3], rows[1::3], rows[2::3], strict=True)]
        self._ends = rows[2::3]
        self._cells, self._interval, self._window, self._burst = cells, interval, window, burst
        self._timeout, self._start = timeout, start
        self._ports = [_Port(fd, slots - 1) for fd in fds]
        self._by_fd = {port.sock.fileno(): port for port in self._ports}
        self._poll = select.poll()
        for fd in self._by_fd:
            self._poll.register(fd, select.POLLIN)
        self._turn = self._at = 0

    def __del__(self) -> None:
        for port in self.__dict__.get("_ports", ()):
            port.sock.close()

    def fire(self, until: int, asking: bool, /) -> None:
        """As Volley.fire."""
        while (now := time.monotonic_ns()) < until:
            for port in self._ports:
                self._give_up_before(port, now - self._timeout)
            if not asking and not self._in_flight():
                return
            count = self._wanted(now) if asking else 0
            sent = self._ask(count, now) if count else False
            patience = until - now
            if asking and self._interval:
                patience = min(patience, self._due(self._cells[Cell.SENT]) - now)
            if count:
                patience = (0 if self._wanted(now) else patience) if sent else BEHIND_NS // 10
            self._hear_all(patience)

    def _in_flight(self) -> int:
        return self._cells[Cell.SENT] - self._cells[Cell.ANSWERED] - self._cells[Cell.LOST]

    def _due(self, number: int) -> int:
        return self._start + int((number - number % self._burst) * self._interval)

    def _wanted(self, now: int) -> int:
        if not self._interval:
            return max(0, min(SENDABLE, self._window - self._in_flight()))
        count, sent = 0, self._cells[Cell.SENT]
        while count < SENDABLE and self._due(sent + count) <= now:
            count += 1
        return count

    def _ask(self, count: int, now: int) -> bool:
        port = self._ports[self._turn]
        for sent in range(count):
            packet = self._packets[self._at]
            try:
                port.sock.send((port.next & 0xFFFF).to_bytes(2, "big") + packet[2:], socket.MSG_DONTWAIT)
            except OSError as error:
                if not sent:
                    self._cells[Cell.REFUSED] += error.errno not in PASSING
                    return False
                break
            self._note(port, len(packet), now)
        self._turn = (self._turn + 1) % len(self._ports)
        return True

    def _note(self, port: _Port, size: int, now: int) -> None:
        cells = self._cells
        due = self._due(cells[Cell.SENT]) if self._interval else now
        if port.next - port.oldest > port.mask:  # its number comes round: nobody waits that long
            self._give_up(port.slots.get(port.oldest & 0xFFFF))
            port.oldest += 1
        port.slots.pop((port.next - port.mask - 1) & 0xFFFF, None)
        port.slots[port.next & 0xFFFF] = _Slot(due, self._at)
        cells[Cell.SENT] += 1
        cells[Cell.BEHIND] += now - due > BEHIND_NS
        cells[Cell.OCTETS_OUT] += size
        self._at = (self._at + 1) % len(self._packets)
        port.next += 1

    def _give_up(self, slot: _Slot | None) -> None:
        if slot and not slot.given_up:
            slot.given_up = True
            self._cells[Cell.LOST] += 1

    def _give_up_before(self, port: _Port, then: int) -> None:
        while port.oldest != port.next:
            slot = port.slots.get(port.oldest & 0xFFFF)
            if slot and not slot.given_up and slot.due > then:
                return
            self._give_up(slot)
            port.oldest += 1

    def _hear_all(self, patience: int) -> None:
        # poll's own patience is in whole milliseconds, too coarse for the next query.
        for fd, _ in self._poll.poll(min(max(0, patience), PATIENCE_NS) / 1e6):
            self._hear(self._by_fd[fd])

    def _hear(self, port: _Port) -> None:
        while True:
            try:
                reply = port.sock.recv(RECEIVE_ROOM, socket.MSG_DONTWAIT)
            except OSError as error:
                self._cells[Cell.REFUSED] += error.errno not in PASSING
                return
            self._take(port, reply, time.monotonic_ns())

    def _take(self, port: _Port, reply: bytes, now: int) -> None:
        cells = self._cells
        cells[Cell.OCTETS_IN] += len(reply)
        number = int.from_bytes(reply[:2], "big")
        slot = port.slots.get(number) if len(reply) >= HEADER else None
        if slot is None:
            cells[Cell.STRANGE] += 1
        elif not self._answers(slot.row, reply):
            cells[Cell.WRONG] += 1
        else:
            if now - slot.due > self._timeout:
                self._give_up(slot)
            del port.slots[number]
            if slot.given_up:
                cells[Cell.LATE] += 1
            else:
                self._count(reply, max(0, now - slot.due))

    def _answers(self, row: int, reply: bytes) -> bool:
        """Is it a reply to this packet? One that carries an error may leave the question out."""
        asked, end = self._packets[row], self._ends[row]
        if not reply[2] & 0x80 or (reply[2] ^ asked[2]) & 0x78:
            return False
        questions = int.from_bytes(reply[4:6], "big")
        if not questions:
            return bool(reply[3] & 15)
        return questions == 1 and len(reply) >= end and reply[HEADER:end] == asked[HEADER:end]

    def _count(self, reply: bytes, ns: int) -> None:
        cells = self._cells
        cells[Cell.ANSWERED] += 1
        cells[Cell.RCODE + (reply[3] & 15)] += 1
        cells[Cell.TRUNCATED] += reply[2] & 2 != 0
        cells[Cell.TOTAL_NS] += ns
        cells[Cell.MOST_NS] = max(cells[Cell.MOST_NS], ns)
        cells[Cell.HISTOGRAM + bucket(ns)] += 1


def slots_for(sockets: int) -> int:
    """How many queries may be on their way from each of so many sockets: all IDs of 16 sockets, fewer of more."""
    return 1 << max(8, (65536 * 16 // max(16, sockets)).bit_length() - 1)


def make(
    sockets: Sequence[socket.socket], magazine: Magazine, cells: array[int], *, interval: float, window: int, burst: int,
    timeout: int, start: int, native: bool = NATIVE,
) -> Volley:  # fmt: skip
    """The native loop where it was built and is wanted, else the plain one."""
    fds, slots = tuple(sock.fileno() for sock in sockets), slots_for(len(sockets))
    kind = _volley.Volley if native else Plain
    return kind(fds, magazine.packets, magazine.rows, cells, slots, interval, window, burst, timeout, start)
