"""Index arrays built from leaves that tile a family's whole address space (their form: shape.py)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgedns.steer.space import wide
from edgedns.steer.space.shape import POINTER
from edgedns.steer.space.wide import U64, Wide


def build_index(start: Wide, length: NDArray[np.uint8], ids: NDArray[np.uint32], strides: Sequence[int]) -> NDArray[np.uint32]:
    """u32 index of the leaves (ascending by address, together the whole space of sum(strides) bits).

    The entries of one level, in order, are the leaves that end there, each as often as it has room, and one pointer for
    each block below: a level is one `np.repeat`.
    """
    levels: list[NDArray[np.uint32]] = []
    depth, size, width = 0, 0, sum(strides)
    for number, stride in enumerate(strides):
        depth += stride
        long = length > depth
        first = ~long
        first[long] = wide.differs(_top(start.take(long), width - depth))
        blocks = long[first]
        values = ids[first]
        room = np.where(blocks, 1, np.left_shift(1, np.where(blocks, 0, depth - length[first].astype(np.int64))))
        size += int(room.sum())
        if blocks.any():
            block_size = 1 << strides[number + 1]
            values[blocks] = POINTER | (size + block_size * np.arange(np.count_nonzero(blocks)))
        levels.append(np.repeat(values, room))
        if not blocks.any():
            break
        start, length, ids = start.take(long), length[long], ids[long]
    if size >= POINTER:
        raise ValueError("an index of 2**31 entries or more can't be pointed into")
    return np.concatenate(levels)


def _top(address: Wide, cut: int) -> Wide:
    """The address with its lowest `cut` bits zero."""
    hi_cut, lo_cut = max(0, cut - 64), min(64, cut)
    return Wide(_cleared(address.hi, hi_cut), _cleared(address.lo, lo_cut))


def _cleared(part: U64, cut: int) -> U64:
    return np.zeros_like(part) if cut == 64 else part & ~np.uint64((1 << cut) - 1)
