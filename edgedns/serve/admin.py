"""The admin side: metrics, health, explain, samples in, overrides. What it shows and does is handed over by control."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import logging
import re
import socket
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

from aiohttp import web
from prometheus_client import CollectorRegistry, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from edgedns.config import Address
from edgedns.metrics import Family
from edgedns.model import Override
from edgedns.serve.guard import Refused, errors_as_json, guard, read_body, require_token
from edgedns.serve.inflow import Inflow
from edgedns.serve.orders import override_json, parse_override
from edgedns.serve.requests import number, parse_json, refuse_unknown
from edgedns.serve.senders import TOKENS, Sender, VantageTokens, sender_of
from edgedns.serve.webside import open_socket, set_headers

Json = Mapping[str, object]

SAMPLES_LIMIT = 16 << 20
ORDER_LIMIT = 64 << 10
NOTE_LIMIT = 300
BODY_SECONDS = 30.0
WAN_ROWS = 10_000
OPENAPI = Path(__file__).parents[1] / "web" / "openapi.json"
# aiohttp tells of each request that it can't read, with a traceback: strangers could fill the log. What fails in here is
# told by guard.errors_as_json.
UNTOLD = logging.getLogger("edgedns.untold")
UNTOLD.addHandler(logging.NullHandler())
UNTOLD.propagate = False
NDJSON = ("application/x-ndjson", "application/ndjson", "application/jsonl", "application/json")


class Question(NamedTuple):
    """What explain is asked: the client by address or by ASN, or both; `subnet` as a query would carry it."""

    name: str
    type: str
    client: str | None
    subnet: str | None
    asn: int | None


@dataclass(frozen=True, slots=True)
class Services:
    """What control hands over. An EdgednsError raised by one becomes 400, a guard.Refused its own status.

    `serial`: lowest snapshot serial that workers serve, 0 for none. `samples`: one NDJSON body and who sent it -> the reply.
    `wan`: (asn or None, most rows). `uplift`: most networks a rule. `add_override` completes `id` and `created`;
    `remove_override` is False for no such id. `add_note`: (kind, text) -> the note. `reload`: what changed, what did not.
    """

    serial: Callable[[], int]
    families: Callable[[], Iterable[Family]]
    explain: Callable[[Question], Awaitable[Json]]
    samples: Callable[[bytes, Sender], Awaitable[Json]]
    wan: Callable[[int | None, int], Awaitable[Json]]
    uplift: Callable[[int], Awaitable[Json]]
    overrides: Callable[[], Awaitable[Sequence[Override]]]
    add_override: Callable[[Override], Awaitable[Override]]
    remove_override: Callable[[str], Awaitable[bool]]
    status: Callable[[], Awaitable[Json]]
    add_note: Callable[[str, str], Awaitable[Json]]
    load: Callable[[object], Awaitable[Json]]
    reload: Callable[[], Awaitable[Json]]


class Admin:
    """The routes. Public for control through `make_app` only."""

    def __init__(self, services: Services, token: str, inflow: Inflow) -> None:
        self._services = services
        self._token = token
        self._inflow = inflow
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/metrics", self.metrics),
            web.get("/healthz", self.healthz),
            web.get("/readyz", self.readyz),
            web.get("/v1/explain", self.explain),
            web.post("/v1/samples", self.samples),
            web.get("/v1/wan", self.wan),
            web.get("/v1/uplift", self.uplift),
            web.get("/v1/overrides", self.overrides),
            web.post("/v1/overrides", self.add_override),
            web.delete("/v1/overrides/{id}", self.remove_override),
            web.get("/v1/status", self.status),
            web.post("/v1/notes", self.add_note),
            web.post("/v1/load", self.load),
            web.post("/v1/reload", self.reload),
            web.get("/v1/openapi.json", self.openapi),
        ]

    def collect(self) -> Iterable[Metric]:
        """prometheus-client's custom collector."""
        for family in self._services.families():
            metric = Metric(family.name, family.help, family.type)
            name = f"{family.name}_total" if family.type == "counter" else family.name
            for labels, value in family.samples:
                metric.add_sample(name, dict(zip(family.labels, labels, strict=True)), value)
            yield metric

    async def metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=generate_latest(self._registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def healthz(self, _: web.Request) -> web.Response:
        return _reply({"status": "ok"})

    async def readyz(self, _: web.Request) -> web.Response:
        serial = self._services.serial()
        if not serial:
            raise Refused(503, "no snapshot is being served yet")
        return _reply({"status": "ready", "serial": serial})

    async def explain(self, request: web.Request) -> web.Response:
        return _reply(await self._services.explain(parse_question(request.query)))

    async def samples(self, request: web.Request) -> web.Response:
        sender = sender_of(request, self._token, NDJSON)
        self._inflow.enter(time.monotonic())
        body = b""
        try:
            async with asyncio.timeout(BODY_SECONDS):
                body = await read_body(request, SAMPLES_LIMIT)
        except TimeoutError:
            raise Refused(408, f"the body did not come within {BODY_SECONDS:.0f} s") from None
        finally:
            self._inflow.leave(len(body))
        with self._inflow.taking():
            return _reply(await self._services.samples(body, sender))

    async def wan(self, request: web.Request) -> web.Response:
        refuse_unknown(request.query, "asn", "limit")
        limit = number(request.query, "limit", 1, WAN_ROWS)
        asn = number(request.query, "asn", 0, 2**32 - 1, "AS")
        return _reply(await self._services.wan(asn, limit if limit is not None else 100))

    async def uplift(self, request: web.Request) -> web.Response:
        refuse_unknown(request.query, "limit")
        limit = number(request.query, "limit", 1, WAN_ROWS)
        return _reply(await self._services.uplift(limit if limit is not None else 100))

    async def overrides(self, _: web.Request) -> web.Response:
        return _reply({"overrides": [override_json(one) for one in await self._services.overrides()]})

    async def add_override(self, request: web.Request) -> web.Response:
        require_token(request, self._token, ("application/json",))
        order = parse_override(parse_json(await read_body(request, ORDER_LIMIT)))
        return _reply(override_json(await self._services.add_override(order)), status=201)

    async def remove_override(self, request: web.Request) -> web.Response:
        require_token(request, self._token)
        name = request.match_info["id"]
        if not await self._services.remove_override(name):
            raise Refused(404, f"there is no override {name[:80]!r}")
        return _reply({"removed": name})

    async def status(self, _: web.Request) -> web.Response:
        return _reply(await self._services.status())

    async def add_note(self, request: web.Request) -> web.Response:
        require_token(request, self._token, ("application/json",))
        note = parse_json(await read_body(request, ORDER_LIMIT))
        kind, text = (note.get("kind", "note"), note.get("text")) if isinstance(note, dict) else (None, None)
        if not isinstance(kind, str) or not re.fullmatch(r"[a-z]{1,20}", kind):
            raise Refused(400, "'kind' must be one word of lower-case letters")
        if not isinstance(text, str) or not 0 < len(text) <= NOTE_LIMIT or not text.isprintable():
            raise Refused(400, f"'text' must be one line of at most {NOTE_LIMIT} characters")
        return _reply(await self._services.add_note(kind, text), status=201)

    async def load(self, request: web.Request) -> web.Response:
        require_token(request, self._token, ("application/json",))
        return _reply(await self._services.load(parse_json(await read_body(request, ORDER_LIMIT))))

    async def reload(self, request: web.Request) -> web.Response:
        require_token(request, self._token)
        return _reply(await self._services.reload())

    async def openapi(self, _: web.Request) -> web.Response:
        return web.Response(text=OPENAPI.read_text(encoding="utf-8"), content_type="application/json")


def make_app(
    services: Services,
    token: str = "",
    routes: Sequence[web.AbstractRouteDef] = (),
    inflow: Inflow | None = None,
    tokens: VantageTokens | None = None,
) -> web.Application:
    """The application; `routes` are further ones (the pages). An empty token lets loopback write without one."""
    app = web.Application(middlewares=[errors_as_json, guard(token)], client_max_size=SAMPLES_LIMIT)
    app.add_routes(Admin(services, token, inflow or Inflow()).routes())
    app.add_routes(routes)
    app[TOKENS] = tokens or VantageTokens()
    app.on_response_prepare.append(set_headers)
    return app


def listen(address: Address, token: str) -> socket.socket:
    """Open the admin side's socket; Refused in one sentence when that can't be."""
    if not token and not address.is_loopback:
        raise Refused(503, f"the admin side can't listen on {address} without a token; use 127.0.0.1 or --token-file")
    return open_socket(address, "--admin")


async def start(app: web.Application, sock: socket.socket) -> tuple[web.AppRunner, Address]:
    """Answer on a socket; give back the runner (`await runner.cleanup()` ends it) and where that is."""
    runner = web.AppRunner(app, access_log=None, logger=UNTOLD, shutdown_timeout=1.0)
    await runner.setup()
    await web.SockSite(runner, sock).start()
    return runner, Address(*sock.getsockname()[:2])


def _reply(content: object, status: int = 200) -> web.Response:
    return web.json_response(content, status=status, dumps=_dumps)


_dumps = partial(json.dumps, allow_nan=False)  # NaN is not JSON


def parse_question(query: Mapping[str, str]) -> Question:
    """What explain is asked by a URL's parameters; Refused names the one that is wrong."""
    refuse_unknown(query, "name", "type", "from", "subnet", "asn")
    name, client, subnet = query.get("name", ""), query.get("from"), query.get("subnet")
    asn = number(query, "asn", 0, 2**32 - 1, "AS")
    if not name:
        raise Refused(400, "'name' is missing: which name is to be explained?")
    if client is None and asn is None:
        raise Refused(400, "give 'from' (an address) or 'asn'")
    kind = query.get("type", "A").upper()
    if not re.fullmatch(r"[A-Z0-9]{1,20}", kind):
        raise Refused(400, "'type' is not a record type, such as A or AAAA")
    return Question(name, kind, client and _address(client), subnet and _subnet(subnet), asn)




def _address(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text if "%" not in text else ""))
    except ValueError:
        raise Refused(400, f"'from': {text[:80]!r} is not an IP address") from None


def _subnet(text: str) -> str:
    try:
        return str(ipaddress.ip_network(text, strict=False))
    except ValueError:
        raise Refused(400, f"'subnet': {text[:80]!r} is not a prefix, such as 198.51.100.0/24") from None
