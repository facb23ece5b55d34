"""`edgedns probe` and `edgedns simulate` as processes, with a collector over real HTTP between them and the test."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from edgedns.demo.networks import networks
from edgedns.demo.paths import Internet
from edgedns.demo.script import load
from edgedns.model import NetworkKey, RttSample
from edgedns.probe.collector import Collector

PROBE = [sys.executable, "-c", "from edgedns.cli.probe import probe; probe()"]
SIMULATE = [sys.executable, "-c", "from edgedns.cli.simulate import simulate; simulate()"]
PROVIDERS = ("alder", "birch", "cedar", "dogwood")
SOURCES = [text for number, name in enumerate(PROVIDERS, 1) for text in ("--source", f"{name}=127.1.0.{number}")]
SCRIPT = """
version: 1
seed: 7
drift_percent: 0
jitter_ms: 0
providers:
  alder: {source: 127.1.0.1, rtt_ms: {AF: 30, AS: 40, EU: 12, NA: 30, OC: 50, SA: 40}}
  birch: {source: 127.1.0.2, rtt_ms: {AF: 40, AS: 30, EU: 20, NA: 20, OC: 40, SA: 30}}
  cedar: {source: 127.1.0.3, rtt_ms: {AF: 50, AS: 20, EU: 30, NA: 40, OC: 30, SA: 50}}
  dogwood: {source: 127.1.0.4, rtt_ms: {AF: 20, AS: 50, EU: 40, NA: 50, OC: 60, SA: 20}}
events:
  - {at: 0, for: 80000, kind: cut, provider: alder, continent: EU, text: "alder has no path to Europe"}
"""


def environment(**more: str) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if key != "EDGEDNS_TOKEN"}
    return {**kept, **more}


@contextlib.contextmanager
def started(command: list[str], **more: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(**more)
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def line_of(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout is not None
    event: dict[str, Any] = json.loads(process.stdout.readline())
    return event


@contextlib.contextmanager
def simulator(tmp_path: Path, script: str = SCRIPT) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A running simulator and the targets file it wrote."""
    (tmp_path / "script.yaml").write_text(script)
    targets = tmp_path / "targets"
    options = ["--script", str(tmp_path / "script.yaml"), "--listen", "127.0.0.1:0", "--write-targets", str(targets)]
    with started([*SIMULATE, *options, "--for", "60s"]) as process:
        assert line_of(process)["kind"] == "listening"
        yield process, targets


@contextlib.asynccontextmanager
async def collecting(token: str) -> AsyncIterator[tuple[str, Collector, list[RttSample]]]:
    """A collector that keeps what it accepts."""
    collector = Collector(
        lambda packed: NetworkKey(64496, "DE", 4, int.from_bytes(packed[:2])),
        lambda asn, family: None,
        PROVIDERS.__contains__,
    )
    samples: list[RttSample] = []

    async def post(request: web.Request) -> web.Response:
        if request.headers.get("Authorization") != f"Bearer {token}":
            return web.Response(status=401)
        outcome = collector.accept(await request.read(), time.time())
        samples.extend(outcome.accepted)
        return web.json_response(outcome.reply())

    app = web.Application(client_max_size=1 << 24)
    app.router.add_post("/v1/samples", post)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}", collector, samples
    finally:
        await runner.cleanup()


async def finished(command: list[str], within: float = 20, **more: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env=environment(**more)
    )
    try:
        out, err = await asyncio.wait_for(process.communicate(), within)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode or 0, out.decode(), err.decode()


def ran(command: list[str], **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=30, env=environment(**more), check=False)


