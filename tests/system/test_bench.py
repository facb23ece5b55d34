"""`edgedns bench` as users run it, against a server of the small world."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.system.serving import Server, serving

SHORT = ("--duration", "300ms", "--warmup", "100ms", "--timeout", "5s")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("bench")) as made:
        yield made


def bench(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edgedns", "bench", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)


def found(server: Server, *words: str) -> dict[str, Any]:
    done = bench(f"127.0.0.1:{server.port}", *SHORT, "--json", *words)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    assert result["sent"] == result["answered"] == sum(result["rcodes"].values()) > 0
    return result


def test_every_query_reaches_the_server_and_its_cpu_is_told(server: Server) -> None:
    before = server.counters()["edgedns_udp_received_total"]
    result = found(server, "--name", "www.example.net", "--ecs", "500", "--rate", "500", "--warmup", "200ms")
    assert server.counters()["edgedns_udp_received_total"] - before >= result["sent"] + 1
    assert set(result["server_pids"]) >= set(server.worker_pids())
    assert 0 < result["server_cpu_us_per_query"] < 100_000
    latency = result["latency_ms"]
    assert 0 < latency["p50"] <= latency["p99"] <= latency["p99.9"] <= latency["max"]


@pytest.mark.parametrize("engine", ["native", "python"])
def test_names_that_do_not_exist(server: Server, engine: str) -> None:
    result = found(server, "--name", "plain.example.net", "--nxdomain", "0.5", "--outstanding", "2", "--engine", engine)
    assert set(result["rcodes"]) == {"NOERROR", "NXDOMAIN"}
    assert set(found(server, "--names", "50", "--under", "example.net", "--outstanding", "2")["rcodes"]) == {"NXDOMAIN"}


def test_cookies_that_are_kept_are_known(server: Server) -> None:
    assert "NOERROR" in found(server, "--name", "www.example.net", "--cookie", "kept", "--source", "127.0.3.1")["rcodes"]


def test_a_picture(server: Server, tmp_path: Path) -> None:
    picture = tmp_path / "picture.svg"
    words = ("--name", "www.example.net", "--plot", str(picture), "--source", "127.0.1.0/28")
    done = bench(f"127.0.0.1:{server.port}", *SHORT, *words)
    assert done.returncode == 0, done.stderr
    assert "16 addresses" in done.stdout
    assert "latency ms" in done.stdout
    assert "</svg>" in picture.read_text()


def test_loss_is_exit_1(server: Server) -> None:
    """Patience below what any reply takes."""
    where = f"127.0.0.1:{server.port}"
    done = bench(where, "--name", "www.example.net", *SHORT, "--timeout", "0.000001", "--rate", "200")
    assert done.returncode == 1
    assert "lost; --max-loss is 0.100%" in done.stderr


def test_a_rate_that_this_machine_cannot_keep_is_told(server: Server) -> None:
    """Nothing that was due is passed over in silence."""
    words = ("--name", "www.example.net", "--rate", "5000000", "--engine", "python", "--timeout", "1s", "--max-loss", "1")
    done = bench(f"127.0.0.1:{server.port}", *SHORT, *words, "--json")
    result = json.loads(done.stdout)
    assert result["sent"] + result["unsent"] == pytest.approx(5_000_000 * 0.3, abs=64)
    assert "this machine can't keep --rate" in done.stderr


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("127.0.0.1:1", "--name", "a.example"), "nothing listens at 127.0.0.1 port 1 (UDP): is the server up?"),
        (("192.0.0.9", "--name", "a.example"), "if it is yours, add --i-own-this-server"),
        (("192.0.0.9", "--name", "a.example", "--rate", "1001"), "if it is yours, add --i-own-this-server"),
        (("127.0.0.1:70000", "--name", "a.example"), "is no server"),
        (("[::1]:x", "--name", "a.example"), "is no server"),
        (("127.0.0.1",), "--queries FILE, --name NAME, or --names N --under ZONE"),
        (("127.0.0.1", "--name", "a", "--names", "5"), "Give one of"),
        (("127.0.0.1", "--names", "5"), "--names needs --under ZONE"),
        (("127.0.0.1", "--name", "a..b"), "empty label"),
        (("127.0.0.1", "--name", "a", "--type", "ADDRESS"), "--type: unknown record type 'ADDRESS'"),
        (("127.0.0.1", "--name", "a", "--rate", "5", "--outstanding", "5"), "give one of them"),
        (("127.0.0.1", "--name", "a", "--source", "10.0.0.0/8"), "256 are the most"),
        (("127.0.0.1", "--name", "a", "--source", "::1"), "is no IPv4 address"),
        (("127.0.0.1", "--name", "a", "--source", "192.0.2.77"), "from 192.0.2.77"),
        (("127.0.0.1", "--name", "a", "--edns", "0", "--ecs", "5"), "leave out --edns 0"),
        (("127.0.0.1", "--name", "a", "--ecs", "none.txt"), "none.txt can't be read"),
        (("127.0.0.1", "--queries", "none.txt"), "none.txt can't be read"),
        (("127.0.0.1", "--name", "a", "--cookie", "kept", "--source", "127.0.1.0/30"), "needs a single --source"),
    ],
    ids=lambda value: " ".join(value)[:50] if isinstance(value, tuple) else "",
)
def test_what_cannot_be_done_is_said(words: tuple[str, ...], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    from edgedns.cli import main

    with pytest.raises(SystemExit) as ended:
        main(["bench", *words])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert told in said
