"""A histogram of latencies: 64 buckets to each doubling (1.6 %), from nanoseconds to eighteen minutes."""

from __future__ import annotations

from collections.abc import Sequence

BUCKETS = 2240
MOST = (1 << 40) - 1


def bucket(ns: int) -> int:
    """The bucket that counts a latency of so many nanoseconds."""
    ns = min(ns, MOST)
    shift = max(0, ns.bit_length() - 7)
    return (shift << 6) + (ns >> shift)


def edge(number: int) -> int:
    """The least latency, in nanoseconds, of bucket `number`."""
    shift = max(0, (number >> 6) - 1)
    return (number - (shift << 6)) << shift


def quantiles(counts: Sequence[int], shares: Sequence[float]) -> list[float]:
    """Seconds below which these shares (ascending, 0 to 1) of what was counted lie; interpolated, zeros of nothing."""
    total, below, at = sum(counts), 0, 0
    found = []
    for share in shares:
        wanted = share * total
        while at < len(counts) - 1 and below + counts[at] < wanted:
            below += counts[at]
            at += 1
        inside = (wanted - below) / counts[at] if counts[at] else 0.0
        found.append((edge(at) + inside * (edge(at + 1) - edge(at))) / 1e9 if total else 0.0)
    return found
