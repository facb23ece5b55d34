"""The page with stand-ins for what it is handed: what it shows, what it never does."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, web

import edgedns.web.pages as pages_module
from edgedns.errors import EdgednsError
from edgedns.web.history import History
from edgedns.web.pages import Pages, Sources, signed, span

HOSTILE = "<script>alert(1)</script>\" onload='x'"
MOVE = {
    "at": 1764000000.0, "network": "AS64500/NO/198.51.0.0/16", "asn": 64500, "as_name": HOSTILE, "address": "198.51.100.0",
    "is_level": False, "rules": ["www/everyone-else A", "img/everyone-else A"], "name": "*.cdn.example.net.", "type": "A",
    "before": "alder", "after": "birch", "reason": "FAILED_OVER",
}  # fmt: skip
STATUS: dict[str, Any] = {
    "now": 1764000010.0, "serial": 7, "serials": [7], "published": 1764000000.0, "fresh_until": 1764000600.0,
    "sampled_at": 1764000009.0, "zones": {"cdn.example.net": 1}, "names": ["www.cdn.example.net."], "failed_zones": [],
    "providers": [
        {"name": "alder", "addresses": ["192.0.2.10"], "state": "up", "down4": True, "down6": False, "checks": []},
        {"name": "birch", "addresses": ["198.51.100.10"], "state": "drain", "down4": False, "down6": False, "checks": []},
    ],
    "queries": {"udp": 1000, "tcp": 234}, "samples": {"accepted": 5}, "rows": 3, "moves": [], "notes": [], "overrides": 0,
    "listen": ["127.0.0.1:5300"],
}  # fmt: skip
TOLD = {
    "serial": 7, "name": "www.cdn.example.net.", "type": "A", "client": "198.51.100.9", "subnet": "198.51.100.0/24",
    "zone": "cdn.example.net", "rcode": "NOERROR", "answer": ["192.0.2.10"], "scope": 16, "ttl": 30, "steered": True,
    "rule": "everyone-else", "kind": "wan", "reason": "MEASURED", "provider": "alder", "prefix": "198.51.0.0/16", "unit": None,
    "network": {"text": "AS64500/NO", "asn": 64500, "country": "NO", "as_name": HOSTILE},
    "candidates": [
        {"provider": "alder", "state": "up", "health": "up", "lost_because": "", "wan": 0.4, "w50": 1.0, "low": 0.1,
         "high": 0.6, "score": 0.3, "rtt_ms": 12.34, "samples": 4.2, "age": 8.0, "level": "network",
         "users": {"rtt_ms": 43.21, "connections": 120.4, "age": 2.0}},
        {"provider": "birch", "state": "up", "health": "down", "lost_because": "its probes of this network are lost"},
    ],
}  # fmt: skip


class Behind:
    """What the page is handed; `asked` keeps explain's questions."""

    def __init__(self, **changes: Any) -> None:
        self.given = {**STATUS, **changes}
        self.asked: list[Mapping[str, str]] = []
        self.totals = {"alder": 0.0, "birch": 0.0}

    async def status(self) -> Mapping[str, Any]:
        return self.given

    async def explain(self, query: Mapping[str, str]) -> Mapping[str, Any]:
        self.asked.append(query)
        if query["from"] == "nowhere":
            raise EdgednsError(f"'from': {HOSTILE} is not an IP address")
        return TOLD

    async def answers(self) -> Mapping[str, float]:
        return self.totals


def fetched(behind: Behind, *paths: str, looks: int = 0) -> list[tuple[int, str, dict[str, str]]]:
    """The replies to GETs of these paths, in order."""

    async def run() -> list[tuple[int, str, dict[str, str]]]:
        pages = Pages(Sources(behind.status, behind.explain, behind.answers))
        for number in range(looks):
            behind.totals = {"alder": 40.0 * number, "birch": 0.0}
            await pages.look(1000.0 + 4.0 * number)
        app = web.Application()
        app.add_routes(pages.routes())
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        replies = []
        async with ClientSession() as http:
            for path in paths:
                async with http.get(f"http://{host}:{port}{path}") as reply:
                    replies.append((reply.status, await reply.text(), dict(reply.headers)))
        await runner.cleanup()
        return replies

    return asyncio.run(run())


