"""Samples that are no probes: beacons, of which some count, and users' own connections, which are evidence alone.

A user's connection went through the provider that the user was given, so it tells nothing of the others: beside probes of
those it would compare two kinds of measuring, and not two providers. `explain` shows it, and nothing is decided by it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from edgedns.control.measured import Measured
from edgedns.control.schedule import Force
from edgedns.control.uplift import Gained
from edgedns.metrics import Family
from edgedns.model import RttSample
from edgedns.steer.table.batch import batch_of
from edgedns.steer.table.rows import pack, rows_of
from edgedns.steer.table.rtt import Cells, RttStore
from edgedns.steer.trust.crowd import Crowd

USERS_HALF_LIFE = 300.0  # seconds


class Passive:
    """What beacons and users' connections told."""

    def __init__(self) -> None:
        self.crowd = Crowd()
        self.connections = 0
        self._users = _store(10.0)

    def take(self, samples: Sequence[RttSample], measured: Measured, gained: Gained, force: Force, now: float) -> None:
        """Take samples that are no probes to where they may count."""
        if not samples:
            return
        period = force.world.rules.round
        self._take_passive([sample for sample in samples if sample.kind == "passive"], period)
        beacons = [sample for sample in samples if sample.kind == "beacon"]
        probed = measured.rtt.knows(pack(rows_of([beacon.network for beacon in beacons])))
        counted = batch_of(self.crowd.admit(zip(beacons, probed.tolist(), strict=True), period, now))
        if len(counted):
            gained.take(counted, force.decisions)
            measured.take_beacons(counted, now)

    def _take_passive(self, samples: list[RttSample], period: float) -> None:
        if self._users.round_seconds != period:
            self._users = _store(period)
        self.connections += len(samples)
        self._users.observe(samples)

    def close_round(self, now: float) -> None:
        self._users.close_round(now)

    def users(self) -> Cells:
        """The histograms of users' connections, as of the last round."""
        return self._users.cells()

    def families(self) -> Iterable[Family]:
        """At /metrics."""
        counted = [((verdict,), float(count)) for verdict, count in self.crowd.counts.items()]
        yield Family("edgedns_beacon_samples", "Beacon samples, by what became of them.", "counter", ("result",), counted)
        told = [((), float(self.connections))]
        yield Family("edgedns_passive_samples", "Samples of users' own connections.", "counter", (), told)


def _store(period: float) -> RttStore:
    """Histograms in rounds of `period` seconds."""
    return RttStore(period, USERS_HALF_LIFE / period)
