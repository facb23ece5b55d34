"""The native twin of the fast path, where it was built: a View's sections as the C code wants them.

The published sections go as they are. What lies in a base's JSON is laid out flat beside them: apexes, zones, policies, rules.
"""

from __future__ import annotations

import zlib
from array import array
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from edgedns import __version__
from edgedns.dns.name import label_count
from edgedns.engine import limit
from edgedns.engine.answer import Secrets
from edgedns.engine.snapshot import NODE, Base, Snapshot, View
from edgedns.engine.tally import OTHER, TCP, TYPE_PLACE, V6, Tally

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from edgedns.engine._fastpath import Limiter, Native

FORM = 9  # of the sections and signatures that this module and the C code agree on
try:
    from edgedns.engine import _fastpath
except ImportError:  # there was no compiler: plain Python answers
    AVAILABLE = False
else:
    AVAILABLE = getattr(_fastpath, "FORM", 0) == FORM  # else it was built from older sources
LOOPS = AVAILABLE and hasattr(_fastpath, "serve")  # only Linux has recvmmsg

ATOMS = ("index4", "index6", "network")
BASE = ("hash", "node", "outcome", "tail", "pointer", "cut", "blob", "cells", "record", "slot")
OVERLAY = ("column", "ranking_of", "ranking", "split")
TEXT_MAX = 255
# (who asked something; what is Python's: descriptor, events, octets unread and unsent, how many replies those end)
Streamed = tuple[list[int], list[tuple[int, int, bytes, bytes, int]]]
ADDRESS = 16


def reply(
    snapshot: Snapshot, packet: bytes, client: bytes, transport: str, now: float, secrets: Secrets, tally: Tally
) -> bytes | None:
    """As fastpath.reply."""
    return native_of(snapshot.at(now), secrets, tally).reply(packet, client, transport, now)


def native_of(view: View, secrets: Secrets, tally: Tally) -> Native:
    """What answers for a View; made once as long as secrets and counters stay the same."""
    known = view.native
    if known is None or known[0] is not secrets or known[1] is not tally:
        known = view.native = (secrets, tally, _fastpath.Native(sections(view, secrets, tally)))
    made: Native = known[2]
    return made


def sections(view: View, secrets: Secrets, tally: Tally) -> dict[str, Buffer]:
    """Everything that an answer is made of and counted in, by the names that _fastpath.c knows."""
    base = view.base
    if base.flat is None:
        base.flat = _flat(base)
    atoms = view.atoms
    found: dict[str, Buffer] = {name: atoms[name] for name in ATOMS}
    found |= {name: getattr(base, name) for name in BASE}
    found |= {name: getattr(view, name) for name in OVERLAY}
    found |= base.flat
    first, policies = 0, array("I")
    for row, rules in zip(view.rows, base.policies, strict=True):
        policies.extend((first, len(rules), row))
        first += len(rules)
    found["policy"] = policies
    found["number"] = array("Q", _numbers(view))
    found["nsid"] = view.nsid
    found["node_text"] = view.node.encode()[:TEXT_MAX]
    found["version_text"] = f"edgedns {__version__}".encode()[:TEXT_MAX]
    found["cookies"] = b"".join(secrets.cookies)
    found["counters"] = tally.cells
    found["networks"] = tally.networks if tally.networks is not None else b""
    found["ring"], found["dice"] = (tally.ring.octets, tally.ring.dice) if tally.ring is not None else (b"", b"")
    return found


def _numbers(view: View) -> tuple[int, ...]:
    base = view.base
    elsewhere = base.elsewhere
    counts = (OTHER, V6, TCP, elsewhere.requests, elsewhere.responses)
    deepest = max(base.zones, key=lambda zone: label_count(zone.apex), default=None)
    apexes = (base.apex_depth, base.salt & 0xFFFFFFFFFFFFFFFF, deepest.number if deepest else 0)
    return (len(base.providers), view.public_atoms, *counts, *apexes)


def _flat(base: Base) -> dict[str, Buffer]:
    """What a base holds as JSON, in rows of u32."""
    zones, rules = array("I"), array("I")
    for zone in base.zones:
        apex_at = base.node[base.node_index(zone.number, zone.apex) * NODE]
        zones.extend((apex_at, len(zone.apex), zone.requests, zone.responses, zone.depth))
    for policy in base.policies:
        for rule in policy:
            rules.extend((*rule.columns, *rule.answers))
    places = bytearray([OTHER]) * (max(TYPE_PLACE) + 1)
    for rtype, place in TYPE_PLACE.items():
        places[rtype] = place
    made: dict[str, Buffer] = {"zone": zones, "rule": rules, "apex_hash": _apex_hash(base), "type_place": bytes(places)}
    made["secondary"] = _rows(base.secondaries)
    return made


def _apex_hash(base: Base) -> array[int]:
    """Open addressing by CRC-32 of the apex: 1 + zone, 0 for none; at most half full."""
    size = 1 << max(4, (2 * len(base.zones)).bit_length())
    table = array("I", bytes(4 * size))
    for zone in base.zones:
        at = zlib.crc32(zone.apex) & (size - 1)
        while table[at]:
            at = at + 1 & (size - 1)
        table[at] = zone.number + 1
    return table


def serve(
    descriptor: int,
    wildcard: bool,
    look: Callable[[], tuple[Native | None, float] | None],
    respond: Callable[[bytes, bytes], bytes | None],
    limiter: Limiter | None,
    bell: array[int],
) -> None:
    """_fastpath.serve: answer a UDP socket without the GIL until it is shut down, or `look` says that it is to leave."""
    _fastpath.serve(descriptor, wildcard, look, respond, limiter, bell)


def streams(
    epoll: int, patience: float, clients: bytearray, native: Native, now: float, bell: array[int], rung: int
) -> Streamed:
    """_fastpath.streams: one round of TCP connections; `patience` in seconds."""
    return _fastpath.streams(epoll, round(patience * 1000), clients, native, now, bell, rung)


def limiter_of(terms: limit.Terms, state: limit.State) -> Limiter:
    """The native form of limit.limit for these terms, counting in the same state."""
    exempt = _rows((network.network_address.packed, network.prefixlen) for network in terms.exempt)
    return _fastpath.Limiter(terms.rate, terms.surplus, terms.slip, terms.dry_run, state.due, state.over, exempt)


def _rows(prefixes: Iterable[tuple[bytes, int]]) -> bytes:
    """Prefixes, as (packed address, length), in rows of 18 octets: family, length, address."""
    return b"".join(
        bytes((4 if len(address) == 4 else 6, length)) + address.ljust(ADDRESS, b"\0") for address, length in prefixes
    )
