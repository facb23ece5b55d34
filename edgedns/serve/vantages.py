"""GET /v1/vantages: who measures, and how far each is trusted; POST /v1/vantages/NAME: leave one out, or let it back in."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple

from aiohttp import web

from edgedns.serve.guard import Refused, read_body, require_token
from edgedns.serve.requests import parse_json

BODY_LIMIT = 64 << 10
TEXT_LIMIT = 200

Json = Mapping[str, object]


class Order(NamedTuple):
    """What somebody orders of a vantage: quarantine or its end; `reason` may be empty where it ends."""

    name: str
    quarantine: bool
    owner: str
    reason: str


def routes(told: Callable[[], Awaitable[Json]], order: Callable[[Order], Awaitable[Json]], token: str) -> list[web.RouteDef]:
    """Both routes; an EdgednsError that `order` raises becomes 400."""

    async def get(_: web.Request) -> web.Response:
        return web.json_response(await told())

    async def post(request: web.Request) -> web.Response:
        require_token(request, token, ("application/json",))
        wanted = parse_order(request.match_info["name"], await read_body(request, BODY_LIMIT))
        return web.json_response(await order(wanted))

    return [web.get("/v1/vantages", get), web.post("/v1/vantages/{name}", post)]


def parse_order(name: str, body: bytes) -> Order:
    """`{"quarantine": true, "owner": "noc", "reason": "..."}`; Refused names what is wrong."""
    content = parse_json(body)
    if not isinstance(content, dict) or type(content.get("quarantine")) is not bool:
        raise Refused(400, "'quarantine' must be true or false")
    for key in content:
        if key not in ("quarantine", "owner", "reason"):
            raise Refused(400, f"unknown key {key[:60]!r}; known are quarantine, owner, reason")
    reason = _text(content, "reason", content["quarantine"])
    return Order(name, content["quarantine"], _text(content, "owner", True), reason)


def _text(content: Mapping[str, object], key: str, needed: bool) -> str:
    value = content.get(key, "")
    if not isinstance(value, str) or len(value) > TEXT_LIMIT or not value.isprintable() or (needed and not value):
        raise Refused(400, f"{key!r} must be one line of at most {TEXT_LIMIT} characters")
    return value
