"""`edgedns simulate`: the demo's Internet, as a process of its own."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import select
import signal
import socket
import sys
import time
from pathlib import Path
from random import Random
from typing import Any

import click

from edgedns.cli.duration import Duration
from edgedns.demo.internet import Simulator, endpoint_of, open_socket, write_targets
from edgedns.demo.networks import networks
from edgedns.demo.paths import Internet
from edgedns.demo.script import Script, default, load
from edgedns.errors import EdgednsError

ATOMIC = 4096  # POSIX's PIPE_BUF here: a line up to this size is written whole or not at all


@click.command()
@click.option("--script", "script_file", type=click.Path(path_type=Path), help="What happens when; else the demo's own.")
@click.option("--listen", default="127.0.0.1:5301", show_default=True, metavar="ADDR:PORT",
              help="The UDP port, on all of 127.0.0.0/8: each network has an address there.")  # fmt: skip
@click.option("--write-targets", type=click.Path(path_type=Path), help="Write the targets file for `edgedns probe` here.")
@click.option("--for", "duration", type=Duration(), help="Stop after so long.")
def simulate(script_file: Path | None, listen: str, write_targets: Path | None, duration: float | None) -> None:
    """Play the Internet for UDP probes on loopback; prints what happens as JSON lines."""
    try:
        script = default() if script_file is None else load(script_file)
        _run(script, _port(listen), write_targets, duration)
    except EdgednsError as error:
        raise click.ClickException(str(error)) from None


def _run(script: Script, port: int, targets: Path | None, duration: float | None) -> None:
    places = networks()
    with open_socket(port) as sock, _woken_by_signals() as wake:
        port = sock.getsockname()[1]
        if targets is not None:
            _write(targets, port)
        simulator = Simulator(Internet(script, places), sock, Random(script.seed), tell)
        sources = {transit.name: transit.source for transit in script.providers}
        tell(_event("listening", f"{len(places)} networks x {len(sources)} providers at {endpoint_of(0)}:{port} and on",
                    port=port, providers=sources))  # fmt: skip
        simulator.run(wake, duration)
        counts = {name: getattr(simulator, name) for name in ("received", "replied", "lost", "strangers", "overflowed")}
        tell(_event("end", ", ".join(f"{count} {name}" for name, count in counts.items()), **counts))


def _write(targets: Path, port: int) -> None:
    try:
        write_targets(targets, networks(), port)
    except OSError as error:
        raise EdgednsError(f"can't write {targets}: {error.strerror}") from None


def _event(kind: str, text: str, **more: Any) -> dict[str, Any]:
    return {"at": round(time.time(), 3), "kind": kind, "text": text, **more}


def tell(event: dict[str, Any]) -> None:
    """One line on standard output. A reader that is slow misses lines; one that is gone ends the run."""
    out = sys.stdout.fileno()
    line = json.dumps(event).encode() + b"\n"
    if len(line) <= ATOMIC and select.select([], [out], [], 0)[1]:
        try:
            os.write(out, line)
        except BrokenPipeError:
            raise SystemExit(0) from None


def _woken_by_signals() -> socket.socket:
    """Readable once SIGTERM or SIGINT has come."""
    wake, signalled = socket.socketpair()
    for end in (wake, signalled):
        end.setblocking(False)

    def send(number: int, frame: object) -> None:
        with contextlib.suppress(BlockingIOError):  # it has been told already
            signalled.send(b"!")

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, send)
    return wake


def _port(listen: str) -> int:
    host, _, port = listen.rpartition(":")
    try:
        loopback = ipaddress.IPv4Address(host).is_loopback
    except ValueError:
        loopback = False
    if not loopback or not port.isdecimal() or int(port) > 65535:
        raise click.BadParameter(f"{listen!r} is not an address of 127.0.0.0/8 with a port", param_hint="--listen")
    return int(port)
