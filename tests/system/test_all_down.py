"""A real server whose providers' checks ask web servers on loopback: each `all_down` policy, and coming back."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import dns.message
import dns.query
import dns.rcode
import dns.rdatatype
import pytest

ADDRESSES = {"alder": "127.0.0.21", "birch": "127.0.0.22", "cedar": "127.0.0.23"}
SIX = "::1"
EVERY, DOWN_AFTER, UP_AFTER = 0.2, 2, 2
WITHIN = 8.0  # thirty times what it takes: the machine may be busy
RULES = """\
version: 1
zone: example.net
soa: {{mname: ns1, rname: noc@example.net, minimum: 60s}}
ns: [ns1]
providers:
  alder: {{v4: 127.0.0.21, v6: "::1"{check}}}
  birch: {{v4: 127.0.0.22, v6: "2001:db8:b1::10", check: {tcp}}}
  cedar: {{v4: 127.0.0.23}}
records:
  open: {{rules: [{{name: r, failover: [alder, birch]}}]}}
  measured: {{rules: [{{name: r, wan: {{among: [alder, birch]}}}}]}}
  nothing: {{rules: [{{name: r, wan: {{among: [alder, birch]}}}}], all_down: nodata}}
  shares: {{rules: [{{name: r, weighted: {{alder: 1, birch: 1}}}}], all_down: nodata}}
  failing: {{rules: [{{name: r, failover: [alder, birch]}}], all_down: servfail}}
  other: {{rules: [{{name: r, failover: [alder, birch]}}], all_down: {{use: cedar}}}}
  pinned: {{rules: [{{name: r, pin: alder}}], all_down: nodata}}
  safe: {{rules: [{{name: r, failover: [alder, cedar]}}], all_down: servfail}}
