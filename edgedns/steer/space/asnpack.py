"""The embedded table's own file form: an xz stream of one JSON header line and numpy columns.

Each column is written byte plane by byte plane (all lowest bytes first, then the next), as differences where neighbours
resemble each other, which is what makes 33 MB of text fit in about 2.2 MB. The header holds the form's version,
source, date and the SHA-256 of what follows it.
"""

from __future__ import annotations

import hashlib
import json
import lzma
from datetime import date
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgedns.errors import SourceError
from edgedns.steer.space import wide
from edgedns.steer.space.ranges import Ranges
from edgedns.steer.space.wide import Wide

MAGIC = b"\xfd7zXZ\x00"
FORM = "edgedns-asn"
VERSION = 1
LIMIT = 1 << 28  # no table of ours expands to more

_FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "pb": 0, "dict_size": 1 << 25}]


class Packed(NamedTuple):
    """What one file holds. `rows4`, `rows6` count the source's rows, before countries cut them."""

    v4: Ranges
    v6: Ranges
    names: dict[int, str]
    source: str
    date: str
    digest: str
    rows4: int
    rows6: int


def pack(v4: Ranges, v6: Ranges, names: dict[int, str], about: dict[str, Any]) -> bytes:
    """`about` gives source, date, rows4, rows6; the ranges are sorted and disjoint, names are of one line."""
    countries = sorted({*v4.country.tolist(), *v6.country.tolist()})
    if len(countries) > 256:  # a country's number is one octet
        raise SourceError(f"{len(countries)} countries, more than there are: get the file again")
    asns = sorted(names)
    columns = [*_columns(v4, countries), *_columns(v6, countries), np.diff(np.array(asns, np.uint32), prepend=np.uint32(0))]
    text = "\n".join(names[asn] for asn in asns).encode()
    body = b"".join(_planes(column) for column in columns) + text
    header = about | {
        "form": FORM,
        "version": VERSION,
        "counts": [len(v4.asn), len(v6.asn), len(asns)],
        "countries": [code.decode() for code in countries],
        "sha256": hashlib.sha256(body).hexdigest(),
    }
    line = json.dumps(header, sort_keys=True).encode() + b"\n"
    return lzma.compress(line + body, check=lzma.CHECK_CRC64, filters=_FILTERS)


def unpack(content: bytes) -> Packed:
    """SourceError where it is cut off, changed, or of another form or version."""
    line, _, body = _expand(content).partition(b"\n")
    try:
        header = json.loads(line)
    except ValueError:
        header = None
    if not isinstance(header, dict) or header.get("form") != FORM:
        raise SourceError("an xz file, but not an edgedns ASN table")
    if header.get("version") != VERSION:
        raise SourceError(f"an edgedns ASN table of version {header.get('version')}; this program reads version {VERSION}")
    if hashlib.sha256(body).hexdigest() != header.get("sha256"):
        raise SourceError("the ASN table's checksum is wrong: get the file again")
    try:
        date.fromisoformat(header["date"])
        return _tables(header, body)
    except (KeyError, ValueError, TypeError, IndexError, AttributeError) as error:
        raise SourceError(f"the ASN table's header is damaged ({error!r}): get the file again") from None


def _expand(content: bytes) -> bytes:
    reader = lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=1 << 28)
    try:
        expanded = reader.decompress(content, max_length=LIMIT)
    except lzma.LZMAError as error:
        raise SourceError(f"a broken xz file ({error}): get it again") from None
    if not reader.eof:
        raise SourceError("an xz file that ends too early or is far too large: get it again")
    return expanded


def _tables(header: dict[str, Any], body: bytes) -> Packed:
    rows4, rows6, names = header["counts"]
    countries = np.array([code.encode() for code in header["countries"]], "S2")
    at = 0

    def column(count: int, dtype: type[np.unsignedinteger[Any]]) -> NDArray[Any]:
        nonlocal at
        size = count * np.dtype(dtype).itemsize
        planes = np.frombuffer(body, np.uint8, size, at).reshape(np.dtype(dtype).itemsize, count)
        at += size
        return np.ascontiguousarray(planes.T).view(np.dtype(dtype).newbyteorder("<"))[:, 0].astype(dtype)

    def family(count: int) -> Ranges:
        gap_hi, gap_lo, span_hi, span_lo = (column(count, np.uint64) for _ in range(4))
        start, end = _summed(Wide(gap_hi, gap_lo), Wide(span_hi, span_lo))
        return Ranges(start, end, column(count, np.uint32), countries[column(count, np.uint8)])

    v4, v6 = family(rows4), family(rows6)
    asns = np.cumsum(column(names, np.uint32), dtype=np.uint32).tolist()
    called = dict(zip(asns, body[at:].decode().split("\n"), strict=True)) if names else {}
    return Packed(v4, v6, called, header["source"], header["date"], header["sha256"], header["rows4"], header["rows6"])


def _columns(ranges: Ranges, countries: list[bytes]) -> list[NDArray[Any]]:
    gap = wide.minus(ranges.start, _shifted(ranges.end))
    span = wide.minus(ranges.end, ranges.start)
    codes = np.searchsorted(np.array(countries, "S2"), ranges.country).astype(np.uint8)
    return [*gap, *span, ranges.asn, codes]


def _shifted(end: Wide) -> Wide:
    return wide.joined(wide.from_ints([0]), end.take(slice(0, -1))) if len(end.lo) else end


def _summed(gap: Wide, span: Wide) -> tuple[Wide, Wide]:
    """Running sums of 128-bit steps: the low halves wrap, and each wrap carries into the high ones."""
    step = wide.plus(gap, span)
    lo = np.cumsum(step.lo, dtype=np.uint64)
    carries = np.cumsum(lo < step.lo, dtype=np.uint64)
    end = Wide(np.cumsum(step.hi, dtype=np.uint64) + carries, lo)
    return wide.minus(end, span), end


def _planes(column: NDArray[Any]) -> bytes:
    little = np.ascontiguousarray(column).astype(column.dtype.newbyteorder("<"))
    return little.view(np.uint8).reshape(len(column), column.itemsize).T.tobytes()
