"""What a collector wants of an agent, as it comes: hostile until read. Pure."""

from __future__ import annotations

import json
import math
from ipaddress import ip_address
from typing import Any, NamedTuple

from edgedns.errors import EdgednsError

ENTRIES_MOST = 500
CROWD_MOST = 10_000
WHOM_MOST = 8
PROBES_MOST = 8
GAP_LEAST, GAP_MOST = 0.1, 10.0


class Wish(NamedTuple):
    """Probes of the first of `whom` (as `Target.whom`) that the agent knows, `gap` seconds apart. `id`: a person's question."""

    whom: tuple[str, ...]
    provider: str
    probes: int
    gap: float
    id: str = ""
    method: str = ""


class Wishes(NamedTuple):
    """A reply: what can be read of it, and how many entries can't. `together`: as `Agent.share` takes it, 0 where not told."""

    entries: tuple[Wish, ...]
    unread: int
    together: int


class NotWishes(EdgednsError):
    """A reply that isn't one at all."""


def parse(text: bytes) -> Wishes:
    """A reply to POST /v1/wanted. Keys that are not known here are left alone; what is past ENTRIES_MOST is not read."""
    try:
        reply = json.loads(text)
    except (ValueError, RecursionError):
        raise NotWishes("its reply is not JSON") from None
    if not isinstance(reply, dict) or not isinstance(reply.get("wanted"), list):
        raise NotWishes("its reply has no list 'wanted'")
    read = [_wish(entry) for entry in reply["wanted"][:ENTRIES_MOST]]
    good = tuple(wish for wish in read if wish is not None)
    together = reply.get("together")
    unread = len(reply["wanted"]) - len(good)
    return Wishes(good, unread, together if type(together) is int and 0 < together <= CROWD_MOST else 0)


def _wish(entry: Any) -> Wish | None:
    if not isinstance(entry, dict):
        return None
    whom, provider = _whom(entry), entry.get("provider")
    probes, gap = entry.get("probes", 1), entry.get("gap", 1.0)
    number, method = entry.get("id", ""), entry.get("method", "")
    texts = all(isinstance(text, str) and len(text) <= 64 for text in (provider, number, method))
    if not whom or not texts or not provider or type(probes) is not int or type(gap) not in (int, float):
        return None
    if not 1 <= probes <= PROBES_MOST or not math.isfinite(gap):
        return None
    return Wish(whom, provider, probes, min(max(float(gap), GAP_LEAST), GAP_MOST), number, method)


def _whom(entry: dict[str, Any]) -> tuple[str, ...]:
    addresses, asn, family = entry.get("addresses"), entry.get("asn"), entry.get("family", 4)
    if type(asn) is int and 0 < asn < 2**32 and family in (4, 6):
        return (f"AS{asn}/{family}",)
    if not isinstance(addresses, list):
        return ()
    return tuple(text for address in addresses[:WHOM_MOST] if (text := _canonical(address)))


def _canonical(address: Any) -> str:
    try:
        return str(ip_address(address)) if isinstance(address, str) and "%" not in address else ""
    except ValueError:
        return ""
