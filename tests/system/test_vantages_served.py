"""A server whose vantages have tokens of their own, over HTTP; and an agent whose collector is away, with a spool."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.small import network, write_rules, write_table
from tests.system.serving import SLACK, TOKEN, Server
from tests.unit.serve.openapi_check import mismatch

pytestmark = pytest.mark.xdist_group("vantages")
FRA, AMS, NEW = "fra1-0123456789abcdef", "ams1-0123456789abcdef", "new1-0123456789abcdef"


def tokens(folder: Path, text: str) -> Path:
    path = folder / "tokens"
    path.touch(0o600)
    path.write_text(text)
    return path


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path, write_rules(tmp_path / "rules"), write_table(tmp_path / "table.tsv"))
    made.start("--vantage-tokens", str(tokens(tmp_path, f"fra1: {FRA}\nams1: {AMS}\n")))
    yield made
    made.clean_up()


def asked(
    server: Server, method: str, path: str, body: bytes | None = None, token: str = "", **headers: str
) -> tuple[int, Any]:
    given = {"Content-Type": "application/x-ndjson" if path == "/v1/samples" else "application/json", **headers}
    if token:
        given["Authorization"] = f"Bearer {token}"
    request = urllib.request.Request(f"{server.admin}{path}", data=body, method=method, headers=given)
    try:
        with urllib.request.urlopen(request, timeout=10 * SLACK) as reply:
            status, text = reply.status, reply.read()
    except urllib.error.HTTPError as error:
        status, text = error.code, error.read()
    assert mismatch(method, path, status, "application/json", text) == ""
    return status, json.loads(text)


def lines(vantage: str, *rtts: float) -> bytes:
    told = {"at": time.time(), "vantage": vantage, "provider": "alder"}
    return b"\n".join(json.dumps({**told, "address": network(i), "rtt_ms": rtt}).encode() for i, rtt in enumerate(rtts))


def until(happens: Callable[[], bool], within: float = 10.0) -> None:
    end = time.monotonic() + within * SLACK
    while not happens():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_tokens_of_their_own(server: Server, tmp_path: Path) -> None:
    assert asked(server, "POST", "/v1/samples", lines("fra1", 20.0, 30.0), FRA) == (200, {"accepted": 2, "rejected": []})
    _, reply = asked(server, "POST", "/v1/samples", lines("ams1", 20.0), FRA)
    assert reply["rejected"][0]["error"] == "this token speaks for vantage 'fra1', not 'ams1'"
    assert asked(server, "POST", "/v1/samples", lines("ams1", 20.0), TOKEN)[1]["accepted"] == 1
    assert asked(server, "POST", "/v1/samples", lines("fra1", 20.0), NEW)[0] == 401
    assert asked(server, "POST", "/v1/vantages/fra1", b'{"quarantine": true, "owner": "a", "reason": "b"}', FRA)[0] == 401
    tokens(tmp_path, f"fra1: {NEW}\n")
    until(lambda: asked(server, "POST", "/v1/samples", lines("fra1", 20.0), NEW)[0] == 200)
    assert asked(server, "POST", "/v1/samples", lines("fra1", 20.0), FRA)[0] == 401
    tokens(tmp_path, "what?\n")
    server.wait_for("the vantages' tokens stay as they were")
    assert asked(server, "POST", "/v1/samples", lines("fra1", 20.0), NEW)[0] == 200
    assert NEW not in server.said()
    assert FRA not in server.said()


def test_a_body_counts_once_also_after_a_restart(server: Server) -> None:
    body = lines("fra1", 20.0, 30.0)
    assert asked(server, "POST", "/v1/samples", body, FRA) == (200, {"accepted": 2, "rejected": []})
    again = (200, {"accepted": 0, "rejected": [], "repeated": True})
    assert asked(server, "POST", "/v1/samples", body, FRA) == again
    server.end()
    server.start("--vantage-tokens", str(server.top / "tokens"))
    assert asked(server, "POST", "/v1/samples", body, FRA) == again


def test_who_measures_is_told_and_ordered(server: Server) -> None:
    for name, token in (("fra1", FRA), ("ams1", AMS)):
        headers = {"Edgedns-Sent": f"{time.time() + 1:.3f}"}
        assert asked(server, "POST", "/v1/samples", lines(name, 20.0, 30.0), token, **headers)[0] == 200
    told = {each["name"]: each for each in asked(server, "GET", "/v1/vantages")[1]["vantages"]}
    assert sorted(told) == ["ams1", "fra1"]
    assert told["fra1"]["samples"] == 2
    assert abs(told["fra1"]["clock_offset"] - 1.0) < 1.0 * SLACK
    out = json.dumps({"quarantine": True, "owner": "noc", "reason": "its uplink is replaced"}).encode()
    _, told = asked(server, "POST", "/v1/vantages/ams1", out, TOKEN)
    assert told["vantages"][0]["quarantined"]["by"] == "noc"
    assert asked(server, "POST", "/v1/vantages/fra1", out, TOKEN)[0] == 400
    assert "its uplink is replaced" in urllib.request.urlopen(f"{server.admin}/", timeout=10 * SLACK).read().decode()
    metrics = urllib.request.urlopen(f"{server.admin}/metrics", timeout=10 * SLACK).read().decode()
    assert 'edgedns_vantage_quarantined{vantage="ams1"} 1.0' in metrics
    late = {"Edgedns-Sent": f"{time.time() - 60:.3f}"}
    _, reply = asked(server, "POST", "/v1/samples", lines("fra1", 20.0), FRA, **late)
    assert reply["rejected"][0]["error"].startswith("your clock is 60.")


def test_an_agent_that_was_killed_hands_over_what_it_kept(server: Server, tmp_path: Path) -> None:
    """The collector is away, the agent is killed; both come back, and nothing but its last second is missing."""
    admin, spool = server.admin, tmp_path / "spool"
    targets = tmp_path / "targets"
    targets.write_text(f'{{"address": "{network(1)}", "endpoint": "127.0.0.1:9", "method": "tcp"}}\n')
    (tmp_path / "token").write_text(FRA)
    command = [sys.executable, "-m", "edgedns", "probe", "--vantage", "fra1", "--collector", admin, "--targets", str(targets)]
    command += ["--source", "alder=127.1.0.1", "--every", "100ms", "--per-address", "100", "--spool", str(spool)]
    command += ["--token-file", str(tmp_path / "token"), "--timeout", "200ms"]
    server.end()
    with subprocess.Popen(command, stderr=subprocess.PIPE) as agent:
        until(lambda: sum(path.read_bytes().count(b"\n") for path in spool.glob("*.ndjson")) >= 20)
        agent.send_signal(signal.SIGKILL)
    kept = b"".join(path.read_bytes() for path in spool.glob("*.ndjson")).count(b'"at"')
    server.start("--vantage-tokens", str(server.top / "tokens"), "--admin", admin.removeprefix("http://"))
    with subprocess.Popen([*command, "--for", "60s"], stderr=subprocess.PIPE) as agent:
        until(lambda: not list(spool.glob("0*.ndjson")))
        agent.terminate()
        _, said = agent.communicate(timeout=20 * SLACK)
    assert f"{kept} samples are kept from before".encode() in said
    seen = asked(server, "GET", "/v1/status")[1]["samples"]
    assert seen["accepted"] + seen["bad_rtt"] >= kept  # loopback may be quicker than any path
    assert sum(seen.values()) == seen["accepted"] + seen["bad_rtt"]
