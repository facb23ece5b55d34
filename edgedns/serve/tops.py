"""GET /v1/top: who asks most, for what, and what they are told. It names clients, so it needs the token."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping

from aiohttp import web

from edgedns.serve.guard import Refused, require_token

SECONDS, SECONDS_MOST = 10, 3600
LIMIT, LIMIT_MOST = 10, 1000

Top = Callable[[int, int], Awaitable[Mapping[str, object]]]


def routes(top: Top, token: str) -> list[web.RouteDef]:
    """The one route; `top` is given seconds and the most rows of each kind."""

    async def get(request: web.Request) -> web.Response:
        require_token(request, token)
        for name in request.query:
            if name not in ("seconds", "limit"):
                raise Refused(400, f"unknown parameter {name[:60]!r}; known are seconds, limit")
        seconds, limit = _number(request, "seconds", SECONDS, SECONDS_MOST), _number(request, "limit", LIMIT, LIMIT_MOST)
        return web.json_response(await top(seconds, limit))

    return [web.get("/v1/top", get)]


def _number(request: web.Request, name: str, usual: int, most: int) -> int:
    text = request.query.get(name, str(usual))
    if not re.fullmatch(r"[0-9]{1,5}", text) or not 1 <= int(text) <= most:
        raise Refused(400, f"'{name}' must be a number from 1 to {most}")
    return int(text)
