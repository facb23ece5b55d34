"""ICMP sockets: datagram ones, without privilege where the group may have them, else raw ones, by one capability."""

from __future__ import annotations

import os
import socket
import struct
from pathlib import Path
from typing import Literal, NamedTuple

from edgedns.model import Family
from edgedns.probe.source import HOW_RAW, NotPossible, Source

GROUPS = Path("/proc/sys/net/ipv4/ping_group_range")  # of both families
_SOL_RAW = 255
_ICMP_FILTER = 1  # linux/icmp.h: a set bit keeps that type out
_ICMPV6_FILTER = 1  # RFC 3542 section 3.2: here too, in Linux
_ECHO_REPLY: dict[Family, int] = {4: 0, 6: 129}
Kind = Literal["datagram", "raw"]


class IcmpSocket(NamedTuple):
    """A socket for echo of one source, and which kind the system let us have."""

    sock: socket.socket
    kind: Kind


def open_icmp(source: Source, identifier: int = 0) -> IcmpSocket:
    """A datagram socket where net.ipv4.ping_group_range permits, else a raw one; NotPossible where neither may be.

    identifier: that of the requests. A datagram socket without one is given one by the kernel.
    """
    protocol = socket.IPPROTO_ICMPV6 if source.family == 6 else socket.IPPROTO_ICMP
    try:
        return IcmpSocket(source.open(socket.SOCK_DGRAM, protocol, identifier), "datagram")
    except PermissionError:
        pass
    try:
        sock = source.open(socket.SOCK_RAW, protocol)
    except PermissionError:
        raise NotPossible(f"from {source}: {_how()}") from None
    _only_replies(sock, source.family)
    return IcmpSocket(sock, "raw")


def _only_replies(sock: socket.socket, family: Family) -> None:
    """Let nothing but echo replies in: errors about other packets, and everybody's requests, are none of ours."""
    wanted = _ECHO_REPLY[family]
    if family == 4:
        sock.setsockopt(_SOL_RAW, _ICMP_FILTER, struct.pack("=I", 0xFFFFFFFF ^ 1 << wanted))
        return
    words = [0xFFFFFFFF] * 8
    words[wanted // 32] ^= 1 << wanted % 32
    sock.setsockopt(socket.IPPROTO_ICMPV6, _ICMPV6_FILTER, struct.pack("=8I", *words))


def _how() -> str:
    group = os.getegid()
    return (
        f"neither may group {group} open ICMP sockets (sysctl -w net.ipv4.ping_group_range='{group} {group}' permits it) "
        f"nor has the process CAP_NET_RAW ({HOW_RAW})"
    )


def told(kind: Kind) -> str:
    """Which it is, for the log."""
    if kind == "raw":
        return "raw sockets, by CAP_NET_RAW"
    return f"unprivileged sockets, by net.ipv4.ping_group_range = {' '.join(_range())}"


def _range() -> list[str]:
    try:
        return GROUPS.read_text(encoding="ascii").split()
    except OSError:
        return ["?"]
