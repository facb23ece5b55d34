"""Schemathesis holds real servers to their OpenAPI files: what they describe, what they don't, and other methods."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.system.serving import TOKEN, serving

HERE = Path(__file__).parent / "schemathesis"
TOOL = Path(sys.executable).with_name("schemathesis")
BEACON = [sys.executable, "-c", "from edgedns.cli.beacon import beacon; beacon()"]
ORIGIN = "https://www.example.net"
SHORT = ["--phases=examples,coverage"]  # each value and bound of each operation
LONG = ["--max-examples=150"]  # and made-up ones, and one after the other
pytestmark = pytest.mark.skipif(not TOOL.exists(), reason="schemathesis is not installed")


def held_to(url: str, folder: Path, short: bool, *more: str) -> str:
    """What it says; it fails the test where it finds something."""
    command = [TOOL, "--config-file", HERE / "edgedns.toml", "run", f"{url}/v1/openapi.json", "--checks=all"]
    command += SHORT if short else LONG
    command += ["--continue-on-failure", "--seed=1", "--no-color", *more]
    environ = {**os.environ, "SCHEMATHESIS_HOOKS": "lines", "PYTHONPATH": str(HERE)}
    done = subprocess.run(list(map(str, command)), cwd=folder, env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def held_admin(folder: Path, short: bool) -> str:
    with serving(folder) as server:
        told = held_to(server.admin, folder, short, "--header", f"Authorization: Bearer {TOKEN}")
        assert "Traceback" not in server.said()
        status, _ = server.http("/readyz")
        assert status == 200
    return told


@contextmanager
def beacon(folder: Path) -> Iterator[str]:
    """A running `edgedns beacon`; its URL."""
    said = folder / "said"
    options = ["--listen=127.0.0.1:0", "--vantage=web", "--collector=-", f"--origin={ORIGIN}", "--rate=100000"]
    options += ["--proxy=127.0.0.1", *(f"--object={name}=https://{name}.example.net/1x1" for name in ("alder", "birch"))]
    with said.open("wb") as log, (folder / "sent").open("wb") as sent:
        process = subprocess.Popen([*BEACON, *options], stderr=log, stdout=sent)
    try:
        until = time.monotonic() + 60
        while not (found := re.search(r"script: (http://\S+)/beacon.js", said.read_text())):
            assert process.poll() is None, said.read_text()
            assert time.monotonic() < until
            time.sleep(0.05)
        yield found[1]
        assert "Traceback" not in said.read_text()
    finally:
        process.terminate()
        process.wait(20)


@pytest.mark.timeout(300)
def test_the_admin_side_is_as_described(tmp_path: Path) -> None:
    held_admin(tmp_path, True)


@pytest.mark.timeout(300)
def test_the_beacon_is_as_described(tmp_path: Path) -> None:
    with beacon(tmp_path) as url:
        held_to(url, tmp_path, True)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_the_admin_side_is_as_described_for_long(tmp_path: Path) -> None:
    told = held_admin(tmp_path, False)
    assert re.search(r"API Links: +[1-9][0-9]* covered", told), "what was made is asked for, or ended, by its id: " + told


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_the_beacon_is_as_described_for_long(tmp_path: Path) -> None:
    with beacon(tmp_path) as url:
        held_to(url, tmp_path, False)


def test_what_is_not_as_described_is_found(tmp_path: Path) -> None:
    """The tool sees it when a server answers otherwise: the file of one against the other."""
    with beacon(tmp_path) as url:
        wrong = tmp_path / "wrong.json"
        wrong.write_text((Path(__file__).parents[2] / "edgedns/web/openapi-beacon.json").read_text().replace('"204"', '"200"'))
        command = [TOOL, "run", wrong, "--url", url, "--include-path=/1x1", "--phases=coverage", "--no-color"]
        done = subprocess.run(list(map(str, command)), cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert "Undocumented status code" in done.stdout, done.stdout
