"""`edgedns demo` as somebody runs it: a provider cut from a region leaves its answers and comes back; the end is clean."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import dns.edns
import dns.message
import dns.query
import pytest

from edgedns.demo import scenes
from edgedns.demo.script import load
from tests.conformance.peers import free_port
from tests.unit.serve.openapi_check import mismatch

NAME = "www.cdn.example.net"
BIRCH = {"198.51.100.10"}
T = TypeVar("T")
START = 60.0  # the demand: the first answer within 60 s of `make run`
OUT = 45.0  # three times the 15 s that it should take
BACK = 300.0  # of the 90 s without a loss that a path has to show, and a period or two
SCRIPT = """
version: 1
seed: 1902
spread_percent: 11
drift_percent: 4
jitter_ms: 0.8
providers:
  alder:   {source: 127.1.0.1, rtt_ms: {AF: 108, AS: 172, EU: 16, NA: 104, OC: 300, SA: 206}}
  birch:   {source: 127.1.0.2, rtt_ms: {AF: 122, AS: 190, EU: 19, NA: 84, OC: 250, SA: 158}}
  cedar:   {source: 127.1.0.3, rtt_ms: {AF: 130, AS: 142, EU: 21, NA: 110, OC: 216, SA: 230}}
  dogwood: {source: 127.1.0.4, rtt_ms: {AF: 86, AS: 198, EU: 23, NA: 118, OC: 310, SA: 184}}
events:
  - {at: 20, for: 30, kind: cut, provider: birch, continent: SA, text: "birch has no path to South America"}
"""


class Run:
    """A demo as a process, and the lines that it printed with the time of each."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "edgedns", "demo", *arguments],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
            env={key: value for key, value in os.environ.items() if key != "EDGEDNS_TOKEN"},
        )  # fmt: skip
        self.lines: list[tuple[float, str]] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self.lines.append((time.monotonic(), line.rstrip()))

    def close(self) -> None:
        self.process.wait()
        self._reader.join()
        for stream in (self.process.stdout, self.process.stderr):
            assert stream
            stream.close()

    def wait_for(self, text: str, within: float) -> float:
        """When a line with this text was printed."""
        return until(lambda: next((at for at, line in self.lines if text in line), None), within, f"{text!r} in {self.lines}")

    def ended(self, within: float = 15.0) -> tuple[int, str]:
        """The exit code and what is on standard error."""
        code = self.process.wait(within)
        assert self.process.stderr
        return code, self.process.stderr.read()


def until(look: Callable[[], T | None], within: float, what: str) -> T:
    end = time.monotonic() + within
    while time.monotonic() < end:
        found = look()
        if found:
            return found
        time.sleep(0.2)
    raise AssertionError(f"not within {within:.0f} s: {what}")


@contextlib.contextmanager
def demo(*arguments: str) -> Iterator[Run]:
    run = Run(*arguments)
    try:
        yield run
    finally:
        with contextlib.suppress(ProcessLookupError):
            run.process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            run.process.wait(20)
        run.process.kill()
        run.close()


