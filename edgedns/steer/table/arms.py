"""What histograms tell of each arm by itself: its wins over thresholds of the whole row, its median, its ln(RTT)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgedns.steer.table import losses
from edgedns.steer.table.rows import Floats, Grid, Ints, starts
from edgedns.steer.table.rtt import BUCKETS, CELLS, LOST, PROVIDERS, Cells, arm_places, rtt_at

MEDIAN = 0.5

_CHUNK = 1 << 15
_LN_REPLY: Floats = np.where(np.arange(CELLS) < LOST, np.log(rtt_at(np.arange(CELLS, dtype=np.float64) + 0.5)), 0.0)


class Arms(NamedTuple):
    """Of each arm: decayed samples, how many of them are replies, mean of W_q - q, W_50, median RTT in ms, and of its
    replies mean and variance of ln(ms).

    Without samples the first three are 0, the others NaN.
    """

    samples: Grid
    replies: Grid
    wins: Grid
    half: Grid
    rtt: Grid
    ln_ms: Grid
    variance: Grid


class _Shares(NamedTuple):
    """Of each cell of a chunk: its bucket, the arm and the row it is of (numbered within the chunk), its share of its arm."""

    bucket: Ints
    arm: Ints
    row: Ints
    mass: Floats


def _chunks(cells: Cells) -> Iterator[slice]:
    """All cells, in chunks of whole rows that fit a processor's cache."""
    width = PROVIDERS * CELLS
    heads = np.searchsorted(cells.codes, cells.codes[::_CHUNK] // width * width)
    bounds = np.append(np.unique(heads), len(cells.codes))
    return (slice(a, b) for a, b in pairwise(bounds.tolist()))


def arms_of(cells: Cells, shape: tuple[int, int, int], quantiles: Sequence[float], wait: Grid) -> Arms:
    """[row, family, provider]: what the cells tell of each arm by itself. wait: ms by which its losses lengthen its RTTs."""
    grids = [np.full(shape, empty, dtype=np.float32) for empty in (0.0, 0.0, 0.0, np.nan, np.nan, np.nan, np.nan)]
    flat = [grid.reshape(-1) for grid in grids]
    for some in _chunks(cells):
        place, values = _chunk(cells.codes[some], cells.weights[some], quantiles, wait)
        for grid, value in zip(flat, values, strict=True):
            grid[place] = value
    return Arms(*grids)


def _chunk(codes: Ints, weights: Floats, quantiles: Sequence[float], wait: Grid) -> tuple[Ints, tuple[NDArray[Any], ...]]:
    """The arms of a few whole rows, as places in `wait`, and for each what `Arms` has.

    Sums are bincounts: of short runs these cost a third of what reduceat does.
    """
    arm_of = codes // CELLS
    first = starts(arm_of)
    arm = arm_of[first]
    head = starts(arm // PROVIDERS)
    which = np.repeat(np.arange(len(arm)), np.diff(first, append=len(codes)))
    row_of_arm = np.repeat(np.arange(len(head)), np.diff(head, append=len(arm)))
    samples = np.bincount(which, weights)
    cells = _Shares(codes & (CELLS - 1), which, row_of_arm[which], weights / samples[which])
    place = arm_places(arm, wait.shape[2])
    wins, half = _wins(cells, np.bincount(row_of_arm), quantiles, wait.reshape(-1)[place])
    replied, ln_ms, variance = _spread(cells)
    return place, (samples, samples * replied, wins, half, rtt_at(_median(cells, first)), ln_ms, variance)


def _wins(cells: _Shares, arms: Ints, quantiles: Sequence[float], wait: Grid) -> tuple[Floats, Floats]:
    """Of each arm the mean of W_q - q, of round trips that are longer by `wait`, and W_50 of them as they are."""
    wanted = {*quantiles, MEDIAN}
    below = _below(cells, _thresholds(cells, arms, wanted))
    half = np.bincount(cells.arm, cells.mass * below[MEDIAN])
    if wait.any():
        _delay(below, cells, arms, wait)
    won = sum((below[q] for q in quantiles), start=np.float32(0.0))
    wins = np.bincount(cells.arm, cells.mass * won) / len(quantiles)
    return np.asarray(wins - np.mean(quantiles), dtype=np.float64), half.astype(np.float64, copy=False)


def _delay(below: Mapping[float, Grid], cells: _Shares, arms: Ints, wait: Grid) -> None:
    """Count `below` anew in rows of which some round trip is longer by what losses cost."""
    bucket = losses.later(cells.bucket, wait[cells.arm])
    late = np.bincount(cells.row[bucket != cells.bucket], minlength=len(arms)) > 0
    some = np.flatnonzero(late[cells.row])
    row = (np.cumsum(late) - 1)[cells.row[some]]
    longer = _Shares(bucket[some], cells.arm[some], row, cells.mass[some])
    for quantile, share in _below(longer, _thresholds(longer, arms[late], below)).items():
        below[quantile][some] = share


def _spread(cells: _Shares) -> tuple[Floats, Floats, Floats]:
    """Of each arm the share of replies, and of these the mean of ln(ms), NaN where there are none, and its variance."""
    value = _LN_REPLY[cells.bucket]
    part = cells.mass * value
    first, second = np.bincount(cells.arm, part), np.bincount(cells.arm, part * value)
    lost = np.flatnonzero(cells.bucket >= LOST)
    replied: Floats = np.asarray(1.0 - np.bincount(cells.arm[lost], cells.mass[lost], len(first)), dtype=np.float64)
    replied[replied < 1e-9] = 0.0
    mean: Floats = np.divide(first, replied, out=np.full(len(first), np.nan), where=replied > 0)
    variance: Floats = np.maximum(second / np.maximum(replied, 1e-9) - mean * mean, 0.0)
    return replied, mean, variance


def _median(cells: _Shares, first: Ints) -> Floats:
    """Where on the bucket scale each arm's median lies, interpolated within its bucket. first: where each arm begins."""
    running = np.zeros(len(cells.mass) + 1)
    np.cumsum(cells.mass, out=running[1:])
    wanted = running[first] + (MEDIAN - 1e-9)  # of two halves the first, however sums are rounded
    target = wanted[cells.arm]
    at = np.flatnonzero((running[:-1] < target) & (running[1:] >= target))  # one cell of each arm
    within = (wanted - running[at]) / cells.mass[at]
    return np.asarray(cells.bucket[at] + np.clip(within, 0.0, 1.0), dtype=np.float64)


def _thresholds(cells: _Shares, arms: Ints, quantiles: Iterable[float]) -> dict[float, Grid]:
    """For each quantile where on the bucket scale it lies in each row's pool, in which each of its `arms` weighs the same."""
    width = BUCKETS + 1
    place = cells.bucket * len(arms) + cells.row
    pool: Floats = np.bincount(place, cells.mass, width * len(arms)).astype(np.float64, copy=False)
    rising = pool.reshape(width, len(arms))
    for below, here in pairwise(rising):  # rows beside each other: half of what cumsum takes
        here += below
    return {quantile: _place(rising, np.multiply(arms, quantile, dtype=np.float64)) for quantile in quantiles}


def _place(rising: Floats, target: Floats) -> Grid:
    """Where each column of rising[bucket, row] reaches its target."""
    rows = np.arange(len(target))
    at = np.minimum((rising < target).sum(axis=0, dtype=np.uint8).astype(np.int64), BUCKETS)
    low = np.where(at > 0, rising[at - 1, rows], 0.0)
    within = (target - low) / np.maximum(rising[at, rows] - low, 1e-9)
    return np.asarray(at + np.clip(within, 0.0, 1.0), dtype=np.float32)


def _below(cells: _Shares, place: Mapping[float, Grid]) -> dict[float, Grid]:
    """For each quantile the share of each cell that lies below its row's threshold, so that a tie counts half."""
    bucket = cells.bucket.astype(np.float32)
    below = {}
    for quantile, threshold in place.items():
        share = threshold[cells.row]
        share -= bucket
        below[quantile] = np.clip(share, 0.0, 1.0, out=share)
    return below
