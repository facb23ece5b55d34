"""What an operator orders over HTTP, as JSON -> Override, or one clear sentence; and back."""

from __future__ import annotations

import contextlib
import difflib
import ipaddress
import math
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from edgedns.errors import EdgednsError
from edgedns.model import Match, Override, Prefix

FIELDS = ("kind", "provider", "owner", "reason", "until", "name", "match")
MATCH_FIELDS = ("asn", "prefix", "country", "continent", "network")
CONTINENTS = ("AF", "AN", "AS", "EU", "NA", "OC", "SA")
TEXT_LIMIT = 500
LIST_LIMIT = 1000


class OrderError(EdgednsError):
    """The order can't be understood; the text names the field."""


def parse_override(body: object) -> Override:
    """An Override whose `id` and `created` are still to be given. OrderError names what is wrong."""
    if not isinstance(body, dict):
        raise OrderError("the body must be a JSON object")
    _refuse_unknown(body, FIELDS, "")
    kind = body.get("kind")
    if kind not in ("pin", "drain"):
        raise OrderError("'kind' must be 'pin' or 'drain'")
    name = _text(body, "name", kind == "pin")
    if kind == "drain" and (name or body.get("match") is not None):
        raise OrderError("a drain takes its provider out everywhere: it has neither 'name' nor 'match'")
    return Override(
        id="",
        kind=kind,
        provider=_text(body, "provider"),
        owner=_text(body, "owner"),
        reason=_text(body, "reason"),
        until=_time(body.get("until")),
        name=name,
        match=_match(body["match"]) if body.get("match") is not None else None,
    )


def _refuse_unknown(body: Mapping[str, object], known: tuple[str, ...], within: str) -> None:
    for key in body:
        if key not in known:
            near = difflib.get_close_matches(key, known, 1)
            hint = f", did you mean '{near[0]}'?" if near else f"; known are {', '.join(known)}"
            raise OrderError(f"unknown field '{within}{key[:60]}'{hint}")


def _text(body: Mapping[str, object], key: str, required: bool = True) -> str:
    value = body.get(key)
    if value is None and not required:
        return ""
    if not isinstance(value, str) or not value.strip():
        raise OrderError(f"'{key}' is missing" if value is None else f"'{key}' must be text that is not empty")
    if len(value) > TEXT_LIMIT or not value.isprintable():
        raise OrderError(f"'{key}' must be one line of at most {TEXT_LIMIT} characters")
    return value.strip()


def _time(value: object) -> float | None:
    """Unix seconds, or an ISO 8601 date or time (UTC where it doesn't say); None for no end."""
    if value is None:
        return None
    seconds = 0.0
    with contextlib.suppress(ValueError, OverflowError):
        if isinstance(value, int | float) and not isinstance(value, bool):
            seconds = float(value)
        elif isinstance(value, str):
            read = datetime.fromisoformat(value)
            seconds = (read if read.tzinfo else read.replace(tzinfo=UTC)).timestamp()
    if math.isfinite(seconds) and seconds > 0:
        return seconds
    raise OrderError("'until' must be Unix seconds, or a date or time such as 2036-12-05 or 2036-12-05T18:00Z")


def _match(value: object) -> Match:
    if not isinstance(value, dict):
        raise OrderError(f"'match' must be an object of {', '.join(MATCH_FIELDS)}")
    _refuse_unknown(value, MATCH_FIELDS, "match.")
    if not value:
        raise OrderError("'match' is empty; leave it out to match everyone")
    return Match(
        asns=frozenset(_each(value, "asn", _asn)),
        prefixes=tuple(_each(value, "prefix", _prefix)),
        countries=frozenset(_each(value, "country", _country)),
        continents=frozenset(_each(value, "continent", _continent)),
        networks=tuple(_each(value, "network", _network)),
    )


def _each(match: Mapping[str, object], key: str, read: Callable[[object], Any]) -> list[Any]:
    """The values of a key, which may be one or a list of them."""
    if key not in match:
        return []
    given = match[key]
    values = given if isinstance(given, list) else [given]
    if not 0 < len(values) <= LIST_LIMIT:
        raise OrderError(f"'match.{key}' must hold 1 to {LIST_LIMIT} values")
    return [read(value) for value in values]


def _asn(value: object) -> int:
    digits = str(value).upper().removeprefix("AS") if isinstance(value, int | str) else ""
    if isinstance(value, bool) or not re.fullmatch(r"[0-9]{1,10}", digits) or not 0 < int(digits) < 1 << 32:
        raise OrderError(f"'match.asn': {_shown(value)} is not an AS number")
    return int(digits)


def _prefix(value: object) -> Prefix:
    try:
        network = ipaddress.ip_network(value if isinstance(value, str) else "")
    except ValueError:
        raise OrderError(f"'match.prefix': {_shown(value)} is not a prefix, such as 198.51.100.0/24") from None
    return Prefix(network.version, network.network_address.packed, network.prefixlen)


def _country(value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[A-Z]{2}", value):
        raise OrderError(f"'match.country': {_shown(value)} is not a country code of two capitals")
    return value


def _continent(value: object) -> str:
    if value not in CONTINENTS:
        raise OrderError(f"'match.continent': {_shown(value)} is none of {', '.join(CONTINENTS)}")
    return str(value)


def _network(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise OrderError(f"'match.network': {_shown(value)} is not a network's name")
    return value


def _shown(value: object) -> str:
    return repr(value)[:80]


def override_json(override: Override) -> dict[str, object]:
    """As /v1/overrides shows it; what POST takes is a part of this."""
    shown: dict[str, object] = {
        "id": override.id,
        "kind": override.kind,
        "provider": override.provider,
        "owner": override.owner,
        "reason": override.reason,
        "until": override.until,
        "created": override.created,
    }
    if override.name:
        shown["name"] = override.name
    if override.match:
        shown["match"] = _match_json(override.match)
    return shown


def _match_json(match: Match) -> dict[str, list[int] | list[str]]:
    shown: dict[str, list[int] | list[str]] = {
        "asn": sorted(match.asns),
        "prefix": [f"{ipaddress.ip_address(prefix.address)}/{prefix.length}" for prefix in match.prefixes],
        "country": sorted(match.countries),
        "continent": sorted(match.continents),
        "network": list(match.networks),
    }
    return {key: values for key, values in shown.items() if values}
