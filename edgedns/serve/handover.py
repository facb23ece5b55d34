"""How workers hand their sockets to the next control process: over a Unix socket, as descriptors (unix(7), SCM_RIGHTS).

Standard library only: serving processes import this module.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

MOST = 253  # descriptors in one message: SCM_MAX_FD
PATIENCE = 3.0


class Giver:
    """A worker's side: whoever asks gets duplicates of the sockets, until `close`; what goes wrong with that is told."""

    def __init__(
        self, run: Path, slot: int, sockets: Sequence[socket.socket], complain: Callable[[str, BaseException], None]
    ) -> None:
        self._sockets, self._complain = sockets, complain
        self._path = run / _name(slot)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._path.unlink(missing_ok=True)
        with _short(run) as folder:
            before = os.umask(0o177)  # ours and root's alone
            try:
                self._listener.bind(f"{folder}/{self._path.name}")
            finally:
                os.umask(before)
        self._listener.listen(8)
        threading.Thread(target=self._give, daemon=True).start()

    def _give(self) -> None:
        while True:
            try:
                asker, _ = self._listener.accept()
            except OSError:  # closed
                return
            with asker:
                try:
                    socket.send_fds(asker, [b"sockets"], [sock.fileno() for sock in self._sockets])
                except OSError as error:  # who asked may be gone
                    self._complain("giving sockets", error)

    def close(self) -> None:
        self._path.unlink(missing_ok=True)
        self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread
        self._listener.close()


def ask(run: Path, slot: int) -> list[socket.socket] | None:
    """The sockets of the worker in a slot; None where it doesn't give them."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock, contextlib.suppress(OSError):
        sock.settimeout(PATIENCE)
        with _short(run) as folder:
            sock.connect(f"{folder}/{_name(slot)}")
        said, descriptors, _, _ = socket.recv_fds(sock, 64, MOST)
        for descriptor in descriptors:
            os.set_inheritable(descriptor, False)
        found = [socket.socket(fileno=descriptor) for descriptor in descriptors]
        return found if said else None  # it hung up
    return None


def _name(slot: int) -> str:
    return f"worker-{slot}.sock"


@contextlib.contextmanager
def _short(folder: Path) -> Iterator[str]:
    """A path to it that is short: a Unix socket's has at most 107 octets."""
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)
