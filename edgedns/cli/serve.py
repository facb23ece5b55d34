"""`edgedns serve`: the control process beside its workers: admin side, round loop, reloads, publishing."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

import click
from watchfiles import awatch

from edgedns import config
from edgedns.cli.services import make_services, make_sources
from edgedns.config import Settings
from edgedns.control import Control, Paths
from edgedns.errors import EdgednsError
from edgedns.serve import admin
from edgedns.serve.guard import Refused
from edgedns.serve.workers import Workers
from edgedns.web.history import STEP
from edgedns.web.pages import Pages

TICK = 0.25
POLL = 0.1
SWEEP = 30.0
T = TypeVar("T")


@click.command("serve")
@click.option("--rules", type=click.Path(path_type=Path), metavar="DIR", help="The rules directory.")
@click.option("--listen", multiple=True, metavar="ADDR:PORT", help="UDP and TCP, several times if need be. [127.0.0.1:5300]")
@click.option("--admin", metavar="ADDR:PORT", help="Metrics, samples, explain, page; 'off' for none. [127.0.0.1:8053]")
@click.option("--asn", type=click.Path(path_type=Path), metavar="FILE", help="A pyasn .dat, MMDB or iptoasn TSV. [embedded]")
@click.option("--state", type=click.Path(path_type=Path), metavar="DIR", help="Where snapshots and measurements are kept.")
@click.option("--workers", type=int, metavar="N", help="Processes that answer. [one a CPU]")
@click.option("--token-file", type=click.Path(path_type=Path), metavar="FILE", help="Has the admin token; else EDGEDNS_TOKEN.")
@click.option("--config", "config_file", type=click.Path(path_type=Path), metavar="FILE", help="YAML, keys named as these.")
def serve(config_file: Path | None, **options: object) -> None:
    """Answer queries for the zones of a rules directory."""
    try:
        settings = config.load(options, config=config_file)
        if settings.rules is None:
            raise config.SettingsError("which rules? give --rules DIR (the repository's rules/ is an example)")
        asyncio.run(Server(settings, settings.rules).run())
    except (EdgednsError, Refused) as error:
        raise click.ClickException(str(error)) from None


def say(line: str) -> None:
    """One line of the log: UTC time first."""
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    for part in line.splitlines():
        sys.stderr.write(f"{stamp} {part}\n")
    sys.stderr.flush()


class Server:
    """One `edgedns serve`: everything that changes the world runs in one thread, in turn."""

    def __init__(self, settings: Settings, rules: Path) -> None:
        self.settings = settings
        self.control = Control(Paths(settings.state, rules, settings.asn), socket.gethostname(), say)
        self.workers = Workers(settings.listen, settings.workers, settings.state, log=say)
        self.turn = ThreadPoolExecutor(1, "control")
        self.pages: Pages | None = None

    async def call(self, function: Callable[..., T], *arguments: object) -> T:
        """Run something of the control's in its turn, off the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self.turn, partial(function, *arguments))

    async def run(self) -> None:
        """Until SIGTERM or SIGINT. What was published before is answered from while the inputs are still being read."""
        stop = _stopped_by_signals()
        early = (self.settings.state / "published" / "root.json").exists()
        if early:
            await asyncio.to_thread(self.workers.start)
        await self.call(self.control.start, time.time())
        if not early:
            await asyncio.to_thread(self.workers.start)
        try:
            async with self._admin_side():
                say(f"serving {', '.join(map(str, self.workers.listen))} with {self.settings.workers} workers; engine: python")
                await self._until(stop)
        finally:
            await self.call(self.control.save, time.time())
            await asyncio.to_thread(self.workers.stop)
            self.turn.shutdown()

    @contextlib.asynccontextmanager
    async def _admin_side(self) -> AsyncIterator[None]:
        if self.settings.admin is None:
            yield
            return
        services = make_services(self.control, self.workers, self.call)
        self.pages = Pages(make_sources(services, self.control, self.call))
        app = admin.make_app(services, self.settings.token, self.pages.routes())
        runner, address = await admin.start(app, self.settings.admin, self.settings.token)
        say(f"admin side: http://{address}/")
        try:
            yield
        finally:
            await runner.cleanup()

    async def _until(self, stop: asyncio.Event) -> None:
        """Run the loops; the first that fails ends the process, as none of them is expected to."""
        loops = [
            self._every(TICK, lambda: self.call(self.control.tick, time.time())),
            self._every(POLL, lambda: asyncio.to_thread(self.workers.poll)),
            self._every(SWEEP, lambda: self.call(self.control.sweep, set(self.workers.serials()))),
            self._watch(),
        ]
        if self.pages is not None:
            loops.append(self._every(STEP, partial(self._look, self.pages)))
        tasks = [asyncio.create_task(loop) for loop in loops]
        waiting = asyncio.create_task(stop.wait())
        done, _ = await asyncio.wait([*tasks, waiting], return_when=asyncio.FIRST_COMPLETED)
        for task in (*tasks, waiting):
            task.cancel()
        await asyncio.gather(*tasks, waiting, return_exceptions=True)
        for task in done - {waiting}:
            task.result()

    @staticmethod
    async def _look(pages: Pages) -> None:
        await pages.look(time.time())

    @staticmethod
    async def _every(period: float, act: Callable[[], Awaitable[object]]) -> None:
        while True:
            try:
                await act()
            except EdgednsError as error:  # the last good snapshot stands (law 4)
                say(str(error))
            await asyncio.sleep(period)

    async def _watch(self) -> None:
        """Follow the rules directory and the ASN table, which is watched by its folder, since it is replaced by renaming."""
        table = self.settings.asn
        folders = [self.control.paths.rules, *([table.parent] if table else [])]
        async for changes in awatch(*folders, step=100, debounce=400, recursive=False):
            touched = {Path(path) for _, path in changes}
            if table and table in touched:
                await self.call(self.control.reload_table, time.time())
            if any(path.parent == self.control.paths.rules and not path.name.startswith(".") for path in touched):
                await self.call(self.control.reload_rules, time.time())


def _stopped_by_signals() -> asyncio.Event:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop
