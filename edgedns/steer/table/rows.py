"""Network keys as numpy columns: the rows of every table in this room.

A ROW array spells `model.NetworkKey` field by field. For sorting and joining it is packed into 13 big-endian bytes, so
that one string comparison orders by ASN, country, family and block, a level above always before what lies under it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgedns.errors import SourceError
from edgedns.model import NetworkKey

ROW = np.dtype([("asn", "<i8"), ("country", "S2"), ("family", "u1"), ("block", "<i8")])
KEY = np.dtype("S13")
LEVELS = ("network", "asn+country", "country", "asn", "all")

Rows = NDArray[np.void]
Keys = NDArray[np.bytes_]
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Sections = dict[str, NDArray[Any]]


def rows_of(keys: Iterable[NetworkKey]) -> Rows:
    """NetworkKeys as a ROW array, in their order."""
    return np.array([(k.asn, k.country.encode("ascii", "replace"), k.family, k.block) for k in keys], dtype=ROW)


def key_of(row: np.void) -> NetworkKey:
    """One ROW as the NetworkKey it spells."""
    fields: Any = row.item()  # all at once: a third of what four fields one by one cost
    asn, country, family, block = fields
    return NetworkKey(asn, country.decode("ascii"), family, block)


def pack(rows: Rows) -> Keys:
    """ROW[n] -> KEY[n]: equal rows give equal bytes, and byte order is row order."""
    out = np.zeros((len(rows), 13), dtype=np.uint8)
    out[:, 0:5] = _big_endian(rows["asn"] + 1)
    out[:, 5:7] = rows["country"].astype("S2").view(np.uint8).reshape(len(rows), 2)
    out[:, 7] = rows["family"]
    out[:, 8:13] = _big_endian(rows["block"] + 1)
    return out.reshape(-1).view(KEY)


def unpack(keys: Keys) -> Rows:
    """The inverse of `pack`."""
    raw = np.ascontiguousarray(keys, dtype=KEY).view(np.uint8).reshape(len(keys), 13)
    rows = np.zeros(len(keys), dtype=ROW)
    rows["asn"] = _from_big_endian(raw[:, 0:5]) - 1
    rows["country"] = np.ascontiguousarray(raw[:, 5:7]).reshape(-1).view("S2")
    rows["family"] = raw[:, 7]
    rows["block"] = _from_big_endian(raw[:, 8:13]) - 1
    return rows


def level_of(rows: Rows) -> NDArray[np.uint8]:
    """ROW[n] -> u8[n], indices into LEVELS: 0 a network, 4 all."""
    named, located = rows["asn"] >= 0, rows["country"] != b""
    above = np.where(located, np.where(named, 1, 2), np.where(named, 3, 4))
    return np.where(rows["block"] >= 0, 0, above).astype(np.uint8)


def lineage(rows: Rows) -> list[Rows]:
    """The rows themselves and the four levels above each, nearest first; levels may repeat where a key is short.

    The country is nearer than the ASN: RTTs go by place, and what the ASN has beyond its (ASN, country) lies elsewhere.
    """
    own = rows.copy()
    country_asn = above_networks(own)
    asn, country = country_asn.copy(), country_asn.copy()
    asn["country"] = b""
    country["asn"] = -1
    everything = asn.copy()
    everything["asn"] = -1
    return [own, country_asn, country, asn, everything]


def lookup(sorted_keys: Keys, wanted: Keys) -> Ints:
    """Index of each wanted key in a sorted KEY array, -1 where it is absent."""
    if not len(sorted_keys):
        return np.full(len(wanted), -1, dtype=np.int64)
    at = np.minimum(np.searchsorted(sorted_keys, wanted), len(sorted_keys) - 1)
    return np.where(sorted_keys[at] == wanted, at, -1).astype(np.int64)


def parents(rows: Rows, sorted_keys: Keys) -> Ints:
    """For each row the index in `sorted_keys` of the nearest level above it that is there, -1 for none."""
    own = pack(rows)
    found = np.full(len(rows), -1, dtype=np.int64)
    for above in lineage(rows)[1:]:
        keys = pack(above)
        missing = (found < 0) & (keys != own)
        found[missing] = lookup(sorted_keys, keys[missing])
    return found


def nearest(rows: Rows, sorted_keys: Keys) -> Ints:
    """For each row the index in `sorted_keys` of itself or else of the nearest level above it, -1 for none."""
    found = np.full(len(rows), -1, dtype=np.int64)
    for level in lineage(rows):
        missing = found < 0
        found[missing] = lookup(sorted_keys, pack(level[missing]))
    return found


def expand(starts: Ints, counts: Ints) -> tuple[Ints, Ints]:
    """Ragged ranges as (owner, position): owner i repeats counts[i] times beside starts[i], starts[i] + 1, ..."""
    owner = np.repeat(np.arange(len(starts)), counts)
    first = np.repeat(np.cumsum(counts) - counts, counts)
    return owner, np.repeat(starts, counts) + np.arange(len(owner)) - first


def starts(ordered: Ints) -> Ints:
    """Where each run of equal values begins."""
    begins = np.ones(len(ordered), dtype=np.bool_)
    np.not_equal(ordered[1:], ordered[:-1], out=begins[1:])
    return np.flatnonzero(begins)


def pack_json(value: object) -> NDArray[np.uint8]:
    """A JSON value as a section."""
    return np.frombuffer(json.dumps(value, sort_keys=True).encode(), dtype=np.uint8)


def unpack_json(sections: Sections, name: str) -> Any:
    """The JSON value of a section; SourceError when it is absent or broken."""
    try:
        return json.loads(sections[name].astype(np.uint8).tobytes())
    except (KeyError, ValueError) as error:
        raise SourceError(f"stored state has no readable section {name!r}: {error}") from error


def pack_keys(keys: Keys) -> NDArray[np.uint8]:
    """KEY[n] as u8[n, 13], which every file format can hold."""
    return np.ascontiguousarray(keys, dtype=KEY).view(np.uint8).reshape(len(keys), 13).copy()


def unpack_keys(section: NDArray[Any]) -> Keys:
    """The inverse of `pack_keys`."""
    if section.ndim != 2 or section.shape[1] != 13:
        raise SourceError(f"stored state has row keys of shape {section.shape}, expected (n, 13)")
    return np.ascontiguousarray(section, dtype=np.uint8).reshape(-1).view(KEY)


def above_networks(rows: Rows) -> Rows:
    """The (ASN, country) of each row; rows that are levels already stay."""
    above = rows.copy()
    above["family"] = 0
    above["block"] = -1
    return above


def _big_endian(values: NDArray[Any]) -> NDArray[np.uint8]:
    return values.astype(">u8").view(np.uint8).reshape(len(values), 8)[:, 3:]


def _from_big_endian(raw: NDArray[np.uint8]) -> Ints:
    wide = np.zeros((len(raw), 8), dtype=np.uint8)
    wide[:, 3:] = raw
    return wide.reshape(-1).view(">u8").astype(np.int64)
