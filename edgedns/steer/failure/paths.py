"""Paths: one (network row, family, provider, vantage) as one number, and batches of samples in waves over them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from edgedns.steer.table.rows import Bools, Ints, Keys, expand, lineage, lookup, pack, unpack

PROVIDERS = 256
VANTAGES = 65536
GROUP = PROVIDERS * VANTAGES


class Numbered:
    """Row keys, numbered as they came, so that newcomers change nobody's number; those that come at once, in key order."""

    def __init__(self, keys: Keys) -> None:
        self.keys = keys
        self._order = np.argsort(keys, kind="stable")
        self._sorted = keys[self._order]

    def __len__(self) -> int:
        return len(self.keys)

    def admit(self, keys: Keys) -> bool:
        """Number those that have none yet; True when there were any."""
        new = np.unique(keys[self.numbers(keys) < 0])
        place = np.searchsorted(self._sorted, new)
        self._order = np.insert(self._order, place, len(self.keys) + np.arange(len(new)))
        self._sorted = np.insert(self._sorted, place, new)
        self.keys = np.concatenate([self.keys, new])
        return len(new) > 0

    def numbers(self, keys: Keys) -> Ints:
        """The number of each key, -1 for those that have none."""
        at = lookup(self._sorted, keys)
        return np.append(self._order, -1)[at]


def among(values: Ints, ordered: Ints) -> Bools:
    """Which values occur in an ascending array."""
    if not len(ordered):
        return np.zeros(len(values), dtype=np.bool_)
    at = np.minimum(np.searchsorted(ordered, values), len(ordered) - 1)
    return np.asarray(ordered[at] == values, dtype=np.bool_)


def levels_above(keys: Keys) -> tuple[Keys, list[Ints]]:
    """These rows and all levels above them, sorted; and for each level which of them each row counts for (-1: none new)."""
    levels = [pack(level) for level in lineage(unpack(keys))]
    every = np.unique(np.concatenate([np.unique(level) for level in levels]))
    found: list[Ints] = []
    for level in levels:
        place = lookup(every, level)
        repeats = np.any([place == before for before in found], axis=0) if found else np.zeros(len(place), dtype=np.bool_)
        found.append(np.where(repeats, -1, place))
    return every, found


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


def siblings(codes: Ints, paths: Ints) -> tuple[Ints, Ints]:
    """(i, sibling): paths of the same network, family and vantage as paths[i], through other providers; by index in `codes`."""
    group = codes[paths] // GROUP
    first, last = np.searchsorted(codes, group * GROUP), np.searchsorted(codes, (group + 1) * GROUP)
    owner, sibling = expand(first, last - first)
    mine, theirs = codes[paths][owner], codes[sibling]
    related = (mine % VANTAGES == theirs % VANTAGES) & (mine != theirs)
    return owner[related], sibling[related]


def places(names: Sequence[str], among: Sequence[str]) -> Ints:
    """Where each name stands among others, all of which are there."""
    return np.array([among.index(name) for name in names], dtype=np.int64)
