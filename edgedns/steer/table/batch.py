"""Samples in columns: what probes report, in the shape that histograms and failure detection read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from edgedns.model import RTT_LEAST_MS, RTT_MOST_MS, RttSample
from edgedns.steer.table.rows import Bools, Floats, Ints, Rows, pack, rows_of

T = TypeVar("T")

SAMPLES_A_ROW = 4


@dataclass(frozen=True)
class Batch:
    """n samples. `row`, `provider` and `vantage` index the tables beside them; `rtt` is in ms, NaN when lost.

    anew: what was known of the arms that these are of counts no more, these are what there is to begin with.
    """

    rows: Rows
    providers: tuple[str, ...]
    vantages: tuple[str, ...]
    row: Ints
    provider: Ints
    vantage: Ints
    family: Ints
    rtt: Floats
    at: Floats
    anew: bool = False

    def __len__(self) -> int:
        return len(self.at)

    @property
    def lost(self) -> Bools:
        return np.isnan(self.rtt)

    def take(self, which: NDArray[Any]) -> Batch:
        """The samples that a mask or an index array picks."""
        columns = ("row", "provider", "vantage", "family", "rtt", "at")
        return replace(self, **{name: getattr(self, name)[which] for name in columns})


def batch_of(samples: Iterable[RttSample]) -> Batch:
    """RttSamples as a Batch. Unmapped networks (ASN 0) and RTTs outside 0.2 ms to 10 s are left out."""
    kept = [s for s in samples if s.network.asn != 0 and (s.rtt_ms is None or RTT_LEAST_MS <= s.rtt_ms <= RTT_MOST_MS)]
    networks, row = intern([s.network for s in kept])
    providers, provider = intern([s.provider for s in kept])
    vantages, vantage = intern([s.vantage for s in kept])
    return Batch(
        rows=rows_of(networks),
        providers=tuple(providers),
        vantages=tuple(vantages),
        row=row,
        provider=provider,
        vantage=vantage,
        family=np.array([s.family for s in kept], dtype=np.int64),
        rtt=np.array([np.nan if s.rtt_ms is None else s.rtt_ms for s in kept], dtype=np.float64),
        at=np.array([s.at for s in kept], dtype=np.float64),
    )


def joined(batches: Sequence[Batch]) -> Batch:
    """Several batches (at least one) as one that names each provider and vantage once, and rows not too often."""
    if len(batches) == 1:
        return batches[0]
    providers, provider = _merged([(each.providers, each.provider) for each in batches])
    vantages, vantage = _merged([(each.vantages, each.vantage) for each in batches])
    starts = np.cumsum([0, *(len(each.rows) for each in batches[:-1])])
    rows = np.concatenate([each.rows for each in batches])
    row = np.concatenate([each.row + start for each, start in zip(batches, starts, strict=True)])
    if len(rows) * SAMPLES_A_ROW > len(row):
        _, first, which = np.unique(pack(rows), return_index=True, return_inverse=True)
        rows, row = rows[first], which.reshape(-1)[row]
    family, rtt, at = (np.concatenate([getattr(each, name) for each in batches]) for name in ("family", "rtt", "at"))
    return Batch(rows, providers, vantages, row, provider, vantage, family, rtt, at)


def _merged(parts: Sequence[tuple[tuple[str, ...], Ints]]) -> tuple[tuple[str, ...], Ints]:
    """Names of several columns as one list, and their codes by it."""
    names = tuple(dict.fromkeys(name for named, _ in parts for name in named))
    place = {name: i for i, name in enumerate(names)}
    codes = [np.array([place[name] for name in named], dtype=np.int64)[code] for named, code in parts]
    return names, np.concatenate(codes)


def intern(values: Sequence[T]) -> tuple[list[T], Ints]:
    """The distinct values in order of appearance, and for each value its number among them."""
    seen: dict[T, int] = {}
    codes = [seen.setdefault(value, len(seen)) for value in values]
    return list(seen), np.array(codes, dtype=np.int64)
