"""POST /v1/wanted: what an agent is to probe now, waited for; POST and GET /v1/probes: a person's question to all vantages."""

from __future__ import annotations

import ipaddress
import math
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple

from aiohttp import web

from edgedns.model import METHODS, NAME
from edgedns.serve.guard import Refused, read_body, require_token
from edgedns.serve.requests import parse_json
from edgedns.serve.senders import require_speaks_for, sender_of

BODY_LIMIT = 64 << 10
WAIT_MOST = 25.0
RESULTS_MOST = 500
SOURCES_MOST = 512
ROUNDS_MOST = 20


class Result(NamedTuple):
    """Of one probe that a person asked for: ms, or None where it was lost; `why` where it wasn't sent."""

    id: str
    provider: str
    rtt_ms: float | None
    why: str


class Asking(NamedTuple):
    """An agent that asks what to probe: how many packets a second it has room for, (provider, family) of its sources, and

    for how many seconds it waits.
    """

    vantage: str
    room: float
    sources: tuple[tuple[str, int], ...]
    wait: float
    results: tuple[Result, ...]


class Asked(NamedTuple):
    """A person's question."""

    address: str
    method: str
    rounds: int
    name: str


class Calls(NamedTuple):
    """What the routes call; `look` is None for no such question."""

    wanted: Callable[[Asking], Awaitable[Mapping[str, Any]]]
    ask: Callable[[Asked], Awaitable[Mapping[str, Any]]]
    look: Callable[[str], Awaitable[Mapping[str, Any] | None]]


def routes(calls: Calls, token: str) -> list[web.RouteDef]:
    """The three routes; a vantage's own token suffices to ask for it what is wanted."""

    async def wanted(request: web.Request) -> web.Response:
        sender = sender_of(request, token, ("application/json",))
        asking = parse_asking(await _json(request))
        require_speaks_for(sender, asking.vantage)
        return web.json_response(await calls.wanted(asking))

    async def ask(request: web.Request) -> web.Response:
        require_token(request, token, ("application/json",))
        return web.json_response(await calls.ask(parse_asked(await _json(request))), status=201)

    async def look(request: web.Request) -> web.Response:
        number = request.match_info["id"]
        found = await calls.look(number)
        if found is None:
            raise Refused(404, f"there is no probe {number[:80]!r}")
        return web.json_response(found)

    return [web.post("/v1/wanted", wanted), web.post("/v1/probes", ask), web.get("/v1/probes/{id}", look)]


async def _json(request: web.Request) -> dict[str, Any]:
    content = parse_json(await read_body(request, BODY_LIMIT))
    if not isinstance(content, dict):
        raise Refused(400, "the body is not a JSON object")
    return content


def parse_asking(content: Mapping[str, Any]) -> Asking:
    """What an agent sent; keys that are not known here are left alone: it may be newer."""
    sources, results = content.get("sources", []), content.get("results", [])
    if not isinstance(sources, list) or len(sources) > SOURCES_MOST:
        raise Refused(400, f"'sources' must be a list of at most {SOURCES_MOST}")
    if not isinstance(results, list) or len(results) > RESULTS_MOST:
        raise Refused(400, f"'results' must be a list of at most {RESULTS_MOST}")
    wait = min(_number(content, "wait", 0.0), WAIT_MOST)
    room = _number(content, "room", 0.0)
    return Asking(_name(content, "vantage"), room, tuple(map(_source, sources)), wait, tuple(map(_result, results)))


def _source(one: Any) -> tuple[str, int]:
    if not isinstance(one, dict) or type(one.get("family")) is not int or one["family"] not in (4, 6):
        raise Refused(400, "a source is an object with 'provider', and 'family' 4 or 6")
    return _name(one, "provider"), one["family"]


def _result(one: Any) -> Result:
    if not isinstance(one, dict):
        raise Refused(400, "a result is an object")
    why = one.get("why", "")
    if not isinstance(why, str):
        raise Refused(400, "'why' must be text")
    rtt = None if one.get("rtt_ms") is None else _number(one, "rtt_ms", 0.0)
    plain = "".join(character if character.isprintable() else "?" for character in why[:200])
    return Result(_name(one, "id"), _name(one, "provider"), rtt, plain)


def parse_asked(content: Mapping[str, Any]) -> Asked:
    """What a person asks; Refused names what is wrong."""
    for key in content:
        if key not in Asked._fields:
            raise Refused(400, f"unknown key {key[:60]!r}; known are {', '.join(Asked._fields)}")
    try:
        address = content.get("address")
        if not isinstance(address, str) or "%" in address:
            raise ValueError
        ip = ipaddress.ip_address(address)
    except ValueError:
        raise Refused(400, f"'address': {str(content.get('address'))[:80]!r} is not an IP address") from None
    method, rounds, name = content.get("method", "icmp"), content.get("rounds", 3), content.get("name", "")
    if method not in METHODS:
        raise Refused(400, f"'method' must be one of {', '.join(METHODS)}")
    if type(rounds) is not int or not 1 <= rounds <= ROUNDS_MOST:
        raise Refused(400, f"'rounds' must be a number from 1 to {ROUNDS_MOST}")
    if not isinstance(name, str) or len(name) > 1004:
        raise Refused(400, "'name' must be a name that is steered here")
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return Asked(str(mapped or ip), method, rounds, name)


def _name(content: Mapping[str, Any], key: str) -> str:
    value = content.get(key)
    if not isinstance(value, str) or not NAME.fullmatch(value):
        raise Refused(400, f"{key!r} is not a name of letters, digits, dots and hyphens")
    return value


def _number(content: Mapping[str, Any], key: str, default: float) -> float:
    value = content.get(key, default)
    if type(value) not in (int, float) or not math.isfinite(value) or not 0 <= value <= 1e9:
        raise Refused(400, f"{key!r} must be a number from 0 to 1e9")
    return float(value)
