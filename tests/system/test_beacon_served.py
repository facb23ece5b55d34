"""From a page's report to the answer: `edgedns beacon` before a real server, pages by HTTP, networks by a proxy's header."""

from __future__ import annotations

import http.client
import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.peers import free_port
from tests.small import ADDRESS
from tests.system.serving import SLACK, TOKEN, Server, serving, wait_until
from tests.system.webserver import NGINX, nginx, shown

BEACON = [sys.executable, "-c", "from edgedns.cli.beacon import beacon; beacon()"]
ORIGIN = "https://www.example.net"
FOR_CEDAR = {"alder": 60.0, "birch": 50.0, "cedar": 15.0}


class Page:
    """Reports of users' pages, as a proxy hands them on."""

    def __init__(self, collector: str, folder: Path) -> None:
        options = ["--listen=127.0.0.1:0", "--vantage=web", f"--collector={collector}", f"--origin={ORIGIN}"]
        options += ["--proxy=127.0.0.1", *(f"--object={name}=https://{name}.example.net/1x1" for name in ADDRESS)]
        self.said, self.sent = folder / "said", folder / "sent"
        with self.said.open("wb") as said, self.sent.open("wb") as sent:
            environ = {**os.environ, "EDGEDNS_TOKEN": TOKEN}
            self.process = subprocess.Popen([*BEACON, *options], stderr=said, stdout=sent, env=environ)
        wait_until(lambda: "script: " in self.said.read_text(), 20 * SLACK)
        found = re.search(r"script: (http://\S+)/beacon.js", self.said.read_text())
        assert found
        self.url = f"{found[1]}/v1/beacon"

    def report(self, client: str, rtts: dict[str, float]) -> int:
        headers = {"Origin": ORIGIN, "Content-Type": "application/json", "X-Forwarded-For": client}
        request = urllib.request.Request(self.url, json.dumps({"rtt_ms": rtts}).encode(), headers)
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=20) as reply:
            return int(reply.status)

    def end(self) -> str:
        """What it says at its end."""
        self.process.terminate()
        self.process.wait(20)
        return self.said.read_text().splitlines()[-1]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with serving(tmp_path, period="1s") as started:
        yield started


@pytest.fixture
def page(server: Server, tmp_path: Path) -> Iterator[Page]:
    found = Page(server.admin, tmp_path)
    yield found
    found.end()


def test_pages_of_several_clients_steer_a_network_that_nobody_probes(server: Server, page: Page) -> None:
    assert server.addresses(of=7) == [ADDRESS["alder"]]
    until = time.monotonic() + 20 * SLACK
    for number in range(100_000):  # each from another /24
        assert page.report(f"10.7.{number % 250}.{number % 7}", FOR_CEDAR) == 204
        if server.addresses(of=7) == [ADDRESS["cedar"]]:
            break
        assert time.monotonic() < until, page.said.read_text()
        time.sleep(0.1)
    _, told = server.http("/v1/explain", None, "GET", **{"name": "www.example.net", "from": "10.7.1.1"})
    assert {one["level"] for one in told["candidates"]} == {"network"}
    counters = server.counters()
    assert counters['edgedns_beacon_samples_total{result="few_clients"}'] >= 2 * 3
    assert counters['edgedns_beacon_samples_total{result="counted"}'] >= 3
    judged = sum(value for name, value in counters.items() if name.startswith("edgedns_beacon_samples_total"))
    assert judged <= counters['edgedns_samples_total{result="accepted"}']
    assert "taken" in page.end()


def test_pages_of_one_client_do_not(server: Server, page: Page) -> None:
    for _ in range(8):
        assert page.report("10.7.1.5", FOR_CEDAR) == 204
    name = 'edgedns_beacon_samples_total{result="few_clients"}'
    wait_until(lambda: server.counters()[name] == 8 * 3, 20 * SLACK)
    time.sleep(2.2)  # two rounds
    assert server.addresses(of=7) == [ADDRESS["alder"]]


@pytest.mark.skipif(NGINX is None, reason="nginx is not installed (apt-get install nginx)")
def test_behind_the_proxy_of_the_docs_a_client_is_who_it_is(tmp_path: Path) -> None:
    """Whatever it claims of itself."""
    page, port = Page("-", tmp_path), free_port()
    try:
        site = shown("location / {").replace("http://127.0.0.1:8054", page.url.removesuffix("/v1/beacon"))
        with nginx(tmp_path / "web", [f"127.0.0.1:{port}"], site=site) as web:
            headers = {"Origin": ORIGIN, "Content-Type": "application/json", "X-Forwarded-For": "10.7.1.1"}
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20, source_address=("127.66.5.9", 0))
            connection.request("POST", "/v1/beacon", json.dumps({"rtt_ms": FOR_CEDAR}), headers)
            assert connection.getresponse().status == 204, web.errors()
            connection.close()
    finally:
        page.end()
    assert {json.loads(line)["address"] for line in page.sent.read_text().splitlines()} == {"127.66.5.0"}
