"""Paths: one (network row, family, provider, vantage) as one number, and batches of samples in waves over them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from edgedns.steer.rows import Ints

PROVIDERS = 256
VANTAGES = 65536
GROUP = PROVIDERS * VANTAGES


def waves(sorted_paths: Ints, order: Ints) -> Iterator[Ints]:
    """Sample indices in waves: the first sample of every path, then the second of each, and so on."""
    first = np.flatnonzero(np.diff(sorted_paths, prepend=-1))
    counts = np.diff(first, append=len(sorted_paths))
    rank = np.arange(len(sorted_paths)) - np.repeat(first, counts)
    for wave in range(int(counts.max(initial=0))):
        yield order[rank == wave]


def path_code(row: Ints, family: Ints, provider: Ints, vantage: Ints) -> Ints:
    """family: 0 for v4, 1 for v6. Sorted codes are sorted by row, then family, provider, vantage."""
    return ((row * 2 + family) * PROVIDERS + provider) * VANTAGES + vantage


def path_parts(codes: Ints) -> tuple[Ints, Ints, Ints, Ints]:
    """(row, family, provider, vantage): the inverse of `path_code`."""
    arm, vantage = np.divmod(codes, VANTAGES)
    group, provider = np.divmod(arm, PROVIDERS)
    row, family = np.divmod(group, 2)
    return row, family, provider, vantage


def places(names: Sequence[str], among: Sequence[str]) -> Ints:
    """Where each name stands among others, all of which are there."""
    return np.array([among.index(name) for name in names], dtype=np.int64)
