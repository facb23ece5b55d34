"""Client subnets to ask for: from a file of prefixes, or /24s made by dice."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_network
from pathlib import Path
from random import Random
from typing import NamedTuple

from edgedns.errors import SourceError

SHOWN = 5
SLASH_24S = range(0x010000, 0xE00000)  # 1.0.0.0 up to 223.255.255.0
# IANA's special-purpose registry (RFC 6890), the parts below 224.0.0.0 that nobody is asked from, as /24s.
BOGONS = [
    (int(net.network_address) >> 8, int(net.broadcast_address) >> 8)
    for net in map(ip_network, (
        "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24",
        "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24",
    ))
]  # fmt: skip


class Subnet(NamedTuple):
    """As the client subnet option has it: family 1 or 2, prefix length, packed address."""

    family: int
    length: int
    address: bytes


def random_slash24s(count: int, dice: Random) -> list[Subnet]:
    """Different /24s of the public IPv4 space."""
    found: set[int] = set()
    while len(found) < count:
        number = dice.choice(SLASH_24S)
        if not any(first <= number <= last for first, last in BOGONS):
            found.add(number)
    made = [Subnet(1, 24, (number << 8).to_bytes(4, "big")) for number in sorted(found)]
    dice.shuffle(made)
    return made


def parse(lines: Iterable[str], source: str) -> list[Subnet]:
    """A prefix a line, IPv4 or IPv6; `#` begins a comment. SourceError that names each bad line (at most five)."""
    found, wrong = [], []
    for number, line in enumerate(lines, 1):
        text = line.partition("#")[0].strip()
        if not text:
            continue
        try:
            net = ip_network(text)
        except ValueError as error:
            wrong.append(f"{source}:{number}: {error}")
        else:
            found.append(Subnet(1 if net.version == 4 else 2, net.prefixlen, net.network_address.packed))
    if wrong:
        raise SourceError("\n".join(wrong[:SHOWN] + ([f"... and {len(wrong) - SHOWN} more"] if len(wrong) > SHOWN else [])))
    if not found:
        raise SourceError(f"{source} has no prefixes; a line is one such as 192.0.2.0/24")
    return found


def read(path: Path) -> list[Subnet]:
    """The prefixes of a file; SourceError."""
    try:
        with path.open(encoding="utf-8") as file:
            return parse(file, str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"{path} can't be read: {error}") from error
