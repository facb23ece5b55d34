"""`edgedns probe ADDR --from all`: real agents of two vantages, asked through a server by somebody with a token."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.small import write_rules, write_table
from tests.system.serving import TOKEN, Server

EDGEDNS = [sys.executable, "-m", "edgedns"]
WITH_TOKEN = {**os.environ, "EDGEDNS_TOKEN": TOKEN}
SOURCES = ("alder", "birch")


@pytest.fixture
def echo() -> Iterator[int]:
    """Sends each datagram back after a ms (under 0.2 ms is no path), but for those of the second vantage through birch."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.90.0.1", 0))
        sock.settimeout(0.2)
        ended = threading.Event()

        def serve() -> None:
            while not ended.is_set():
                try:
                    packet, sender = sock.recvfrom(2048)
                except TimeoutError:
                    continue
                if sender[0] != "127.91.2.2":
                    time.sleep(0.001)
                    sock.sendto(packet, sender)

        thread = threading.Thread(target=serve)
        thread.start()
        yield sock.getsockname()[1]
        ended.set()
        thread.join()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path, write_rules(tmp_path / "rules"), write_table(tmp_path / "table.tsv"))
    try:
        yield made.start()
    finally:
        made.clean_up()


def asked(server: Server, whom: str, *more: str, environ: dict[str, str] = WITH_TOKEN) -> subprocess.CompletedProcess[str]:
    command = [*EDGEDNS, "probe", whom, "--from", "all", "--server", server.admin, "--rounds", "1", *more]
    return subprocess.run(command, capture_output=True, text=True, env=environ, timeout=100)


def agents(server: Server, top: Path, port: int) -> list[subprocess.Popen[bytes]]:
    target = {"address": "10.1.0.7", "endpoint": f"127.90.0.1:{port}"}
    (top / "targets.jsonl").write_text(json.dumps(target) + "\n")
    started = []
    for number, vantage in enumerate(("fra1", "sin1"), 1):
        sources = [f"--source={name}=127.91.{number}.{k}" for k, name in enumerate(SOURCES, 1)]
        where = [f"--collector={server.admin}", f"--targets={top / 'targets.jsonl'}", f"--asn={server.table}"]
        command = [*EDGEDNS, "probe", f"--vantage={vantage}", *where, *sources]
        with (top / f"{vantage}.log").open("wb") as log:
            started.append(subprocess.Popen(command, stderr=log, env=WITH_TOKEN))
    return started


def until_there(server: Server) -> None:
    """Both vantages wait for wishes, and their samples have come."""
    until = time.monotonic() + 60
    while asked(server, "10.1.0.8").stderr.count("no vantage") or server.http("/v1/status")[1]["samples"]["accepted"] < 3:
        assert time.monotonic() < until
        time.sleep(0.2)


def cells(told: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(cell["vantage"], cell["provider"]): cell for cell in told["cells"]}


def test_every_vantage_is_asked_about_an_address(server: Server, echo: int, tmp_path: Path) -> None:
    nobody = asked(server, "10.1.0.7")
    assert "no vantage is connected" in nobody.stderr
    running = agents(server, tmp_path, echo)
    try:
        until_there(server)
        time.sleep(1.0)
        done = asked(server, "10.1.0.7", "--json", "--name", "www.example.net")
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout)
        found = cells(told)
        assert sorted(found) == [("fra1", "alder"), ("fra1", "birch"), ("sin1", "alder"), ("sin1", "birch")]
        assert [len(cell["rtts"]) for cell in found.values()].count(1) == 3
        assert found["sin1", "birch"]["lost"] == 1
        assert told["done"]
        assert told["provider"] in ("alder", "birch", "cedar")
        assert told["network"]["text"] == "AS64513/DE/10.1.0.0/16"
        shown = asked(server, "10.1.0.7")
        assert "lost" in shown.stdout
        given = re.search(r"\* (\w+) is what www", shown.stdout)  # not told["provider"]: measuring goes on meanwhile
        assert given is not None, shown.stdout
        assert f"{given[1]} *" in shown.stdout or given[1] == "cedar"
        refusals = {
            asked(server, "10.1.0.99").stderr: "is nobody's network",
            asked(server, "10.1.0.7", environ={**os.environ, "EDGEDNS_TOKEN": ""}).stderr: "this needs the token",
            asked(server, "no-such-name.invalid").stderr: "no name that this machine can resolve",
        }
        assert all(part in text for text, part in refusals.items()), refusals
    finally:
        for process in running:
            process.terminate()
        codes = [process.wait(20) for process in running]
    assert codes == [0, 0]
