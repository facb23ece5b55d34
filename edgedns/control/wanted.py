"""What agents are to probe now, beside their own schedules: the detector's doubts first, then what the schedule picks.

Agents ask (`POST /v1/wanted`) and wait for an answer, so that a doubt reaches all vantages within a tenth of a second. What an
agent can't do within its own ceilings it leaves: nothing here lets anybody exceed them.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from edgedns.metrics import Family as MetricFamily
from edgedns.model import Family, NetworkKey
from edgedns.probe.collector import Outcome
from edgedns.steer.probing.doubts import Want

ADDRESSES_KEPT = 4
NETWORKS_KEPT = 250_000
VANTAGES_MOST = 1024
QUEUE_MOST = 2000
A_REPLY = 200
STALE = 5.0  # seconds; a doubt that old is settled otherwise, or comes again
IDLE = 60.0


class Places:
    """A few addresses of each network, the last that were timed there: what a vantage is told to probe."""

    def __init__(self) -> None:
        self._addresses: dict[NetworkKey, tuple[str, ...]] = {}

    def __len__(self) -> int:
        return len(self._addresses)

    def note(self, outcome: Outcome) -> None:
        """Each network that a body of samples was of, by one of its addresses there."""
        if outcome.columns is not None:
            columns = outcome.columns
            for number, address in dict(zip((columns.place >> 1).tolist(), columns.address, strict=True)).items():
                self._add(columns.networks[number], address)
        for _, sample in outcome.single:
            if sample.kind == "probe" and sample.address:
                self._add(sample.network, sample.address)

    def _add(self, network: NetworkKey, address: str) -> None:
        known = self._addresses.get(network, ())
        if address in known:
            return
        self._addresses[network] = (address, *known)[:ADDRESSES_KEPT]
        if len(self._addresses) > NETWORKS_KEPT:
            del self._addresses[next(iter(self._addresses))]

    def whom(self, network: NetworkKey, family: Family) -> dict[str, Any] | None:
        """As agents are told whom to probe: addresses, or an AS; None where nobody there is known."""
        if network.block < 0 and network.asn > 0 and not network.country:
            return {"asn": network.asn, "family": family}
        addresses = self._addresses.get(network)
        return {"addresses": list(addresses)} if addresses else None

    def holds(self, network: NetworkKey, address: str) -> bool:
        """Whether an address was timed there of late."""
        return address in self._addresses.get(network, ())


@dataclass(slots=True)
class Vantage:
    """An agent that asks: when it last did, packets a second it has room for, and (provider, family) of its sources."""

    asked_at: float = 0.0
    room: float = 0.0
    sources: frozenset[tuple[str, Family]] = frozenset()
    doubts: deque[tuple[float, dict[str, Any]]] = field(default_factory=deque)
    planned: deque[tuple[float, dict[str, Any]]] = field(default_factory=deque)


class Wanted:
    """Who is to probe what. `counts` are by what became of each entry: handed out, lapsed (nobody asked in time), or full.

    `doubt` and `plan` come in the control's turn, all else from the admin side: queues are only appended to and popped.
    """

    def __init__(self) -> None:
        self.places = Places()
        self.counts: Counter[tuple[str, str]] = Counter()
        self.vantages: dict[str, Vantage] = {}

    def present(self, now: float) -> list[str]:
        """The vantages that ask, in order."""
        return sorted(name for name, each in list(self.vantages.items()) if now - each.asked_at < IDLE)

    def arrive(self, name: str, room: float, sources: Iterable[tuple[str, Family]], now: float) -> bool:
        """An agent asks. False where there are too many."""
        vantage = self.vantages.get(name)
        if vantage is None:
            for gone in [other for other, each in self.vantages.items() if now - each.asked_at > IDLE]:
                del self.vantages[gone]
            if len(self.vantages) >= VANTAGES_MOST:
                return False
            vantage = self.vantages[name] = Vantage()
        vantage.asked_at, vantage.room, vantage.sources = now, room, frozenset(sources)
        return True

    def take(self, name: str, now: float) -> list[dict[str, Any]]:
        """What a vantage is to probe now; each entry is handed out once."""
        vantage = self.vantages.get(name)
        if vantage is None:
            return []
        taken: list[dict[str, Any]] = []
        for queue in (vantage.doubts, vantage.planned):
            while queue and queue[0][0] <= now and len(taken) < A_REPLY:
                due, entry = queue.popleft()
                lapsed = now - due > STALE
                self.counts[entry["why"], "lapsed" if lapsed else "handed"] += 1
                if not lapsed:
                    taken.append(entry)
        return taken

    def doubt(self, wants: Sequence[Want], now: float) -> None:
        """Queue what the detector wants, for vantages that ask."""
        for want in wants:
            vantage, whom = self.vantages.get(want.vantage), self.places.whom(want.network, want.family)
            if vantage is None or whom is None or now - vantage.asked_at > IDLE:
                self.counts["doubt", "lapsed"] += 1
            elif len(vantage.doubts) >= QUEUE_MOST:
                self.counts["doubt", "full"] += 1
            else:
                asked = {"provider": want.provider, "probes": want.probes, "gap": want.gap, "why": "doubt"}
                vantage.doubts.append((now, whom | asked))

    def plan(self, name: str, arms: Sequence[tuple[NetworkKey, Family, str]], now: float, seconds: float) -> None:
        """One probe of each of these arms, spread over the next `seconds`; what was left of the vantage's last plan lapses."""
        vantage = self.vantages.get(name)
        if vantage is None:
            return
        self.counts["schedule", "lapsed"] += len(vantage.planned)
        planned: deque[tuple[float, dict[str, Any]]] = deque()
        for i, (network, family, provider) in enumerate(arms):
            whom = self.places.whom(network, family)
            if whom is not None:
                entry = whom | {"provider": provider, "probes": 1, "gap": 1.0, "why": "schedule"}
                planned.append((now + seconds * i / len(arms), entry))
        vantage.planned = planned

    def families(self) -> Iterable[MetricFamily]:
        """For /metrics."""
        rows = [(key, float(count)) for key, count in sorted(self.counts.items())]
        told = "Probes that the collector wanted of agents, by why and what became of it."
        yield MetricFamily("edgedns_probes_wanted", told, "counter", ("why", "fate"), rows)
