"""`edgedns follow` beside a real nginx: rotation under load on loopback, true round trips on the small Internet."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edgedns.probe import nginx as format_of
from tests.conformance.peers import free_port
from tests.system.smallnet import globe, stage
from tests.system.webserver import NGINX, nginx, shown

SLACK = 3.0 * max(1.0, os.getloadavg()[0] / len(os.sched_getaffinity(0)))
FOLLOW = [sys.executable, "-c", "from edgedns.cli.follow import follow; follow()"]
ALDER, BIRCH = "127.77.0.1", "127.77.0.2"
pytestmark = pytest.mark.skipif(NGINX is None, reason="nginx is not installed (apt-get install nginx)")


class Follower:
    """One run of it; what it said is there when it has ended."""

    def __init__(self, log: Path, folder: Path, *more: str) -> None:
        sources = ["--source", f"alder={ALDER}", "--source", f"birch={BIRCH}"]
        self.said, self.sent = folder / "said", folder / "sent"
        with self.said.open("wb") as said, self.sent.open("wb") as sent:
            command = [*FOLLOW, str(log), "--vantage", "fra1", "--collector", "-", *sources, *more]
            self.process = subprocess.Popen(command, stderr=said, stdout=sent)
        until = time.monotonic() + 20 * SLACK
        while b"following" not in self.said.read_bytes():
            assert self.process.poll() is None, self.said.read_text()
            assert time.monotonic() < until
            time.sleep(0.02)

    def wait_until_open(self, log: Path) -> None:
        """Until it has opened what the name stands for now: of two rotations within its poll it would miss one."""
        until = time.monotonic() + 20 * SLACK
        while str(log) not in self._opened():
            assert time.monotonic() < until
            time.sleep(0.02)

    def _opened(self) -> set[str]:
        """Its open files by the names that they have by now."""
        found = set()
        for each in Path(f"/proc/{self.process.pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                found.add(os.readlink(each))
        return found

    def end(self) -> dict[str, int]:
        """What became of the lines."""
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(20) == 0
        last = self.said.read_text().splitlines()[-1]
        return {what: int(count) for count, what in re.findall(r"(\d+) ([a-z ]+)", last.partition("in all: ")[2])}

    def samples(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.sent.read_text().splitlines()]


@pytest.fixture
def follower(tmp_path: Path) -> Iterator[list[Follower]]:
    started: list[Follower] = []
    yield started
    for one in started:
        if one.process.poll() is None:
            one.process.kill()
            one.process.wait()


def get(address: str, port: int, times: int, **headers: str) -> None:
    """So many requests over one connection."""
    connection = http.client.HTTPConnection(address, port, timeout=20)
    for _ in range(times):
        connection.request("GET", "/", headers=headers)
        reply = connection.getresponse()
        assert reply.status == 200
        reply.read()
    connection.close()


class Client(threading.Thread):
    """Asks until it is told to stop; `count` requests were answered."""

    def __init__(self, address: str, port: int) -> None:
        super().__init__(daemon=True)
        self.address, self.port = address, port
        self.count = 0
        self.is_done = threading.Event()

    def run(self) -> None:
        while not self.is_done.is_set():
            get(self.address, self.port, 20)
            self.count += 20


def test_no_line_is_lost_when_the_log_is_rotated_under_load(tmp_path: Path, follower: list[Follower]) -> None:
    port = free_port()
    with nginx(tmp_path / "web", [f"{ALDER}:{port}", f"{BIRCH}:{port}"]) as web:
        follower.append(Follower(web.log, tmp_path))
        clients = [Client(address, port) for address in (ALDER, BIRCH)]
        for client in clients:
            client.start()
        for number in range(4):
            web.rotate(number)
            follower[0].wait_until_open(web.log)
        for client in clients:
            client.is_done.set()
            client.join()
        written = [path.read_bytes().count(b"\n") for path in sorted(web.folder.glob("rtt.log*"))]
        assert sum(count > 0 for count in written) >= 4, "requests came all the while"
        for hop in ("203.0.113.9", '203.0.113.9", "via": "'):
            get(ALDER, port, 1, **{"X-Forwarded-For": hop})
        web.quit()
        counts = follower[0].end()
        assert "[error]" not in web.errors()
    asked = sum(client.count for client in clients) + 2
    assert counts.pop("lines") == asked == sum(written) + 2
    assert counts.pop("rotations") == 4
    assert sum(counts.values()) == asked
    assert counts["proxied"] == 2
    assert set(counts) <= {"proxied", "implausible", "repeated", "sampled"}  # loopback is faster than any path
    assert {sample["provider"] for sample in follower[0].samples()} <= {"alder", "birch"}


def test_the_format_is_the_one_that_is_read() -> None:
    def plain(text: str) -> str:
        return re.sub(r"'\s*'|\s", "", text)

    assert format_of.__doc__ is not None
    assert plain(shown("log_format")) in plain(format_of.__doc__)


def test_a_collector_that_is_no_url_is_told(tmp_path: Path) -> None:
    done = subprocess.run(
        [*FOLLOW, str(tmp_path / "log"), "--vantage", "fra1", "--collector", "ns1", "--source", f"alder={ALDER}"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2
    assert "'ns1' is not http://HOST:PORT" in done.stderr


CLIENTS = """
import http.client, sys
server, port, *sources = sys.argv[1:]
for source in sources:
    connection = http.client.HTTPConnection(server, int(port), timeout=20, source_address=(source, 0))
    for _ in range(2):
        connection.request("GET", "/")
        connection.getresponse().read()
    connection.close()
