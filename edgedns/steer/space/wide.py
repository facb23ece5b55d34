"""128-bit numbers in numpy: pairs of u64 columns. IPv4 addresses fit with `hi` all zero, so one code serves both families."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

U64 = NDArray[np.uint64]
ONE = np.uint64(1)
LOW64 = (1 << 64) - 1


class Wide(NamedTuple):
    """One number a row; arithmetic wraps at 2**128."""

    hi: U64
    lo: U64

    def take(self, where: NDArray[np.intp] | NDArray[np.bool_] | slice) -> Wide:
        return Wide(self.hi[where], self.lo[where])

    def number(self, row: int) -> int:
        return int(self.hi[row]) << 64 | int(self.lo[row])


def from_ints(numbers: list[int]) -> Wide:
    return Wide(np.array([n >> 64 for n in numbers], np.uint64), np.array([n & LOW64 for n in numbers], np.uint64))


def from_low(lo: NDArray[np.uint32]) -> Wide:
    return Wide(np.zeros(len(lo), np.uint64), lo.astype(np.uint64))


def joined(*parts: Wide) -> Wide:
    return Wide(np.concatenate([p.hi for p in parts]), np.concatenate([p.lo for p in parts]))


def plus_one(a: Wide) -> Wide:
    lo = a.lo + ONE
    return Wide(a.hi + (lo == 0), lo)


def minus(a: Wide, b: Wide) -> Wide:
    return Wide(a.hi - b.hi - (a.lo < b.lo), a.lo - b.lo)


def plus(a: Wide, b: Wide) -> Wide:
    lo = a.lo + b.lo
    return Wide(a.hi + b.hi + (lo < a.lo), lo)


def power(bits: NDArray[np.int64]) -> Wide:
    """2**bits, 0 <= bits <= 128; 2**128 wraps to 0."""
    high = bits >= 64
    one = np.left_shift(ONE, (bits & 63).astype(np.uint64))
    return Wide(np.where(high & (bits < 128), one, np.uint64(0)), np.where(high, np.uint64(0), one))


def top_bit(a: Wide) -> NDArray[np.int64]:
    """Place of the highest bit set, 0 to 127; -1 where the number is 0."""
    return np.where(a.hi != 0, top_bit64(a.hi) + 64, top_bit64(a.lo))


def top_bit64(a: U64) -> NDArray[np.int64]:
    """The same of 64-bit numbers."""
    # Rounded to 53 bits a number may become the next power of two, but not where its second bit is clear.
    return np.frexp((a & ~(a >> ONE)).astype(np.float64))[1].astype(np.int64) - 1


def zeros_below(a: Wide) -> NDArray[np.int64]:
    """How many zero bits stand at the low end; 128 for the number 0."""
    low = a.lo & (~a.lo + ONE)
    high = a.hi & (~a.hi + ONE)
    tail = np.where(a.lo != 0, top_bit64(low), top_bit64(high) + 64)
    return np.where((a.lo == 0) & (a.hi == 0), 128, tail).astype(np.int64)


def differs(a: Wide) -> NDArray[np.bool_]:
    """True where a row is not the one before it; the first row is True."""
    fresh = np.ones(len(a.lo), np.bool_)
    fresh[1:] = (a.lo[1:] != a.lo[:-1]) | (a.hi[1:] != a.hi[:-1])
    return fresh


def order(a: Wide) -> NDArray[np.intp]:
    """Stable ascending order."""
    if not a.hi.any():
        return np.argsort(a.lo, kind="stable")
    return np.lexsort((a.lo, a.hi))


def ranked(a: Wide) -> tuple[Wide, NDArray[np.intp]]:
    """The distinct numbers ascending, and the place of each row among them."""
    places = order(a)
    ascending = a.take(places)
    fresh = differs(ascending)
    rank = np.empty(len(places), np.intp)
    rank[places] = np.cumsum(fresh) - 1
    return ascending.take(fresh), rank


def rows_up_to(a: Wide, number: int) -> int:
    """How many rows of the ascending `a` are <= number."""
    hi, lo = np.uint64(number >> 64), np.uint64(number & LOW64)
    first, last = (int(np.searchsorted(a.hi, hi, side)) for side in ("left", "right"))
    return first + int(np.searchsorted(a.lo[first:last], lo, "right"))
