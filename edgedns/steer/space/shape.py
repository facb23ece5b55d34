"""The shape of the index arrays that lead from an address to its atom. Standard library only: workers read it.

An index is one u32 array. An address is read from its top bits down, `STRIDES[family]` bits at a time: the first step picks
one of the entries 0 to 2**bits - 1, each later one an entry of the block that the last entry named. An entry with
`POINTER` set holds the array position of a block of 2**(next stride) entries; any other is the atom's id.
"""

from __future__ import annotations

from typing import Final

POINTER: Final = 1 << 31
STRIDES4: Final = (16, 8, 8)
STRIDES6: Final = (16, 16, 4, 4, 4, 4, *(8,) * 10)  # half the memory of eights from /32 on: 24 MB for 53
