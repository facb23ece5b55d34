"""Other authoritative servers on loopback: `python -m tests.conformance.peers nsd|knot` serves the example zone until ended.

Aim the tests at one by `pytest tests/conformance --server 127.0.0.1:PORT`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import dns.exception
import dns.message
import dns.query

from tests import authorities
from tests.conformance.static_zone import lines

PATH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
COMMANDS = {"nsd": ("nsd", "-d", "-c"), "knot": ("knotd", "-c")}


def missing(*servers: str) -> list[str]:
    """Those of these servers that this machine lacks."""
    return [server for server in servers if shutil.which(COMMANDS[server][0], path=PATH) is None]


def free_port() -> int:
    """A port that is free for UDP and TCP at every address of both families."""
    for _ in range(100):
        with contextlib.suppress(OSError), contextlib.ExitStack() as held:
            first = held.enter_context(socket.socket(socket.AF_INET6, socket.SOCK_STREAM))
            first.bind(("::", 0))
            port = int(first.getsockname()[1])
            held.enter_context(socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)).bind(("::", port))
            return port
    raise AssertionError("no port is free for both UDP and TCP")


@contextlib.contextmanager
def serving(server: str, zone: str, text: str, folder: Path, more: str = "") -> Iterator[int]:
    """NSD or Knot for one zone on a port of 127.0.0.1; `more` goes to the end of its configuration."""
    port = free_port()
    (folder / "zone").write_text(text)
    config = folder / f"{server}.conf"
    config.write_text(_config(server, zone, folder, port) + more)
    log = folder / "out"
    with log.open("wb") as out:
        process = subprocess.Popen([*COMMANDS[server], str(config)], stdout=out, stderr=out, env={**os.environ, "PATH": PATH})
    try:
        wait_for(port, zone, lambda: f"{server}: {log.read_text()}" if process.poll() is not None else "")
        yield port
    finally:
        process.terminate()
        process.wait(10)


def _config(server: str, zone: str, folder: Path, port: int) -> str:
    if server == "knot":
        return authorities.knot(folder, zone, port, ['version: ""'], more=["semantic-checks: off"])
    place = "ip-address: 127.0.0.1", f"port: {port}", f'logfile: "{folder}/nsd.log"'
    return authorities.nsd(folder, {zone: "zone"}, [*place, "ipv4-edns-size: 1232", "rrl-ratelimit: 0"])


def wait_for(port: int, zone: str, failed: Callable[[], object], within: float = 20) -> None:
    """Wait until the zone's SOA is answered; `failed()` gives the reason why it never will be, or nothing."""
    query, until = dns.message.make_query(zone, "SOA"), time.monotonic() + within
    while True:
        with contextlib.suppress(dns.exception.DNSException, OSError):
            if dns.query.udp(query, "127.0.0.1", 0.5, port).answer:
                return
        assert not failed(), failed()
        assert time.monotonic() < until, f"the zone {zone} is not answered at port {port}"
        time.sleep(0.05)


def main(server: str) -> None:
    text = "\n".join(lines()) + "\n"
    with tempfile.TemporaryDirectory() as folder, serving(server, "cdn.example.net", text, Path(folder)) as port:
        print(f"{server} at 127.0.0.1:{port}", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            time.sleep(1e9)


if __name__ == "__main__":
    main(sys.argv[1])