def of_state(directory: Path) -> list[int]:
    """The processes whose command line names the state directory: all that the demo started, workers included."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if str(directory).encode() in path.read_bytes():
                found.append(int(path.parent.name))
    return [pid for pid in found if pid != os.getpid()]


def answers(port: int, subnet: str) -> set[str]:
    address, _, length = subnet.partition("/")
    option = dns.edns.ECSOption(address, int(length))
    query = dns.message.make_query(NAME, "A", use_edns=0, options=[option])
    reply = dns.query.udp(query, "127.0.0.1", timeout=3, port=port)
    return {item.address for rrset in reply.answer for item in rrset}


@pytest.mark.timeout(600)
def test_a_cut_provider_leaves_the_region_and_comes_back(tmp_path: Path) -> None:
    (tmp_path / "script.yaml").write_text(SCRIPT)
    state, port, admin = tmp_path / "state", free_port(), free_port()
    options = ("--headless", "--script", str(tmp_path / "script.yaml"), "--state", str(state))
    with demo(*options, "--listen", f"127.0.0.1:{port}", "--admin", f"127.0.0.1:{admin}") as run:
        run.wait_for("ready", START)
        _, line = next(one for one in run.lines if " dig " in one[1])
        assert f"dig @127.0.0.1 -p {port} {NAME} +subnet=" in line
        script = load(tmp_path / "script.yaml")
        touched = [spot for spot in scenes.spots() if script.events[0].touches(spot.network)]

        cut = run.wait_for("cut      birch has no path", 60)
        on_birch = [spot.subnet for spot in touched if answers(port, spot.subnet) == BIRCH]
        assert len(on_birch) > 5, "the cut has nothing to show: few networks of the region are on birch"

        def left() -> bool:
            return all(answers(port, subnet) - BIRCH for subnet in on_birch)

        until(left, OUT, f"{on_birch} without birch")
        assert time.monotonic() - cut < OUT
        check_replies(admin, on_birch[0])

        back = run.wait_for("return   Over: birch", 90)
        until(lambda: all(answers(port, subnet) == BIRCH for subnet in on_birch), BACK, f"{on_birch} on birch again")
        assert time.monotonic() - back < BACK
        assert any("birch -> " in line and "(failed over)" in line for _, line in run.lines)
        assert any("-> birch (measured)" in line for at, line in run.lines if at > back)

        started = of_state(state)
        assert len(started) >= 5, "serve, its workers, simulate, probe"
        run.process.send_signal(signal.SIGINT)
        code, errors = run.ended()
        assert (code, errors) == (0, "")
        until(lambda: not of_state(state), 5, f"the end of {started}")


def check_replies(admin: int, subnet: str) -> None:
    """What the running server says is what the OpenAPI file describes, and its page shows the event."""
    address = subnet.partition("/")[0]
    paths = ["/v1/status", "/v1/wan?limit=5", f"/v1/explain?name={NAME}&from={address}&subnet={subnet}", "/v1/overrides"]
    paths += [f"/v1/explain?name=ns1.{NAME.partition('.')[2]}&from=192.0.2.1", f"/v1/explain?name={NAME}&asn=3320&type=AAAA"]
    for path in paths:
        status, kind, body = get(admin, path)
        assert mismatch("GET", path, status, kind, body) == ""
    moved = [move for move in json.loads(get(admin, "/v1/status")[2])["moves"] if move["reason"] == "FAILED_OVER"]
    assert moved
    assert "birch has no path to South America" in get(admin, "/")[2].decode()


def get(admin: int, path: str) -> tuple[int, str, bytes]:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://127.0.0.1:{admin}{path}", timeout=10) as reply:
        return reply.status, reply.headers.get_content_type(), reply.read()


@pytest.mark.parametrize("option", ["--listen", "--admin"])
def test_a_port_in_use_is_one_clear_sentence(option: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        other = {"--listen": "--admin", "--admin": "--listen"}[option]
        with demo("--headless", option, address, other, "127.0.0.1:0") as run:
            code, errors = run.ended()
    assert code == 1
    advice = f"another program uses this address; stop it, or choose another with {option} ADDR:PORT"
    assert errors == f"Error: can't listen on {address}: {advice}\n"
    assert run.lines == []


def test_the_demo_stays_on_this_machine() -> None:
    with demo("--headless", "--listen", "192.0.2.1:5300") as run:
        code, errors = run.ended()
    assert code == 1
    assert "not a loopback address" in errors


def test_a_process_that_dies_is_named_and_takes_the_others_along(tmp_path: Path) -> None:
    state = tmp_path / "state"
    with demo("--headless", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--state", str(state)) as run:
        run.wait_for("ready", START)
        [serve] = [pid for pid in of_state(state) if b"edgedns\0serve" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        os.kill(serve, signal.SIGKILL)
        code, errors = run.ended()
    assert code == 1
    assert errors.startswith("Error: edgedns serve was killed by SIGKILL")
    until(lambda: not of_state(state), 5, "the end of all, workers included")


def test_for_ends_it_and_leaves_nothing(tmp_path: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-m", "edgedns", "demo", "--for", "9s", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1].split()[1] == "end"
    assert list(tmp_path.iterdir()) == []
