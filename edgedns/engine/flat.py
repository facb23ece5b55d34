"""The container of every published file: named, aligned, checksummed sections (docs/snapshot-format.md).

Layout, little-endian::

    0   8   magic "EDGEDNS\\0"
    8   2   version          10  2   number of sections
    12  4   CRC-32 of bytes 8 to 11 and of everything from byte 24 on
    16  8   length of the whole file
    24      one entry of 40 octets a section: name (20, NUL padded), type code (1), zero (3), offset (8), octets (8)
    ...     the sections, each starting at a multiple of 64
"""

from __future__ import annotations

import struct
import zlib
from array import array
from collections.abc import Mapping
from typing import TypeAlias

from edgedns.errors import SourceError

MAGIC = b"EDGEDNS\0"
VERSION = 2
ROOT_FORMAT = 1
ALIGN = 64
HEADER = struct.Struct("<8sHHIQ")
ENTRY = struct.Struct("<20sc3xQQ")
Buffer: TypeAlias = "bytes | bytearray | memoryview | array[int]"
Sections: TypeAlias = "Mapping[str, memoryview]"


def pack(sections: Mapping[str, tuple[str, Buffer]]) -> bytes:
    """One file from `{name: (type code of memoryview.cast, bytes)}`."""
    offset = HEADER.size + ENTRY.size * len(sections)
    entries, parts = [], []
    for name, (code, content) in sections.items():
        size = memoryview(content).nbytes
        padding = -offset % ALIGN
        entries.append(ENTRY.pack(name.encode(), code.encode(), offset + padding, size))
        parts += [bytes(padding), content]
        offset += padding + size
    body = b"".join([*entries, *parts])
    return HEADER.pack(MAGIC, VERSION, len(sections), _checksum(body, len(sections)), offset) + body


def unpack(content: Buffer, name: str) -> dict[str, memoryview]:
    """The sections of one file, as typed views into `content`; SourceError when it is truncated or foreign."""
    view = memoryview(content).toreadonly()
    if len(view) < HEADER.size:
        raise SourceError(f"{name}: {len(view)} octets are too few for a published file")
    magic, version, count, checksum, size = HEADER.unpack_from(view)
    if magic != MAGIC:
        raise SourceError(f"{name}: not a published file of edgedns (its first octets are {magic!r})")
    if version != VERSION:
        raise SourceError(f"{name}: layout version {version}, this edgedns reads {VERSION}; publish again")
    if size != len(view):
        raise SourceError(f"{name}: truncated, {len(view)} of {size} octets")
    if _checksum(view[HEADER.size :], count) != checksum:
        raise SourceError(f"{name}: damaged, its checksum does not match")
    return dict(_section(view, HEADER.size + i * ENTRY.size) for i in range(count))


def _checksum(body: Buffer, count: int) -> int:
    return zlib.crc32(body, zlib.crc32(struct.pack("<HH", VERSION, count)))


def _section(view: memoryview, at: int) -> tuple[str, memoryview]:
    name, code, offset, size = ENTRY.unpack_from(view, at)
    return name.rstrip(b"\0").decode(), view[offset : offset + size].cast(code.decode())
