"""Arms that begin anew: what was counted of them before their path changed says nothing of what it is like now.

A decayed histogram would go on for half a minute telling of the path that was. So where the detector is sure of a change
(`failure`), what there is of the arm is dropped, in its network's row and, to the same amount, in the levels above; the last
round trips that were seen stand in its place.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgedns.steer.failure.paths import PROVIDERS
from edgedns.steer.table.batch import Batch
from edgedns.steer.table.rows import Bools, Floats, Ints, Keys, lookup, pack


@dataclass(frozen=True)
class Anew:
    """The arms, and since when (Unix seconds) each begins anew. arms[i] = (key * 2 + (1 for v6)) * 256 + provider, sorted."""

    keys: Keys
    providers: tuple[str, ...]
    arms: Ints
    since: Floats

    @classmethod
    def of(cls, seeds: Batch) -> Anew:
        """The arms that these samples are the beginning of."""
        keys = np.unique(pack(seeds.rows))
        codes = _codes(seeds, keys, seeds.providers)
        arms, which = np.unique(codes, return_inverse=True)
        since = np.full(len(arms), -np.inf)
        np.maximum.at(since, which.reshape(-1), seeds.at)
        return cls(keys, seeds.providers, arms, since)

    def outdates(self, batch: Batch) -> Bools:
        """The samples that came before; those of the very moment are among the last that were seen already."""
        return self._compared(batch)[1]

    def supersedes(self, seeds: Batch) -> Bools:
        """Beginnings of these arms that a later one took the place of."""
        at, _ = self._compared(seeds)
        return np.asarray(seeds.at < self.since[at], dtype=np.bool_)

    def _compared(self, batch: Batch) -> tuple[Ints, Bools]:
        """For each sample the place of its arm (any, where it is none of these), and whether it is one and not later."""
        codes = _codes(batch, self.keys, self.providers)
        at = np.minimum(np.searchsorted(self.arms, codes), len(self.arms) - 1)
        return at, np.asarray((self.arms[at] == codes) & (batch.at <= self.since[at]), dtype=np.bool_)

    def arms_in(self, keys: Keys, providers: tuple[str, ...]) -> Ints:
        """The arms by their numbers among other keys and providers, sorted; those that are not there are left out."""
        group, provider = np.divmod(self.arms, PROVIDERS)
        row = lookup(keys, self.keys)[group // 2]
        there = np.array([providers.index(name) if name in providers else -1 for name in self.providers], dtype=np.int64)
        found = (row >= 0) & (there[provider] >= 0)
        return np.sort(((row * 2 + group % 2) * PROVIDERS + there[provider])[found])


def _codes(batch: Batch, keys: Keys, providers: tuple[str, ...]) -> Ints:
    """The arm of each sample as in Anew, -1 where its row or provider is none of these."""
    row = lookup(keys, pack(batch.rows))[batch.row]
    place = np.array([providers.index(name) if name in providers else -1 for name in batch.providers], dtype=np.int64)
    provider = place[batch.provider]
    return np.where((row < 0) | (provider < 0), -1, (row * 2 + (batch.family == 6)) * PROVIDERS + provider)
