"""UDP by the batch for plain Python: recvmmsg(2) and sendmmsg(2) of the C library, through ctypes.

A batch costs two calls, and no object for a peer's address, which is only ever copied: half of what a socket's own methods
cost. Linux only, as are the workers.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import socket
from collections.abc import Sequence
from typing import Final

SIZE: Final = 32
ROOM: Final = 1 << 16  # more than the longest datagram; of it only what was once used is resident
STRIDE: Final = ROOM + 192  # from one room to the next: rooms a power of two apart would share a few lines of the caches
CONTROL: Final = 64
MSG_WAITFORONE: Final = 0x10000  # <bits/socket.h>: wait for the first packet, take what else is there


class _Part(ctypes.Structure):
    """struct iovec: readv(2)."""

    _fields_ = (("base", ctypes.c_void_p), ("size", ctypes.c_size_t))


class _Message(ctypes.Structure):
    """struct msghdr: recvmsg(2)."""

    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_size", ctypes.c_uint32),
        ("parts", ctypes.c_void_p),
        ("parts_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_size", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _Head(ctypes.Structure):
    """struct mmsghdr: recvmmsg(2)."""

    _fields_ = (("message", _Message), ("size", ctypes.c_uint32))


_libc = ctypes.CDLL(None, use_errno=True)
_libc.recvmmsg.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int, ctypes.c_void_p)
_libc.sendmmsg.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int)

_WORD, _LONG = 4, ctypes.sizeof(ctypes.c_ulong)  # int and socklen_t; size_t and pointers
_STEP, _NAME_SIZE, _SIZE = (each // _WORD for each in (ctypes.sizeof(_Head), _Message.name_size.offset, _Head.size.offset))
_LONG_STEP, _CONTROL_SIZE = (each // _LONG for each in (ctypes.sizeof(_Head), _Message.control_size.offset))
_CMSG_HEAD = _LONG + 8  # struct cmsghdr: size, level, type


class _Heads:
    """One direction: SIZE message heads, each with a room, and names and control octets that both directions share.

    `sizes` are those of messages received, `rooms` of those to be sent.
    """

    def __init__(self, names: mmap.mmap, name_size: int, controls: mmap.mmap | None) -> None:
        self.octets = mmap.mmap(-1, SIZE * STRIDE)
        self._heads, self._parts = (_Head * SIZE)(), (_Part * SIZE)()
        parts, octets, name = ctypes.addressof(self._parts), _address(self.octets), _address(names)
        for at in range(SIZE):
            self._parts[at] = _Part(octets + at * STRIDE, ROOM)
            control = (_address(controls) + at * CONTROL, CONTROL) if controls else (None, 0)
            message = _Message(name + at * name_size, name_size, parts + at * ctypes.sizeof(_Part), 1, *control, 0)
            self._heads[at] = _Head(message, 0)
        self.address = ctypes.addressof(self._heads)
        self.words = memoryview(self._heads).cast("B").cast("I")
        self.longs = memoryview(self._heads).cast("B").cast("L")
        self.sizes = self.words[_SIZE::_STEP]
        self.rooms = memoryview(self._parts).cast("B").cast("L")[1::2]


class Batch:
    """Up to SIZE packets of one socket, and the replies to them. `ended`: it was shut down, and its queue is empty."""

    def __init__(self, sock: socket.socket, wildcard: bool) -> None:
        """`wildcard`: the socket tells by PKTINFO where a packet was sent to, and its reply is to leave from there."""
        self.ended = False
        self._sock = sock
        self._six = sock.family == socket.AF_INET6
        # struct sockaddr_in: family, port, address; sockaddr_in6: family, port, flow, address, scope.
        self._name, first, last = (28, 8, 24) if self._six else (16, 4, 8)
        self._rooms = [at * STRIDE for at in range(SIZE)]
        self._clients = [slice(at * self._name + first, at * self._name + last) for at in range(SIZE)]
        self._names = mmap.mmap(-1, SIZE * self._name)
        self._controls = mmap.mmap(-1, SIZE * CONTROL) if wildcard else None
        self._in, self._out = (_Heads(self._names, self._name, self._controls) for _ in range(2))

    def receive(self) -> list[tuple[bytes, bytes]]:
        """Wait for a packet; it and those that are there already, each with its client's packed address.

        Empty where none came for as long as the socket waits. OSError where it can't be read.
        """
        count = _libc.recvmmsg(self._sock.fileno(), self._in.address, SIZE, MSG_WAITFORONE, None)
        if count < 0:
            number = ctypes.get_errno()
            if number in (errno.EAGAIN, errno.EINTR):
                return []
            raise OSError(number, os.strerror(number))
        words, octets, names = self._in.words, self._in.octets, self._names
        # What comes from nobody is the end.
        while count and not words[(count - 1) * _STEP + _NAME_SIZE]:
            self.ended, count = True, count - 1
        if self._controls:
            self._turn(self._controls, count)
        places = zip(self._rooms, self._in.sizes[:count].tolist(), self._clients, strict=False)
        return [(octets[start : start + size], names[client]) for start, size, client in places]

    def _turn(self, controls: mmap.mmap, count: int) -> None:
        """Make the control octets of packets received those of their replies, with routing to choose the interface.

        struct in_pktinfo: int ifindex, our address, the packet's. struct in6_pktinfo: address, int ifindex, which only a
        link-local address needs.
        """
        received, sent = self._in.longs, self._out.longs
        for at in range(count):
            place = at * _LONG_STEP + _CONTROL_SIZE
            sent[place] = received[place]
            received[place] = CONTROL
            start = at * CONTROL + _CMSG_HEAD
            if not self._six:
                controls[start : start + 4] = bytes(4)
            elif controls[start] != 0xFE or controls[start + 1] & 0xC0 != 0x80:
                controls[start + 16 : start + 20] = bytes(4)

    def send(self, replies: Sequence[bytes | None]) -> list[int]:
        """Send one reply to each packet received, or none where it is None; the places of those that could not be sent."""
        rooms, octets, first = self._out.rooms, self._out.octets, 0
        failed: list[int] = []
        for at, (reply, start) in enumerate(zip(replies, self._rooms, strict=False)):
            size = 0 if reply is None else len(reply)
            if reply is None or size > ROOM:
                failed += self._send(first, at)
                failed += [at] if size else []
                first = at + 1
            else:
                octets[start : start + size] = reply
                rooms[at] = size
        return failed + self._send(first, len(replies))

    def _send(self, first: int, end: int) -> list[int]:
        """Send the replies from `first` to before `end`; the places of those that could not be sent."""
        failed = []
        while first < end:
            count = _libc.sendmmsg(self._sock.fileno(), self._out.address + first * ctypes.sizeof(_Head), end - first, 0)
            if count < 0:
                failed.append(first)
            first += max(count, 1)
        return failed


def _address(octets: mmap.mmap) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(octets))
