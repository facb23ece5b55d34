"""Which arms to probe: the budget goes where doubt times traffic could change an answer.

Pure: the same table gives the same list on every node. Users are never the ones who explore.
"""

from __future__ import annotations

import numpy as np
from scipy.special import ndtr

from edgedns.steer.table.rows import Bools, Floats, Ints

SPREAD = 0.3
UNKNOWN = 1.0


def expected_gain(samples: Floats, typical: Floats, serving: Ints) -> Floats:
    """[row, arm]: by how much, in ln(ms), one more look at an arm is expected to better the row's answer.

    samples: decayed. typical: RTT in ms, NaN unknown. serving: arm that serves (-1: nobody yet). The classic expected
    improvement with a spread of 0.3 / sqrt(samples) in ln(ms), at most 1, about what is believed.
    """
    belief = np.log(typical)
    rows = np.arange(len(belief))
    known = ~np.isnan(belief)
    usual = np.where(known, belief, 0.0).sum(axis=1) / np.maximum(known.sum(axis=1), 1)
    belief = np.where(known, belief, usual[:, None])
    current = np.where(serving >= 0, belief[rows, serving], belief.min(axis=1))
    spread = np.minimum(SPREAD / np.sqrt(np.maximum(samples, 1e-3)), UNKNOWN)
    ahead = current[:, None] - belief
    z = ahead / spread
    gain = spread * np.exp(-z * z / 2.0) / np.sqrt(2.0 * np.pi) + ahead * ndtr(z)
    served = serving >= 0
    gain[rows[served], serving[served]] = 0.0
    return np.asarray(gain, dtype=np.float64)


def choose(gain: Floats, weight: Floats, budget: int) -> Bools:
    """[row, arm]: the `budget` arms worth most; a row's second arm counts half, its third a third, so that all get a turn."""
    rank = (-gain).argsort(axis=1, kind="stable").argsort(axis=1, kind="stable")
    worth = gain * weight[:, None] / (1.0 + rank)
    chosen = np.zeros(gain.size, dtype=np.bool_)
    chosen[np.argsort(-np.round(worth, 9).reshape(-1), kind="stable")[:budget]] = True
    return chosen.reshape(gain.shape)
