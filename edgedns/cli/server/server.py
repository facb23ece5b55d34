"""The control process of `edgedns serve`: admin side, round loop, reloads, checks, caps."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from edgedns.cli.server import trust
from edgedns.cli.server.learning import Learning
from edgedns.cli.server.reloading import Reloaded, Reloading
from edgedns.cli.server.services import make_services, make_sources, most_asked, planned
from edgedns.cli.server.turns import Turns
from edgedns.cli.server.wishing import make_calls
from edgedns.cli.watch import Watch
from edgedns.config import Address, Settings
from edgedns.control import Control, Paths
from edgedns.control.cookies import Secrets
from edgedns.control.wishing import Wishing
from edgedns.errors import EdgednsError
from edgedns.probe.check import Checker, Result
from edgedns.serve import admin, catchments, plans, systemd, tops, vantages, wanted, whom
from edgedns.serve.complaints import Complaints
from edgedns.serve.current import engine_name
from edgedns.serve.senders import VantageTokens
from edgedns.serve.workers import Workers
from edgedns.steer.failure.checks import Target, targets_of
from edgedns.store.tables import Tables
from edgedns.web.history import STEP
from edgedns.web.pages import Pages

TICK = 0.25
POLL = 0.1
LOOK = 0.15
SWEEP = 30.0
RETRY = 1.0
PRICE = 1.0
SERVED = 2.0  # seconds for workers to follow what was published
FAREWELL = 0.2  # seconds for the reply to who asked for a new beginning
STOP = (signal.SIGTERM, signal.SIGINT)


class Server:
    """One `edgedns serve`: a control, its workers, and the loops that drive them."""

    def __init__(
        self,
        settings: Settings,
        rules: Path,
        workers: Workers,
        say: Callable[[str], None],
        reloading: Reloading,
        admin_socket: socket.socket | None = None,
    ) -> None:
        """`workers` hold the lock of the state directory, and may run already; `admin_socket` was open when we began."""
        self.settings = settings
        self.workers = workers
        self.say = say
        self.paths = Paths(settings.state, rules, settings.asn, settings.demand)
        self.turns = Turns()
        self.pages: Pages | None = None
        self.tokens = VantageTokens(settings.vantage_tokens, say)
        self.complain = Complaints("control", lambda line: say(line.rstrip()))
        self.control: Control
        self.reloading = reloading
        self.renewing = False  # once it has ended: whether the process is to begin anew
        self._admin_socket = admin_socket
        self._stored: set[int] = set()

    async def run(self, early: bool) -> None:
        """Until SIGTERM or SIGINT, or until it is to begin anew; `early` says that the workers run already."""
        self.stop = stop = _stopped_by_signals()
        end = self.workers.retreat
        try:
            await self._start(early)
            async with self._admin_side():
                await asyncio.to_thread(self.workers.settle)
                end = self.workers.leave
                self._watch_for_reloads()
                workers = f"{self.settings.workers} workers; engine: {engine_name()}"
                self.say(f"serving {', '.join(map(str, self.workers.listen))} with {workers}")
                systemd.notify("READY=1", f"STATUS=serving with {workers}")
                await self._until(stop)
                end = self._end
        finally:  # what fails before it serves leaves what served before it, and a failure while serving leaves the workers
            await asyncio.to_thread(end)
            self.turns.close()

    async def _start(self, early: bool) -> None:
        table = self.paths.asn or Tables(self.paths.state).swapped_by
        self.watches = {"rules": Watch(self.paths.rules), "asn": Watch(table)}
        self.control = Control(self.paths, self.settings.identity, self.say)
        self.learning = Learning(self.settings, self.control, self.say)
        self.wishing = Wishing(self.control)
        await self.turns.call(self.control.start, time.time())
        self.secrets = Secrets(self.control.store, self.settings.cookie_secret_file, self.say)
        await self.turns.call(self.secrets.follow, time.time())
        if not early:
            await asyncio.to_thread(partial(self.workers.start, settle=False))

    @contextlib.asynccontextmanager
    async def _admin_side(self) -> AsyncIterator[None]:
        if self.settings.admin is None:
            yield
            return
        services = make_services(self.control, self.workers, self.turns, self._reload_on_order, self.learning, self.wishing)
        self.pages = Pages(make_sources(services, self.control, self.turns.call))
        token = self.settings.token
        routes = [*self.pages.routes(), *plans.routes(partial(planned, self.control, self.turns), token)]
        routes += whom.routes(self.learning.give, token)
        calls = make_calls(self.control, self.wishing, self.turns, self.learning.targets.bars)
        routes += wanted.routes(calls, token)
        routes += tops.routes(partial(most_asked, self.control), token)
        routes += vantages.routes(
            lambda: self.turns.call(trust.told, self.control, time.time()),
            lambda order: self.turns.call(trust.ordered, self.control, order, time.time()),
            token,
        )
        routes += catchments.routes(lambda limit: self.turns.call(self.control.measured.catchments.told, limit))
        app = admin.make_app(services, token, routes, tokens=self.tokens)
        sock = self._take_admin_socket(self.settings.admin)
        runner, address = await admin.start(app, sock)
        self.say(f"admin side: http://{address}/")
        try:
            yield
        finally:
            await runner.cleanup()

    def _take_admin_socket(self, wanted: Address) -> socket.socket:
        """The one that was passed, if it is where we are to listen. A duplicate stays with us, for our successor."""
        passed = self._admin_socket
        if passed is not None:
            host, port = passed.getsockname()[:2]
            if host != wanted.host or wanted.port not in (0, port):
                passed.close()
                passed = None
        sock = passed or admin.listen(wanted, self.settings.token)
        self._admin_socket = sock.dup()
        return sock

    def passed(self) -> tuple[str, list[int]]:
        """The sockets that a successor gets."""
        return systemd.passing(self.workers.held, self._admin_socket)

    async def reload(self) -> Reloaded:
        """Read rules, tables and settings again. Where that takes a new beginning, this one ends soon after."""
        found = await self.reloading.reload(self.control, self.turns, self.passed)
        if found.restarts:
            asyncio.get_running_loop().call_later(FAREWELL, self._renew)
        else:
            await self._until_served(self.control.serial)
        return found

    async def _until_served(self, serial: int) -> None:
        """Until every worker answers from that snapshot."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SERVED):
                while min(self.workers.serials(), default=serial) < serial:
                    await asyncio.sleep(0.02)

    async def _reload_on_order(self) -> dict[str, Any]:
        found = await self.reload()
        return {"changed": found.changed, "kept": found.kept, "restarts": found.restarts}

    def _renew(self) -> None:
        if not self.stop.is_set():
            self.renewing = True
            self.stop.set()

    def _watch_for_reloads(self) -> None:
        """SIGHUP reloads."""
        tasks: set[asyncio.Task[None]] = set()

        async def reload() -> None:
            try:
                await self.reload()
            except Exception as error:
                self.complain("reload", error)

        def on_signal() -> None:
            tasks.add(task := asyncio.create_task(reload()))
            task.add_done_callback(tasks.discard)

        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, on_signal)

    def _end(self) -> None:
        """Workers end with us, unless we begin anew. What systemd keeps for us goes on waiting there."""
        if self.renewing:
            self.workers.hand_on()
            return
        systemd.notify("STOPPING=1")
        self.workers.stop(keep=systemd.is_there())

    async def _poll(self) -> None:
        await asyncio.to_thread(self.workers.poll)
        held = {one.number: one for one in self.workers.held} if systemd.is_there() else {}
        if held.keys() != self._stored:
            self._stored = set(held)
            systemd.store(held.values())

    async def _feed_watchdog(self) -> None:
        """Only while the turns go on."""
        await self.turns.call(systemd.notify, "WATCHDOG=1")

    async def _until(self, stop: asyncio.Event) -> None:
        """Run the loops until told to stop, then save."""
        control, call = self.control, self.turns.call
        checker = Checker(lambda: targets_of(control.world.rules.providers), self._checked, Random())
        loops = [
            self._every(TICK, "tick", lambda: call(control.tick, time.time())),
            self._every(POLL, "workers", self._poll),
            self._every(SWEEP, "sweep", lambda: call(control.sweep, set(self.workers.serials()))),
            self._every(LOOK, "reload", self._reload_what_changed),
            self._every(RETRY, "checks", checker.run),
            self._every(PRICE, "caps", self._price),
            self._every(RETRY, "targets", self.learning.look),
            self._every(TICK, "wishes", lambda: call(self.wishing.tick, time.time())),
            self._every(RETRY, "vantage tokens", self._follow_tokens),
            self._every(RETRY, "cookie secrets", lambda: call(self.secrets.follow, time.time())),
        ]
        if watchdog := systemd.watchdog_seconds():
            loops.append(self._every(watchdog / 3, "watchdog", self._feed_watchdog))
        if self.pages is not None:
            loops.append(self._every(STEP, "page", partial(self._look, self.pages)))
        tasks = [asyncio.create_task(loop) for loop in loops]
        await stop.wait()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        with contextlib.suppress(EdgednsError):
            await call(control.save, time.time())
            await self.learning.save()

    async def _checked(self, target: Target, result: Result) -> None:
        try:
            await self.turns.call(self.control.take_check, target, result.good, result.note, time.time())
        except EdgednsError as error:
            self.say(str(error))

    async def _follow_tokens(self) -> None:
        self.tokens.follow()

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
        control, turns, worlds = self.control, self.turns, self.control.worlds
        read = {"rules": (worlds.read_rules, control.take_rules), "asn": (worlds.read_table, control.take_table)}
        for name, watch in self.watches.items():
            if watch.changed():
                make, take = read[name]
                async with turns.changing:
                    world = await turns.beside(make, time.time())
                    await turns.call(take, world, time.time())


def _stopped_by_signals() -> asyncio.Event:
    stop = asyncio.Event()
    for number in STOP:
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP)  # blocked while we began anew
    return stop
