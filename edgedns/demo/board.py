"""What the demo shows: events of the simulated Internet, rows that moved, what each network is answered now.

Plain state, filled from the simulator's lines, /v1/status and DNS replies; drawn by console.py.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from edgedns.demo.networks import Network

EVENTS_KEPT = 50
MOVES_KEPT = 200


@dataclass(slots=True)
class Spot:
    """A network whose answer is followed: its line to paste, and what it was answered last and before."""

    network: Network
    subnet: str
    answer: str = ""
    before: str = ""
    changed_at: float = 0.0


@dataclass(slots=True)
class Board:
    """All that is shown. `spots` are all networks asked about; `pasted` the few whose dig lines are printed."""

    server: tuple[str, int]
    page: str
    name: str
    spots: Sequence[Spot]
    pasted: Sequence[Spot] = ()
    events: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=EVENTS_KEPT))
    moves: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=MOVES_KEPT))
    status: Mapping[str, Any] = field(default_factory=dict)
    upcoming: tuple[float, str] | None = None
    asked: int = 0
    unanswered: int = 0
    _moved_at: float = 0.0

    def dig(self, spot: Spot) -> str:
        host, port = self.server
        return f"dig @{host} -p {port} {self.name} +subnet={spot.subnet} +short"

    def take_status(self, status: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Take /v1/status; gives the moves that are new, oldest first."""
        self.status = status
        new = [move for move in status["moves"] if move["at"] > self._moved_at]
        self.moves.extend(new)
        self._moved_at = max([self._moved_at, *(move["at"] for move in new)])
        return new

    def take_answer(self, spot: Spot, addresses: Sequence[str], now: float) -> None:
        """Take one reply's addresses."""
        provider = self.providers().get(addresses[0], addresses[0]) if addresses else "nothing"
        if provider != spot.answer:
            spot.before, spot.answer, spot.changed_at = spot.answer, provider, now

    def providers(self) -> dict[str, str]:
        """Address -> provider, as published."""
        return {address: one["name"] for one in self.status.get("providers", ()) for address in one["addresses"]}

    def given(self) -> Counter[str]:
        """How many of the networks are answered each provider."""
        return Counter(spot.answer for spot in self.spots if spot.answer)
