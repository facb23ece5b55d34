"""GET /v1/top: who asks most, for what, and what they are told. It names clients, so it needs the token."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from aiohttp import web

from edgedns.serve.guard import require_token
from edgedns.serve.requests import number, refuse_unknown

SECONDS, SECONDS_MOST = 10, 3600
LIMIT, LIMIT_MOST = 10, 1000

Top = Callable[[int, int], Awaitable[Mapping[str, object]]]


def routes(top: Top, token: str) -> list[web.RouteDef]:
    """The one route; `top` is given seconds and the most rows of each kind."""

    async def get(request: web.Request) -> web.Response:
        require_token(request, token)
        refuse_unknown(request.query, "seconds", "limit")
        seconds = number(request.query, "seconds", 1, SECONDS_MOST) or SECONDS
        limit = number(request.query, "limit", 1, LIMIT_MOST) or LIMIT
        return web.json_response(await top(seconds, limit))

    return [web.get("/v1/top", get)]
