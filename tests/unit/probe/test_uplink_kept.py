"""An uplink with a spool: what is kept while the collector is away, over a kill -9, and sent when it is back."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from aiohttp import web

from edgedns.probe import uplink as module
from edgedns.probe.spool import Spool
from edgedns.probe.uplink import SENT, Uplink
from tests.unit.probe.uplinked import collector, running, sums_hold, taken

NOW = 1_764_000_000.0
NOWHERE = "http://127.0.0.1:9"
BIG = 1 << 20


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in (("BATCH_EVERY", 0.02), ("PAUSE_MOST", 0.05), ("KEPT_EVERY", 0.02)):
        monkeypatch.setattr(module, name, seconds)


def line(number: int, at: float = NOW) -> bytes:
    return b'{"at":%.3f,"n":%d}' % (at, number)


def test_what_was_kept_follows_what_is_fresh(tmp_path: Path) -> None:
    async def main() -> None:
        said: list[str] = []
        uplink = Uplink(NOWHERE, "", said.append, spool=Spool(tmp_path, BIG), clock=lambda: NOW)
        for number in range(50):
            uplink.add(line(number))
        await running(uplink, lambda: bool(said) and not uplink._backlog and not uplink._again)
        assert (uplink.backlog, len(list(tmp_path.glob("0*.ndjson")))) == (50, 1)
        async with collector(taken) as (url, got):
            uplink.url = url + "/v1/samples"
            uplink._away = False
            for number in range(50, 60):
                uplink.add(line(number))
            await running(uplink, lambda: uplink.accepted == 60)
        assert got == [line(number) for number in (*range(50, 60), *range(50))]
        assert sums_hold(uplink)
        assert uplink.backlog == 0

    asyncio.run(main())


def test_a_collector_that_is_back_is_asked_with_what_it_may_have_had(tmp_path: Path) -> None:
    """A batch whose reply is lost comes again octet by octet, so that it can be known."""

    async def main() -> None:
        bodies: list[bytes] = []

        def reply(request: web.Request, lines: list[bytes]) -> web.Response:
            bodies.append(b"\n".join(lines))
            return web.Response(status=500) if len(bodies) == 1 else taken(request, lines)

        async with collector(reply) as (url, _):
            uplink = Uplink(url, "", print, spool=Spool(tmp_path, BIG), clock=lambda: NOW)
            for number in range(20):
                uplink.add(line(number))
            await running(uplink, lambda: bool(bodies))
            for number in range(20, 30):
                uplink.add(line(number))
            await running(uplink, lambda: uplink.accepted == 30)
        assert bodies[1] == bodies[0]

    asyncio.run(main())


def test_without_a_spool_the_same_batch_is_sent_again_too() -> None:
    async def main() -> None:
        bodies: list[bytes] = []

        def reply(request: web.Request, lines: list[bytes]) -> web.Response:
            bodies.append(b"\n".join(lines))
            return web.Response(status=500) if len(bodies) == 1 else taken(request, lines)

        async with collector(reply) as (url, _):
            uplink = Uplink(url, "", print)
            uplink.add(line(1))
            await running(uplink, lambda: bool(bodies))
            uplink.add(line(2))
            await running(uplink, lambda: uplink.accepted == 2)
        assert bodies == [line(1), line(1), line(2)]

    asyncio.run(main())


def test_old_samples_are_dropped_and_counted(tmp_path: Path) -> None:
    async def main() -> None:
        spool = Spool(tmp_path, BIG)
        spool.add([line(1, NOW - 700), line(2, NOW - 10)])
        async with collector(taken) as (url, got):
            uplink = Uplink(url, "", print, spool=spool, clock=lambda: NOW)
            await running(uplink, lambda: uplink.accepted == 1)
        assert got == [line(2, NOW - 10)]
        assert uplink.expired == 1
        assert sums_hold(uplink, found=2)

    asyncio.run(main())


def test_retry_after_is_obeyed() -> None:
    async def main() -> None:
        times: list[float] = []

        def reply(request: web.Request, lines: list[bytes]) -> web.Response:
            times.append(asyncio.get_running_loop().time())
            return taken(request, lines) if len(times) > 1 else web.Response(status=503, headers={"Retry-After": "1"})

        async with collector(reply) as (url, _):
            uplink = Uplink(url, "", print)
            uplink.add(line(1))
            await running(uplink, lambda: uplink.accepted == 1)
        assert times[1] - times[0] >= 1.0

    asyncio.run(main())


def test_the_time_of_sending_is_told() -> None:
    async def main() -> None:
        sent: list[str] = []

        def reply(request: web.Request, lines: list[bytes]) -> web.Response:
            sent.append(request.headers[SENT])
            return taken(request, lines)

        async with collector(reply) as (url, _):
            uplink = Uplink(url, "", print, clock=lambda: NOW + 0.25)
            uplink.add(line(1))
            await running(uplink, lambda: uplink.accepted == 1)
        assert sent == [f"{NOW + 0.25:.3f}"]

    asyncio.run(main())


def test_what_is_left_at_the_end_is_kept(tmp_path: Path) -> None:
    async def main() -> None:
        uplink = Uplink(NOWHERE, "", print, spool=Spool(tmp_path, BIG))
        uplink.add(line(1))
        await uplink.finish(1)

    asyncio.run(main())
    for path in tmp_path.glob("0*.ndjson"):
        assert line(1) in path.read_bytes()


AGENT = """
import asyncio, sys, time
from pathlib import Path
from edgedns.probe.spool import Spool
from edgedns.probe.uplink import Uplink

async def main():
    uplink = Uplink(sys.argv[2], "", print, spool=Spool(Path(sys.argv[1]), 1 << 20))
    task = asyncio.create_task(uplink.run())
    for number in range(100000):
        uplink.add(b'{"at":%.3f,"n":%d}' % (time.time(), number))
        sys.stdout.write(f"{time.monotonic()} {number}\\n")
        sys.stdout.flush()
        await asyncio.sleep(0.01)

asyncio.run(main())
"""


@pytest.mark.parametrize("slow", [False, True], ids=["refused", "never answers"])
def test_a_killed_agent_loses_a_second_at_most(tmp_path: Path, slow: bool) -> None:
    """Also where the batch that is under way waits for a reply that never comes."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}" if slow else NOWHERE
        command = [sys.executable, "-c", AGENT, str(tmp_path), url]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            told = [child.stdout.readline()]
            until = time.monotonic() + 2.5
            while time.monotonic() < until:
                told.append(child.stdout.readline())
            os.kill(child.pid, signal.SIGKILL)
            told += child.stdout.readlines()
    added = [text.split() for text in told if text[:1].isdigit()]
    spool = Spool(tmp_path, BIG)
    kept = b"".join(path.read_bytes() for path in tmp_path.glob("0*.ndjson"))
    missing = [float(at) for at, number in added if b'"n":%d}' % int(number) not in kept]
    assert len(missing) < len(added) / 2
    last = max(float(at) for at, _ in added)
    assert all(at > last - 1.5 for at in missing)  # half a second is meant, and the machine may be busy
    spool.close()
