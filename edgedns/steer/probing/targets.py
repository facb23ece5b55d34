"""Whom to probe in each network: who asks, what lists name, who answers. In columns, bounded; control process only (numpy).

A *host* is one address that may be probed: a resolver that asked with its own address, or one from a list. A *demand* row
says how much is asked from a network, whether by its resolvers or for the subnets that others forwarded: those are nobody's
address and are never probed, but a listed host within one of them is worth their queries.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgedns.special import Prefixes
from edgedns.steer.space.atoms import Atoms
from edgedns.steer.space.shape import POINTER, STRIDES4, STRIDES6
from edgedns.steer.table.rows import Bools, Floats, Ints, starts

KEPT = 8  # hosts of a network
NETWORKS_MOST = 100_000
HALF_LIFE = 6 * 3600.0
ROUNDS_LEAST = 3
TRY_NEW, TRY_OLD = 600.0, 86_400.0
REST = 86_400.0
SURE, HEARD, GIVEN = 4.0, 4.0, 2.0

# An address in 16 octets, IPv4 as IPv4-mapped, so that octets order addresses.
ADDRESS = np.dtype("S16")
HOST = np.dtype([
    ("address", ADDRESS),
    ("network", "<u4"),  # id, of the atoms that they were numbered by
    ("queries", "<f4"),  # decayed
    ("rounds", "u1"),  # of learning, in which it asked
    ("proven", "?"),  # it asked with a good cookie or over TCP: nobody borrowed its address
    ("listed", "?"),
    ("given", "?"),  # to agents, the last time
    ("heard", "<f8"),  # when it last answered a probe, Unix seconds; 0 for never
    ("silent", "<f8"),  # since when it was only probed in vain; 0 where it was not
])  # fmt: skip
DEMAND = np.dtype([("address", ADDRESS), ("network", "<u4"), ("queries", "<f4")])  # one of the network's addresses
Rows = NDArray[np.void]  # hosts ascending by address, demand by network; none twice
Addresses = NDArray[np.bytes_]
Networks = NDArray[np.uint32]
_MAPPED = bytes(10) + b"\xff\xff"
_MAPPED_LO = np.uint64(0xFFFF)


def key(packed: bytes) -> bytes:
    """A packed address of 4 or 16 octets as it is kept."""
    return _MAPPED + packed if len(packed) == 4 else packed


def packed(address: bytes) -> bytes:
    """The inverse of `key`, for an element of an ADDRESS array (which has lost its zeros at the end)."""
    whole = address.ljust(16, b"\0")
    return whole[12:] if whole.startswith(_MAPPED) else whole


def networks_of(atoms: Atoms, addresses: Addresses) -> Networks:
    """The network id of each address, 0 for unmapped space: `engine.lookup.walk`, for many at once."""
    halves = np.ascontiguousarray(addresses, ADDRESS).view(">u8").reshape(-1, 2).astype(np.uint64)
    hi, lo = halves[:, 0], halves[:, 1]
    v4 = (hi == 0) & (lo >> np.uint64(32) == _MAPPED_LO)
    atom = np.zeros(len(addresses), np.int64)
    low = lo[v4] & np.uint64(0xFFFFFFFF)
    atom[v4] = _walk(atoms.index4, STRIDES4, np.zeros_like(low), low)
    atom[~v4] = _walk(atoms.index6, STRIDES6, hi[~v4], lo[~v4])
    return atoms.network[atom]


def _walk(
    index: NDArray[np.uint32], strides: tuple[int, ...], hi: NDArray[np.uint64], lo: NDArray[np.uint64]
) -> NDArray[np.int64]:
    entry = np.zeros(len(lo), np.int64)
    left = np.arange(len(lo))
    shift = sum(strides)
    for bits in strides:
        shift -= bits
        part = hi[left] >> np.uint64(shift - 64) if shift >= 64 else lo[left] >> np.uint64(shift)
        place = (part & np.uint64((1 << bits) - 1)).astype(np.int64)
        entry[left] = index[(entry[left] & (POINTER - 1)) + place]
        left = left[entry[left] >= POINTER]
        if not len(left):
            break
    return entry


def inside(prefixes: Prefixes, addresses: Addresses) -> Bools:
    """Which of the addresses lie in one of the prefixes."""
    v4 = (addresses >= key(bytes(4))) & (addresses <= key(b"\xff" * 4))
    found = np.zeros(len(addresses), np.bool_)
    for family, of_family in ((4, v4), (6, ~v4)):
        begin, end = (np.array([key(one) for one in side], ADDRESS) for side in prefixes.ranges[family])
        if len(begin):
            at = np.searchsorted(begin, addresses, "right") - 1
            found |= of_family & (at >= 0) & (addresses <= end[at])
    return found


def renumbered(hosts: Rows, demand: Rows, atoms: Atoms) -> tuple[Rows, Rows]:
    """Both under the network ids of other atoms."""
    hosts = hosts.copy()
    hosts["network"] = networks_of(atoms, hosts["address"])
    networks = networks_of(atoms, demand["address"])
    return hosts, with_demand(np.zeros(0, DEMAND), demand["address"], networks, demand["queries"])


def with_hosts(hosts: Rows, addresses: Addresses, networks: Networks, proven: Bools) -> Rows:
    """With each of these addresses as one that asked, as often as it is there."""
    found, first, which, counts = np.unique(addresses, return_index=True, return_inverse=True, return_counts=True)
    hosts, at = _with(hosts, found, networks[first])
    hosts["queries"][at] += counts
    hosts["rounds"][at] = np.minimum(hosts["rounds"][at], 254) + 1
    hosts["proven"][at] |= np.bincount(which.reshape(-1), proven, len(found)) > 0
    return hosts


def with_list(hosts: Rows, addresses: Addresses, networks: Networks) -> Rows:
    """With these addresses as the listed ones."""
    found, first = np.unique(addresses, return_index=True)
    hosts, at = _with(hosts, found, networks[first])
    hosts["listed"] = False
    hosts["listed"][at] = True
    return hosts


def _with(hosts: Rows, addresses: Addresses, networks: Networks) -> tuple[Rows, Ints]:
    """A copy with rows for all of these (ascending, distinct), and the place of each."""
    at = np.searchsorted(hosts["address"], addresses)
    known = np.append(hosts["address"], ADDRESS.type())[at] == addresses
    fresh = np.zeros(int((~known).sum()), HOST)
    fresh["address"], fresh["network"] = addresses[~known], networks[~known]
    return np.insert(hosts, at[~known], fresh), at + np.cumsum(~known) - ~known


def with_demand(demand: Rows, addresses: Addresses, networks: Networks, queries: NDArray[np.floating[Any]]) -> Rows:
    """With so many queries more from the network of each address. Unmapped space counts for nothing."""
    mapped = networks > 0
    fresh = np.zeros(int(mapped.sum()), DEMAND)
    fresh["address"], fresh["network"], fresh["queries"] = addresses[mapped], networks[mapped], queries[mapped]
    both = np.concatenate([demand, fresh])
    _, first, which = np.unique(both["network"], return_index=True, return_inverse=True)
    summed = both[first]
    summed["queries"] = np.bincount(which.reshape(-1), both["queries"], len(first))
    return summed


def decayed(rows: Rows, seconds: float) -> Rows:
    rows = rows.copy()
    rows["queries"] *= np.float32(0.5 ** (seconds / HALF_LIFE))
    return rows


def heard(hosts: Rows, replied: Addresses, lost: Addresses, now: float) -> Rows:
    """After probes of which these addresses answered some, or (`lost`, unless they answered others) none."""
    hosts = hosts.copy()
    silent, answers = _places(hosts, lost), _places(hosts, replied)
    hosts["silent"][silent[hosts["silent"][silent] == 0]] = now
    hosts["silent"][answers], hosts["heard"][answers] = 0.0, now
    return hosts


def _places(hosts: Rows, addresses: Addresses) -> Ints:
    """Where those of the addresses are that are there."""
    at = np.searchsorted(hosts["address"], addresses)
    return np.asarray(at[np.append(hosts["address"], ADDRESS.type())[at] == addresses])


def resting(hosts: Rows, now: float) -> Bools:
    """Those probed in vain for ten minutes (a day, where they once answered): left alone for a day, then tried again."""
    patience = np.where(hosts["heard"] > 0, TRY_OLD, TRY_NEW)
    silent = np.maximum(now - hosts["silent"], 0.0)  # the clock may have been set back
    return np.asarray((hosts["silent"] > 0) & (silent % (patience + REST) >= patience))


def chosen(hosts: Rows, demand: Rows, barred: Bools, each: int, now: float) -> Ints:
    """Places of the best `each` hosts of every network, the network that asks most first.

    Hosts that somebody may have made up are left out: who asks must have proven its address, or have asked in several rounds.
    """
    able = np.flatnonzero(_sure(hosts) & ~barred & (hosts["network"] > 0) & ~resting(hosts, now))
    order, rank = _ranked(hosts[able])
    best, place = able[order[rank < each]], rank[rank < each]
    network = hosts["network"][best]
    return best[np.lexsort((place, network, -_asked(demand, network)))]


def trimmed(hosts: Rows, demand: Rows, now: float) -> tuple[Rows, Rows]:
    """What memory is bounded by: the NETWORKS_MOST networks that ask most, and the KEPT best hosts of each.

    As many of those that rest, too: they would be learnt anew and tried again at once.
    """
    if len(demand) > NETWORKS_MOST:
        demand = demand[np.sort(np.argsort(-demand["queries"], kind="stable")[:NETWORKS_MOST])]
    keep, rests = np.zeros(len(hosts), np.bool_), resting(hosts, now)
    for part in (np.flatnonzero(rests), np.flatnonzero(~rests)):
        order, rank = _ranked(hosts[part])
        keep[part[order[rank < KEPT]]] = True
    networks = np.unique(hosts["network"][keep])
    if len(networks) > NETWORKS_MOST:
        networks = networks[np.argsort(-_asked(demand, networks), kind="stable")[:NETWORKS_MOST]]
    return hosts[keep & np.isin(hosts["network"], networks)], demand


def _asked(demand: Rows, networks: Networks) -> Floats:
    """How much is asked from each network."""
    at = np.searchsorted(demand["network"], networks)
    there = np.append(demand["network"], np.uint32(0))[at] == networks
    return np.where(there, np.append(demand["queries"], np.float32(0))[at], 0.0).astype(np.float64)


def _sure(hosts: Rows) -> Bools:
    return np.asarray(hosts["listed"] | hosts["proven"] | (hosts["rounds"] >= ROUNDS_LEAST))


def _ranked(hosts: Rows) -> tuple[Ints, Ints]:
    """The order of hosts by network and then worth, and the rank of each in its network.

    Who answers is better than who asks more, and who was chosen before stays unless another is twice as good.
    """
    worth = (1 + hosts["queries"]) * np.where(_sure(hosts), SURE, 1) * np.where(hosts["heard"] > 0, HEARD, 1)
    worth *= np.where(hosts["given"], GIVEN, 1)
    order = np.lexsort((-worth, hosts["network"]))
    begin = starts(hosts["network"][order].astype(np.int64))
    rank = np.arange(len(order)) - np.repeat(begin, np.diff(np.append(begin, len(order))))
    return order, rank
