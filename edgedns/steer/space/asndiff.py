"""How two ASN tables differ, in figures that do not depend on how their sources cut ranges."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgedns.steer.space import wide
from edgedns.steer.space.asn import AsnTable
from edgedns.steer.space.ranges import Ranges, overlaid
from edgedns.steer.space.wide import Wide

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
_HIGH = 2.0**64


class Difference(NamedTuple):
    """From one table to the next, in one family.

    `runs_before` and `runs_after` count stretches of addresses with one ASN. `moved` is the share (0 to 1) of the mapped
    addresses of before whose ASN is another one or none now, `unnamed` that of the addresses with a country before that
    have none now.
    """

    family: int
    runs_before: int
    runs_after: int
    moved: float
    unnamed: float


def differences(before: AsnTable, after: AsnTable) -> tuple[Difference, Difference]:
    """IPv4 and IPv6."""
    return _difference(4, before.v4, after.v4), _difference(6, before.v6, after.v6)


def _difference(family: int, before: Ranges, after: Ranges) -> Difference:
    points, was, now = overlaid(before, after)
    asn, asn_now = (np.append(side.asn, np.uint32(0))[row] for side, row in ((before, was), (after, now)))
    named, named_now = (np.append(side.country != b"", False)[row] for side, row in ((before, was), (after, now)))
    size = _sizes(points)
    return Difference(
        family,
        _runs(before),
        _runs(after),
        _share(size, (asn > 0) & (asn != asn_now), asn > 0),
        _share(size, named & ~named_now, named),
    )


def _sizes(points: Wide) -> Floats:
    """Addresses from each point to the next; the last has none."""
    gaps = wide.minus(points.take(slice(1, None)), points.take(slice(0, -1)))
    return np.append(gaps.hi * _HIGH + gaps.lo, 0.0)


def _share(size: Floats, part: Bools, whole: Bools) -> float:
    return float(size[part].sum() / total) if (total := size[whole].sum()) else 0.0


def _runs(side: Ranges) -> int:
    if not len(side.asn):
        return 0
    past = wide.plus_one(side.end)
    touches = (past.hi[:-1] == side.start.hi[1:]) & (past.lo[:-1] == side.start.lo[1:])
    return 1 + int((~(touches & (side.asn[1:] == side.asn[:-1]))).sum())
