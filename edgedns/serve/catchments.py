"""GET /v1/catchments: which replies land at another PoP than the one whose probe they answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from aiohttp import web

from edgedns.serve.requests import number, refuse_unknown

LIMIT, LIMIT_MOST = 100, 10_000

Told = Callable[[int], Awaitable[Mapping[str, object]]]


def routes(told: Told) -> list[web.RouteDef]:
    """The one route; `told` is given the most rows."""

    async def get(request: web.Request) -> web.Response:
        refuse_unknown(request.query, "limit")
        return web.json_response(await told(number(request.query, "limit", 1, LIMIT_MOST) or LIMIT))

    return [web.get("/v1/catchments", get)]