def test_samples_travel_from_the_simulated_internet_to_the_collector(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("s3cret\n")

    async def main() -> list[RttSample]:
        with simulator(tmp_path) as (_, targets):
            async with collecting("s3cret") as (url, collector, samples):
                command = [*PROBE, "--vantage", "fra1", "--collector", url, "--targets", str(targets), *SOURCES]
                pace = ["--every", "2s", "--per-address", "20", "--ceiling", "5000", "--once", "--token-file", str(token)]
                code, _, said = await finished(command + pace)
        assert code == 0, said
        assert collector.seen == collector.counts["accepted"] == len(samples)
        return samples

    samples = asyncio.run(main())
    places = {network.address: index for index, network in enumerate(networks())}
    internet = Internet(load(tmp_path / "script.yaml"), networks())
    lost = {sample for sample in samples if sample.rtt_ms is None}  # those of a body that was sent again are the same
    europe = {network.address for network in networks() if network.continent == "EU"}
    assert {(sample.provider, sample.address) for sample in lost} == {("alder", address) for address in europe}
    assert max(Counter((sample.provider, sample.address) for sample in lost).values()) == 1  # it never answered
    assert len({(sample.provider, sample.address) for sample in samples}) == 4 * len(networks())
    errors = [
        sample.rtt_ms - internet.paths[PROVIDERS.index(sample.provider)][places[sample.address]].base_ms
        for sample in samples
        if sample.rtt_ms is not None
    ]
    assert min(errors) > -0.01
    assert statistics.median(errors) < 0.9  # three times the 0.3 ms wanted


def test_a_collector_that_is_away_is_said_once_and_samples_are_kept(tmp_path: Path) -> None:
    targets = tmp_path / "targets"
    targets.write_text('{"address": "203.0.113.7", "endpoint": "127.0.0.1:9", "method": "tcp"}\n')
    command = [*PROBE, "--vantage", "fra1", "--collector", "http://127.0.0.1:9", "--targets", str(targets), *SOURCES]
    ended = ran([*command, "--every", "500ms", "--per-address", "50", "--for", "2s"])
    assert ended.returncode == 0
    assert ended.stderr.count("collector at http://127.0.0.1:9/v1/samples takes no samples, keeping them: ") == 1
    total = re.search(r"in all: (\d+) probes, (\d+) replied, .* 0 samples accepted, (\d+) waiting", ended.stderr)
    assert total is not None, ended.stderr
    probes, replied, waiting = map(int, total.groups())
    assert 8 <= replied == waiting <= probes <= 20, "four paths, each every 0.5 s for two seconds"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_probe_at_once(tmp_path: Path, number: signal.Signals) -> None:
    targets = tmp_path / "targets"
    targets.write_text('{"address": "203.0.113.7", "endpoint": "127.0.0.1:9"}\n')
    command = [*PROBE, "--vantage", "fra1", "--collector", "-", "--targets", str(targets), *SOURCES]
    with started(command) as process:
        assert process.stderr is not None
        assert "4 paths to 1 targets, each every 10 s" in process.stderr.readline()
        start = time.monotonic()
        process.send_signal(number)
        assert process.wait(5) == 0
        assert time.monotonic() - start < 3 * 1.0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_simulator_at_once(tmp_path: Path, number: signal.Signals) -> None:
    with simulator(tmp_path) as (process, _):
        assert line_of(process)["kind"] == "cut"
        start = time.monotonic()
        process.send_signal(number)
        assert line_of(process)["kind"] == "end"
        assert process.wait(5) == 0
        assert time.monotonic() - start < 3 * 1.0


def test_the_simulator_ends_by_itself_and_when_its_reader_is_gone(tmp_path: Path) -> None:
    ended = ran([*SIMULATE, "--listen", "127.0.0.1:0", "--for", "300ms"])
    kinds = [json.loads(line)["kind"] for line in ended.stdout.splitlines()]
    assert (ended.returncode, kinds) == (0, ["listening", "end"])
    script = SCRIPT.replace("at: 0,", "at: 0.5,")
    with simulator(tmp_path, script) as (process, _):
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(5) == 0
        process.stdout = None


def test_two_simulators_at_one_port(tmp_path: Path) -> None:
    with started([*SIMULATE, "--listen", "127.0.0.1:0", "--for", "20s"]) as first:
        port = line_of(first)["port"]
        second = ran([*SIMULATE, "--listen", f"127.0.0.1:{port}"])
    assert second.returncode == 1
    assert second.stderr == f"Error: UDP port {port} is in use: give the simulator another one\n"


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (["--listen", "192.0.2.1:5301"], "'192.0.2.1:5301' is not an address of 127.0.0.0/8 with a port"),
        (["--script", "/nowhere.yaml"], "Error: /nowhere.yaml: No such file or directory"),
        (["--for", "soon"], "'soon' is not a duration such as 10s, 1m30s or 250ms"),
    ],
)
def test_the_simulator_says_what_is_wrong(options: list[str], error: str) -> None:
    ended = ran([*SIMULATE, *options])
    assert ended.returncode in (1, 2)
    assert error in ended.stderr


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"--source": "alder"}, "'alder' is not PROVIDER=ADDRESS"),
        ({"--source": "al der=127.1.0.1"}, "'al der' is not a name"),
        ({"--source": "alder=192.0.2.1"}, "Error: can't probe by udp from 192.0.2.1: no interface here has that address"),
        ({"--source": "alder=::1"}, "Error: no target can be probed: no source has the address family"),
        ({"--collector": "ftp://x"}, "'ftp://x' is not http://HOST:PORT"),
        ({"--targets": "/nowhere"}, "Error: /nowhere: No such file or directory"),
        ({"--token-file": "/nowhere"}, "the token file /nowhere can't be read: No such file"),
        ({"--vantage": "a b"}, "'a b' is not a name"),
        ({"--key-file": "/nowhere"}, "can't read /nowhere: [Errno 2]"),
        ({"--key-file": __file__}, "does not hold 32 to 128 hexadecimal digits"),
        ({"--port": "33053"}, "a port is what a fleet shares, together with --key-file"),
        ({"--vantage": "v" * 40, "--source": f"{'p' * 40}=127.1.0.1", "--method": "dns"}, "too long together"),
    ],
)
def test_the_probe_says_what_is_wrong(tmp_path: Path, change: dict[str, str], error: str) -> None:
    targets = tmp_path / "targets"
    targets.write_text('{"address": "203.0.113.7", "endpoint": "127.0.0.1:9"}\n')
    options = {"--vantage": "fra1", "--collector": "-", "--targets": str(targets), "--source": "alder=127.1.0.1", **change}
    ended = ran([*PROBE, *(text for option in options.items() for text in option)])
    assert ended.returncode in (1, 2)
    assert error in " ".join(ended.stderr.split())
    assert "Traceback" not in ended.stderr


