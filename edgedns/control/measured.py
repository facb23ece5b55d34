"""What probes taught: histograms and failure detection, taken up again by the next control process."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar

from edgedns.engine.world import Serial
from edgedns.errors import EdgednsError, SourceError
from edgedns.model import LandedReply
from edgedns.steer.deciding.decisions import Decisions
from edgedns.steer.failure.catchments import Catchments
from edgedns.steer.failure.checks import Checks
from edgedns.steer.failure.health import Health
from edgedns.steer.table.batch import Batch
from edgedns.steer.table.rtt import RttStore, beside
from edgedns.steer.table.wan import WanTable, table_of
from edgedns.steer.trust.vantages import Vantages
from edgedns.store.local import LocalStore

STALE_ROUNDS = 2
AHEAD = 60.0
LATE = 30.0  # seconds from which on a sample says nothing of how things are now
BEACONS_ALONE = 600.0  # seconds without probes, whose table has then expired
T = TypeVar("T")


@dataclass(slots=True)
class Measured:
    """Histograms, the detector, who measures, and when samples last came (Unix seconds, 0: never).

    Beacons have histograms of their own: no row of the table is of two kinds of samples, where probes have one it is theirs.
    """

    rtt: RttStore = field(default_factory=RttStore)
    beacons: RttStore = field(default_factory=RttStore)
    health: Health = field(default_factory=Health)
    vantages: Vantages = field(default_factory=Vantages)
    catchments: Catchments = field(default_factory=Catchments)
    sampled_at: float = 0.0
    probed_at: float = 0.0
    _changes: int = 0

    def take(self, samples: Batch, now: float) -> bool:
        """Take samples; True when they revealed a failure or its end. ValueError when there are too many of a kind."""
        if self.health.at > now + AHEAD:  # the clock was set back: nothing would come back up until it catches up
            self.health = Health()
        late = samples.at < now - LATE
        if late.any():
            self._take_late(samples.take(late & ~samples.lost))
            samples = samples.take(~late)
        if not len(samples):
            return False
        for batch in self.health.observe(samples):
            self.rtt.observe_columns(batch)
        self.sampled_at = self.probed_at = now
        changed = self.health.changes != self._changes
        self._changes = self.health.changes
        return changed

    def admit(self, samples: Batch, now: float, ahead: float | None, vantage: str | None = None) -> Batch:
        """Of a body's samples those that may count; `ahead`: by how many seconds its sender's clock is, if it said so.

        vantage: who sent it, where it has a token of its own: a clock so far off that no sample was taken is shown, too.
        """
        if ahead is not None:
            for name in samples.vantages or (vantage,):
                self.vantages.note_clock(name or "", ahead)
        samples = self.catchments.without_excused(samples)
        return self.vantages.admit(samples, now) if len(samples) else samples

    def take_landed(self, landed: Sequence[LandedReply], now: float) -> None:
        """Take replies that landed elsewhere; what vantages in quarantine tell of them counts as little as their samples."""
        out = self.vantages.quarantined if landed else []
        trusted = [reply for reply in landed if reply.vantage not in out]
        self.catchments.take(trusted, now, lambda path: self.health.lands_elsewhere(*path))

    def _take_late(self, replies: Batch) -> None:
        """What an agent kept while we were away: for the histograms of their own rounds. It reveals no failure of now."""
        self.rtt.observe_columns(replies)

    def take_beacons(self, samples: Batch, now: float) -> None:
        """Take what beacons may count, past the detector. They keep no table alive that probes made."""
        self.beacons.observe_columns(samples)
        if len(samples) and now - self.probed_at > BEACONS_ALONE:
            self.sampled_at = now

    def keep_pace(self, period: float) -> None:
        """Rounds of `period` seconds from now on; histograms of other rounds can't be gone on with."""
        if self.rtt.round_seconds != period:
            self.rtt = RttStore(period)
        if self.beacons.round_seconds != period:
            self.beacons = RttStore(period)

    def close_round(self, providers: Sequence[str], now: float) -> WanTable | None:
        """The table of the round that ends; None while no samples come, since the table in force must not fade away."""
        period = self.rtt.round_seconds
        stale = now - self.sampled_at > STALE_ROUNDS * period
        if self.rtt.round * period > now + AHEAD:  # the clock was set back: rounds would stand still until it catches up
            self.rtt, self.beacons = RttStore(period), RttStore(period)
        if not stale:
            self.rtt.close_round(now, partial(self._vet, now=now))
            self.beacons.close_round(now)
        self.vantages.close(now, period)
        self.health.leave_out(self.vantages.quarantined)
        return None if stale else table_of(beside(self.rtt.cells(), self.beacons.cells()), only=list(providers))

    def _vet(self, round_: Batch, now: float) -> Batch:
        self.catchments.hold_to(round_, now)
        return self.vantages.vet(round_, now)

    def news(self, log: Callable[[str], None]) -> list[str]:
        """What has changed of who is trusted, logged and told once."""
        news, self.vantages.news = self.vantages.news, []
        for line in news:
            log(line)
        return news

    def save(self, store: LocalStore) -> None:
        """Keep the histograms and who is trusted; the detector is published with each root that it made."""
        store.save_arrays("rtt", self.rtt.to_sections())
        store.save_arrays("beacons", self.beacons.to_sections())
        store.save_arrays("vantages", self.vantages.to_sections())

    def restore(self, store: LocalStore, health: Callable[[], Health | None], log: Callable[[str], None]) -> None:
        """Take up what was saved, and the detector as `health` has it; what can't be read begins anew."""
        self.rtt = _histograms(store, "rtt", log) or self.rtt
        self.beacons = _histograms(store, "beacons", log) or self.beacons
        known = restored("vantages", lambda: store.load_arrays("vantages"), log)
        if known is not None:
            self.vantages = restored("vantages", lambda: Vantages.from_sections(known), log) or self.vantages
        self.health = restored("health", health, log) or self.health
        self._changes = self.health.changes


