"""What losses cost: the share that each arm loses, as far as the table tells such shares apart, and how long users wait for it.

Wins say little of losses: an arm that is fastest nine times of ten and silent the tenth still wins nine. Who uses it waits a
second each tenth time, until what was lost is sent again (RFC 6298 section 2: 1 s while no round trip is known). So a share
p of losses counts as p x 1 s on top of each round trip, as far as it is more than the row's best arm loses.

A loss or two tell little of a share. A row expects of each provider what the level above has, times how much more the row
loses over all providers (that is its target's), and its own n samples are weighed against that as n : k. How much k is the
table tells, for each level, by the variance of shares about what was expected of them, beyond what dice would give
(beta-binomial, by moments), less a standard error: where packets are lost one by one and everywhere alike, or one arm lost
one, k is large and that moves nobody; where many arms differ, a second loss is believed. Beside that a single arm may stand
out among clean ones by its own samples.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.special import betaln, expit

from edgedns.steer.table.batch import Batch
from edgedns.steer.table.pooling import ENOUGH_ROWS, lent
from edgedns.steer.table.rows import Grid, Ints, lineage, lookup, pack, starts
from edgedns.steer.table.rtt import BUCKETS, CELLS, LOST, Cells, arm_places, at_home, bucket_of, rtt_at

LEAST, MOST = 1.0, 1e4
ALMOST_ALL = 0.9
ONE_LOSS = np.float32(0.5)  # in a row more or less says nothing of the row
ODD, NORMAL = 0.01, 0.01
SECOND = 1.2  # decayed losses: more than one
REPEATED = 1.5  # decayed samples from which on an arm's share says something
DICE = 0.7  # the scatter of a decayed share: between a half (steady) and the whole (fresh) of what as many samples have
DICE_OF_LEVELS = 2.0  # ... more, since those under a level differ too

_MIDDLE = rtt_at(np.arange(CELLS, dtype=np.float64) + 0.5)
_NEXT = rtt_at(np.arange(CELLS, dtype=np.float64) + 1.0)
_TO_NEXT = np.where(np.arange(CELLS) < LOST, _NEXT - _MIDDLE, np.inf).astype(np.float32)


def tally(cells: Cells, shape: tuple[int, int, int], losing: Batch | None = None) -> tuple[Grid, Grid] | None:
    """(lost, samples), each [row, family, provider]; None where nothing was lost.

    losing: losses that are not in the histograms yet, since nobody knows what they are the beginning of.
    """
    gone = np.flatnonzero((cells.codes & (CELLS - 1)) == LOST)
    if not len(gone) and not losing:
        return None
    arm = cells.codes >> (CELLS.bit_length() - 1)
    first = starts(arm)
    lost, samples = (np.zeros(shape, dtype=np.float32) for _ in range(2))
    if len(first):
        samples.reshape(-1)[arm_places(arm[first], shape[2])] = np.add.reduceat(cells.weights, first)
        lost.reshape(-1)[arm_places(arm[gone], shape[2])] = cells.weights[gone]
    if losing:
        _add(losing, cells, lost, samples)
    return lost, samples


def _add(losing: Batch, cells: Cells, lost: Grid, samples: Grid) -> None:
    """Count each at its network and, once, at every level above."""
    names = np.array([cells.providers.index(name) if name in cells.providers else -1 for name in losing.providers])
    provider, family = names[losing.provider], (losing.family == 6).astype(np.int64)
    counted: list[Ints] = []
    for level in lineage(losing.rows):
        row = lookup(cells.keys, pack(level))[losing.row]
        new = (row >= 0) & (provider >= 0) & (at_home(losing) if not counted else True)
        for before in counted:
            new &= row != before
        for grid in (lost, samples):
            np.add.at(grid, (row[new], family[new], provider[new]), np.float32(1.0))
        counted.append(row)


def shares(
    lost: Grid, samples: Grid, depths: Sequence[Ints], above: Ints, trust: Sequence[float] = ()
) -> tuple[Grid, tuple[float, ...]]:
    """(the share that is believed of each arm, k by depth). Arguments as of `pooling.pooled`."""
    out, told = np.zeros_like(lost), [0.0] * len(depths)
    speaks = np.zeros(len(above), dtype=np.bool_)
    speaks[above[above >= 0]] = True
    for depth in reversed(range(len(depths))):
        at = depths[depth]
        count, gone = lent(samples[at], samples[at]), lent(lost[at], samples[at])
        of_all = gone.sum(axis=2, keepdims=True) / np.maximum(count.sum(axis=2, keepdims=True), np.float32(1e-9))
        top = (above[at] < 0)[:, None, None]
        expected = np.where(top, of_all, _expected(out[above[at]], gone, count))
        dice = np.where(speaks[at], np.float32(DICE_OF_LEVELS), np.float32(DICE))[:, None, None]
        some = slice(None, None, 1 + len(at) // ENOUGH_ROWS)
        told[depth] = worth = (
            trust[depth] if trust else _strength(lost[at[some]], samples[at[some]], expected[some], dice[some], bool(top.any()))
        )
        out[at] = (gone + np.float32(worth) * expected) / (count + np.float32(worth))
        alone = at[~speaks[at]]
        out[alone] = _told_apart(out[alone], *(grid[~speaks[at]] for grid in (gone, count)))
    return out, tuple(told)


def _told_apart(share: Grid, gone: Grid, count: Grid) -> Grid:
    """Shares, of arms that lose far more than the others of their row by their own samples.

    One of `ODD` arms is taken to lose anything, 1 % or 40 (Beta(1, 4)), the others what their row does, and `NORMAL` at least;
    by Bayes' rule an arm is the one or the other. A single loss says nothing of that; a second and third within a few rounds
    do, however few arms there are to learn from.
    """
    some = np.nonzero(gone > SECOND)
    if not len(some[0]):
        return share
    others = (gone.sum(axis=2, keepdims=True) - gone) / np.maximum(count.sum(axis=2, keepdims=True) - count, np.float32(1.0))
    usual = np.clip(np.maximum(others, share)[some], NORMAL, ALMOST_ALL).astype(np.float64)
    x, n = gone[some].astype(np.float64), count[some].astype(np.float64)
    likelier = betaln(x + 1, n - x + 4) - betaln(1, 4) - x * np.log(usual) - (n - x) * np.log1p(-usual)
    odd = expit(np.log(ODD / (1 - ODD)) + likelier)
    out = share.copy()
    out[some] = odd * np.maximum((x + 1) / (n + 5), usual) + (1 - odd) * share[some]
    return out


def _expected(higher: Grid, gone: Grid, count: Grid) -> Grid:
    """What the level above has, times how much more the row loses than that over all providers."""
    usual = (higher * count).sum(axis=2, keepdims=True)
    more = (gone.sum(axis=2, keepdims=True) + ONE_LOSS) / (usual + ONE_LOSS)
    return np.asarray(np.minimum(higher * more, np.float32(ALMOST_ALL)), dtype=np.float32)


def _strength(gone: Grid, count: Grid, expected: Grid, dice: Grid, top: bool) -> float:
    """k of one level. How far arms are from what was expected counts less a standard error: a lone loss proves nothing.

    Of the topmost, which expects of each provider what all have, there are but few arms.
    """
    counted = count >= REPEATED
    if counted.sum() < 2:
        return MOST
    spread = expected * (1.0 - expected) * np.ones_like(count)
    off = (gone / np.maximum(count, np.float32(1e-9)) - expected) ** 2
    if top:
        arms = counted.sum(axis=2, keepdims=True)
        off = off * (arms / np.maximum(arms - 1, 1))  # one degree of freedom went into the mean
    beyond = (off - dice * spread / np.maximum(count, np.float32(1e-9)))[counted].astype(np.float64)
    between = beyond.mean() - (0.0 if top else beyond.std() / np.sqrt(len(beyond)))
    return float(np.clip(spread[counted].mean(dtype=np.float64) / max(between, 1e-12) - 1.0, LEAST, MOST))


def waits(share: Grid, ms: float) -> Grid:
    """[row, family, provider]: ms that an arm's losses cost beyond those of the row's best arm, at so much each."""
    if not share.size:
        return share
    return np.asarray(np.float32(ms) * (share - share.min(axis=2, keepdims=True)), dtype=np.float32)


def later(bucket: Ints, wait: Grid) -> Ints:
    """The buckets of round trips that take so much longer (in ms); a loss stays one."""
    moved = bucket.copy()
    some = np.flatnonzero(wait >= _TO_NEXT[bucket])
    moved[some] = np.minimum(bucket_of(_MIDDLE[bucket[some]] + wait[some]), BUCKETS - 1)
    return moved
