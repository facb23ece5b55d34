"""Measured loads over HTTP, as JSON -> Load, or one clear sentence."""

from __future__ import annotations

import math

from edgedns.errors import EdgednsError
from edgedns.steer.caps.loads import Load

FIELDS = ("provider", "gbps", "at")
MOST = 1000
OLDEST = 300.0
AHEAD = 5.0
GBPS_LIMIT = 1e6


class BadLoad(EdgednsError):
    """A measured load can't be understood; the text says which and why."""


def parse_loads(body: object, now: float) -> list[Load]:
    """`{"provider": "alder", "gbps": 120.5}` or a list of such; `at` (Unix seconds, within 5 minutes) is now if not given."""
    loads = body if isinstance(body, list) else [body]
    if not 0 < len(loads) <= MOST:
        raise BadLoad(f"give 1 to {MOST} loads")
    return [_load(one, f"load {number}: " if len(loads) > 1 else "", now) for number, one in enumerate(loads, 1)]


def _load(one: object, where: str, now: float) -> Load:
    if not isinstance(one, dict):
        raise BadLoad(f"{where}a load is an object with 'provider' and 'gbps'")
    unknown = [key for key in one if key not in FIELDS]
    if unknown:
        raise BadLoad(f"{where}unknown field {str(unknown[0])[:60]!r}; known are {', '.join(FIELDS)}")
    provider = one.get("provider")
    if not isinstance(provider, str) or not provider:
        raise BadLoad(f"{where}'provider' is missing")
    gbps = _number(one.get("gbps"))
    if gbps is None or not 0.0 <= gbps <= GBPS_LIMIT:
        raise BadLoad(f"{where}'gbps' must be a number from 0 to {GBPS_LIMIT:.0f}")
    at = now if one.get("at") is None else _number(one["at"])
    if at is None or not now - OLDEST <= at <= now + AHEAD:
        raise BadLoad(f"{where}'at' must be Unix seconds, at most {OLDEST:.0f} s ago")
    return Load(provider, gbps * 1e9, at)


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None
