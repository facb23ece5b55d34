"""What a replay was worth: the gap captured and its company (tests/data/rtt/README.md defines the score)."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from edgedns.errors import SourceError
from edgedns.steer.replay import Played
from edgedns.steer.rows import Bools, Floats, Ints

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
    """gap_captured: 1 is the per-slot oracle, 0 the best single provider. Shares are of units (network and vantage)."""

    answers: Answers
    baselines: dict[str, Answers]
    best_single: str
    gap_captured: float
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
    worse, better = _shares(counted.got, counted.rtt[:, :, counted.single], counted.known)
    return Score(
        answers=answers, baselines=ways, best_single=played.providers[counted.single],
        gap_captured=(ways["best_single"].mean_ms - answers.mean_ms) / room if room > 0 else float("nan"),
        switches_per_100=_switches(counted.chosen), share_worse_5ms=worse, share_better_5ms=better,
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
    slot = np.nonzero(counted.known)[0]
    answers = np.bincount(slot, minlength=len(counted.slots))
    there = answers > 0
    ways = counted.ways()
    means = {name: np.bincount(slot, rtt, len(answers))[there] / answers[there] for name, rtt in ways.items()}
    return Curves(counted.slots[there], {name: np.sort(rtt) for name, rtt in ways.items()}, means)


@dataclass(frozen=True)
class _Counted:
    """The slots that count: rtt[slot, unit, provider], who was chosen, what that got, and where there is anything to score."""

    slots: Ints
    rtt: Floats
    chosen: Ints
    got: Floats
    known: Bools
    single: int

    @classmethod
    def of(cls, played: Played, first: int | None) -> _Counted:
        from_slot = first if first is not None else int(played.slots[min(1, len(played.slots) - 1)])
        counted = played.slots >= from_slot
        chosen, rtt = played.chosen[counted], played.rtt[counted].astype(np.float64)
        got, single = _take(rtt, chosen), _best_single(rtt)
        known = ~np.isnan(got) & ~np.isnan(rtt[:, :, single])
        if not known.any():
            raise SourceError(f"nothing to score from slot {from_slot} on")
        return cls(played.slots[counted], rtt, chosen, got, known, single)

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
    there = ~np.isnan(played.rtt).all(axis=2)
    rtt, believed = played.rtt[there], played.believed[there]
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
    total, count = np.where(measured, rtt, 0.0).sum(axis=(0, 1)), measured.sum(axis=(0, 1))
    return int(np.where(count > 0, total / np.maximum(count, 1), np.inf).argmin())


def _take(rtt: Floats, chosen: Ints) -> Floats:
    got = np.take_along_axis(rtt, np.maximum(chosen, 0)[:, :, None], axis=2)[:, :, 0]
    return np.where(chosen >= 0, got, np.nan)


def _switches(chosen: Ints) -> float:
    """Changes per 100 decisions, of units that were there in two slots running."""
    both = (chosen[1:] >= 0) & (chosen[:-1] >= 0)
    return 100.0 * float(((chosen[1:] != chosen[:-1]) & both).sum()) / max(1, int(both.sum()))


def _shares(got: Floats, single: Floats, known: Bools) -> tuple[float, float]:
    """Shares of units whose mean answer is 5 ms worse, and better, than the best single provider's."""
    times = known.sum(axis=0)
    there = times > 0
    gain = (np.where(known, single - got, 0.0).sum(axis=0) / np.maximum(times, 1))[there]
    return float((gain < -WORSE_MS).mean()), float((gain > WORSE_MS).mean())
