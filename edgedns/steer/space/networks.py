"""Network ids: the distinct (ASN, country, family, block) keys numbered, public ones first, each with the levels above it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgedns.steer.space.leaves import Keys, Leaves
from edgedns.steer.space.ranges import Asns, Countries

I32 = NDArray[np.int32]

_V6 = 1 << 62


class Groups(NamedTuple):
    """The distinct (ASN, country) pairs of a table, ascending; `of4`, `of6` are the pair of each of its ranges."""

    asn: Asns
    country: Countries
    of4: Keys
    of6: Keys


class Numbered(NamedTuple):
    """`key` of each network id from 1 on, twins left out; the first `public` of them are public. `of4`, `of6`: by leaf."""

    key: Keys
    public: int
    of4: Keys
    of6: Keys


@dataclass(frozen=True)
class Columns:
    """What a network id stands for, and its levels: places in the `level_` columns, -1 where there is none."""

    net_asn: Asns
    net_country: Countries
    net_family: NDArray[np.uint8]
    net_block: NDArray[np.uint32]
    net_asncc: I32
    net_asn_ix: I32
    net_cc_ix: I32
    level_asncc_asn: Asns
    level_asncc_country: Countries
    level_asn: Asns
    level_country: Countries


def groups(asn4: Asns, country4: Countries, asn6: Asns, country6: Countries) -> Groups:
    asn, country = np.concatenate([asn4, asn6]), np.concatenate([country4, country6]).astype("S2")
    letters = np.ascontiguousarray(country).view(">u2").astype(np.int64)
    codes, of = np.unique(asn.astype(np.int64) << 16 | letters, return_inverse=True)
    names = (codes & 0xFFFF).astype(">u2").view("S2")
    return Groups((codes >> 16).astype(np.uint32), names, of[: len(asn4)], of[len(asn4) :])


def numbered(v4: Leaves, v6: Leaves) -> Numbered:
    """A network is public as soon as one leaf of it is."""
    keys = np.concatenate([v4.key, np.where(v6.key < 0, v6.key, v6.key | _V6)])
    public = np.concatenate([v4.public, v6.public])
    mapped = keys >= 0
    distinct, of = np.unique(keys[mapped], return_inverse=True)
    opened = np.zeros(len(distinct), np.bool_)
    opened[of[public[mapped]]] = True
    order = np.argsort(~opened, kind="stable")
    count = int(opened.sum())
    number = np.empty(len(distinct), np.int64)
    number[order] = np.arange(1, len(distinct) + 1) + np.where(opened[order], 0, count)  # the twins stand between
    ids = np.zeros(len(keys), np.int64)
    ids[mapped] = number[of]
    return Numbered(distinct[order], count, ids[: len(v4.key)], ids[len(v4.key) :])


def columns(nets: Numbered, pairs: Groups) -> Columns:
    key = np.concatenate([nets.key[: nets.public], nets.key])
    group = (key & ~_V6) >> 32
    asn, country = pairs.asn[group], pairs.country[group]
    known = pairs.country != b""
    asns, countries = np.unique(pairs.asn), np.unique(pairs.country[known])
    place_of_pair = np.where(known, np.cumsum(known) - 1, -1)
    cc_ix = np.where(country == b"", -1, np.searchsorted(countries, country))
    twins = slice(nets.public, 2 * nets.public)
    return Columns(
        np.append(np.uint32(0), asn),
        np.append(np.bytes_(b""), country),
        np.append(np.uint8(0), np.where(key & _V6, 6, 4).astype(np.uint8)),
        np.append(np.uint32(0), (key & 0xFFFFFFFF).astype(np.uint32)),
        _levels(place_of_pair[group], twins),
        _levels(np.searchsorted(asns, asn), twins),
        _levels(cc_ix, twins),
        pairs.asn[known],
        pairs.country[known],
        asns,
        countries,
    )


def _levels(place: Keys, twins: slice) -> I32:
    place[twins] = -1
    return np.append(-1, place).astype(np.int32)
