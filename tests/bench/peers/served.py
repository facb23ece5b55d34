"""What every server is to serve: one zone, and which client network gets which of four addresses, from the real table."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from ipaddress import IPv4Network, IPv6Network, ip_address, summarize_address_range
from pathlib import Path
from random import Random

import numpy as np

from edgedns.bench.subnets import Subnet
from edgedns.steer.space import asn
from edgedns.steer.space.asn import AsnTable

Network = IPv4Network | IPv6Network
ZONE = "cdn.example.net"
STEERED = f"www.{ZONE}"
# Provider -> its address; the first serves whoever is in no list.
PROVIDERS = {"alder": "192.0.2.10", "birch": "198.51.100.10", "cedar": "203.0.113.10", "dogwood": "192.0.2.140"}
SOURCES = "127.0.1.0/26"
# A quarter of them to each provider: what steers by the source of a query can be seen on loopback too.
BY_SOURCE = dict(zip(IPv4Network(SOURCES).subnets(2), PROVIDERS, strict=True))
TTL = 30


def provider_of(number: int) -> str:
    """The provider of an ASN; 0 is unmapped space."""
    return list(PROVIDERS)[zlib.crc32(str(number).encode()) % len(PROVIDERS) if number else 0]


@dataclass(frozen=True)
class World:
    """The table, or the part of it that is given, and what follows from it."""

    table: AsnTable
    path: Path | None = None  # of the table, where it is not the embedded one
    names: int = 10_000  # n0, n1 ...: static

    @cached_property
    def asns(self) -> dict[str, list[int]]:
        """Provider -> its ASNs."""
        found: dict[str, list[int]] = {name: [] for name in PROVIDERS}
        for number in np.unique(np.concatenate([self.table.asn4, self.table.asn6])).tolist():
            found[provider_of(number)].append(number)
        return found

    @cached_property
    def prefixes(self) -> dict[str, list[Network]]:
        """Provider -> its prefixes of both families, and sources; neighbours alike are joined. The first has all the rest."""
        found: dict[str, list[Network]] = {name: [] for name in PROVIDERS}
        for first, last, name in [*self._ranges4(), *self._ranges6()]:
            if name != next(iter(PROVIDERS)):
                found[name] += summarize_address_range(ip_address(first), ip_address(last))
        for net, name in BY_SOURCE.items():
            found[name].append(net)
        del found[next(iter(PROVIDERS))]
        return found

    @property
    def count(self) -> int:
        return sum(map(len, self.prefixes.values()))

    def _ranges4(self) -> Iterator[tuple[bytes, bytes, str]]:
        table = self.table
        rows = zip(table.start4.tolist(), table.end4.tolist(), table.asn4.tolist(), strict=True)
        for first, last, name in _joined(rows):
            yield first.to_bytes(4, "big"), last.to_bytes(4, "big"), name

    def _ranges6(self) -> Iterator[tuple[bytes, bytes, str]]:
        table = self.table
        highs, lows = (table.start6_hi.tolist(), table.end6_hi.tolist()), (table.start6_lo.tolist(), table.end6_lo.tolist())
        firsts, lasts = ([high << 64 | low for high, low in zip(*pair, strict=True)] for pair in zip(highs, lows, strict=True))
        for first, last, name in _joined(zip(firsts, lasts, table.asn6.tolist(), strict=True)):
            yield first.to_bytes(16, "big"), last.to_bytes(16, "big"), name

    def provider_at(self, subnet: Subnet) -> str:
        """Who serves this /24."""
        number = int.from_bytes(subnet.address, "big")
        at = int(np.searchsorted(self.table.start4, number, "right")) - 1
        return provider_of(int(self.table.asn4[at]) if at >= 0 and number <= int(self.table.end4[at]) else 0)

    def slash24s(self, count: int, dice: Random) -> list[Subnet]:
        """Mapped /24s, each of one network."""
        table, found = self.table, set[int]()
        while len(found) < count:
            at = dice.randrange(len(table.start4))
            first, last = (int(table.start4[at]) + 255) >> 8, (int(table.end4[at]) - 255) >> 8
            if first <= last:
                found.add(dice.randint(first, last))
        made = [Subnet(1, 24, (number << 8).to_bytes(4, "big")) for number in sorted(found)]
        dice.shuffle(made)
        return made

    def static_lines(self, steered: str = "") -> list[str]:
        """The zone in zone-file syntax; `steered` is what stands for the steered name, if anything."""
        lines = ["@ 3600 SOA ns1 noc.example.net. 2026112201 3600 900 1209600 60", "@ 3600 NS ns1", "ns1 3600 A 192.0.2.53"]
        lines += [f"www {TTL} {steered}"] if steered else []
        return lines + [f"n{number} 300 A 192.0.2.{number % 250}" for number in range(self.names)]

    def zone_text(self, steered: str = "") -> str:
        """All of a zone file."""
        return "\n".join([f"$ORIGIN {ZONE}.", "$TTL 300", *self.static_lines(steered), ""])


def _joined(rows: Iterator[tuple[int, int, int]]) -> Iterator[tuple[int, int, str]]:
    """Sorted ranges and their providers; ranges that touch and have the same are made one."""
    first, last, name = -1, -2, ""
    for start, end, number in rows:
        whose = provider_of(number)
        if start == last + 1 and whose == name:
            last = end
            continue
        if name:
            yield first, last, name
        first, last, name = start, end, whose
    if name:
        yield first, last, name


def whole() -> World:
    """The embedded table."""
    return World(asn.embedded())
