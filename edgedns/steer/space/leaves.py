"""One family's address space cut into leaves: the shortest aligned prefixes that are uniform in what they are told by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgedns.model import Family, Prefix
from edgedns.steer.space import wide
from edgedns.steer.space.ranges import Ranges, owners
from edgedns.steer.space.wide import Wide

Keys = NDArray[np.int64]
Flags = NDArray[np.bool_]

# Looked up as IPv4, so that nobody's leaf may cover it: IPv4-mapped (RFC 4291), NAT64 (RFC 6052), 6to4 (RFC 3056).
CANONICAL: tuple[Prefix, ...] = (
    Prefix(6, bytes(10) + b"\xff\xff" + bytes(4), 96),
    Prefix(6, b"\x00\x64\xff\x9b" + bytes(12), 96),
    Prefix(6, b"\x20\x02" + bytes(14), 16),
)
TEREDO = Prefix(6, b"\x20\x01" + bytes(14), 32)  # RFC 4380: who holds it in the tables is a relay, not the client's network

WIDTH: dict[Family, int] = {4: 32, 6: 128}
BLOCK: dict[Family, int] = {4: 16, 6: 32}
UNMAPPED = -1


class Holdings(NamedTuple):
    """A family's part of a table; `group` (one number an (ASN, country), < 2**31) and `public` are columns of its rows."""

    ranges: Ranges
    group: Keys
    public: Flags


class Leaves(NamedTuple):
    """Leaves in address order, tiling the family's space. `key` is group << 32 | block, negative where unmapped."""

    start: Wide
    length: NDArray[np.uint8]
    key: Keys
    public: Flags


def leaves(family: Family, held: Holdings, prefixes: Sequence[Prefix], open_: Sequence[Prefix]) -> Leaves:
    """Leaves uniform in network, in the set of `prefixes` around them, and in being public (held so, or in `open_`)."""
    special = (*CANONICAL, TEREDO) if family == 6 else ()
    points, row = _stretches(family, held.ranges, [*prefixes, *open_, *special])
    for prefix in special:
        row[_places(points, prefix)] = -1
    network = np.append(held.group, 0)[row] << 32 | _block(family, points)
    key = np.where(row >= 0, network, UNMAPPED)
    public = np.append(held.public, False)[row]
    around = np.full(len(key), -1)  # prefixes nest, so the longest one tells the whole set
    for number, prefix in enumerate(sorted(set(prefixes), key=lambda prefix: prefix.length)):
        around[_places(points, prefix)] = number
    for prefix in open_:
        public[_places(points, prefix)] = True
    for number, prefix in enumerate(special):
        key[_places(points, prefix)] = UNMAPPED - 1 - number
        if prefix is not TEREDO:  # which as a client subnet is looked up as it stands
            around[_places(points, prefix)], public[_places(points, prefix)] = -1, False
    return _cut(points, WIDTH[family], key, around, public)


def span(prefix: Prefix) -> tuple[int, int]:
    """First and last address of a prefix."""
    first = int.from_bytes(prefix.address)
    return first, first + (1 << (WIDTH[prefix.family] - prefix.length)) - 1


def _stretches(family: Family, held: Ranges, prefixes: Sequence[Prefix]) -> tuple[Wide, NDArray[np.intp]]:
    """Every address from which on anything may change, ascending from 0, and the row that holds it (-1: none)."""
    edges = [edge for first, last in map(span, prefixes) for edge in (first, (last + 1) % (1 << 128))]
    past = wide.plus_one(held.end)
    points, rank = wide.ranked(wide.joined(held.start, past, wide.from_ints([0, *edges]), _block_edges(family, held)))
    count = len(held.asn)
    if family == 4 and points.lo[-1] >> np.uint64(32):
        points = points.take(slice(0, -1))
    stop = np.where(rank[count : 2 * count] == 0, len(points.lo), rank[count : 2 * count])  # 0: past the top of the space
    return points, owners(rank[:count], stop, len(points.lo))


def _block(family: Family, address: Wide) -> Keys:
    """The /16 (v4) or /32 (v6) of an address, as a number."""
    block = address.lo >> np.uint64(16) if family == 4 else address.hi >> np.uint64(32)
    return block.astype(np.int64)


def _block_edges(family: Family, held: Ranges) -> Wide:
    """Where a range goes on into another block."""
    first = _block(family, held.start)
    more = _block(family, held.end) - first
    nth = np.arange(more.sum()) - np.repeat(np.cumsum(more) - more, more) + 1
    block = (np.repeat(first, more) + nth).astype(np.uint64)
    zero = np.zeros(len(block), np.uint64)
    return Wide(zero, block << np.uint64(16)) if family == 4 else Wide(block << np.uint64(32), zero)


def _places(points: Wide, prefix: Prefix) -> slice:
    first, last = span(prefix)
    return slice(wide.rows_up_to(points, first) - 1, wide.rows_up_to(points, last))


def _cut(points: Wide, width: int, key: Keys, around: Keys, public: Flags) -> Leaves:
    """Neighbouring stretches that are alike become one run, and each run is tiled by its largest aligned prefixes."""
    fresh = np.append(True, (key[1:] != key[:-1]) | (around[1:] != around[:-1]) | (public[1:] != public[:-1]))
    start, key, public = points.take(fresh), key[fresh], public[fresh]
    top = wide.from_ints([(1 << width) % (1 << 128)])
    run, leaf, bits = _tiled(start, wide.minus(wide.joined(start.take(slice(1, None)), top), start))
    return Leaves(leaf, (width - bits).astype(np.uint8), key[run], public[run])


def _tiled(start: Wide, left: Wide) -> tuple[NDArray[np.intp], Wide, Keys]:
    """Tiles of the runs [start, start + left): which run each is of, its first address, and the bits it spans; in
    address order. A run of 2**128 comes as left = 0."""
    run = np.arange(len(start.lo))
    tiles: list[tuple[NDArray[np.intp], Wide, Keys]] = []
    while len(run):
        fits = wide.top_bit(left)
        bits = np.minimum(wide.zeros_below(start), np.where(fits < 0, 128, fits))
        tiles.append((run, start, bits))
        size = wide.power(bits)
        start, left = wide.plus(start, size), wide.minus(left, size)
        more = (left.hi | left.lo) != 0
        run, start, left = run[more], start.take(more), left.take(more)
    runs, bits = (np.concatenate([tile[part] for tile in tiles]) for part in (0, 2))
    order = np.argsort(runs, kind="stable")
    return runs[order], wide.joined(*(tile[1] for tile in tiles)).take(order), bits[order]
