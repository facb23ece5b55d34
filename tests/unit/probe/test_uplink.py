"""Handing samples over: batches, a token, a collector that is away, and sums that hold."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from aiohttp import web

from edgedns.probe import uplink as module
from edgedns.probe.uplink import Uplink
from tests.unit.probe.uplinked import collector, running, sums_hold, taken


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BATCH_EVERY", 0.02)
    monkeypatch.setattr(module, "PAUSE_MOST", 0.05)


def test_lines_arrive_in_order_with_the_token() -> None:
    async def main() -> None:
        seen: list[str | None] = []

        def reply(request: web.Request, lines: list[bytes]) -> web.Response:
            seen.append(request.headers.get("Authorization"))
            return taken(request, lines)

        async with collector(reply) as (url, got):
            uplink = Uplink(url + "/", "s3cret", print)
            sent = [b"%d" % n for n in range(12_000)]
            for line in sent:
                uplink.add(line)
            await running(uplink, lambda: uplink.accepted == 12_000)
        assert got == sent
        assert seen == ["Bearer s3cret"] * 3
        assert sums_hold(uplink)

    asyncio.run(main())


def test_a_collector_that_was_away_gets_all_that_was_kept() -> None:
    async def main() -> None:
        said: list[str] = []
        away = [500, 503, 429, 401]

        def reply(request: web.Request, lines: list[bytes]) -> web.Response:
            return web.Response(status=away.pop()) if away else taken(request, lines)

        async with collector(reply) as (url, got):
            uplink = Uplink(url, "", said.append)
            for n in range(100):
                uplink.add(b"%d" % n)
            await running(uplink, lambda: uplink.accepted == 100)
        assert got == [b"%d" % n for n in range(100)]
        assert [text.split(",")[0] for text in said] == [f"collector at {url}/v1/samples takes no samples", "collector is back"]

    asyncio.run(main())


def test_the_backlog_is_bounded_and_loses_the_oldest() -> None:
    async def main() -> None:
        said: list[str] = []
        uplink = Uplink("http://127.0.0.1:9", "", said.append, limit=10)
        for n in range(15):
            uplink.add(b"%d" % n)
        await running(uplink, lambda: bool(said))
        assert (uplink.dropped, uplink.backlog) == (5, 10)
        assert sums_hold(uplink)
        async with collector(taken) as (url, got):
            uplink.url = url + "/v1/samples"
            await uplink.finish(2)
        assert got == [b"%d" % n for n in range(5, 15)]

    asyncio.run(main())


def test_rejections_are_counted_and_the_first_is_said() -> None:
    async def main() -> None:
        said: list[str] = []

        def reply(request: web.Request, lines: list[bytes]) -> web.Response:
            error = {"line": 1, "error": "unknown provider 'dune'\x1b[2J"}
            return web.json_response({"accepted": 1, "rejected": [error], "rejected_more": 1})

        async with collector(reply) as (url, _):
            uplink = Uplink(url, "", said.append)
            for n in range(3):
                uplink.add(b"%d" % n)
            await running(uplink, lambda: uplink.rejected == 2)
        assert sums_hold(uplink)
        assert "rejected 2 of 3 samples, the first: \"unknown provider 'dune'\\x1b[2J\"" in said[0]

    asyncio.run(main())


@pytest.mark.parametrize("text", [b"", b"[]", b"{}", b'{"rejected": 5}', b'{"rejected": [5]}', b"\xff", b"x" * 200_000])
def test_a_strange_reply_is_harmless(text: bytes) -> None:
    async def main() -> None:
        async with collector(lambda request, lines: web.Response(body=text)) as (url, _):
            uplink = Uplink(url, "", print)
            uplink.add(b"1")
            await running(uplink, lambda: uplink.accepted == 1)

    asyncio.run(main())


def test_a_batch_too_large_is_halved() -> None:
    async def main() -> None:
        def reply(request: web.Request, lines: list[bytes]) -> web.Response:
            return taken(request, lines) if len(lines) <= 10 and b"huge" not in lines else web.Response(status=413)

        async with collector(reply) as (url, got):
            uplink = Uplink(url, "", print)
            for line in [b"%d" % n for n in range(30)] + [b"huge"]:
                uplink.add(line)
            await running(uplink, lambda: uplink.backlog == 0 and sums_hold(uplink))
        assert len(got) == 30
        assert uplink.rejected == 1

    asyncio.run(main())


def test_the_last_try_is_bounded_in_time() -> None:
    async def main() -> None:
        async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(asyncio.CancelledError):
                await reader.read(-1)
            writer.close()

        server = await asyncio.start_server(never, "127.0.0.1", 0)
        uplink = Uplink(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", "", print)
        uplink.add(b"1")
        start = asyncio.get_running_loop().time()
        await uplink.finish(0.2)
        assert asyncio.get_running_loop().time() - start < 1
        assert uplink.backlog == 1
        server.close()

    asyncio.run(main())
