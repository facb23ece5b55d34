"""Replies to other agents of the fleet that land here, because the sender's provider announces its address here, too.

Anycast brought them: for whoever replied, this vantage is that provider's catchment. So it is told, as that, and not as a
round trip; who sent the probe can't know why nothing came back.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import NamedTuple

from edgedns.probe.targets import Target
from edgedns.probe.wire import Stamp

REPEAT = 5.0
OLDEST, AHEAD = 30.0, 5.0  # seconds: clocks of a fleet differ a little
PATHS_LIMIT = 100_000


class Landing(NamedTuple):
    """A reply from `target` to `sent_by` landed at `vantage`; `at` in Unix seconds."""

    at: float
    vantage: str
    provider: str
    target: Target | None
    host: str
    sent_by: str

    def line(self) -> bytes:
        """One line for POST /v1/samples, without its newline."""
        fields: dict[str, object] = {"at": round(self.at, 3), "vantage": self.vantage, "provider": self.provider}
        if self.target is None or self.target.address:
            fields["address"] = self.target.address if self.target is not None else self.host
        else:
            fields |= {"asn": self.target.asn, "family": self.target.family}
        fields["sent_by"] = self.sent_by
        return json.dumps(fields, separators=(",", ":")).encode()


class Landings:
    """Which of them are worth telling: fresh ones, each path's at most once in 5 s. `seen` counts all, `old` those too old."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.seen = self.old = self.told = 0
        self._clock = clock
        self._told: dict[tuple[str, str, str], float] = {}

    def is_news(self, stamp: Stamp, host: str) -> bool:
        """Whether to tell of this one now. A stamp was believed already; one that is sent again and again is told seldom."""
        self.seen += 1
        now = self._clock()
        if not now - OLDEST <= stamp.sent_ns / 1e9 <= now + AHEAD:
            self.old += 1
            return False
        path = (stamp.vantage, stamp.provider, host)
        if abs(now - self._told.get(path, 0.0)) < REPEAT or not self._has_room(path, now):
            return False
        self._told[path] = now
        self.told += 1
        return True

    def _has_room(self, path: tuple[str, str, str], now: float) -> bool:
        if path not in self._told and len(self._told) >= PATHS_LIMIT:
            self._told = {each: at for each, at in self._told.items() if abs(now - at) < REPEAT}
        return path in self._told or len(self._told) < PATHS_LIMIT
