"""Address ranges as tables come with them (unsorted, overlapping, ASN 0), made sorted and disjoint."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgedns.steer.space import wide
from edgedns.steer.space.wide import Wide

Asns = NDArray[np.uint32]
Countries = NDArray[np.bytes_]
NEVER = np.iinfo(np.intp).max


class Ranges(NamedTuple):
    """Ranges of one family, `start` to `end` inclusive, one a row; country is two letters or empty (dtype S2)."""

    start: Wide
    end: Wide
    asn: Asns
    country: Countries

    def take(self, where: NDArray[np.intp] | NDArray[np.bool_]) -> Ranges:
        return Ranges(self.start.take(where), self.end.take(where), self.asn[where], self.country[where])


def ranges(rows: list[tuple[int, int, int, bytes]]) -> Ranges:
    """Rows (start, end, asn, country) as columns; start <= end is the reader's to check."""
    start, end, asn, country = ([row[column] for row in rows] for column in range(4))
    columns = wide.from_ints(start), wide.from_ints(end)  # type: ignore[arg-type]
    return Ranges(*columns, np.array(asn, np.uint32), np.array(country, "S2"))


def disjoint(raw: Ranges) -> Ranges:
    """Sorted, disjoint and merged: of the ranges over an address the one that starts last wins, of those the shortest,
    then the later row (so nested prefixes give the longest match). What ASN 0 wins is unmapped."""
    if not len(raw.asn):
        return raw
    shortest_last = np.lexsort((~raw.end.lo, ~raw.end.hi, raw.start.lo, raw.start.hi))
    rows = raw.take(shortest_last)
    points, owner = _owners(rows)
    # each piece reaches to the next point; the last is owned only if it runs to the very top
    end = wide.minus(wide.joined(points.take(slice(1, None)), wide.from_ints([0])), wide.from_ints([1]))
    pieces = Ranges(points, end, rows.asn[owner], rows.country[owner])
    return _merged(pieces.take((owner >= 0) & (pieces.asn != 0)))


def _owners(rows: Ranges) -> tuple[Wide, NDArray[np.intp]]:
    """The points where ownership may change, and which row owns the addresses from each on (-1: none)."""
    count = len(rows.asn)
    past = wide.plus_one(rows.end)
    points, rank = wide.ranked(wide.joined(rows.start, past))
    here = np.arange(len(points.lo))
    start, stop = rank[:count], rank[count:]
    stop = np.where((past.hi | past.lo) == 0, len(here), stop)  # it ran over the top of the address space
    outer = _enclosing(stop)
    limits = np.append(stop, NEVER)  # taken by row -1: nobody, and that does not end
    owner = np.searchsorted(start, here, "right") - 1
    while (ended := limits[owner] <= here).any():
        owner = np.where(ended, outer[owner], owner)
    return points, owner


def _enclosing(stop: NDArray[np.intp]) -> NDArray[np.intp]:
    """For each row the nearest earlier one that ends after it (-1: none), by doubling jumps."""
    outer = np.arange(-1, len(stop) - 1)
    limits = np.append(stop, NEVER)
    while (inside := limits[outer] <= stop).any():
        outer = np.where(inside, outer[outer], outer)
    return outer


def _merged(kept: Ranges) -> Ranges:
    """Neighbours that touch and say the same become one range."""
    if not len(kept.asn):
        return kept
    past = wide.plus_one(kept.end)
    touches = (past.hi[:-1] == kept.start.hi[1:]) & (past.lo[:-1] == kept.start.lo[1:])
    same = touches & (kept.asn[1:] == kept.asn[:-1]) & (kept.country[1:] == kept.country[:-1])
    first, last = np.append(True, ~same), np.append(~same, True)
    return Ranges(kept.start.take(first), kept.end.take(last), kept.asn[first], kept.country[first])


def owners(start: NDArray[np.intp], stop: NDArray[np.intp], count: int) -> NDArray[np.intp]:
    """For each of `count` places the row of the disjoint, ascending [start, stop) over it; -1 where there is none."""
    here = np.arange(count)
    row = np.searchsorted(start, here, "right") - 1
    return np.where(here < np.append(stop, 0)[row], row, -1)


def overlaid(one: Ranges, other: Ranges) -> tuple[Wide, NDArray[np.intp], NDArray[np.intp]]:
    """Two disjoint tables cut alike: the points where either changes, and whose rows hold from each on (-1: none)."""
    points, rank = wide.ranked(wide.joined(one.start, wide.plus_one(one.end), other.start, wide.plus_one(other.end)))
    start, stop, other_start, other_stop = np.split(rank, np.cumsum([len(one.asn)] * 2 + [len(other.asn)]))
    return points, owners(start, stop, len(points.lo)), owners(other_start, other_stop, len(points.lo))


def with_countries(table: Ranges, countries: Ranges) -> Ranges:
    """`table` cut where the country changes, both disjoint; where `countries` is silent, the country is empty."""
    if not len(table.asn):
        return table
    points, row, country_row = overlaid(table, countries)
    end = wide.minus(wide.joined(points.take(slice(1, None)), wide.from_ints([0])), wide.from_ints([1]))
    named = np.append(countries.country, np.zeros(1, "S2"))  # taken by row -1: nobody says
    return disjoint(Ranges(points, end, table.asn[row], named[country_row]).take(row >= 0))
