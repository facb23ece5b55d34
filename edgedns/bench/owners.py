"""The processes of this machine that serve a UDP address (from /proc), and what CPU they use."""

from __future__ import annotations

import os
import socket
import sys
import time
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

PROC = Path("/proc")
Address = IPv4Address | IPv6Address


def is_local(address: str) -> bool:
    """Is it an address of this machine? Those can be bound."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        try:
            sock.bind((address, 0))
        except OSError:
            return False
    return True


def owners(address: str, port: int) -> list[int]:
    """Process ids with a UDP socket that gets what is sent there; empty where there are none or they may not be looked at."""
    wanted = {f"socket:[{inode}]" for inode in _inodes(ip_address(address), port)}
    return sorted(int(path.name) for path in PROC.glob("[0-9]*") if wanted and _holds(path, wanted))


def _inodes(address: Address, port: int) -> set[int]:
    found = set()
    for table in ("udp", "udp6"):
        try:
            lines = (PROC / "net" / table).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            words = line.split()
            host, _, hexport = words[1].partition(":")
            if int(hexport, 16) == port and words[2].endswith(":0000") and _is_for(_parsed(host), address):
                found.add(int(words[9]))
    return found


def _parsed(host: str) -> Address:
    """Words of 32 bits in the machine's own order."""
    words = (int(host[at : at + 8], 16).to_bytes(4, sys.byteorder) for at in range(0, len(host), 8))
    return ip_address(b"".join(words))


def _is_for(bound: Address, address: Address) -> bool:
    if isinstance(bound, IPv6Address) and bound.ipv4_mapped:
        bound = bound.ipv4_mapped
    return bound == address or (bound.is_unspecified and bound.version >= address.version)


def _holds(process: Path, sockets: set[str]) -> bool:
    try:
        with os.scandir(process / "fd") as entries:
            return any(os.readlink(entry.path) in sockets for entry in entries)
    except OSError:  # it has gone, or is somebody else's
        return False


def cpu_seconds(pids: list[int]) -> float | None:
    """CPU that these processes have used, threads that have ended included; None when one of them has gone."""
    try:
        return sum(time.clock_gettime_ns(_cpu_clock(pid)) for pid in pids) / 1e9
    except OSError:
        return None


def _cpu_clock(pid: int) -> int:
    """The number of a process's CPU clock, as clock_getcpuclockid(3) makes it on Linux: exact, and open to everybody."""
    return (~pid << 3) | 2
