"""Prefixes, and those of nobody's network: IANA's special-purpose address registries (RFC 6890). Standard library only."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_network
from itertools import chain

Network = IPv4Network | IPv6Network

# https://www.iana.org/assignments/iana-ipv4-special-registry, and multicast (RFC 5771). Some are routed, such as those of
# AS 112, but to the nearest of many hosts: none speaks for a network.
V4 = tuple(map(IPv4Network, (
    "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
    "192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.168.0.0/16", "192.175.48.0/24",
    "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
)))  # fmt: skip
# All but 2000::/3, which is global unicast (RFC 4291 section 2.4), and what iana-ipv6-special-registry has within that.
V6 = tuple(map(IPv6Network, (
    "::/3", "2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20", "4000::/2", "8000::/1",
)))  # fmt: skip


class Prefixes:
    """A set of prefixes as ranges of packed addresses, `ranges[4]` and `ranges[6]`: (starts, ends), disjoint and ascending."""

    def __init__(self, networks: Iterable[Network] = ()) -> None:
        given = list(networks)
        v4 = collapse_addresses(one for one in given if isinstance(one, IPv4Network))
        v6 = collapse_addresses(one for one in given if isinstance(one, IPv6Network))
        self.ranges = {4: _ranges(v4), 6: _ranges(v6)}

    def __contains__(self, address: object) -> bool:
        """Whether a packed address of 4 or 16 octets lies in one of them."""
        if not isinstance(address, bytes):
            return False
        starts, ends = self.ranges[4 if len(address) == 4 else 6]
        at = bisect_right(starts, address)
        return at > 0 and address <= ends[at - 1]

    def __len__(self) -> int:
        return len(self.ranges[4][0]) + len(self.ranges[6][0])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Prefixes) and self.ranges == other.ranges

    __hash__ = None  # type: ignore[assignment]


def _ranges(networks: Iterable[Network]) -> tuple[list[bytes], list[bytes]]:
    pairs = [(one.network_address.packed, one.broadcast_address.packed) for one in networks]
    return [start for start, _ in pairs], [end for _, end in pairs]


SPECIAL = Prefixes(chain(V4, V6))


def prefix_of(line: str) -> Network | None:
    """The prefix or address of a line, `#` begins a comment; None for an empty one. ValueError says what is wrong with it."""
    text = line.partition("#")[0].strip()
    if "%" in text:
        raise ValueError(f"{text!r} names an interface")
    return ip_network(text) if text else None
