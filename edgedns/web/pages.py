"""The page of the admin side: what is served, what moved, and why. Everything on it comes from what is published."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path
from typing import Any

from aiohttp import web
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from edgedns.errors import EdgednsError
from edgedns.web.history import History

HERE = Path(__file__).parent
MOVES_SHOWN = 40
NOTES_SHOWN = 6
DIGS_SHOWN = 3
COLOURS = 8
KINDS = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
# Nothing from elsewhere, nothing inline, nobody's frame.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Sources:
    """What the page is handed: /v1/status, /v1/explain by its parameters (EdgednsError when refused), answers by provider."""

    status: Callable[[], Awaitable[Json]]
    explain: Callable[[Mapping[str, str]], Awaitable[Json]]
    answers: Callable[[], Awaitable[Mapping[str, float]]]


class Pages:
    """The routes, and the history behind the plot."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._history = History()
        self._static = {path.name: path.read_text(encoding="utf-8") for path in (HERE / "static").iterdir()}
        self._templates = Environment(
            loader=FileSystemLoader(HERE / "templates"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
            lstrip_blocks=True,
        )  # fmt: skip
        self._templates.filters |= {"clock": clock, "span": span, "words": words, "signed": signed, "number": number}
        self._templates.filters["percent"] = percent

    def routes(self) -> Sequence[web.AbstractRouteDef]:
        return [
            web.get("/", self.index),
            web.get("/page/board", self.board),
            web.get("/page/explain", self.explain),
            web.get("/page/history.json", self.history),
            web.get("/static/{name}", self.static),
        ]

    async def look(self, now: float) -> None:
        """To be called every history.STEP seconds."""
        self._history.take(await self._sources.answers(), now)

    async def index(self, request: web.Request) -> web.Response:
        """The whole page; with a question in its URL also the answer, for links and for browsers without scripts."""
        asked = _asked(request)
        explained = await self._explained(asked) if asked else {"told": None, "wrong": "", "dig": ""}
        return self._page("index.html", await self._shown() | {"asked": asked} | explained)

    async def board(self, _: web.Request) -> web.Response:
        return self._page("board.html", await self._shown())

    async def explain(self, request: web.Request) -> web.Response:
        """The box under the form."""
        return self._page("explain.html", await self._explained(_asked(request)))

    async def _explained(self, asked: Mapping[str, str]) -> dict[str, Any]:
        """What is wrong with a question is said where its answer would be."""
        told, wrong = None, ""
        try:
            told = await self._sources.explain(asked)
        except EdgednsError as error:
            wrong = str(error)
        status = await self._sources.status()
        dig = _dig(status, told["name"], told["subnet"], told["type"]) if told else ""
        return {"told": told, "wrong": wrong, "colour": _colours(status), "dig": dig}

    async def history(self, _: web.Request) -> web.Response:
        status = await self._sources.status()
        return web.json_response({**self._history.columns(), "notes": status["notes"], "colours": _colours(status)})

    async def static(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        kind = KINDS.get(Path(name).suffix)
        if kind is None or name not in self._static:
            raise web.HTTPNotFound
        return web.Response(text=self._static[name], content_type=kind)

    async def _shown(self) -> dict[str, Any]:
        status = await self._sources.status()
        moves = [_with_dig(status, move) for move in reversed(status["moves"]) if not move["is_level"]]
        levels = sum(move["is_level"] for move in status["moves"])
        return {
            "status": status, "moves": moves[:MOVES_SHOWN], "levels": levels, "colour": _colours(status),
            "notes": status["notes"][-NOTES_SHOWN:][::-1], "queries": sum(status["queries"].values()),
            "rates": self._latest_rates(), "digs": _latest(moves, DIGS_SHOWN),
        }  # fmt: skip

    def _latest_rates(self) -> dict[str, float]:
        rates: dict[str, list[float | None]] = self._history.columns()["rates"]
        return {name: values[-1] or 0.0 for name, values in rates.items() if values}

    def _page(self, template: str, values: Mapping[str, Any]) -> web.Response:
        text = self._templates.get_template(template).render(values)
        headers = {"Content-Security-Policy": POLICY, "Referrer-Policy": "no-referrer"}
        return web.Response(text=text, content_type="text/html", headers=headers)


def _asked(request: web.Request) -> dict[str, str]:
    """The question in a URL; a field left empty is not asked."""
    return {key: value.strip() for key, value in request.query.items() if value.strip()}


def _colours(status: Json) -> dict[str, int]:
    """Each provider's place in the palette of app.css."""
    return {one["name"]: place % COLOURS for place, one in enumerate(status["providers"])}


def _with_dig(status: Json, move: Json) -> dict[str, Any]:
    """The move, with the line that shows it: its first rule's name, asked from the network's first address."""
    if not (move["address"] and move["name"]):
        return {**move, "dig": ""}
    subnet = str(ip_network(f"{move['address']}/{48 if ':' in move['address'] else 24}", strict=False))
    name = move["name"].replace("*", "any", 1)
    return {**move, "name": name, "dig": _dig(status, name, subnet, move["type"])}


def _latest(moves: Sequence[Json], most: int) -> list[Json]:
    """The moves with a line to paste, one for each network, the latest first."""
    by_network: dict[str, Json] = {}
    for move in moves:
        if move["dig"]:
            by_network.setdefault(move["network"], move)
    return list(by_network.values())[:most]


def _dig(status: Json, name: str, subnet: str | None, rtype: str) -> str:
    if not status["listen"]:
        return ""
    host, _, port = status["listen"][0].rpartition(":")
    option = f" +subnet={subnet}" if subnet else ""
    kind = "" if rtype == "A" else f" {rtype}"
    return f"dig @{host.strip('[]')} -p {port} {name.rstrip('.')}{kind}{option} +short"


def clock(at: float) -> str:
    """The time of day, UTC: the server's own zone says nothing to who reads the page elsewhere."""
    return time.strftime("%H:%M:%S", time.gmtime(at))


def span(seconds: float) -> str:
    """A length of time, roughly."""
    if seconds < 120:
        return f"{max(0, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 7200 else f"{round(seconds / 3600)} h"


def words(reason: str | None) -> str:
    return (reason or "").lower().replace("_", " ")


def signed(value: float | None) -> str:
    return "–" if value is None else f"{value:+.2f}".replace("-", "−")


def percent(value: float | None) -> str:
    return "–" if value is None else f"{value * 100:.0f} %"


def number(value: float | None, places: int) -> str:
    return "–" if value is None else f"{value:.{places}f}"
