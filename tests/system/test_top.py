"""`edgedns top`: who asked what, from the sample that workers keep."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgedns.engine.seen import STEP
from tests.system.serving import SLACK, TOKEN, Server, serving

pytestmark = pytest.mark.xdist_group("top")  # one server, of which each test sees what was asked before
ASKED = 3000
WORDS = {"EDGEDNS_TOKEN": TOKEN, "COLUMNS": "120"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("top")) as running:
        yield running


def top(server: Server, *more: str, **environ: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edgedns", "top", "--server", server.admin, *more]
    return subprocess.run(command, capture_output=True, text=True, timeout=30 * SLACK, env={**os.environ, **WORDS, **environ})


def told(server: Server, *more: str) -> dict[str, Any]:
    done = top(server, "--json", *more)
    assert done.returncode == 0, done.stderr
    content: dict[str, Any] = json.loads(done.stdout)
    return content


def test_before_anybody_asks(server: Server) -> None:
    assert told(server)["samples"] == 0
    assert "nobody asked in the last 10 s" in top(server).stdout


def test_what_is_asked_most_comes_first(server: Server) -> None:
    """Two of three ask for one name from network 7, the others for what does not exist."""
    for number in range(ASKED):
        if number % 3:
            server.query("www.example.net", of=7)
        else:
            server.query(f"none{number % 7}.example.net", tcp=number % 300 == 0)
    content = told(server, "--over", "5m", "--lines", "3")
    samples = content["samples"]
    assert samples == pytest.approx(ASKED / STEP, rel=0.25)
    first = content["names"][0]
    assert (first["name"], first["type"]) == ("www.example.net.", "A")
    assert first["samples"] == pytest.approx(samples * 2 / 3, rel=0.3)
    assert content["forwarded"] == first["samples"]
    assert len(content["names"]) == 3
    assert {one["network"]: one["asn"] for one in content["networks"]}["AS64519/DE/10.7.0.0/16"] == 64519
    assert content["networks"][0]["as_name"] == "Network 7"
    assert content["clients"] == [{"client": "127.0.0.1", "samples": samples}]
    assert content["answers"] == [
        {"zone": "example.net", "rule": "measured", "provider": "alder", "reason": "NOMINAL", "samples": first["samples"]}
    ]
    assert {one["rcode"]: one["samples"] for one in content["rcodes"]} == {
        "NOERROR": first["samples"], "NXDOMAIN": samples - first["samples"]
    }  # fmt: skip


def test_people_see_shares(server: Server) -> None:
    text = top(server, "--over", "5m", "--by", "names", "--by", "networks").stdout
    assert "queries/s over 300 s" in text
    assert "www.example.net. A" in text
    assert "AS64519/DE/10.7.0.0/16  Network 7" in text
    assert "NXDOMAIN" not in text


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ({"seconds": "0"}, "'seconds' must be a number from 1 to 3600"),
        ({"seconds": "1e9"}, "'seconds' must be"),
        ({"limit": "1001"}, "'limit' must be a number from 1 to 1000"),
        ({"second": "1"}, "unknown parameter 'second'"),
    ],
)
def test_wrong_parameters_are_named(server: Server, query: dict[str, str], said: str) -> None:
    status, body = server.http("/v1/top", **query)
    assert status == 400
    assert said in body["error"]


def test_clients_are_shown_with_the_token_only(server: Server) -> None:
    done = top(server, EDGEDNS_TOKEN="wrong")
    assert done.returncode == 1
    assert "needs the token" in done.stderr


def test_a_damaged_ring_is_passed_over(server: Server) -> None:
    path = next((server.state / "run").glob("worker-*.seen"))
    whole = told(server, "--over", "5m")["samples"]
    with path.open("r+b") as file:
        file.seek(64)
        file.write(os.urandom(4000))
    assert 0 < told(server, "--over", "5m")["samples"] < whole
    copy = Path(f"{path}.aside")
    path.rename(copy)
    assert told(server, "--over", "5m")["samples"] == 0
    copy.rename(path)
