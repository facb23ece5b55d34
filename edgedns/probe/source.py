"""Where probes leave from: an address of ours, and where asked an interface and a mark, so that policy routing sees them.

What is not possible is said in one sentence, which names what would make it possible.
"""

from __future__ import annotations

import errno
import socket
from contextlib import ExitStack
from typing import NamedTuple

from edgedns.errors import EdgednsError
from edgedns.model import Family

SO_TIMESTAMPNS = 35  # linux/asm-generic/socket.h; also the type of the control message
SO_BINDTODEVICE = 25
SO_MARK = 36
_IP_BIND_ADDRESS_NO_PORT = 24
_BUFFER = 4 << 20
DENIED = (errno.EPERM, errno.EACCES)
HOW_RAW = "AmbientCapabilities=CAP_NET_RAW in its unit, or setcap cap_net_raw+ep on a python of its own"


class NotPossible(EdgednsError):
    """This process can't probe that way from there, and why."""


class Source(NamedTuple):
    """The address of ours that a provider alone announces; `interface` and `mark` are those of its packets, if given."""

    provider: str
    address: str
    interface: str = ""
    mark: int = 0

    @property
    def family(self) -> Family:
        return 6 if ":" in self.address else 4

    def __str__(self) -> str:
        mark = f" with mark {self.mark}" if self.mark else ""
        return self.address + (f" through {self.interface}" if self.interface else "") + mark

    def open(self, kind: socket.SocketKind, protocol: int = 0, port: int = 0) -> socket.socket:
        """A non-blocking socket that leaves from here; datagrams that it gets carry the kernel's receive time.

        `port` may be the identifier of a datagram ICMP socket, which several of them share. PermissionError where the kernel
        denies sockets of that kind; NotPossible for all that this source has to do with.
        """
        family = socket.AF_INET6 if self.family == 6 else socket.AF_INET
        with ExitStack() as undo:
            sock = undo.enter_context(socket.socket(family, kind | socket.SOCK_NONBLOCK, protocol))
            if kind == socket.SOCK_STREAM:
                sock.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
            else:
                sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
            if protocol:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._steer(sock)
            self._bind(sock, port)
            undo.pop_all()
            return sock

    def _steer(self, sock: socket.socket) -> None:
        try:
            if self.interface:
                sock.setsockopt(socket.SOL_SOCKET, SO_BINDTODEVICE, self.interface.encode())
        except OSError as error:
            needed = f"before Linux 5.7 that needs CAP_NET_RAW: {HOW_RAW}"
            raise self._refusal(error, {errno.ENODEV: "there is no such interface", **dict.fromkeys(DENIED, needed)}) from None
        try:
            if self.mark:
                sock.setsockopt(socket.SOL_SOCKET, SO_MARK, self.mark)
        except OSError as error:
            needed = f"marks need CAP_NET_ADMIN, or since Linux 5.17 CAP_NET_RAW: {HOW_RAW}"
            raise self._refusal(error, dict.fromkeys(DENIED, needed)) from None

    def _bind(self, sock: socket.socket, port: int) -> None:
        try:
            sock.bind((self.address, port))
        except OSError as error:
            missing = "no interface here has that address"
            taken = f"port {port} is in use, by another agent perhaps"
            low = f"port {port} needs CAP_NET_BIND_SERVICE: take one from 1024 on"
            known = {errno.EADDRNOTAVAIL: missing, errno.EADDRINUSE: taken, errno.EACCES: low}
            raise self._refusal(error, known) from None

    def _refusal(self, error: OSError, known: dict[int, str]) -> NotPossible:
        return NotPossible(f"from {self}: {known.get(error.errno or 0, error.strerror or str(error))}")