def _histograms(store: LocalStore, name: str, log: Callable[[str], None]) -> RttStore | None:
    """Those that were saved under a name; None where there are none that can be read."""
    sections = restored("histograms", lambda: store.load_arrays(name), log)
    return None if sections is None else restored("histograms", lambda: RttStore.from_sections(sections), log)


def set_back(decisions: Decisions, now: float) -> Decisions:
    """Decisions whose times lie in the future, as if they had been made now: the clock was set back."""
    ahead = decisions.now - now
    columns = {}
    for column, decided in decisions.columns.items():
        hold = decided.hold.copy()
        hold["moved"] -= ahead
        hold["guard_until"] -= ahead
        columns[column] = replace(decided, since=decided.since - ahead, hold=hold)
    return replace(decisions, columns=columns, table_at=decisions.table_at - ahead, now=now)


def restored(what: str, load: Callable[[], T | None], log: Callable[[str], None]) -> T | None:
    """What `load` gives; None, and a line in the log, when it can't be read."""
    try:
        return load()
    except EdgednsError as error:
        log(f"{what}: {error}")
        return None


def kept_serials(root: Mapping[str, Any]) -> dict[str, Serial]:
    """The zones' SOA serials as a root has them; none where it has nothing of the kind."""
    try:
        return {name: Serial(int(one["serial"]), str(one["digest"])) for name, one in root.get("zones", {}).items()}
    except (AttributeError, KeyError, TypeError, ValueError):
        return {}


def kept_checks(root: Mapping[str, Any]) -> Checks:
    """The checks' state as a root has it; SourceError when it can't be read."""
    try:
        return Checks.from_json(root.get("checks") or [])
    except ValueError as error:
        raise SourceError(str(error)) from error


def kept(kind: Any, sections: dict[str, Any] | None) -> Any:
    """What `kind` wrote as sections; None where there are none."""
    return None if sections is None else kind.from_sections(sections)
