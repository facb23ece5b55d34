"""The last quarter of an hour for the plot: how many answers a second gave each provider."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

STEP = 4.0
KEPT = 225


class History:
    """Rates from counters that only grow; `take` is to be called every STEP seconds."""

    def __init__(self, kept: int = KEPT) -> None:
        self._rates: deque[tuple[float, dict[str, float]]] = deque(maxlen=kept)
        self._last: tuple[float, Mapping[str, float]] | None = None

    def take(self, totals: Mapping[str, float], now: float) -> None:
        """Take the counters at Unix time `now`. One that shrank was begun anew and counts from zero."""
        if self._last is not None and now > self._last[0]:
            at, before = self._last
            grown = {name: _grown(total, before.get(name, 0.0)) / (now - at) for name, total in totals.items()}
            self._rates.append((now, grown))
        self._last = now, dict(totals)

    def columns(self) -> dict[str, Any]:
        """{"at": [...], "rates": {provider: [...]}}: equally long, a gap (None) where a provider was not known yet."""
        names = list(self._last[1]) if self._last else []
        return {
            "at": [round(at, 1) for at, _ in self._rates],
            "rates": {name: [_rounded(rates.get(name)) for _, rates in self._rates] for name in names},
        }


def _grown(total: float, before: float) -> float:
    return total - before if total >= before else total


def _rounded(rate: float | None) -> float | None:
    return None if rate is None else round(rate, 2)
