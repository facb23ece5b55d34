"""What systemd is told (sd_notify(3)) and what it passes (sd_listen_fds(3)); without it nothing happens.

Sockets come from three places in one form: a socket unit, the store where systemd keeps them for us while we restart, and
our own last incarnation (`edgedns reload` starts the control process anew under its old process id).
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterable, MutableMapping, Sequence
from dataclasses import dataclass, field

from edgedns.serve import sockets, udp
from edgedns.serve.sockets import Held

FIRST = 3  # SD_LISTEN_FDS_START
OWN, SHARED, ADMIN = "edgedns-own", "shared", "admin"
VARIABLE = "EDGEDNS_SOCKETS"  # 5=edgedns-own,9=admin: what our last incarnation left open
AT_ONCE = 200  # descriptors in one message


def notify(*lines: str, descriptors: Sequence[int] = ()) -> None:
    """Tell the service manager, where there is one; never an error."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path:
        return
    where = "\0" + path[1:] if path.startswith("@") else path
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.connect(where)
        socket.send_fds(sock, ["\n".join(lines).encode()], descriptors)


def is_there() -> bool:
    return bool(os.environ.get("NOTIFY_SOCKET"))


def watchdog_seconds() -> float:
    """How often it wants to hear from us, 0 for never."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return 0.0
    text = os.environ.get("WATCHDOG_USEC", "")
    return int(text) / 1e6 if text.isdigit() else 0.0


def store(kept: Iterable[Held]) -> None:
    """Let it keep these, and nothing else, for our next start (FileDescriptorStoreMax= says how many it takes)."""
    numbers = [one.sock.fileno() for one in kept if not one.shared]
    notify("FDSTOREREMOVE=1", f"FDNAME={OWN}")
    for start in range(0, len(numbers), AT_ONCE):
        notify("FDSTORE=1", f"FDNAME={OWN}", descriptors=numbers[start : start + AT_ONCE])


@dataclass
class Passed:
    """The sockets that were open when we began: those to answer on, and the admin side's."""

    sockets: list[Held] = field(default_factory=list)
    admin: socket.socket | None = None


def take_passed(environ: MutableMapping[str, str]) -> Passed:
    """What was passed, once: the variables are deleted, for our children are not meant. SocketError for what is of no use."""
    found = Passed()
    for descriptor, name in [*_from_ourselves(environ), *_from_systemd(environ)]:
        os.set_inheritable(descriptor, False)
        sock = socket.socket(fileno=descriptor)
        if name == ADMIN:
            found.admin = sock
            continue
        if name == OWN and _is_over(sock):
            sock.close()
            continue
        try:
            one = sockets.held(sock, shared=name != OWN)
        except sockets.SocketError:
            sock.close()
            raise
        if sock.type == socket.SOCK_STREAM:
            sock.setblocking(False)
        else:
            udp.prepare(sock, one.place.address.is_wildcard)
        found.sockets.append(one)
    found.sockets = sockets.unique(found.sockets)
    return found


def _is_over(sock: socket.socket) -> bool:
    """Whether it was retired or ended, and is in the store still."""
    if sock.type == socket.SOCK_DGRAM:
        return udp.is_retired(sock)
    return not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)


def _from_ourselves(environ: MutableMapping[str, str]) -> list[tuple[int, str]]:
    pairs = (part.partition("=") for part in environ.pop(VARIABLE, "").split(",") if part)
    return [(int(number), name) for number, _, name in pairs]


def _from_systemd(environ: MutableMapping[str, str]) -> list[tuple[int, str]]:
    pid, count, names = (environ.pop(key, "") for key in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"))
    if pid != str(os.getpid()) or not count.isdigit():
        return []
    named = dict(enumerate(names.split(":"))) if names else {}
    return [(FIRST + number, named.get(number, SHARED)) for number in range(int(count))]


def passing(held: Iterable[Held], admin: socket.socket | None) -> tuple[str, list[int]]:
    """VARIABLE's value for a process that gets these sockets, and their descriptors."""
    named = [(one.sock.fileno(), SHARED if one.shared else OWN) for one in held]
    named += [(admin.fileno(), ADMIN)] if admin is not None else []
    return ",".join(f"{number}={name}" for number, name in named), [number for number, _ in named]
