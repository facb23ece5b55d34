"""The sockets that workers answer on: opened by the control process, kept while workers come and go, closed when retired.

A *berth* is what one worker gets: a UDP and a TCP socket for each address. A worker that dies leaves its berth, with the
queries that wait in it, to the next one.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from edgedns.config import Address
from edgedns.errors import EdgednsError
from edgedns.serve import tcp, udp

KINDS = (socket.SOCK_DGRAM, socket.SOCK_STREAM)


class SocketError(EdgednsError):
    """A socket that was passed to us is of no use, and why."""


class Place(NamedTuple):
    """Where a socket listens, and whether for datagrams or streams."""

    address: Address
    kind: int


class Held(NamedTuple):
    """One socket of ours. `shared`: the service manager keeps it open too, so that it is never retired."""

    sock: socket.socket
    place: Place
    shared: bool = False

    @property
    def number(self) -> int:
        """The same for duplicates, also in other processes."""
        return os.fstat(self.sock.fileno()).st_ino


Berth = list[Held]


def places(listen: Iterable[Address]) -> list[Place]:
    return [Place(address, kind) for address in listen for kind in KINDS]


def held(sock: socket.socket, shared: bool = False) -> Held:
    """A bound socket that we were given; SocketError unless it is UDP, or TCP that listens, over IPv4 or IPv6."""
    name = f"descriptor {sock.fileno()}"
    if sock.family not in (socket.AF_INET, socket.AF_INET6) or sock.type not in KINDS:
        raise SocketError(f"{name} that was passed is neither a UDP nor a TCP socket")
    if sock.type == socket.SOCK_STREAM and not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        raise SocketError(f"{name} that was passed does not listen (with systemd: Accept=no)")
    host, port = sock.getsockname()[:2]
    if not port:
        raise SocketError(f"{name} that was passed is not bound to a port")
    return Held(sock, Place(Address(host.partition("%")[0], port), sock.type), shared)


def opened(place: Place) -> Held:
    """A socket of our own; OSError when that can't be."""
    make = udp.open_socket if place.kind == socket.SOCK_DGRAM else tcp.open_listener
    return Held(make(place.address), place)


def unique(found: Iterable[Held]) -> list[Held]:
    """Without the duplicates, which are closed."""
    first: dict[int, Held] = {}
    for one in found:
        if first.setdefault(one.number, one) is not one:
            one.sock.close()
    return list(first.values())


def allot(
    wanted: Sequence[Place], berths: Sequence[Berth], spare: Sequence[Held], count: int
) -> tuple[list[Berth], list[Held]]:
    """`count` berths, each with the sockets of one of `berths` (the first ones) that are still wanted, filled up from the rest.

    The second are those that are left. Places that nobody has are missing still. A shared socket that there are fewer of
    than berths is in several; those that there are more of are all read by somebody.
    """
    made: list[Berth] = [[] for _ in range(count)]
    left = [one for berth in berths[count:] for one in berth] + list(spare)
    for berth, found in zip(made, berths, strict=False):
        for one in found:
            (berth if one.place in missing(wanted, berth) else left).append(one)
    for place in wanted:
        fitting = [one for one in left if one.place == place]
        shared = [one for berth in made for one in berth if one.place == place and one.shared]
        shared += [one for one in fitting if one.shared]
        for berth in made:
            if place in missing(wanted, berth) and (fitting or shared):
                berth.append(fitting.pop(0) if fitting else shared[0])
        for number, one in enumerate(one for one in fitting if one.shared):
            made[number % count].append(one)
    used = {one.number for berth in made for one in berth}
    return made, [one for one in left if one.number not in used]


def missing(wanted: Sequence[Place], berth: Berth) -> list[Place]:
    there = {one.place for one in berth}
    return [place for place in wanted if place not in there]


def retire(found: Iterable[Held]) -> None:
    """Let nothing more come in: what is queued is still answered by who reads there. Shared sockets are left alone."""
    for one in found:
        if one.place.kind == socket.SOCK_DGRAM and not one.shared and one.sock.fileno() >= 0:
            udp.retire(one.sock)


def end(found: Iterable[Held]) -> None:
    """Close them in every process that has them, the service manager's store too; shared ones only here."""
    for one in found:
        if not one.shared:
            with contextlib.suppress(OSError):
                one.sock.shutdown(socket.SHUT_RDWR)
    close(found)


def close(found: Iterable[Held]) -> None:
    for one in found:
        with contextlib.suppress(OSError):
            one.sock.close()
