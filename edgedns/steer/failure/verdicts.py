"""What paths, as vantages see them, say of networks, and networks of the levels above them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgedns.steer.failure.changed import KNOWN
from edgedns.steer.failure.paths import path_parts
from edgedns.steer.failure.shift import Levels
from edgedns.steer.table.rows import Bools, Ints

LEVEL_SHARE = 0.8


def arms(
    codes: Ints, paths: NDArray[np.void], levels: Levels, shape: tuple[int, int, int], since: float
) -> tuple[Bools, Bools]:
    """bool[row, family, provider]: was ever heard; is down, as every vantage says that heard it since that time."""
    heard, up, down = (np.zeros(shape, dtype=np.bool_) for _ in range(3))
    row, family, provider, _ = path_parts(codes)
    place = (row * 2 + family) * shape[2] + provider
    heard.reshape(-1)[place[paths["replied"] > 0]] = True
    known = levels["samples"] >= KNOWN  # else it may just have taken over what another vantage hears no more
    up.reshape(-1)[place[~paths["down"] & known & (paths["replied"] > since)]] = True
    down.reshape(-1)[place[paths["down"]]] = True
    return heard, down & ~up


def with_levels(known: Bools, down: Bools, count: int, places: Sequence[Ints]) -> Bools:
    """bool[key, family, provider]: down, of networks and of levels, where four fifths of those known under them are.

    known, down: [row, family, provider]. places: for each level where in the `count` keys each row counts (-1: nowhere new).
    A family that nobody knows takes the other's word.
    """
    heard, silent = np.zeros((2, count, *known.shape[1:]), dtype=np.int32)
    for place in places:
        counted = place >= 0
        rows, order = place[counted], np.argsort(place[counted], kind="stable")
        first = np.flatnonzero(np.diff(rows[order], prepend=-1))
        if len(first):
            heard[rows[order][first]] += np.add.reduceat(known[counted][order], first, dtype=np.int32)
            silent[rows[order][first]] += np.add.reduceat(down[counted][order], first, dtype=np.int32)
    verdict = (silent > 0) & (silent >= LEVEL_SHARE * heard)
    return np.asarray(np.where(heard > 0, verdict, verdict[:, ::-1]), dtype=np.bool_)