class Tags(HTMLParser):
    """All tags with their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_the_page_tells_how_many_paths_land_elsewhere_where_any_do() -> None:
    (_, some, _), (_, none, _) = (fetched(Behind(elsewhere=count), "/")[0] for count in (1234, 0))
    assert "<b>1,234</b> paths land at another PoP" in some
    assert "another PoP" not in none


def test_the_page_shows_what_is_published() -> None:
    note = {"at": 1764000000.0, "kind": "cut", "text": "cable cut"}
    [(status, text, headers)] = fetched(Behind(moves=[MOVE], notes=[note]), "/")
    assert status == 200
    for wanted in ("serial <b>7</b>", "1,234", "alder", "192.0.2.10", "silent on IPv4", "drain", "cable cut", MOVE["network"]):
        assert str(wanted) in text
    assert "dig @127.0.0.1 -p 5300 any.cdn.example.net +subnet=198.51.100.0/24 +short" in text
    assert "www/everyone-else A +1" in text
    assert headers["Content-Type"].startswith("text/html")


def test_vantages_are_shown_and_why_one_is_left_out() -> None:
    well = {"name": "fra1", "last_seen": 1764000009.0, "samples": 9, "samples_per_second": 12.5, "loss": 0.02,
            "shared_networks": 40, "clock_offset": -0.25, "agreement": 0.97, "quarantined": None}  # fmt: skip
    out = {"since": 1763999890.0, "why": "it sees 38 of 40 networks otherwise", "by": None}
    bad = {**well, "name": "lhr1", "clock_offset": None, "agreement": None, "loss": None, "quarantined": out}
    [(_, text, _)] = fetched(Behind(vantages=[well, bad]), "/")
    for wanted in ("fra1", "12.5", "2 %", "−0.25 s", "97 %", "in quarantine for 2 min: it sees 38 of 40 networks otherwise"):
        assert wanted in text
    [(_, text, _)] = fetched(Behind(), "/")
    assert "Vantages" not in text


def test_nothing_from_outside_gets_in() -> None:
    """The policy forbids it, and the page has no inline script or style that would need it relaxed."""
    [(_, text, headers), (_, board, _)] = fetched(Behind(moves=[MOVE]), "/", "/page/board")
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    for tag, attributes in Tags(text).found + Tags(board).found:
        assert not [key for key in attributes if key.startswith("on") or key == "style"], (tag, attributes)
        assert tag != "style"
        assert tag != "script" or (attributes.get("src") or "").startswith("/static/")
        for key in ("src", "href", "action", "hx-get"):
            assert (attributes.get(key) or "/").startswith("/"), (tag, attributes)


def test_text_from_elsewhere_stays_text() -> None:
    paths = ("/?name=x&from=%22%3E%3Cscript%3E", "/page/explain?name=x&from=1", "/page/explain?name=x&from=nowhere")
    for status, text, _ in fetched(Behind(moves=[MOVE], notes=[{"at": 1.0, "kind": "x", "text": HOSTILE}]), *paths):
        assert status == 200
        assert "<script>" not in text
        assert "alert(1)" in text


def test_explain_is_asked_what_the_form_says_and_shows_every_candidate() -> None:
    behind = Behind()
    [(status, text, _)] = fetched(behind, "/page/explain?name=www.cdn.example.net&type=A&from=198.51.100.9&subnet=")
    assert status == 200
    assert behind.asked == [{"name": "www.cdn.example.net", "type": "A", "from": "198.51.100.9"}]
    for wanted in ("everyone-else", "+0.40", "+0.10 … +0.60", "12.3", "its probes of this network are lost", "/16", "measured"):
        assert wanted in text
    assert "dig @127.0.0.1 -p 5300 www.cdn.example.net +subnet=198.51.100.0/24 +short" in text
    plain = " ".join(re.sub(r"<[^>]*>", "", text).split())
    assert "alder 43.2 ms in 120 connections" in plain


def test_a_question_in_the_url_is_answered_without_scripts() -> None:
    [(_, text, _), (_, wrong, _)] = fetched(Behind(), "/?name=www.cdn.example.net&from=198.51.100.9", "/?name=x&from=nowhere")
    assert "its probes of this network are lost" in text
    assert 'value="198.51.100.9"' in text
    assert "is not an IP address" in wrong


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"sampled_at": None, "fresh_until": 0.0}, "nothing measured yet"),
        ({"fresh_until": 1764000001.0}, "measurements are old"),
        ({"failed_zones": ["cdn.example.net"]}, "cdn.example.net has errors"),
        ({"overrides": 2}, "<b>2</b> orders in force"),
        ({"published": None, "names": [], "listen": [], "providers": []}, "Explain an answer"),
    ],
)
def test_what_is_out_of_order_is_said(changes: dict[str, Any], wanted: str) -> None:
    [(status, text, _)] = fetched(Behind(**changes), "/")
    assert status == 200
    assert wanted in text


def test_static_files_are_those_that_ship() -> None:
    names = [path.name for path in (Path(pages_module.__file__).parent / "static").iterdir()]
    replies = fetched(Behind(), *(f"/static/{name}" for name in names), "/static/pages.py", "/static/..%2Fpages.py")
    assert [status for status, _, _ in replies] == [200] * len(names) + [404, 404]
    [(_, text, _)] = fetched(Behind(), "/")
    assert set(re.findall(r'"/static/([^"]+)"', text)) == set(names)


def test_the_plot_gets_rates_notes_and_colours() -> None:
    [(_, text, _)] = fetched(Behind(notes=[{"at": 1.0, "kind": "cut", "text": "x"}]), "/page/history.json", looks=3)
    history = json.loads(text)
    assert history["at"] == [1004.0, 1008.0]
    assert history["rates"] == {"alder": [10.0, 10.0], "birch": [0.0, 0.0]}
    assert history["colours"] == {"alder": 0, "birch": 1}
    assert len(history["notes"]) == 1


def test_history_survives_restarts_and_new_providers() -> None:
    history = History(kept=3)
    assert history.columns() == {"at": [], "rates": {}}
    for now, totals in ((0.0, {"a": 100.0}), (2.0, {"a": 110.0}), (4.0, {"a": 6.0, "b": 4.0}), (6.0, {"a": 6.0, "b": 8.0})):
        history.take(totals, now)
    assert history.columns() == {"at": [2.0, 4.0, 6.0], "rates": {"a": [5.0, 3.0, 0.0], "b": [None, 2.0, 2.0]}}
    history.take({"a": 6.0, "b": 8.0}, 8.0)
    assert history.columns()["at"] == [4.0, 6.0, 8.0]


@pytest.mark.parametrize(("call", "text"), [
    (lambda: span(0.4), "0 s"), (lambda: span(119.0), "119 s"), (lambda: span(600.0), "10 min"), (lambda: span(9000.0), "2 h"),
    (lambda: signed(-0.126), "−0.13"), (lambda: signed(None), "–"),
])  # fmt: skip
def test_figures_read_well(call: Callable[[], str], text: str) -> None:
    assert call() == text
