"""What faces web pages elsewhere: the script, the tiny object, reports in. CORS (Fetch standard) for pages of ours."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from edgedns.config import Address
from edgedns.serve.guard import Refused, errors_as_json, read_body
from edgedns.serve.webside import open_socket, set_headers

WEB = Path(__file__).parents[1] / "web"
SCRIPT = WEB / "beacon.js"
OPENAPI = WEB / "openapi-beacon.json"
REPORT_LIMIT = 4096
BODY_SECONDS = 5.0
SCRIPT_SECONDS = 3600
ANYBODY = {"Access-Control-Allow-Origin": "*", "Timing-Allow-Origin": "*"}
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class Terms:
    """What pages are told: `objects` by provider, the `share` of page views (0 to 1]; who may report: `origins`.

    `proxies` are those whose X-Forwarded-For is believed.
    """

    objects: Mapping[str, str]
    share: float
    origins: frozenset[str]
    proxies: tuple[Network, ...] = ()

    def script(self) -> str:
        """The script for pages, with its constants."""
        text = SCRIPT.read_text(encoding="utf-8")
        return text.replace('"{objects}"', json.dumps(dict(self.objects))).replace('"{share}"', json.dumps(self.share))


class Beacon:
    """The routes. `take` is given a body and the client's packed address; a Refused that it raises is the reply."""

    def __init__(self, terms: Terms, take: Callable[[bytes, bytes], None]) -> None:
        self._terms = terms
        self._take = take
        self._script = terms.script()

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/beacon.js", self.script),
            web.get("/1x1", self.tiny),
            web.options("/v1/beacon", self.preflight),
            web.post("/v1/beacon", self.report),
            web.get("/healthz", self.healthz),
            web.get("/v1/openapi.json", self.openapi),
        ]

    async def script(self, _: web.Request) -> web.Response:
        headers = {"Cache-Control": f"public, max-age={SCRIPT_SECONDS}", "Cross-Origin-Resource-Policy": "cross-origin"}
        return web.Response(text=self._script, content_type="text/javascript", headers=headers)

    async def tiny(self, _: web.Request) -> web.Response:
        """The least there is: what a provider's own server answers, for tests and first steps."""
        return web.Response(status=204, headers=ANYBODY)

    async def preflight(self, request: web.Request) -> web.Response:
        headers = {"Access-Control-Allow-Methods": "POST", "Access-Control-Allow-Headers": "content-type"}
        return web.Response(status=204, headers={**self._allowed(request), **headers, "Access-Control-Max-Age": "86400"})

    async def report(self, request: web.Request) -> web.Response:
        headers = self._allowed(request)
        if request.content_type != "application/json":
            raise Refused(415, "send it with Content-Type: application/json", headers)
        try:
            async with asyncio.timeout(BODY_SECONDS):
                body = await read_body(request, REPORT_LIMIT)
            self._take(body, self._client(request))
        except TimeoutError:
            raise Refused(408, f"the body did not come within {BODY_SECONDS:.0f} s", headers) from None
        except Refused as refused:
            raise Refused(refused.status, str(refused), {**refused.headers, **headers}) from None
        return web.Response(status=204, headers=headers)

    async def healthz(self, _: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def openapi(self, _: web.Request) -> web.Response:
        return web.Response(text=OPENAPI.read_text(encoding="utf-8"), content_type="application/json")

    def _allowed(self, request: web.Request) -> dict[str, str]:
        """The headers for a page of ours; Refused 403 for others."""
        origin = request.headers.get("Origin", "")
        if origin not in self._terms.origins:
            raise Refused(403, f"pages of {origin[:80]!r} are not to report here", {"Vary": "Origin"})
        return {"Access-Control-Allow-Origin": origin, "Vary": "Origin"}

    def _client(self, request: web.Request) -> bytes:
        """The connection's address, or the last one that proxies of ours have written down and that is none of them."""
        found = _address(request.remote or "")
        hops = [hop.strip() for value in request.headers.getall("X-Forwarded-For", []) for hop in value.split(",")]
        while hops and any(found in proxy for proxy in self._terms.proxies if proxy.version == found.version):
            found = _address(hops.pop())
        return found.packed


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    try:
        found = ipaddress.ip_address(text if "%" not in text else "")
    except ValueError:
        raise Refused(400, f"{text[:80]!r} in X-Forwarded-For is not an IP address") from None
    return (found.ipv4_mapped or found) if isinstance(found, ipaddress.IPv6Address) else found


def make_app(terms: Terms, take: Callable[[bytes, bytes], None]) -> web.Application:
    """The application that faces pages."""
    app = web.Application(middlewares=[errors_as_json], client_max_size=REPORT_LIMIT)
    app.add_routes(Beacon(terms, take).routes())
    app.on_response_prepare.append(set_headers)
    return app


def listen(address: Address) -> socket.socket:
    """Open the socket; Refused in one sentence when that can't be."""
    return open_socket(address, waiting=512)


def networks(texts: Sequence[str]) -> tuple[Network, ...]:
    """Prefixes in text; ValueError where one is none."""
    return tuple(ipaddress.ip_network(text) for text in texts)
