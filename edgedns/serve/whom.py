"""GET /v1/targets: whom an agent is to probe, as a targets file of JSON lines; 304 where it has that already."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from hashlib import blake2b

from aiohttp import web

from edgedns.model import NAME
from edgedns.serve.guard import Refused
from edgedns.serve.requests import number, refuse_unknown
from edgedns.serve.senders import require_speaks_for, sender_of

NETWORKS = 1000
NETWORKS_MOST = 100_000

Give = Callable[[str, int], Awaitable[bytes]]


def routes(give: Give, token: str) -> list[web.RouteDef]:
    """The one route; `give` is asked for the targets of a vantage, those of so many networks at most."""

    async def get(request: web.Request) -> web.Response:
        sender = sender_of(request, token)
        vantage, networks = parse_query(request.query)
        require_speaks_for(sender, vantage)
        body = await give(vantage, networks)
        tag = blake2b(body, digest_size=12).hexdigest()
        headers = {"ETag": f'"{tag}"', "Cache-Control": "no-cache"}
        known = request.if_none_match or ()
        if any(one.value in (tag, "*") for one in known):
            return web.Response(status=304, headers=headers)
        return web.Response(body=body, content_type="application/x-ndjson", headers=headers)

    return [web.get("/v1/targets", get)]


def parse_query(query: Mapping[str, str]) -> tuple[str, int]:
    """(vantage, networks) of a URL's parameters; Refused names the one that is wrong."""
    refuse_unknown(query, "vantage", "networks")
    vantage = query.get("vantage", "")
    if not NAME.fullmatch(vantage):
        raise Refused(400, "'vantage' must be a name of letters, digits, dots and hyphens")
    return vantage, number(query, "networks", 1, NETWORKS_MOST) or NETWORKS
