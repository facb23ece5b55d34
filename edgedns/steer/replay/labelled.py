"""Traces with labelled changes, as `edgedns replay --shifts` reads them, and how many the serving detector finds.

Columns: `probe` (names a trace), `idx` (the sample's number in it), `rtt_ms` (empty, `lost` or below zero = lost) and
`change_label` (1 on the first sample of a new level).
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from edgedns.errors import SourceError
from edgedns.model import RTT_MOST_MS
from edgedns.steer.failure.shift import LEVEL, follow
from edgedns.steer.replay.trace import Rejected
from edgedns.steer.table.rows import Bools, Floats, Ints

COLUMNS = ("probe", "idx", "rtt_ms", "change_label")
LEAST_MS = 10.0
WITHIN = 5
DAY = 86400.0


class Series(NamedTuple):
    """One trace in order: RTTs in ms (NaN lost), and which samples begin a new level."""

    rtt: Floats
    labelled: Bools


@dataclass(frozen=True)
class Found:
    """Of `shifts` labelled changes of 10 ms or more, `found` had an alarm within five samples, the first of the new level

    included. `unlabelled` alarms had no label of any size among the last five samples.
    """

    shifts: int
    found: int
    recall: float
    alarms: int
    unlabelled: int
    unlabelled_per_day: float
    traces: int
    days: float
    rows: int

    def to_json(self) -> dict[str, Any]:
        """The keys of `edgedns replay --shifts --json`."""
        return asdict(self)


def parse_labelled(lines: Iterable[str]) -> tuple[list[Series], list[Rejected]]:
    """The traces of a CSV text with a header, and the lines that are none. SourceError when nothing is usable."""
    reader = csv.reader(lines)
    place = {name.strip().lower(): i for i, name in enumerate(next(reader, []))}
    missing = [name for name in COLUMNS if name not in place]
    if missing:
        raise SourceError(f"the header lacks {', '.join(missing)}: it has {', '.join(place) or 'nothing'}")
    traces: dict[str, list[tuple[int, float, bool]]] = {}
    rejected: list[Rejected] = []
    for fields in reader:
        try:
            probe, sample = _sample(fields, place)
            traces.setdefault(probe, []).append(sample)
        except ValueError as error:
            rejected.append(Rejected(reader.line_num, str(error)))
    if not traces:
        raise SourceError(f"no usable sample in {len(rejected)} lines")
    return [_series(samples) for samples in traces.values()], rejected


def _sample(fields: list[str], place: Mapping[str, int]) -> tuple[str, tuple[int, float, bool]]:
    if len(fields) != len(place):
        raise ValueError(f"{len(fields)} columns, the header has {len(place)}")
    probe, idx, rtt, label = (fields[place[name]].strip() for name in COLUMNS)
    if not (idx.isascii() and idx.isdigit() and len(idx) < 12):
        raise ValueError(f"idx {idx!r} is not a whole number")
    if label not in ("0", "1"):
        raise ValueError(f"change_label {label!r} is neither 0 nor 1")
    return probe, (int(idx), _rtt(rtt), label == "1")


def _rtt(text: str) -> float:
    if text.lower() in ("", "lost"):
        return np.nan
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f"rtt_ms {text!r} is not a number") from None
    if not value <= RTT_MOST_MS:
        raise ValueError(f"rtt_ms {text!r} is over {RTT_MOST_MS:g} ms")
    return value if value > 0 else np.nan


def _series(samples: list[tuple[int, float, bool]]) -> Series:
    samples.sort()
    return Series(np.array([rtt for _, rtt, _ in samples]), np.array([label for *_, label in samples], dtype=np.bool_))


def alarms(traces: list[Series]) -> list[Ints]:
    """For each trace the samples at which the serving detector tells of a shift."""
    longest = max(len(trace.rtt) for trace in traces)
    rtt = np.full((longest, len(traces)), np.nan)
    for i, trace in enumerate(traces):
        rtt[: len(trace.rtt), i] = trace.rtt
    levels, told = np.zeros(len(traces), dtype=LEVEL), np.zeros(rtt.shape, dtype=np.bool_)
    for at in range(longest):
        heard = np.flatnonzero(~np.isnan(rtt[at]))
        levels[heard], jump = follow(levels[heard], rtt[at, heard])
        told[at, heard] = jump != 0
    return [np.flatnonzero(told[:, i]) for i in range(len(traces))]


def found(traces: list[Series], interval: float) -> Found:
    """How many labelled shifts the detector finds; `interval` is the seconds between two samples of a trace."""
    shifts = hits = strays = count = 0
    for trace, told in zip(traces, alarms(traces), strict=True):
        labels = np.flatnonzero(trace.labelled)
        large = labels[_jumps(trace.rtt, labels) >= LEAST_MS]
        shifts += len(large)
        hits += int(_followed(large, told).sum())
        strays += int((~_preceded(told, labels)).sum())
        count += len(told)
    rows = sum(len(trace.rtt) for trace in traces)
    days = rows * interval / DAY
    recall = hits / shifts if shifts else float("nan")
    return Found(shifts, hits, recall, count, strays, strays / days, len(traces), days, rows)


def _jumps(rtt: Floats, labels: Ints) -> Floats:
    """The difference of the medians either side of each label, up to the next label; 0 where a side has no RTT."""
    parts = [part[~np.isnan(part)] for part in np.split(rtt, labels)]
    middle = np.array([np.median(part) if len(part) else np.nan for part in parts])
    return np.nan_to_num(np.abs(np.diff(middle)))


def _followed(labels: Ints, told: Ints) -> Bools:
    """Labels with an alarm in the five samples from there on."""
    return np.asarray(np.searchsorted(told, labels + WITHIN) > np.searchsorted(told, labels), dtype=np.bool_)


def _preceded(told: Ints, labels: Ints) -> Bools:
    """Alarms with a label in the five samples up to there."""
    return np.asarray(np.searchsorted(labels, told, "right") > np.searchsorted(labels, told - WITHIN, "right"), dtype=np.bool_)