static: ["ns1 A 192.0.2.53"]
"""


class Web:
    """A web server at one address; `stop` frees its port, and `start` takes it again."""

    def __init__(self, host: str, port: int = 0) -> None:
        self.host, self.status = host, 200
        self.server: ThreadingHTTPServer | None = None
        self.port = port
        self.start()
        self.port = self.server.server_address[1] if self.server else 0

    def start(self) -> None:
        web = self

        class Answer(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(web.status if self.path == "/healthz" else 404)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        kind = type("Server", (ThreadingHTTPServer,), {"address_family": family})
        self.server = kind((self.host, self.port), Answer)
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        if self.server is not None:
            self.server.shutdown()
            self.server.server_close()
            self.server = None


class Serving:
    """`edgedns serve` as a process, asked by dnspython."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.log = directory / "log"
        self.begin()

    def begin(self) -> None:
        table = self.directory / "asn.tsv"
        table.write_text("192.0.2.0\t192.0.2.255\t64500\tDE\tOne\n")
        command = [sys.executable, "-m", "edgedns", "serve", f"--rules={self.directory / 'rules'}", f"--asn={table}"]
        command += [f"--state={self.directory / 'state'}", "--listen=127.0.0.1:0", "--admin=127.0.0.1:0", "--workers=1"]
        self.log.write_text("")
        with self.log.open("w") as log:
            self.process = subprocess.Popen(command, stderr=log, stdin=subprocess.DEVNULL, env=os.environ)
        self.port = int(self.said(r"serving 127\.0\.0\.1:(\d+)", 30.0))
        self.admin = self.said(r"admin side: (\S+)/", 30.0)

    def said(self, pattern: str, within: float = WITHIN) -> str:
        found: list[re.Match[str]] = []

        def look() -> bool:
            found[:] = list(re.finditer(pattern, self.log.read_text()))
            return bool(found) or self.process.poll() is not None

        until(look, within)
        assert found, f"{pattern!r} is not in the log: {self.log.read_text()}"
        return found[0][1]

    def ask(self, label: str, rtype: str = "A") -> str:
        """The first address, NODATA, or the rcode."""
        reply = dns.query.udp(dns.message.make_query(f"{label}.example.net", rtype), "127.0.0.1", 3.0, self.port)
        if reply.rcode() != dns.rcode.NOERROR:
            return dns.rcode.to_text(reply.rcode())
        return reply.answer[0][0].to_text() if reply.answer else "NODATA"

    def comes(self, label: str, expected: str | set[str], rtype: str = "A") -> None:
        wanted = {expected} if isinstance(expected, str) else expected
        until(lambda: self.ask(label, rtype) in wanted, WITHIN, lambda: f"{label} {rtype}: {self.ask(label, rtype)}")

    def get(self, path: str) -> str:
        with urllib.request.urlopen(self.admin + path, timeout=5) as reply:
            return str(reply.read().decode())

    def status(self) -> dict[str, Any]:
        return {one["name"]: one for one in json.loads(self.get("/v1/status"))["providers"]}

    def end(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(20)


def until(done: Callable[[], bool], within: float, otherwise: Callable[[], str] = str) -> None:
    end = time.monotonic() + within
    while not done():
        assert time.monotonic() < end, otherwise()
        time.sleep(0.03)


@pytest.fixture
def webs() -> Iterator[dict[str, Web]]:
    """Alder's web server has a twin of the same port at ::1; birch's is checked by TCP."""
    first = Web(ADDRESSES["alder"])
    made = {"alder": first, "alder6": Web(SIX, first.port), "birch": Web(ADDRESSES["birch"])}
    yield made
    for web in made.values():
        web.stop()


@pytest.fixture
def serving(tmp_path: Path, webs: dict[str, Web]) -> Iterator[Serving]:
    (tmp_path / "rules").mkdir()
    write_rules(tmp_path, webs)
    made = Serving(tmp_path)
    yield made
    if made.process.poll() is None:
        made.end()


def write_rules(directory: Path, webs: dict[str, Web], checked: bool = True) -> None:
    pace = f"every: {EVERY * 1000:.0f}ms, timeout: 1s, down_after: {DOWN_AFTER}, up_after: {UP_AFTER}"
    http = f', check: {{http: "http://{{ip}}:{webs["alder"].port}/healthz", {pace}}}'
    text = RULES.format(check=http if checked else "", tcp=f"{{tcp: {webs['birch'].port}, {pace}}}")
    aside = directory / "aside"
    aside.write_text(text)
    aside.rename(directory / "rules" / "example.net.yaml")


def dig(port: int, label: str, rtype: str = "A") -> tuple[str, list[str]]:
    """(status, addresses) as dig prints them."""
    asked = ("dig", "@127.0.0.1", "-p", str(port), "+norecurse", "+time=5", "+tries=2", f"{label}.example.net", rtype)
    said = subprocess.run(asked, capture_output=True, text=True, check=True, timeout=30).stdout
    status = re.search(r"status: (\w+)", said)
    assert status is not None, said
    return status[1], re.findall(rf"^\S+\s+\d+\s+IN\s+{rtype}\s+(\S+)$", said, re.MULTILINE)


OPEN = ("open", "measured", "nothing", "failing", "other", "pinned", "safe")


@pytest.mark.skipif(shutil.which("dig") is None, reason="needs dig")
def test_every_policy_and_back(serving: Serving, webs: dict[str, Web]) -> None:
    alder, birch, cedar = ADDRESSES.values()
    assert {label: serving.ask(label) for label in OPEN} == dict.fromkeys(OPEN, alder)

    webs["alder"].stop()  # one of two fails: only what is pinned to it has nobody left
    serving.comes("open", birch)
    assert [serving.ask(label) for label in OPEN] == [birch, birch, birch, birch, birch, "NODATA", cedar]
    assert serving.ask("shares") == birch
    assert serving.ask("open", "AAAA") == SIX, "IPv6 is checked by itself"

    webs["birch"].stop()  # nobody is left over IPv4
    serving.comes("nothing", "NODATA")
    expected = {"open": {alder}, "measured": {alder}, "nothing": {"NODATA"}, "shares": {"NODATA"}, "failing": {"SERVFAIL"}}
    expected |= {"other": {cedar}, "pinned": {"NODATA"}, "safe": {cedar}}
    assert {label: {serving.ask(label)} for label in expected} == expected
    assert serving.ask("nothing", "AAAA") == SIX
    assert {label: dig(serving.port, label) for label in ("measured", "nothing", "failing", "other")} == {
        "measured": ("NOERROR", [alder]),
        "nothing": ("NOERROR", []),
        "failing": ("SERVFAIL", []),
        "other": ("NOERROR", [cedar]),
    }
    assert dig(serving.port, "failing", "AAAA") == ("NOERROR", [SIX])

    webs["birch"].start()  # the second is back
    serving.comes("nothing", birch)
    assert [serving.ask(label) for label in OPEN] == [birch, birch, birch, birch, birch, "NODATA", cedar]
    webs["alder"].start()  # and the first
    serving.comes("open", alder)
    assert {label: serving.ask(label) for label in OPEN} == dict.fromkeys(OPEN, alder)
    assert serving.ask("shares") in (alder, birch)


def test_one_family_fails_and_all_of_it_is_told(serving: Serving, webs: dict[str, Web]) -> None:
    webs["alder6"].status = 503
    serving.comes("open", "2001:db8:b1::10", "AAAA")
    assert serving.ask("open") == ADDRESSES["alder"]
    assert serving.said(r"check: (alder) is down over IPv6: ::1: HTTP 503\n")
    checks = {one["address"]: one for one in serving.status()["alder"]["checks"]}
    assert (checks["::1"]["down"], checks["::1"]["note"]) == (True, "HTTP 503")
    assert (checks["127.0.0.21"]["down"], checks["127.0.0.21"]["note"]) == (False, "HTTP 200")
    metrics = serving.get("/metrics")
    assert 'edgedns_provider_check{family="2",provider="alder"} 0.0' in metrics
    assert 'edgedns_provider_check{family="1",provider="alder"} 1.0' in metrics
    assert 'provider="cedar"} 1.0' not in metrics.split("edgedns_provider_check", 1)[1].split("# HELP")[0]
    told = json.loads(serving.get("/v1/explain?name=open.example.net&type=AAAA&from=192.0.2.1"))
    assert (told["provider"], told["reason"]) == ("birch", "FAILED_OVER")
    assert "its check fails over IPv6" in {one["lost_because"] for one in told["candidates"]}
    webs["alder6"].status = 200
    serving.comes("open", SIX, "AAAA")
    assert serving.said(r"check: (alder) is up again over IPv6: ::1: HTTP 200\n")


def test_rules_and_restarts(serving: Serving, webs: dict[str, Web]) -> None:
    """A check that is taken out of the rules no longer speaks; what failed before a restart fails after it."""
    webs["alder"].stop()
    webs["birch"].stop()
    serving.comes("nothing", "NODATA")
    serving.end()
    serving.begin()
    assert serving.ask("nothing") == "NODATA"
    webs["birch"].start()
    serving.comes("nothing", ADDRESSES["birch"])
    assert "is down" not in serving.log.read_text(), "both still were"
    assert serving.said(r"check: (birch) is up again over IPv4")
    write_rules(serving.directory, webs, checked=False)
    serving.comes("nothing", ADDRESSES["alder"])
    assert serving.status()["alder"]["checks"] == []
