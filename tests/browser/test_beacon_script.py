"""The beacon's script in Debian's chromium: a page, a tiny object at three distances, and what the beacon makes of it."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from aiohttp import web

from edgedns.model import NetworkKey
from edgedns.probe.collector import Collector
from tests.browser.test_page import DRIVER, WITHIN, Browser, browser
from tests.conformance.peers import free_port

__all__ = ["browser"]
BEACON = [sys.executable, "-c", "from edgedns.cli.beacon import beacon; beacon()"]
DELAY_MS = {"alder": 20.0, "birch": 45.0, "cedar": 90.0}
PLACE = {name: f"127.88.0.{number}" for number, name in enumerate(DELAY_MS, 1)}
ALLOWED = {"Access-Control-Allow-Origin": "*", "Timing-Allow-Origin": "*", "Cache-Control": "no-store"}
pytestmark = pytest.mark.skipif(DRIVER is None, reason="chromedriver is not installed (apt-get install chromium-driver)")


class Sites:
    """Each provider's web server, as far away as it is, and the page."""

    def __init__(self) -> None:
        self.port = free_port()
        self.script = ""
        self.asked: list[str] = []
        self.headers = {name: dict(ALLOWED) for name in DELAY_MS}
        self.hangs: set[str] = set()
        self._loop, self._started = asyncio.new_event_loop(), threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        assert self._started.wait(WITHIN)

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def objects(self) -> list[str]:
        return [f"--object={name}=http://{place}:{self.port}/1x1" for name, place in PLACE.items()]

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _run(self) -> None:
        runner = self._loop.run_until_complete(self._serve())
        self._started.set()
        self._loop.run_forever()
        self._loop.run_until_complete(runner.cleanup())
        self._loop.close()

    async def _serve(self) -> web.AppRunner:
        app = web.Application()
        app.add_routes([web.get("/", self._page), web.get("/1x1", self._tiny)])
        runner = web.AppRunner(app)
        await runner.setup()
        for place in ("127.0.0.1", *PLACE.values()):
            await web.TCPSite(runner, place, self.port).start()
        return runner

    async def _page(self, _: web.Request) -> web.Response:
        page = f'<!doctype html><link rel=icon href="data:,"><script async src="{self.script}"></script>'
        return web.Response(text=page, content_type="text/html")

    async def _tiny(self, request: web.Request) -> web.Response:
        name = next(name for name, place in PLACE.items() if request.host.startswith(f"{place}:"))
        self.asked.append(name)
        await asyncio.sleep(DELAY_MS[name] / 1000 if name not in self.hangs else 4.0)
        return web.Response(status=204, headers=self.headers[name])


@pytest.fixture
def sites() -> Iterator[Sites]:
    found = Sites()
    yield found
    found.stop()


class Beacon:
    """A running `edgedns beacon` that prints its samples."""

    def __init__(self, sites: Sites, folder: Path, *more: str) -> None:
        self.said, self.sent = folder / "said", folder / "sent"
        command = [*BEACON, "--listen=127.0.0.1:0", "--vantage=web", "--collector=-", *sites.objects(), *more]
        with self.said.open("wb") as said, self.sent.open("wb") as sent:
            self.process = subprocess.Popen(command, stderr=said, stdout=sent)
        self.wait_until(lambda: "script: " in self.said.read_text())
        found = re.search(r"script: (\S+)", self.said.read_text())
        assert found
        sites.script = found[1]

    def wait_until(self, holds: Callable[[], bool]) -> None:
        until = time.monotonic() + WITHIN
        while not holds():
            assert self.process.poll() is None, self.said.read_text()
            assert time.monotonic() < until, self.said.read_text()
            time.sleep(0.05)

    def sum(self) -> str:
        """What it says at its end."""
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(WITHIN) == 0
        return self.said.read_text().splitlines()[-1].partition("in all: ")[2]

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(WITHIN)


@pytest.fixture
def start(sites: Sites, tmp_path: Path) -> Iterator[Callable[..., Beacon]]:
    started: list[Beacon] = []

    def begin(*more: str) -> Beacon:
        started.append(Beacon(sites, tmp_path, *more))
        return started[-1]

    yield begin
    for one in started:
        one.kill()


def test_a_page_tells_how_far_each_provider_is(browser: Browser, sites: Sites, start: Callable[..., Beacon]) -> None:
    beacon = start(f"--origin={sites.origin}", "--share=100%")
    browser.open(sites.origin)
    beacon.wait_until(lambda: beacon.sent.read_text().count("\n") == len(DELAY_MS))
    assert browser.complaints() == []
    stored = "return [document.cookie, localStorage.length, sessionStorage.length]"
    assert browser.run(stored) == ["", 0, 0]
    assert beacon.sum() == "1 reports, 1 taken"
    told = {line["provider"]: line for line in map(json.loads, beacon.sent.read_text().splitlines())}
    assert told.keys() == DELAY_MS.keys()
    for name, delay in DELAY_MS.items():  # to open a connection would have taken its round trip once more, but for loopback
        assert delay <= told[name]["rtt_ms"] < delay + 20, told
        assert told[name]["address"] == "127.0.0.0"
    assert sorted(sites.asked) == sorted(4 * list(DELAY_MS))
    judged = Collector(lambda _: NetworkKey(64496, "DE", 4, 127 << 8), lambda *_: None, DELAY_MS.__contains__)
    outcome = judged.accept(beacon.sent.read_bytes(), time.time())
    assert [sample.kind for sample in outcome.accepted] == ["beacon"] * 3


def test_who_is_not_to_report_or_hides_its_timing_gives_no_sample(
    browser: Browser, sites: Sites, start: Callable[..., Beacon]
) -> None:
    elsewhere = start("--origin=https://www.example.net", "--share=100%")
    browser.open(sites.origin)
    elsewhere.wait_until(lambda: len(sites.asked) == 4 * len(DELAY_MS))
    browser.until("return performance.getEntriesByType('resource').some((one) => one.name.endsWith('/v1/beacon'))")
    assert elsewhere.sum() == "0 reports"

    del sites.headers["birch"]["Timing-Allow-Origin"]
    beacon = start(f"--origin={sites.origin}", "--share=100%")
    browser.open(sites.origin)
    browser.until("return performance.getEntriesByType('resource').some((one) => one.name.endsWith('/v1/beacon'))")
    assert beacon.sum() == "1 reports, 1 incomplete"
    assert beacon.sent.read_text() == ""


def test_who_does_not_answer_within_three_seconds_has_no_number(
    browser: Browser, sites: Sites, start: Callable[..., Beacon]
) -> None:
    sites.hangs.add("birch")
    beacon = start(f"--origin={sites.origin}", "--share=100%")
    browser.open(sites.origin)
    browser.until("return performance.getEntriesByType('resource').some((one) => one.name.endsWith('/v1/beacon'))")
    assert beacon.sum() == "1 reports, 1 incomplete"


def test_most_pages_do_not_measure(browser: Browser, sites: Sites, start: Callable[..., Beacon]) -> None:
    start(f"--origin={sites.origin}", "--share=0.000001%")
    browser.open(sites.origin)
    browser.until("return performance.getEntriesByType('resource').some((one) => one.name.endsWith('/beacon.js'))")
    time.sleep(0.5)
    assert sites.asked == []
