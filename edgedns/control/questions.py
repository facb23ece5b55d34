"""A person's question: how long to this address, through every provider, from every vantage?

The address gets one probe a second in all, whoever sends it, cell by cell in turn; results are told to whoever asked, and reach
neither table nor detector: an address that nobody knows may be dead, and would be taken for a failure.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any

from edgedns.errors import EdgednsError
from edgedns.model import Family

PACE = 1.0
CELLS_MOST = 256
AT_ONCE = 4
KEPT = 32
PATIENCE = 3.0  # seconds for a vantage to come for its turn, and for a result to come back


class QuestionRefused(EdgednsError):
    """A question that isn't asked, and why."""


@dataclass(slots=True)
class Cell:
    """One vantage's path through one provider. rtts in ms; asked = replies + lost + refused + those under way."""

    vantage: str
    provider: str
    asked: int = 0
    rtts: list[float] = field(default_factory=list)
    lost: int = 0
    refused: int = 0
    why: str = ""

    @property
    def done(self) -> int:
        return len(self.rtts) + self.lost + self.refused

    def told(self) -> dict[str, Any]:
        why = {"why": self.why} if self.why else {}
        return {"vantage": self.vantage, "provider": self.provider, "asked": self.asked, "rtts": self.rtts,
                "lost": self.lost, "refused": self.refused} | why  # fmt: skip


@dataclass(slots=True)
class Question:
    """One address that is being asked for; `about` is what else is told of it."""

    number: str
    address: str
    method: str
    rounds: int
    cells: list[Cell]
    due: float
    about: Mapping[str, Any]
    last: float = 0.0

    def is_done(self, now: float) -> bool:
        if any(cell.asked < self.rounds for cell in self.cells):
            return False
        return all(cell.done >= cell.asked for cell in self.cells) or now - self.last > PATIENCE

    def turn_of(self, vantage: str, now: float) -> Cell | None:
        """The cell whose turn it is, if it is this vantage's. One that nobody came for is passed over, as refused."""
        while self.due <= now:
            cell = min(self.cells, key=lambda each: each.asked)
            if cell.asked >= self.rounds:
                return None
            if cell.vantage == vantage:
                cell.asked, self.last, self.due = cell.asked + 1, now, max(self.due + PACE, now + PACE / 2)
                return cell
            if now - self.due < PATIENCE:
                return None
            cell.asked, cell.refused, cell.why = cell.asked + 1, cell.refused + 1, "the vantage did not come for it"
            self.due += PACE
        return None

    def told(self, now: float) -> dict[str, Any]:
        cells = [cell.told() for cell in self.cells]
        head = {"id": self.number, "address": self.address, "method": self.method, "rounds": self.rounds}
        return {**head, **self.about, "done": self.is_done(now), "cells": cells}


class Questions:
    """Those asked last; bounded, a few at once. `now` is Unix seconds."""

    def __init__(self) -> None:
        self._all: OrderedDict[str, Question] = OrderedDict()
        self._number = 0

    def ask(
        self,
        address: str,
        method: str,
        rounds: int,
        sources: Mapping[str, frozenset[tuple[str, Family]]],
        about: Mapping[str, Any],
        now: float,
    ) -> dict[str, Any]:
        """A new question to the vantages that have `sources`; QuestionRefused where it can't be asked."""
        family = ip_address(address).version
        paths = [(name, provider) for name in sorted(sources) for provider, of in sorted(sources[name]) if of == family]
        if not paths:
            raise QuestionRefused(f"no vantage has an IPv{family} source: {', '.join(sorted(sources))}")
        if len(paths) > CELLS_MOST:
            raise QuestionRefused(f"{len(paths)} paths are too many to ask for, {CELLS_MOST} at most")
        running = [each for each in self._all.values() if not each.is_done(now)]
        if any(each.address == address for each in running):
            raise QuestionRefused(f"{address} is being asked for already; wait until that has ended")
        if len(running) >= AT_ONCE:
            raise QuestionRefused(f"{AT_ONCE} addresses are being asked for already; wait until one has ended")
        self._number += 1
        cells = [Cell(vantage, provider) for vantage, provider in paths]
        question = Question(f"{int(now):x}-{self._number}", address, method, rounds, cells, now, about)
        self._all[question.number] = question
        while len(self._all) > KEPT:
            self._all.popitem(last=False)
        return question.told(now)

    def take(self, vantage: str, now: float) -> list[dict[str, Any]]:
        """What this vantage is to probe now for people, as it is told."""
        entries = []
        for question in list(self._all.values()):
            cell = question.turn_of(vantage, now)
            if cell is not None:
                whom = {"addresses": [question.address], "method": question.method}
                how = {"provider": cell.provider, "probes": 1, "gap": 1.0, "why": "question", "id": question.number}
                entries.append(whom | how)
        return entries

    def result(self, vantage: str, number: str, provider: str, rtt_ms: float | None, why: str) -> bool:
        """What a vantage found, or why it didn't look; False where nobody asked that."""
        question = self._all.get(number)
        cells: Sequence[Cell] = question.cells if question is not None else ()
        for cell in cells:
            if (cell.vantage, cell.provider) == (vantage, provider) and cell.done < cell.asked:
                if why:
                    cell.refused, cell.why = cell.refused + 1, why
                elif rtt_ms is None:
                    cell.lost += 1
                else:
                    cell.rtts.append(rtt_ms)
                return True
        return False

    def told(self, number: str, now: float) -> dict[str, Any] | None:
        """How a question stands, None for no such."""
        question = self._all.get(number)
        return question.told(now) if question is not None else None
