"""What requests carry: parameters and JSON bodies, read or refused in one sentence."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from edgedns.serve.guard import Refused


def refuse_unknown(query: Mapping[str, str], *known: str) -> None:
    """Refused 400 for a parameter that there is not: a misspelt one must not be passed over."""
    for key in query:
        if key not in known:
            are = "is" if len(known) == 1 else "are"
            raise Refused(400, f"unknown parameter {key[:60]!r}; known {are} {', '.join(known)}")


def number(query: Mapping[str, str], key: str, least: int, most: int, prefix: str = "") -> int | None:
    """A whole number among the parameters, None where it isn't given; `prefix` may stand before it, in either case."""
    text = query.get(key)
    if text is None:
        return None
    digits = text.upper().removeprefix(prefix)
    if not re.fullmatch(rf"[0-9]{{1,{len(str(most))}}}", digits) or not least <= int(digits) <= most:
        raise Refused(400, f"'{key}' must be a number from {least} to {most}")
    return int(digits)


def parse_json(body: bytes) -> object:
    """What a body holds, of whatever kind."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Refused(400, f"the body is not JSON: {str(error)[:200]}") from None
