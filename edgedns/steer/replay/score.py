"""What a replay was worth: the gap captured and its company (tests/data/rtt/README.md defines the score)."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from edgedns.errors import SourceError
from edgedns.steer.replay.play import Played
from edgedns.steer.table.rows import Bools, Floats, Ints

WORSE_MS = 5.0
BINS = 5


@dataclass(frozen=True)
class Answers:
    """Mean and percentiles, in ms, of the RTTs of the answers that one way of choosing gives."""

    mean_ms: float
    p50_ms: float
    p95_ms: float
    p99_ms: float

    @classmethod
    def of(cls, rtt: Floats) -> Answers:
        return cls(float(rtt.mean()), *(float(v) for v in np.percentile(rtt, (50, 95, 99))))


@dataclass(frozen=True)
class Score:
    """gap_captured: 1 is the per-slot oracle, 0 the best single provider; None where these two are alike.

    Shares are of units (network and vantage).
    """

    answers: Answers
    baselines: dict[str, Answers]
    best_single: str
    gap_captured: float | None
    switches_per_100: float
    share_worse_5ms: float
    share_better_5ms: float
    calibration: list[dict[str, float]]
    rows: int

    def to_json(self) -> dict[str, Any]:
        """The keys of `edgedns replay --json`, flat."""
        plain = asdict(self)
        return {**plain.pop("answers"), **plain}


def score(played: Played, first: int | None = None) -> Score:
    """Score the slots from `first` on (default: all after the first, or the only one)."""
    counted = _Counted.of(played, first)
    ways = {name: Answers.of(rtt) for name, rtt in counted.ways().items()}
    answers = ways.pop("edgedns")
    room = ways["best_single"].mean_ms - ways["oracle"].mean_ms
    worse, better = _shares(counted)
    return Score(
        answers=answers, baselines=ways, best_single=played.providers[counted.single],
        gap_captured=(ways["best_single"].mean_ms - answers.mean_ms) / room if room > 0 else None,
        switches_per_100=_switches(counted.unit, counted.chosen), share_worse_5ms=worse, share_better_5ms=better,
        calibration=calibration(played), rows=int(counted.known.sum()),
    )  # fmt: skip


@dataclass(frozen=True)
class Curves:
    """For a plot, by way of choosing: `sorted_ms`, the RTT of each answer, ascending; `mean_ms`, the mean of each slot."""

    slots: Ints
    sorted_ms: dict[str, Floats]
    mean_ms: dict[str, Floats]


def curves(played: Played, first: int | None = None) -> Curves:
    """What `score` sums up, answer by answer and slot by slot."""
    counted = _Counted.of(played, first)
    slots, slot = np.unique(counted.slot[counted.known], return_inverse=True)
    answers, ways = np.bincount(slot.reshape(-1)), counted.ways()
    means = {name: np.bincount(slot.reshape(-1), rtt) / answers for name, rtt in ways.items()}
    return Curves(slots, {name: np.sort(rtt) for name, rtt in ways.items()}, means)


@dataclass(frozen=True)
class _Counted:
    """The answers of the slots that count: as in Played, with what each got, and where there is anything to score."""

    slot: Ints
    unit: Ints
    chosen: Ints
    rtt: Floats
    got: Floats
    known: Bools
    single: int

    @classmethod
    def of(cls, played: Played, first: int | None) -> _Counted:
        slots = np.unique(played.slot)
        from_slot = first if first is not None else int(slots[min(1, len(slots) - 1)])
        counted = played.slot >= from_slot
        if not counted.any():
            raise SourceError(f"nothing to score from slot {from_slot} on: the last one is {slots[-1]}")
        chosen, rtt = played.chosen[counted], played.rtt[counted].astype(np.float64)
        got, single = rtt[np.arange(len(rtt)), chosen], _best_single(rtt)
        known = ~np.isnan(got) & ~np.isnan(rtt[:, single])
        if not known.any():
            raise SourceError(f"nothing to score from slot {from_slot} on")
        return cls(played.slot[counted], played.unit[counted], chosen, rtt, got, known, single)

    def ways(self) -> dict[str, Floats]:
        """The RTT of each answer, by way of choosing."""
        seen = self.rtt[self.known]
        return {
            "edgedns": self.got[self.known],
            "random": np.nanmean(seen, axis=1),
            "best_single": seen[:, self.single],
            "oracle": np.nanmin(seen, axis=1),
        }


def calibration(played: Played) -> list[dict[str, float]]:
    """Fifths of the arms by the WAN believed of them: how often each then beat the median provider of its unit and slot.

    `predicted` is the mean WAN believed, `realised` the share of the next slot's RTTs below the slot's median, less a half.
    """
    rtt, believed = played.rtt, played.believed
    middle = np.nanmedian(rtt, axis=1, keepdims=True)
    won = np.where(rtt < middle, 1.0, np.where(rtt == middle, 0.5, 0.0)) - 0.5
    usable = ~np.isnan(rtt) & ~np.isnan(believed)
    belief, outcome = believed[usable], won[usable]
    order = np.argsort(belief, kind="stable")
    return [
        {"predicted": float(belief[part].mean()), "realised": float(outcome[part].mean()), "arms": float(len(part))}
        for part in np.array_split(order, BINS)
        if len(part)
    ]


def _best_single(rtt: Floats) -> int:
    """The provider with the lowest mean."""
    measured = ~np.isnan(rtt)
    total, count = np.where(measured, rtt, 0.0).sum(axis=0), measured.sum(axis=0)
    return int(np.where(count > 0, total / np.maximum(count, 1), np.inf).argmin())


def _switches(unit: Ints, chosen: Ints) -> float:
    """Changes per 100 decisions, each compared with the same unit's one before."""
    order = np.argsort(unit, kind="stable")
    unit, chosen = unit[order], chosen[order]
    again = unit[1:] == unit[:-1]
    return 100.0 * float(((chosen[1:] != chosen[:-1]) & again).sum()) / max(1, int(again.sum()))


def _shares(counted: _Counted) -> tuple[float, float]:
    """Shares of units whose mean answer is 5 ms worse, and better, than the best single provider's."""
    units, unit = np.unique(counted.unit[counted.known], return_inverse=True)
    gain = (counted.rtt[:, counted.single] - counted.got)[counted.known]
    mean = np.bincount(unit.reshape(-1), gain, len(units)) / np.bincount(unit.reshape(-1), minlength=len(units))
    return float((mean < -WORSE_MS).mean()), float((mean > WORSE_MS).mean())
