"""Demand given in a file instead of counted (`--demand FILE`): CSV, `network,queries` or `network,gbps` in its first line.

A network is an ASN (AS64500), an ASN in a country (AS64500/DE), a country (DE) or a prefix; what it asks, a second, or
carries is spread evenly over the networks of the table that it names.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_network
from math import isfinite

import numpy as np
import numpy.typing as npt

from edgedns.errors import SourceError
from edgedns.steer.space.atoms import Atoms

UNITS = {"queries": 1.0, "gbps": 1e9}
MISTAKES_SHOWN = 20
_NAMED = re.compile(r"(?:AS(\d{1,10}))?(?:(?:^|/)([A-Z]{2}))?")
Network = tuple[int | None, str] | bytes


@dataclass(frozen=True)
class Forecast:
    """Entries (network, amount): a network is (ASN or None, country or ""), or the first address of a prefix.

    Amounts are queries a second, or with `bits` bits a second.
    """

    entries: tuple[tuple[Network, float], ...]
    bits: bool


def parse(text: str, path: str) -> Forecast:
    """The forecast in a file's text; SourceError names the first mistakes as path:line."""
    lines = [(n, line.strip()) for n, line in enumerate(text.splitlines(), 1) if line.strip() and not line.startswith("#")]
    head = lines[0][1].replace(" ", "").partition(",") if lines else ("", "", "")
    if head[0] != "network" or head[2] not in UNITS:
        raise SourceError(f"{path}:1: the first line must be 'network,queries' or 'network,gbps'")
    entries, mistakes = [], []
    for number, line in lines[1:]:
        try:
            entries.append(_entry(line, UNITS[head[2]]))
        except ValueError as error:
            mistakes.append(f"{path}:{number}: {error}")
    if mistakes:
        raise SourceError("\n".join(mistakes[:MISTAKES_SHOWN]))
    return Forecast(tuple(entries), head[2] == "gbps")


def _entry(line: str, unit: float) -> tuple[Network, float]:
    name, comma, amount = (part.strip() for part in line.partition(","))
    try:
        value = float(amount)
    except ValueError:
        value = -1.0
    if not comma or not isfinite(value) or value < 0:
        raise ValueError(f"expected NETWORK,NUMBER, not {line[:60]!r}")
    return _network(name), value * unit


def _network(name: str) -> Network:
    named = _NAMED.fullmatch(name)
    if name and named and (named[1] is None or int(named[1]) < 1 << 32):
        return (int(named[1]) if named[1] else None, named[2] or "")
    try:
        return ip_network(name, strict=False).network_address.packed
    except ValueError:
        raise ValueError(f"{name[:60]!r} is no ASN, ASN/COUNTRY, country or prefix") from None


def by_network(forecast: Forecast, atoms: Atoms, find: Callable[[bytes], int]) -> npt.NDArray[np.float64]:
    """The amounts by network id; `find` gives an address' network. What the table doesn't know is unmapped space's.

    Public resolvers' own networks (the twins) are given nothing.
    """
    spread = np.zeros(len(atoms.net_asn))
    own = np.ones(len(spread), bool)
    own[0] = False
    own[1 + atoms.public_networks : 1 + 2 * atoms.public_networks] = False
    order = np.flatnonzero(own)[np.argsort(atoms.net_asn[own], kind="stable")]
    asns = atoms.net_asn[order]
    for network, amount in forecast.entries:
        if isinstance(network, bytes):
            spread[find(network)] += amount
            continue
        asn, country = network
        mine = order if asn is None else order[np.searchsorted(asns, asn, "left") : np.searchsorted(asns, asn, "right")]
        if country:
            mine = mine[atoms.net_country[mine] == country.encode()]
        if len(mine):
            spread[mine] += amount / len(mine)
        else:
            spread[0] += amount
    return spread
