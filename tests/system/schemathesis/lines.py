"""For schemathesis: newline-delimited JSON, a line for each value; and reports from pages that may, of many networks."""

from __future__ import annotations

import json
from itertools import count
from typing import Any

import schemathesis

NUMBERS = count(1)
ORIGIN = "https://www.example.net"


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: dict[str, Any]) -> None:
    """Each report comes from another /24, for one alone may not report often; and from our page, unless it is about that."""
    if case.path != "/v1/beacon":
        return
    case.headers["X-Forwarded-For"] = f"10.{next(NUMBERS) // 250 % 250}.{next(NUMBERS) % 250}.1"
    about = {place.value: made.mode for place, made in case.meta.components.items()} if case.meta else {}
    if "Origin" in case.headers and ("header" not in about or about["header"].is_positive):
        case.headers["Origin"] = ORIGIN


@schemathesis.serializer("application/x-ndjson")
def ndjson(context: Any, value: Any) -> bytes:
    """A list as its lines, anything else as one."""
    return b"\n".join(json.dumps(one).encode() for one in (value if isinstance(value, list) else [value]))
