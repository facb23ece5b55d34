"""RTT shifts: a two-sided CUSUM on the round trips of each path, which tells a new level from noise within a few samples.

A path has a *level*, followed slowly, and a *spread* about it. Each RTT moves two sums by its distance from the level, in
spreads and clipped, less a slack; a sum over its limit means that the level is another now: the median of the last three.
Levels that differ by less than 8 ms are followed without a word. Everything counts in samples, not seconds; the times in a
level's record are `changed.py`'s.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Levels = NDArray[np.void]
Singles = NDArray[np.float32]

LEVEL = np.dtype(
    [
        ("level", "<f4"), ("spread", "<f4"), ("up", "<f4"), ("down", "<f4"), ("last", "<f4"), ("before", "<f4"),
        ("samples", "u1"), ("jump", "<f4"), ("began", "<f8"), ("shifted", "<f8"), ("worse", "<f8"), ("eased", "<f8"),
    ]
)  # fmt: skip
TOLD_MS = 8.0
LEAST_SPREAD_MS = 2.0
SLACK = 1.5
STEP = 4.5
UP_LIMIT = 8.0
DOWN_LIMIT = 10.0
LEVEL_MEMORY = 16
SPREAD_MEMORY = 256.0
WIDEST = 6.0


def follow(levels: Levels, rtt: NDArray[Any]) -> tuple[Levels, Singles]:
    """One RTT (ms) for each of these paths: their next state, and by how many ms a level shifted (0: it did not)."""
    now = levels.copy()
    rtt = rtt.astype(np.float32)
    fresh = levels["samples"] == 0
    for name in ("level", "last", "before"):
        now[name] = np.where(fresh, rtt, now[name])
    spread = np.maximum(now["spread"], LEAST_SPREAD_MS)
    off = rtt - now["level"]
    step = np.clip(off / spread, -STEP, STEP)
    now["up"] = np.maximum(now["up"] + step - SLACK, 0.0)
    now["down"] = np.maximum(now["down"] - step - SLACK, 0.0)
    shifted = (now["up"] > UP_LIMIT) | (now["down"] > DOWN_LIMIT)
    near = np.clip(off, -WIDEST * spread, WIDEST * spread)
    settled = np.minimum(now["samples"] + 2.0, LEVEL_MEMORY)
    middle = _median(now["before"], now["last"], rtt)
    jump = np.where(shifted, middle - now["level"], 0.0).astype(np.float32)
    now["level"] = np.where(shifted, middle, now["level"] + near / settled)
    now["spread"] += np.where(shifted, 0.0, (np.abs(near) - now["spread"]) / SPREAD_MEMORY)
    for name in ("up", "down"):
        now[name] = np.where(shifted, 0.0, now[name])
    now["samples"] = np.where(shifted, 4, np.minimum(now["samples"] + 1, LEVEL_MEMORY))
    now["before"], now["last"] = now["last"], rtt
    return now, np.where(np.abs(jump) >= TOLD_MS, jump, np.float32(0.0))


def _median(a: Singles, b: Singles, c: Singles) -> Singles:
    return np.asarray(np.maximum(np.minimum(a, b), np.minimum(np.maximum(a, b), c)), dtype=np.float32)
