"""Users as a source: the beacons of their web pages, of which some may count, and their own connections, which are evidence.

Anybody can send a beacon, so they count where nothing better is known, and little. A network that is probed is judged by its
probes alone (rtt.beside). Elsewhere it takes several clients before any counts, a client (a /24 or /48) counts once a
round, and a network no more than a probed one would.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Literal, NamedTuple, get_args

import numpy as np

from edgedns.model import Family, NetworkKey, RttSample
from edgedns.steer.table.rows import Floats, Ints, lookup, pack, rows_of
from edgedns.steer.table.rtt import CELLS, PROVIDERS, Cells, rtt_at

MIN_CLIENTS = 3
CLIENTS_KEPT = 16  # of a network
NETWORKS_KEPT = 65_536
REMEMBERED = 3600.0
MOST_A_ROUND = 8  # reports of one network

Verdict = Literal["counted", "probed", "few_clients", "repeated", "over_share"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)


def unit_of(address: str) -> bytes:
    """The /24 or /48 of an address: what stands for one client. ValueError where it is no address."""
    packed = ip_address(address).packed
    return packed[:3] if len(packed) == 4 else packed[:6]


@dataclass(slots=True)
class Crowd:
    """Judges beacons. `counts` partitions all that were judged; memory is bounded, the networks heard longest ago go first."""

    counts: dict[Verdict, int] = field(default_factory=lambda: dict.fromkeys(VERDICTS, 0))
    _clients: dict[NetworkKey, dict[bytes, float]] = field(default_factory=dict)
    _round: int = -1
    _units: set[tuple[bytes, str]] = field(default_factory=set)
    _networks: dict[tuple[NetworkKey, str], int] = field(default_factory=dict)

    def admit(self, beacons: Iterable[tuple[RttSample, bool]], round_seconds: float, now: float) -> list[RttSample]:
        """Those that may count. Each comes with whether probes speak for its network."""
        if (number := int(now // round_seconds)) != self._round:
            self._round = number
            self._units.clear()
            self._networks.clear()
        admitted = []
        for beacon, is_probed in beacons:
            verdict = "probed" if is_probed else self._judge(beacon, now)
            self.counts[verdict] += 1
            if verdict == "counted":
                admitted.append(beacon)
        return admitted

    def _judge(self, beacon: RttSample, now: float) -> Verdict:
        unit = unit_of(beacon.address)
        if self._heard(beacon.network, unit, now) < MIN_CLIENTS:
            return "few_clients"
        if (unit, beacon.provider) in self._units:
            return "repeated"
        arm = beacon.network, beacon.provider
        if self._networks.get(arm, 0) >= MOST_A_ROUND:
            return "over_share"
        self._units.add((unit, beacon.provider))
        self._networks[arm] = self._networks.get(arm, 0) + 1
        return "counted"

    def _heard(self, network: NetworkKey, unit: bytes, now: float) -> int:
        """How many clients of a network were heard in the last hour, this one among them."""
        clients = self._clients.pop(network, {})
        clients.pop(unit, None)
        clients[unit] = now
        for known in list(clients):
            if clients[known] < now - REMEMBERED or len(clients) > CLIENTS_KEPT:
                del clients[known]
        self._clients[network] = clients
        if len(self._clients) > NETWORKS_KEPT:
            del self._clients[next(iter(self._clients))]
        return len(clients)


class Connections(NamedTuple):
    """What users' own connections through one provider had: their median RTT, how many (decayed), the last one's time."""

    rtt_ms: float
    samples: float
    seen: float


def connections(cells: Cells, network: NetworkKey, family: Family) -> dict[str, Connections]:
    """By provider, for one network; only those that some connection went through."""
    row = int(lookup(cells.keys, pack(rows_of([network])))[0])
    if row < 0:
        return {}
    first = (row * 2 + (family == 6)) * PROVIDERS
    arms = np.arange(first, first + len(cells.providers))
    begins, ends = np.searchsorted(cells.codes, [arms * CELLS, (arms + 1) * CELLS])
    found = {}
    for name, arm, begin, end in zip(cells.providers, arms.tolist(), begins.tolist(), ends.tolist(), strict=True):
        if begin < end:
            buckets, weights = cells.codes[begin:end] % CELLS, cells.weights[begin:end]
            seen = float(cells.seen[np.searchsorted(cells.arms, arm)])
            found[name] = Connections(_median(buckets, weights), float(weights.sum()), seen)
    return found


def _median(buckets: Ints, weights: Floats) -> float:
    """In ms, interpolated within its bucket."""
    below = np.cumsum(weights)
    half = below[-1] / 2
    at = int(np.searchsorted(below, half))
    share = 1 - (below[at] - half) / weights[at]
    return float(rtt_at(np.array([buckets[at] + share]))[0])