"""


@pytest.mark.root
@pytest.mark.timeout(240)
def test_true_round_trips_reach_explain(tmp_path: Path) -> None:
    """Users of two networks on the small Internet, whose router knows how far they are; nginx at the PoP they land at."""
    if lacking := stage.missing():
        pytest.skip(f"needs {', '.join(lacking)}")
    world = globe.make(2)
    providers = {provider.name: provider.v4 for provider in globe.PROVIDERS[:2]}
    with stage.stage(world, tmp_path) as made:
        made.start_server()
        with nginx(tmp_path / "web", ["80"], made.command("fra")) as web:
            sources = [f"--source={name}={address}" for name, address in providers.items()]
            command = [sys.executable, "-m", "edgedns", "follow", str(web.log), "--vantage=fra", *sources]
            made.start("follow", "fra", *command, f"--collector={stage.COLLECTOR}")
            wait_until(lambda: "following" in made.log("follow"))
            users = [network.address(host) for network in world.networks for host in range(20, 40)]
            for address in providers.values():
                done = subprocess.run(made.command(stage.EDGE, sys.executable, "-c", CLIENTS, address, "80", *users))
                assert done.returncode == 0
            wait_until(lambda: len(users_of(made, 0)) == len(users_of(made, 1)) == 2)
            wait_until(lambda: min(one["connections"] for one in users_of(made, 1).values()) > 15)
        for network in (0, 1):
            for number, name in enumerate(providers):
                truth = world.paths[globe.Arm(network, number, 4)].rtt
                found = users_of(made, network)[name]
                late = 5.0 * max(1.0, os.getloadavg()[0] / len(os.sched_getaffinity(0)))  # ms, of a busy router
                assert 0.9 * truth - 1 < found["rtt_ms"] < 1.1 * truth + late, (network, name, found)  # a bucket is 9 % wide


def users_of(made: stage.Stage, network: int) -> dict[str, Any]:
    """What explain says of a network's users, by provider."""
    client = made.world.networks[network].address(1)
    words = ["explain", "www.cdn.example.net", "--from", client, "--json", "--server", stage.COLLECTOR]
    command = made.command(stage.HQ, sys.executable, "-m", "edgedns", *words)
    done = subprocess.run(command, capture_output=True, text=True, env=stage.ENVIRON)
    assert done.returncode == 0, done.stderr
    return {one["provider"]: one["users"] for one in json.loads(done.stdout)["candidates"] if "users" in one}


def wait_until(holds: Callable[[], bool]) -> None:
    until = time.monotonic() + 20 * SLACK
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.2)