def test_tcp_over_both_families(tmp_path: Path) -> None:
    """The kernel answers for the port nobody listens on: a refusal is a reply."""
    targets = tmp_path / "targets"
    targets.write_text(
        '{"address": "203.0.113.7", "endpoint": "127.0.0.1:9"}\n{"address": "2001:db8::7", "endpoint": "[::1]:9"}\n'
    )
    options = ["--vantage", "fra1", "--collector", "-", "--targets", str(targets), "--method", "tcp", "--every", "200ms"]
    ended = ran([*PROBE, *options, "--source", "alder=127.1.0.1", "--source", "alder=::1", "--per-address", "20", "--once"])
    samples = [json.loads(line) for line in ended.stdout.splitlines()]
    assert sorted(sample["address"] for sample in samples) == ["2001:db8::7", "203.0.113.7"]
    assert all(0 < sample["rtt_ms"] < 50 for sample in samples)


def test_a_fleets_port_that_is_taken_is_said(tmp_path: Path) -> None:
    (tmp_path / "targets").write_text('{"address": "203.0.113.7", "endpoint": "127.0.0.1:9"}\n')
    (tmp_path / "key").write_text("5e" * 32)
    (tmp_path / "key").chmod(0o644)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.1.0.1", 0))
        port = taken.getsockname()[1]
        options = ["--vantage=fra1", "--collector=-", f"--targets={tmp_path}/targets", "--source=alder=127.1.0.1"]
        ended = ran([*PROBE, *options, "--key-file", str(tmp_path / "key"), "--port", str(port)])
    assert ended.returncode == 1
    assert f"from 127.1.0.1: port {port} is in use, by another agent perhaps" in ended.stderr
    assert "key: everybody can read or write the fleet's key: chmod o-rwx" in ended.stderr


def in_namespace(groups: str, command: list[str]) -> subprocess.CompletedProcess[str]:
    """Run in a network namespace of its own, where these groups may open ICMP sockets."""
    setup = 'ip link set lo up && echo "$0" > /proc/sys/net/ipv4/ping_group_range && exec "$@"'
    return ran(["unshare", "--net", "sh", "-c", setup, groups, *command])


def icmp(tmp_path: Path) -> list[str]:
    targets = tmp_path / "targets"
    targets.write_text(
        '{"address": "203.0.113.7", "endpoint": "127.0.0.1"}\n{"address": "2001:db8::7", "endpoint": "::1"}\n'
        '{"address": "203.0.113.8", "endpoint": "127.255.255.255"}\n'
    )
    options = ["--vantage", "fra1", "--collector", "-", "--targets", str(targets), "--method", "icmp", "--every", "300ms"]
    sources = ["--source", "alder=127.1.0.1", "--source", "alder=::1", "--per-address", "20", "--timeout", "300ms"]
    return [*PROBE, *options, *sources, "--once"]


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root for a network namespace")
def test_icmp_without_privilege_where_the_group_may(tmp_path: Path) -> None:
    ended = in_namespace(f"{os.getegid()} {os.getegid()}", icmp(tmp_path))
    assert ended.returncode == 0, ended.stderr
    samples = [json.loads(line) for line in ended.stdout.splitlines()]
    replied = {sample["address"] for sample in samples if "rtt_ms" in sample and 0 < sample["rtt_ms"] < 50}
    assert replied == {"203.0.113.7", "2001:db8::7"}


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root for a network namespace")
def test_icmp_where_the_group_may_not_is_said(tmp_path: Path) -> None:
    ended = in_namespace("1 0", ["setpriv", "--bounding-set=-net_raw", "--inh-caps=-net_raw", *icmp(tmp_path)])
    assert ended.returncode == 1
    said = r"can't probe by icmp from (127\.1\.0\.1|::1): neither may group 0 open ICMP sockets"
    assert re.search(said, ended.stderr), "whichever dice take first"
