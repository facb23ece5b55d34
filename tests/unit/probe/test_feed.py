"""Targets from a collector: fetched, kept while it is away, let go after an hour; what it must not ask for is left out."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from aiohttp import web

from edgedns.probe import feed
from edgedns.probe.feed import Feed, read

LINES = b'{"address": "8.8.8.8", "method": "icmp"}\n{"address": "2a00::8"}\n'


class Collector:
    """Answers with `status`, `body` and `tag`, and keeps the headers and parameters that came."""

    def __init__(self) -> None:
        self.status, self.body, self.tag = 200, LINES, '"one"'
        self.seen: list[tuple[str | None, dict[str, str]]] = []

    async def get(self, request: web.Request) -> web.Response:
        self.seen.append((request.headers.get("If-None-Match"), dict(request.query)))
        if request.headers.get("Authorization") != "Bearer sesame":
            return web.Response(status=401, text="no")
        if request.headers.get("If-None-Match") == self.tag:
            return web.Response(status=304)
        return web.Response(status=self.status, body=self.body, headers={"ETag": self.tag, "Location": "/elsewhere"})


@contextlib.asynccontextmanager
async def served(collector: Collector) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_get("/v1/targets", collector.get)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


class Case:
    """A feed that runs, what it handed over and what it said."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.said: list[str] = []

    async def take(self, body: bytes) -> None:
        self.bodies.append(body)

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not holds():
                await asyncio.sleep(0.01)


def run(
    monkeypatch: pytest.MonkeyPatch, act: Callable[[Case, Collector], Awaitable[None]], token: str = "sesame"
) -> tuple[Case, Collector]:
    monkeypatch.setattr(feed, "FETCH_EVERY", 0.05)
    monkeypatch.setattr(feed, "SOON", 0.02)
    case, collector = Case(), Collector()

    async def main() -> None:
        async with served(collector) as url:
            running = asyncio.create_task(Feed(url + "/", token, "fra1", 70, case.take, case.said.append).run())
            await act(case, collector)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    asyncio.run(main())
    return case, collector


def test_a_body_is_handed_over_once_and_asked_for_by_its_tag(monkeypatch: pytest.MonkeyPatch) -> None:
    async def act(case: Case, collector: Collector) -> None:
        await case.until(lambda: len(collector.seen) >= 4)
        assert case.bodies == [LINES]
        collector.body, collector.tag = b"", '"two"'
        await case.until(lambda: len(case.bodies) == 2)

    case, collector = run(monkeypatch, act)
    assert collector.seen[0] == (None, {"vantage": "fra1", "networks": "70"})
    assert collector.seen[1][0] == '"one"'
    assert (case.bodies, case.said) == ([LINES, b""], [])


@pytest.mark.parametrize("status", [302, 500, 503])
def test_a_collector_that_is_away_takes_nothing_away(monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    async def act(case: Case, collector: Collector) -> None:
        await case.until(lambda: bool(case.bodies))
        collector.status, collector.tag = status, '"none"'
        await case.until(lambda: bool(case.said))
        seen = len(collector.seen)
        await case.until(lambda: len(collector.seen) > seen + 2)
        collector.status = 200
        await case.until(lambda: len(case.bodies) == 2)

    case, _ = run(monkeypatch, act)
    assert len(case.said) == 2
    assert f"gives no targets: it answers {status}" in case.said[0]
    assert case.said[1] == "collector is back and gives targets"


def test_a_wrong_token_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    async def act(case: Case, collector: Collector) -> None:
        await case.until(lambda: len(collector.seen) > 2)

    case, _ = run(monkeypatch, act, token="wrong")
    assert len(case.said) == 1
    assert "it answers 401: 'no'" in case.said[0]


def test_what_nobody_confirms_for_an_hour_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "CONFIRMED_FOR", 0.3)

    async def act(case: Case, collector: Collector) -> None:
        await case.until(lambda: bool(case.bodies))
        collector.status, collector.tag = 500, '"none"'
        await case.until(lambda: len(case.bodies) == 2)
        collector.status, collector.tag = 200, '"one"'
        await case.until(lambda: len(case.bodies) == 3)

    case, _ = run(monkeypatch, act)
    assert case.bodies == [LINES, b"", LINES]
    assert "they are let go" in case.said[1]


def test_a_body_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "BODY_LIMIT", 50)

    async def act(case: Case, collector: Collector) -> None:
        await case.until(lambda: bool(case.said))

    case, _ = run(monkeypatch, act)
    assert case.bodies == []
    assert "MiB of targets" in case.said[0]


def test_what_a_collector_must_not_ask_for_is_left_out() -> None:
    bad = [
        {"address": "10.0.0.1"}, {"address": "8.8.8.8", "endpoint": "127.0.0.1:53"}, {"address": "203.0.113.7"},
        {"address": "8.8.8.8", "method": "rm"}, {"address": "fe80::1"}, {"asn": 64500}, [], "x", None, {"address": "x" * 9000},
    ]  # fmt: skip
    body = LINES + b"\n".join(json.dumps(one).encode() for one in bad) + b"\n{\n\xff\n" + b"[" * 5000 + b"\n\n"
    given = read(body, "dns")
    assert [(one.address, one.method) for one in given.targets] == [("8.8.8.8", "icmp"), ("2a00::8", "dns")]
    assert given.left_out == len(bad) + 3
    assert read(b"", "udp") == ((), 0)
