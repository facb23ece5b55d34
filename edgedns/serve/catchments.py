"""GET /v1/catchments: which replies land at another PoP than the one whose probe they answer."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping

from aiohttp import web

from edgedns.serve.guard import Refused

LIMIT, LIMIT_MOST = 100, 10_000

Told = Callable[[int], Awaitable[Mapping[str, object]]]


def routes(told: Told) -> list[web.RouteDef]:
    """The one route; `told` is given the most rows."""

    async def get(request: web.Request) -> web.Response:
        for name in request.query:
            if name != "limit":
                raise Refused(400, f"unknown parameter {name[:60]!r}; known is limit")
        text = request.query.get("limit", str(LIMIT))
        if not re.fullmatch(r"[0-9]{1,5}", text) or not 1 <= int(text) <= LIMIT_MOST:
            raise Refused(400, f"'limit' must be a number from 1 to {LIMIT_MOST}")
        return web.json_response(await told(int(text)))

    return [web.get("/v1/catchments", get)]
