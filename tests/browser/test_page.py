"""The page in Debian's chromium, driven through chromedriver: plot, polling and explain box, under the page's policy."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from edgedns.web.pages import Pages, Sources
from tests.conformance.peers import free_port
from tests.unit.web.test_pages import MOVE, Behind

DRIVER = shutil.which("chromedriver")
FLAGS = [
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--no-proxy-server",
]  # fmt: skip
WITHIN = 20.0
pytestmark = pytest.mark.skipif(DRIVER is None, reason="chromedriver is not installed (apt-get install chromium-driver)")


class Browser:
    """One session of the W3C WebDriver protocol: what this test needs of it."""

    def __init__(self, port: int, profile: Path) -> None:
        self._base = f"http://127.0.0.1:{port}"
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        options = {"args": [*FLAGS, f"--user-data-dir={profile}", "--window-size=1280,1000"]}
        wanted = {"browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        self._base += f"/session/{self.call('POST', '/session', {'capabilities': {'alwaysMatch': wanted}})['sessionId']}"

    def call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        raw = json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(self._base + path, raw, {"Content-Type": "application/json"}, method=method)
        with self._opener.open(request, timeout=60) as reply:
            return json.load(reply)["value"]

    def open(self, url: str) -> None:
        self.call("POST", "/url", {"url": url})

    def run(self, script: str) -> Any:
        return self.call("POST", "/execute/sync", {"script": script, "args": []})

    def until(self, script: str) -> Any:
        """What a script gives, once that is true."""
        end = time.monotonic() + WITHIN
        while time.monotonic() < end:
            found = self.run(script)
            if found:
                return found
            time.sleep(0.1)
        raise AssertionError(f"not within {WITHIN:.0f} s: {script}; console: {self.complaints()}")

    def complaints(self) -> list[str]:
        """What the console has been told: violations of the policy, errors of scripts, replies that failed."""
        return [entry["message"] for entry in self.call("POST", "/se/log", {"type": "browser"}) if entry["level"] != "INFO"]

    def emulate(self, command: str, **parameters: Any) -> None:
        self.call("POST", "/goog/cdp/execute", {"cmd": f"Emulation.{command}", "params": parameters})

    def quit(self) -> None:
        self.call("DELETE", "")


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    port = free_port()
    driver = subprocess.Popen([str(DRIVER), f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for_port(port)
        session = Browser(port, tmp_path / "profile")
        yield session
        session.quit()
    finally:
        driver.terminate()
        driver.wait(20)


def wait_for_port(port: int) -> None:
    end = time.monotonic() + WITHIN
    while time.monotonic() < end:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError("chromedriver does not listen")


@pytest.fixture
def served() -> Iterator[tuple[str, Behind]]:
    """The page over stand-ins, in a thread; its URL."""
    behind = Behind(moves=[MOVE], notes=[{"at": time.time() - 10, "kind": "cut", "text": "a cable cut"}])
    loop, started, urls = asyncio.new_event_loop(), threading.Event(), list[str]()

    async def serve() -> web.AppRunner:
        pages = Pages(Sources(behind.status, behind.explain, behind.answers))
        for number in range(6):
            behind.totals = {"alder": 40.0 * number, "birch": 10.0 * number}
            await pages.look(time.time() - 4.0 * (6 - number))
        app = web.Application()
        app.add_routes(pages.routes())
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        urls.append(f"http://127.0.0.1:{runner.addresses[0][1]}/")
        return runner

    def run() -> None:
        runner = loop.run_until_complete(serve())
        started.set()
        loop.run_forever()
        loop.run_until_complete(runner.cleanup())
        loop.close()

    thread = threading.Thread(target=run)
    thread.start()
    assert started.wait(WITHIN)
    yield urls[0], behind
    loop.call_soon_threadsafe(loop.stop)
    thread.join()


def test_the_page_works_under_its_policy(browser: Browser, served: tuple[str, Behind]) -> None:
    url, behind = served
    browser.open(url)
    browser.until("return document.querySelector('#plot canvas') && document.querySelectorAll('.u-series').length == 3")
    pixels = "getContext('2d').getImageData(0, 0, c.width, c.height).data"
    browser.until(f"const c = document.querySelector('#plot canvas'); return c.{pixels}.some((v) => v)")

    behind.given = {**behind.given, "serial": 4711}
    browser.until("return document.querySelector('header').textContent.includes('4711')")

    browser.run("document.querySelector('.moves button[data-from]').click()")
    browser.until("return document.querySelector('#explained table')")
    assert behind.asked == [{"name": "any.cdn.example.net", "type": "A", "from": "198.51.100.0"}]
    browser.run("document.querySelector('[name=from]').value = 'nowhere'; document.querySelector('.ask form button').click()")
    browser.until("return document.querySelector('#explained [role=alert]')")
    assert browser.run("return document.scripts.length") == 3
    assert browser.complaints() == []
    foreign = browser.run("return performance.getEntriesByType('resource').map((e) => e.name)")
    assert [name for name in foreign if not name.startswith(url)] == []


def luminance(browser: Browser, what: str) -> float:
    colour = browser.run(f"return getComputedStyle(document.body).{what}")
    return sum(float(part) for part in colour.strip("rgb()").split(",")[:3]) / 3


def look_of(width: int, scheme: str) -> Callable[[Browser], None]:
    def emulate(browser: Browser) -> None:
        browser.emulate("setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600)
        browser.emulate("setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    return emulate


def test_it_fits_a_phone_and_both_schemes(browser: Browser, served: tuple[str, Behind]) -> None:
    url, _ = served
    for width in (360, 1280):
        for scheme in ("light", "dark"):
            look_of(width, scheme)(browser)
            browser.open(f"{url}?name=www.cdn.example.net&from=198.51.100.9")
            assert browser.run("return document.documentElement.scrollWidth - document.documentElement.clientWidth") == 0
            assert (luminance(browser, "color") > luminance(browser, "backgroundColor")) == (scheme == "dark")
