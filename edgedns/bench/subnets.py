"""Client subnets to ask for: from a file of prefixes, or /24s made by dice."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from random import Random
from typing import NamedTuple

from edgedns import lines
from edgedns.special import V4, prefix_of

SLASH_24S = range(0x010000, 0xE00000)  # 1.0.0.0 up to 223.255.255.0
SPECIAL = [(int(net.network_address) >> 8, int(net.broadcast_address) >> 8) for net in V4]  # as /24s


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
        if not any(first <= number <= last for first, last in SPECIAL):
            found.add(number)
    made = [Subnet(1, 24, (number << 8).to_bytes(4, "big")) for number in sorted(found)]
    dice.shuffle(made)
    return made


def parse(text: Iterable[str], source: str) -> list[Subnet]:
    """A prefix a line, IPv4 or IPv6; `#` begins a comment. SourceError that names bad lines (five of them)."""
    return lines.parse(text, source, _of_line, "prefixes; a line is one such as 192.0.2.0/24")


def _of_line(line: str) -> Subnet | None:
    net = prefix_of(line)
    return None if net is None else Subnet(1 if net.version == 4 else 2, net.prefixlen, net.network_address.packed)


def read(path: Path) -> list[Subnet]:
    """The prefixes of a file; SourceError."""
    return lines.read(path, parse)
