"""Typical RTTs pooled with the level above: how far a level that has few samples leans on it (empirical Bayes).

A row expects of each provider what the level above has, times how much slower the row is than that level over all providers.
Its own n samples are weighed against that expectation as n : k. How many samples k the expectation is worth is told by the
table itself, for each level: the variance of single samples within arms over the variance of arms about what was expected
of them. Where rows differ from the level above by more than samples scatter, k is next to nothing. For networks it is 0: the
scatter of their samples is for the most part that of their targets' last miles, which all providers share.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgedns.steer.table.rows import Ints

Grid = NDArray[np.float32]

MOST = 4.0  # samples: what the level above is worth at most, as in the prior of WAN
LEAST_ARMS = 30  # from fewer, variances tell nothing: then k is 0
ENOUGH_ROWS = 5000  # of a level: more make k no surer
REPEATED = 1.5  # decayed samples from which on an arm tells of its own scatter


def pooled(
    ln_ms: Grid, variance: Grid, samples: Grid, depths: Sequence[Ints], above: Ints, trust: Sequence[float] = ()
) -> tuple[Grid, tuple[float, ...]]:
    """(ln_ms pooled and with gaps filled, k by depth). Arrays are [row, family, provider]; NaN where nobody knows.

    ln_ms and variance: mean and variance of an arm's ln(ms), NaN without samples. samples: decayed. depths: the rows of each
    level, nearest first. above: the row of the level above each, -1 for none. trust: k by depth, where another table told it.
    """
    out, told = ln_ms.copy(), [0.0] * len(depths)
    for depth in reversed(range(len(depths))):
        at = depths[depth]
        counted = samples[at]
        own, count = lent(out[at], counted), lent(counted, counted)
        higher = np.where((above[at] >= 0)[:, None, None], out[above[at]], np.nan)
        expected = higher + _slower(own - higher, count)
        some = slice(None, None, 1 + len(at) // ENOUGH_ROWS)
        if depth:  # networks speak for themselves
            told[depth] = (
                trust[depth] if trust else _strength(ln_ms[at[some]] - expected[some], variance[at[some]], counted[some])
            )
        out[at] = _weighed(own, expected, count, told[depth])
    return out, tuple(told)


def lent(values: Grid, samples: Grid) -> Grid:
    """values[row, family, provider]; where a row has no samples of a family, the other family's if it has some of that."""
    empty = np.logical_not(samples.any(axis=2))
    borrow = empty & ~empty[:, ::-1]
    if not borrow.any():
        return values
    return np.where(borrow[:, :, None], values[:, ::-1], values).astype(np.float32, copy=False)


def _slower(ahead: Grid, samples: Grid) -> Grid:
    """[row, family, 1]: by how much a row is slower than the level above, over the arms that both know."""
    weight = np.where(np.isnan(ahead), np.float32(0.0), samples / (samples + 1))
    total = np.maximum(weight.sum(axis=2, keepdims=True), np.float32(1e-9))
    return np.asarray((weight * np.nan_to_num(ahead)).sum(axis=2, keepdims=True) / total, dtype=np.float32)


def _weighed(own: Grid, expected: Grid, samples: Grid, worth: float) -> Grid:
    share = samples / np.maximum(samples + np.float32(worth), np.float32(1e-9))
    both = np.array(share * own + (1 - share) * expected, dtype=np.float32)
    np.copyto(both, own, where=np.isnan(expected))
    np.copyto(both, expected, where=np.isnan(own))
    return both


def _strength(off: Grid, variance: Grid, samples: Grid) -> float:
    """k of one level, by moments. off: how far each arm is from what was expected of it, NaN where one of both is unknown."""
    arms = (~np.isnan(off)).sum(axis=2, keepdims=True)
    counted = ~np.isnan(off) & (arms > 1)
    again = samples >= REPEATED
    freedom = float((samples[again] - 1).sum(dtype=np.float64))
    if counted.sum() < LEAST_ARMS or freedom < LEAST_ARMS:
        return 0.0
    within = _sum(variance[again] * samples[again]) / freedom
    lost = np.broadcast_to(arms / np.maximum(arms - 1, 1), off.shape)  # one degree of freedom went into the row's slowness
    about = _sum(off[counted] ** 2 * lost[counted]) / float(counted.sum())
    between = about - within * _sum(1.0 / samples[counted]) / float(counted.sum())
    return float(min(MOST, within / max(between, 1e-9)))


def _sum(values: NDArray[np.floating]) -> float:
    return float(np.asarray(values, dtype=np.float64).sum())
