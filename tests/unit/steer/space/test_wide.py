"""Bits of wide numbers, where floating point would round them to another power of two."""

from __future__ import annotations

from random import Random

import numpy as np

from edgedns.steer.space import wide


def test_the_highest_and_the_lowest_bit() -> None:
    dice = Random(1)
    edges = [step + beside for place in range(65) for step in [1 << place] for beside in (-1, 0, 1)]
    numbers = [n for n in edges if n < 1 << 64] + [dice.getrandbits(dice.randrange(1, 65)) for _ in range(1000)]
    assert wide.top_bit64(np.array(numbers, np.uint64)).tolist() == [n.bit_length() - 1 for n in numbers]
    both = numbers + [n << 64 | n for n in numbers] + [n << 64 for n in numbers]
    assert wide.top_bit(wide.from_ints(both)).tolist() == [n.bit_length() - 1 for n in both]
    assert wide.zeros_below(wide.from_ints(both)).tolist() == [(n & -n).bit_length() - 1 if n else 128 for n in both]
