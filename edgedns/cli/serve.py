"""`edgedns serve`: workers first, where something was published before; then the control process beside them."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import click

from edgedns import config
from edgedns.cli.build import WORKER, build_of
from edgedns.config import DEFAULT_LISTEN, Address, Settings
from edgedns.engine.limit import DEFAULT, parse_terms
from edgedns.errors import EdgednsError
from edgedns.publish import read_root
from edgedns.serve import systemd
from edgedns.serve.current import Mapped, engine_name
from edgedns.serve.workers import Workers


@click.command("serve")
@click.option("--rules", type=click.Path(path_type=Path), metavar="DIR", help="The rules directory.")
@click.option("--listen", multiple=True, metavar="ADDR:PORT", help="UDP and TCP, several times if need be. [127.0.0.1:5300]")
@click.option("--admin", metavar="ADDR:PORT", help="Metrics, samples, explain, page; 'off' for none. [127.0.0.1:8053]")
@click.option("--asn", type=click.Path(path_type=Path), metavar="FILE", help="A pyasn .dat, MMDB or iptoasn TSV. [embedded]")
@click.option("--identity", metavar="NAME", help="What NSID and CHAOS queries are told; 'off' for nothing. [host name]")
@click.option("--demand", type=click.Path(path_type=Path), metavar="FILE", help="Demand by network, for caps. [as counted]")
@click.option("--state", type=click.Path(path_type=Path), metavar="DIR", help="Where snapshots and measurements are kept.")
@click.option("--workers", type=int, metavar="N", help="Processes that answer. [one a CPU]")
@click.option("--rate-limit", metavar="WORDS", help="What one prefix may get over UDP; 'off' for no limit. [surplus=100000]")
@click.option("--cookie-secret-file", type=click.Path(path_type=Path), metavar="FILE", help="Shared with other nodes. [own]")
@click.option("--token-file", type=click.Path(path_type=Path), metavar="FILE", help="Has the admin token; else EDGEDNS_TOKEN.")
@click.option("--targets-list", multiple=True, metavar="FILE[:COLUMN]", help="Addresses for agents to probe, several times.")
@click.option("--targets-method", type=click.Choice(config.TARGETS_METHODS), help="How agents probe whom it learns. [icmp]")
@click.option("--opt-out", type=click.Path(path_type=Path), metavar="FILE", help="Prefixes that are never probed.")
@click.option("--vantage-tokens", type=click.Path(path_type=Path), metavar="FILE", help="Tokens, one vantage's each.")
@click.option("--config", "config_file", type=click.Path(path_type=Path), metavar="FILE", help="YAML, keys named as these.")
@click.option("--rehearse", is_flag=True, hidden=True, help="Only see whether it could start (for `edgedns reload`).")
def serve(config_file: Path | None, rehearse: bool, **options: object) -> None:
    """Answer queries for the zones of a rules directory."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until there is something to reload
    try:
        _serve(partial(config.load, options, config=config_file), rehearse)
    except EdgednsError as error:
        raise click.ClickException(str(error)) from None


def _serve(read: Callable[[], Settings], rehearsal: bool) -> None:
    """What was published before is answered from while the inputs, and what reads them, are still being loaded."""
    settings, passed, build = read(), systemd.take_passed(os.environ), build_of()
    if settings.rules is None:
        raise config.SettingsError("which rules? give --rules DIR (the repository's rules/ is an example)")
    engine_name()
    extra = [f"--rate-limit={_terms(settings.rate_limit)}"]
    extra.append(f"--build={build_of(within=WORKER)}")
    listen = _listen(settings, passed)
    if rehearsal:
        from edgedns.cli.server.rehearse import rehearse

        rehearse(settings, listen, passed)
        return
    workers = Workers(listen, settings.workers, settings.state, extra=extra, given=passed.sockets, log=say)
    workers.take_lock()
    try:
        if early := _can_answer(settings.state / "published"):
            workers.start(settle=False)
        # Not at the top: numpy, aiohttp and their like take longer to import than workers take to start.
        from edgedns.cli.server.reloading import Reloading
        from edgedns.cli.server.server import Server

        server = Server(settings, settings.rules, workers, say, Reloading(settings, read, build, say), passed.admin)
    except BaseException:
        workers.retreat()
        raise
    asyncio.run(server.run(early))
    if server.renewing:
        _begin_anew(*server.passed())


def _begin_anew(variable: str, descriptors: list[int]) -> None:
    """Become what is on disk now, with the sockets open and under the same process id; workers answer meanwhile."""
    for descriptor in descriptors:
        os.set_inheritable(descriptor, True)
    # Both last until the next image has handlers of its own: whoever stops it now is not to leave workers behind.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT))
    sys.stderr.flush()
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, systemd.VARIABLE: variable})


def _listen(settings: Settings, passed: systemd.Passed) -> tuple[Address, ...]:
    """Where to answer: as set, else where a socket unit listens for us."""
    shared = tuple(dict.fromkeys(one.place.address for one in passed.sockets if one.shared))
    return shared if shared and settings.listen == DEFAULT_LISTEN else settings.listen


def _terms(text: str) -> str:
    """The terms of rate limiting, as given or by default; SettingsError where nobody could tell."""
    try:
        parse_terms(text or DEFAULT)
    except ValueError as error:
        raise config.SettingsError(f"--rate-limit {text}: {error}") from None
    return text or DEFAULT


def say(line: str) -> None:
    """One line of the log: UTC time first."""
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    for part in line.splitlines():
        sys.stderr.write(f"{stamp} {part}\n")
    sys.stderr.flush()


def _can_answer(published: Path) -> bool:
    """Whether what was published before can be opened."""
    try:
        root = read_root(published)
        return root is not None and Mapped(published).snapshot(root).serial > 0
    except (EdgednsError, KeyError, IndexError, TypeError, ValueError):
        return False
