"""The control process of `edgedns serve`: admin side, round loop, reloads, checks, caps."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from random import Random

from edgedns.cli.services import make_services, make_sources
from edgedns.cli.turns import Turns
from edgedns.cli.watch import Watch
from edgedns.config import Settings
from edgedns.control import Control, Paths
from edgedns.control.cookies import Secrets
from edgedns.errors import EdgednsError
from edgedns.probe.check import Checker, Result
from edgedns.serve import admin
from edgedns.serve.complaints import Complaints
from edgedns.serve.current import engine_name
from edgedns.serve.workers import Workers
from edgedns.steer.checks import Target, targets_of
from edgedns.web.history import STEP
from edgedns.web.pages import Pages

TICK = 0.25
POLL = 0.1
LOOK = 0.15
SWEEP = 30.0
RETRY = 1.0
PRICE = 1.0


class Server:
    """One `edgedns serve`: a control, its workers, and the loops that drive them."""

    def __init__(self, settings: Settings, rules: Path, workers: Workers, say: Callable[[str], None]) -> None:
        """`workers` hold the lock of the state directory, and may run already."""
        self.settings = settings
        self.workers = workers
        self.say = say
        self.paths = Paths(settings.state, rules, settings.asn, settings.demand)
        self.turns = Turns()
        self.pages: Pages | None = None
        self.complain = Complaints("control", lambda line: say(line.rstrip()))
        self.control: Control

    async def run(self, early: bool) -> None:
        """Until SIGTERM or SIGINT; `early` says that the workers run already."""
        stop = _stopped_by_signals()
        end = self.workers.retreat
        try:
            await self._start(early)
            async with self._admin_side():
                workers = f"{self.settings.workers} workers; engine: {engine_name()}"
                self.say(f"serving {', '.join(map(str, self.workers.listen))} with {workers}")
                end = self.workers.leave
                await self._until(stop)
                end = self.workers.stop
        finally:  # what fails before it serves leaves what served before it, and a failure while serving leaves the workers
            await asyncio.to_thread(end)
            self.turns.close()

    async def _start(self, early: bool) -> None:
        self.watches = {name: Watch(path) for name, path in (("rules", self.paths.rules), ("asn", self.paths.asn)) if path}
        self.control = Control(self.paths, self.settings.identity, self.say)
        await self.turns.call(self.control.start, time.time())
        self.secrets = Secrets(self.control.store, self.settings.cookie_secret_file, self.say)
        await self.turns.call(self.secrets.follow, time.time())
        if not early:
            await asyncio.to_thread(self.workers.start)

    @contextlib.asynccontextmanager
    async def _admin_side(self) -> AsyncIterator[None]:
        if self.settings.admin is None:
            yield
            return
        services = make_services(self.control, self.workers, self.turns)
        self.pages = Pages(make_sources(services, self.control, self.turns.call))
        app = admin.make_app(services, self.settings.token, self.pages.routes())
        runner, address = await admin.start(app, self.settings.admin, self.settings.token)
        self.say(f"admin side: http://{address}/")
        try:
            yield
        finally:
            await runner.cleanup()

    async def _until(self, stop: asyncio.Event) -> None:
        """Run the loops until told to stop, then save."""
        control, call = self.control, self.turns.call
        checker = Checker(lambda: targets_of(control.world.rules.providers), self._checked, Random())
        loops = [
            self._every(TICK, "tick", lambda: call(control.tick, time.time())),
            self._every(POLL, "workers", lambda: asyncio.to_thread(self.workers.poll)),
            self._every(SWEEP, "sweep", lambda: call(control.sweep, set(self.workers.serials()))),
            self._every(LOOK, "reload", self._reload_what_changed),
            self._every(RETRY, "checks", checker.run),
            self._every(PRICE, "caps", self._price),
            self._every(RETRY, "cookie secrets", lambda: call(self.secrets.follow, time.time())),
        ]
        if self.pages is not None:
            loops.append(self._every(STEP, "page", partial(self._look, self.pages)))
        tasks = [asyncio.create_task(loop) for loop in loops]
        await stop.wait()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        with contextlib.suppress(EdgednsError):
            await call(control.save, time.time())

    async def _checked(self, target: Target, result: Result) -> None:
        try:
            await self.turns.call(self.control.take_check, target, result.good, result.note, time.time())
        except EdgednsError as error:
            self.say(str(error))

    async def _price(self) -> None:
        """Solve for caps what is due, beside the turns and whatever else is."""
        problem = await self.turns.call(self.control.caps_problem, time.time())
        if problem is not None:
            solved = await asyncio.to_thread(problem.solve)
            await self.turns.call(self.control.take_caps, solved, time.time())

    @staticmethod
    async def _look(pages: Pages) -> None:
        await pages.look(time.time())

    async def _every(self, period: float, what: str, act: Callable[[], Awaitable[object]]) -> None:
        """Again and again; whatever fails, the last good snapshot stands and the next time may be better (law 4)."""
        while True:
            try:
                await act()
            except EdgednsError as error:
                self.say(str(error))
            except Exception as error:
                self.complain(what, error)
            await asyncio.sleep(period)

    async def _reload_what_changed(self) -> None:
        """Follow the rules directory and the ASN table."""
        control, turns = self.control, self.turns
        read = {"rules": (control.read_rules, control.take_rules), "asn": (control.read_table, control.take_table)}
        for name, watch in self.watches.items():
            if watch.changed():
                make, take = read[name]
                async with turns.changing:
                    world = await turns.beside(make, time.time())
                    await turns.call(take, world, time.time())


def _stopped_by_signals() -> asyncio.Event:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop
