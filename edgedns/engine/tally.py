"""Where an answer is counted: offsets inside the counter blocks that a base file refers to (their shapes: edgedns.metrics).

Two kinds of block partition the replies (law 7): `requests` (by zone, transport, family and type) and `responses` (by zone
and rcode) each count every reply once; `answers` (by zone, rule, provider and reason) counts every steered one once.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgedns import metrics
from edgedns.dns import types
from edgedns.engine.seen import Ring

TYPE_PLACE = {types.type_number(name): place for place, name in enumerate(metrics.REQUEST_TYPES[:-1])}
OTHER = len(metrics.REQUEST_TYPES) - 1
V6 = len(metrics.REQUEST_TYPES)
TCP = 2 * V6
REQUESTS = len(metrics.SHAPES["requests"].cells)
RESPONSES = len(metrics.SHAPES["responses"].cells)
ANSWERS = len(metrics.SHAPES["answers"].cells)
NO_PROVIDER = "none"
WRAP = 0xFFFFFFFF


@dataclass(slots=True)
class Tally:
    """One worker's own: u64 counter cells; u32 query counts by network id, and the ring of samples (None: not kept)."""

    cells: memoryview
    networks: memoryview | None = None
    ring: Ring | None = None


def request_cell(transport: str, client: bytes, qtype: int) -> int:
    """The place of one request inside its zone's `requests` block."""
    return (TCP if transport == "tcp" else 0) + (V6 if len(client) == 16 else 0) + TYPE_PLACE.get(qtype, OTHER)
