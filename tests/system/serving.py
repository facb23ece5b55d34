"""`edgedns serve` as a process of its own, asked over sockets and HTTP; whatever it started is ended by process id."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import dns.edns
import dns.message
import dns.query
import dns.rcode
import dns.rdatatype

from edgedns.publish import read_root
from edgedns.serve.worker import read_status, start_ticks
from tests.small import subnet, write_rules, write_table
from tests.unit.serve.openapi_check import mismatch

# Deadlines are asserted at three times what is promised, and where more runs than there are CPUs at a multiple of that.
SLACK = 3.0 * max(1.0, os.getloadavg()[0] / len(os.sched_getaffinity(0)))
# Tests ask more than a stranger may, and all from one network.
UNLIMITED = "exempt=127.0.0.0/8,exempt=::1/128"
TOKEN = "sesame-0123456789"


def kill(pid: int) -> None:
    """SIGKILL, and until it is gone with all its threads.

    /proc tells of the first one only: another that has not run since the signal may still take a packet with it.
    """
    victim = os.pidfd_open(pid)
    signal.pidfd_send_signal(victim, signal.SIGKILL)
    gone, _, _ = select.select([victim], [], [], 10.0)
    os.close(victim)
    assert gone, f"process {pid} does not end"


class Server:
    """One serve over a state directory; `rules` and `table` are its inputs (no table: the embedded one)."""

    def __init__(self, top: Path, rules: Path, table: Path | None = None, workers: int = 1) -> None:
        self.top, self.rules, self.table, self.workers = top, rules, table, workers
        self.state = top / "state"
        self.process: subprocess.Popen[bytes] | None = None
        self.log = top / "serve.log"
        self.port = 0
        self.admin = ""
        self._marked = 0
        self._workers_seen: dict[int, int] = {}

    def start(self, *more: str, ready: bool = True, environ: dict[str, str] | None = None, under: Sequence[str] = ()) -> Server:
        """Start it, `under` another command, and wait until it says that it serves; a second start goes on with the port."""
        self.mark()
        command = [*under, sys.executable, "-m", "edgedns", "serve", "--rules", str(self.rules), "--state", str(self.state)]
        command += ["--listen", f"127.0.0.1:{self.port}", "--admin", "127.0.0.1:0", "--workers", str(self.workers), *more]
        command += ["--asn", str(self.table)] if self.table else []
        command += [] if "--rate-limit" in more else ["--rate-limit", UNLIMITED]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, stderr=log, env={**os.environ, "EDGEDNS_TOKEN": TOKEN, **(environ or {})})
        if ready:
            self.port = int(self.wait_for(r"serving 127\.0\.0\.1:(\d+)")[1])
            self.admin = self.wait_for(r"admin side: (http://\S+?)/\s")[1]
            self._remember_workers()
        return self

    def mark(self) -> None:
        """From here on the log is looked at."""
        self._marked = self.log.stat().st_size if self.log.exists() else 0

    def said(self) -> str:
        """The log since the mark; a start sets one."""
        return self.log.read_bytes()[self._marked :].decode()

    def wait_for(self, pattern: str, within: float = 40.0) -> re.Match[str]:
        """The first match in the log since the mark."""
        until = time.monotonic() + within
        while not (found := re.search(pattern, self.said())):
            assert self.process is not None
            gone = self.process.poll()
            assert gone is None, f"it ended with {gone}:\n{self.said()}"
            assert time.monotonic() < until, f"it never said {pattern}:\n{self.said()}"
            time.sleep(0.02)
        return found

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """End the control process; with SIGKILL its workers live on."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(15)

    def worker_pids(self) -> list[int]:
        statuses = [read_status(self.state / "run", slot) for slot in range(12)]
        return [status.pid for status in statuses if status and start_ticks(status.pid) == status.ticks]

    def clean_up(self) -> None:
        """End everything: the control process ends its workers, also those whose status files a test deleted."""
        self._remember_workers()
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        for pid, ticks in self._workers_seen.items():
            if start_ticks(pid) == ticks:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def _remember_workers(self) -> None:
        self._workers_seen |= {pid: start_ticks(pid) for pid in self.worker_pids()}

    def root(self) -> dict[str, Any]:
        found = read_root(self.state / "published")
        assert found is not None
        return found

    # -- asking

    def query(
        self, name: str, rtype: str = "A", of: int | str | None = None, tcp: bool = False, timeout: float = 5.0
    ) -> dns.message.Message:
        """One reply; `of` is the number of a small network, or a client subnet."""
        where = subnet(of) if isinstance(of, int) else of
        options = [dns.edns.ECSOption.from_text(f"ECS {where}")] if where else []
        message = dns.message.make_query(name, rtype, use_edns=0, payload=1232, options=options)
        message.flags &= ~dns.flags.RD
        ask = dns.query.tcp if tcp else dns.query.udp
        return ask(message, "127.0.0.1", timeout=timeout, port=self.port)

    def addresses(
        self, name: str = "www.example.net", rtype: str = "A", of: int | str | None = 7, timeout: float = 5.0
    ) -> list[str]:
        """The addresses given, or the rcode where there are none."""
        reply = self.query(name, rtype, of, timeout=timeout)
        wanted = dns.rdatatype.from_text(rtype)
        given = [rr.address for rrset in reply.answer if rrset.rdtype == wanted for rr in rrset]
        return given or [dns.rcode.to_text(reply.rcode())]

    def until_answered(self, wanted: list[str], within: float, **question: Any) -> float:
        """Seconds until the answer is the one wanted."""
        return wait_until(lambda: self.addresses(**question) == wanted, within)

    def http(self, path: str, body: object = None, method: str | None = None, **query: str) -> tuple[int, Any]:
        """(status, JSON or text), as described by the OpenAPI file; a body is sent with the token, bytes as samples."""
        url = self.admin + path + (f"?{urlencode(query)}" if query else "")
        raw = body if isinstance(body, bytes) else json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(url, raw, method=method)
        request.add_header("Authorization", f"Bearer {TOKEN}")
        request.add_header("Content-Type", "application/x-ndjson" if isinstance(body, bytes) else "application/json")
        try:
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=20) as reply:
                status, kind, content = reply.status, reply.headers.get_content_type(), reply.read()
        except urllib.error.HTTPError as error:
            with error:
                status, kind, content = error.code, error.headers.get_content_type(), error.read()
        wrong = mismatch(request.get_method(), path, status, kind, content)
        assert wrong == "", wrong
        return status, json.loads(content) if kind == "application/json" else content.decode()

    def counters(self) -> dict[str, float]:
        """/metrics as `name{labels}` -> value."""
        _, text = self.http("/metrics")
        lines = (line.rpartition(" ") for line in text.splitlines() if line and not line.startswith("#"))
        return {name: float(value) for name, _, value in lines}


def wait_until(holds: Callable[[], bool], within: float) -> float:
    """Seconds until it holds; fails when it doesn't in time."""
    begun = time.monotonic()
    while not holds():
        assert time.monotonic() - begun < within, "too late"
        time.sleep(0.02)
    return time.monotonic() - begun


@contextlib.contextmanager
def serving(top: Path, *more: str, workers: int = 1, **rules: Any) -> Iterator[Server]:
    """A server over the small world, started."""
    server = Server(top, write_rules(top / "rules", **rules), write_table(top / "table.tsv"), workers)
    try:
        yield server.start(*more)
    finally:
        server.clean_up()
