"""A collector of one's own, an uplink that runs for a while, and the sum that holds for it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

from aiohttp import web

from edgedns.probe.uplink import Uplink

Reply = Callable[[web.Request, list[bytes]], web.Response]


def taken(request: web.Request, lines: list[bytes]) -> web.Response:
    return web.json_response({"accepted": len(lines), "rejected": []})


@contextlib.asynccontextmanager
async def collector(reply: Reply) -> AsyncIterator[tuple[str, list[bytes]]]:
    got: list[bytes] = []

    async def post(request: web.Request) -> web.Response:
        lines = (await request.read()).splitlines()
        response = reply(request, lines)
        if response.status == 200:
            got.extend(lines)
        return response

    app = web.Application()
    app.router.add_post("/v1/samples", post)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}", got
    finally:
        await runner.cleanup()


async def running(uplink: Uplink, until: Callable[[], bool]) -> None:
    task = asyncio.create_task(uplink.run())
    try:
        async with asyncio.timeout(5):
            while not until():
                await asyncio.sleep(0.01)
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def sums_hold(uplink: Uplink, found: int = 0) -> bool:
    """Every line is somewhere; `found` were in the spool at the start."""
    gone = uplink.accepted + uplink.rejected + uplink.dropped + uplink.expired
    return uplink.added + found == gone + uplink.backlog
