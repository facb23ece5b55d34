"""Bodies of samples in: each counts once, and is read by the collector; what came is remembered over restarts."""

from __future__ import annotations

from collections.abc import Callable

from edgedns.control.measured import restored
from edgedns.probe.collector import Collector, Outcome
from edgedns.probe.repeats import Repeats
from edgedns.store.local import LocalStore

FILE = "bodies"


class Intake:
    """A collector, and the bodies that it had."""

    def __init__(self, collector: Collector) -> None:
        self.collector = collector
        self.repeats = Repeats()

    def read(self, body: bytes, now: float, vantage: str | None, ahead: float | None) -> Outcome:
        """What a body brings: nothing, where it came before. `vantage`, `ahead`: as `Collector.accept` has them."""
        if self.repeats.is_one(body, now):
            return Outcome(repeated=True)
        return self.collector.accept(body, now, vantage, ahead)

    def save(self, store: LocalStore) -> None:
        store.save_arrays(FILE, self.repeats.to_sections())

    def restore(self, store: LocalStore, log: Callable[[str], None]) -> None:
        """Take up what was saved; what can't be read begins anew."""
        sections = restored(FILE, lambda: store.load_arrays(FILE), log)
        if sections is not None:
            self.repeats = restored(FILE, lambda: Repeats.from_sections(sections), log) or self.repeats
