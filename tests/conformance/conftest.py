"""Black-box tests of the answers, over sockets, filed by RFC and section.

They ask a running `edgedns serve` for the zone in rules/, or with `--server ADDR:PORT` whatever answers there for it;
`python tests/conformance/static_zone.py` prints the zone as other servers read it. A server that does not steer gives
each steered name one provider's addresses: tests marked `steered` are then left out.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.client import Client, Server
from tests.conformance.peers import free_port

ROOT = Path(__file__).parents[2]
# Tests ask more than a stranger may, and all from one network.
EXEMPT = ("--rate-limit", "exempt=127.0.0.0/8,exempt=::1/128")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--server", metavar="ADDR:PORT", help="ask this server for rules/' zone instead of our own")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "steered: what only a server that steers by the asker's network can do")
    config.addinivalue_line("markers", "ours: about our own choice where the standard leaves one, or our own sockets")


def _foreign(config: pytest.Config) -> str | None:
    found = config.getoption("--server", None)
    return str(found) if found else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent == Path(__file__).parent and not item.get_closest_marker("xdist_group"):
            item.add_marker(pytest.mark.xdist_group("conformance"))  # one server for all
    if _foreign(config):
        left_out = pytest.mark.skip(reason="of edgedns alone")
        for item in items:
            if item.get_closest_marker("steered") or item.get_closest_marker("ours"):
                item.add_marker(left_out)


@pytest.fixture(scope="session")
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Who is asked: for edgedns also at ::1, 127.0.0.2, and by another port at every address."""
    foreign = _foreign(request.config)
    if foreign:
        host, _, port = foreign.rpartition(":")
        yield Server(host.strip("[]"), int(port), int(port), (host.strip("[]"),))
        return
    with running_edgedns(tmp_path_factory.mktemp("conformance")) as made:
        yield made


@contextlib.contextmanager
def running_edgedns(folder: Path) -> Iterator[Server]:
    listen = ["127.0.0.1:0", "127.0.0.2:0", "[::1]:0", "0.0.0.0:0", "[::]:0"]
    # Ports that the tests know beforehand, each free for both protocols in both families.
    exact, every = free_port(), free_port()
    listen = [text.replace(":0", f":{every if text.startswith(('0', '[::]')) else exact}") for text in listen]
    options = [word for text in listen for word in ("--listen", text)]
    rules = folder / "rules"
    shutil.copytree(ROOT / "rules", rules)
    for zone in Path(__file__).parent.glob("*.yaml"):
        shutil.copy(zone, rules)
    # A set that fills a message of 65,535 octets as far as a zone may: 242 records of 268. The SOA has a low TTL.
    lines = ["@ 5 SOA ns.example.net. noc.example.net. 1 3600 900 1209600 300", "@ NS ns.example.net."]
    lines += [f"full TXT {number:03}{'x' * 252}" for number in range(242)]
    head = "version: 1\nzone: full.example\nstatic:\n"
    (rules / "full.yaml").write_text(head + "".join(f"  - '{line}'\n" for line in lines))
    command = [sys.executable, "-m", "edgedns", "serve", "--rules", str(rules), "--state", str(folder / "state")]
    log = folder / "log"
    with log.open("wb") as out:
        process = subprocess.Popen([*command, *options, "--admin", "off", "--workers", "1", *EXEMPT], stdout=out, stderr=out)
    try:
        _wait_for(log, process)
        yield Server("127.0.0.1", exact, every, ("127.0.0.1", "127.0.0.2", "::1"), folder / "state")
    finally:
        _stop(process, folder / "state" / "run")


def _wait_for(log: Path, process: subprocess.Popen[bytes], within: float = 60) -> None:
    until = time.monotonic() + within
    while " serving " not in log.read_text():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < until, f"edgedns is not ready after {within} s\n{log.read_text()}"
        time.sleep(0.05)


def _stop(process: subprocess.Popen[bytes], run: Path) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        for path in run.glob("worker-*.json"):
            for pid in re.findall(r'"pid": (\d+)', path.read_text()):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
        raise


@pytest.fixture(scope="session")
def ask(server: Server) -> Client:
    """Asks the server's first address."""
    return Client(server.host, server.port)


@pytest.fixture(params=["udp", "tcp"])
def either(request: pytest.FixtureRequest, ask: Client) -> Client:
    """Asks over UDP, and again over TCP."""
    return ask.over(request.param)
