"""`edgedns demo`: serve, probe and simulate as processes, and a console over what they publish."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import aiohttp
import click
from rich.console import Console
from rich.live import Live

from edgedns.cli.duration import Duration
from edgedns.cli.running import run_until, stop_signals
from edgedns.config import DEFAULT_ADMIN, DEFAULT_LISTEN, Address, SettingsError, parse_address, read_token
from edgedns.demo import console, scenes
from edgedns.demo.asker import Asker
from edgedns.demo.board import Board
from edgedns.demo.crew import Crew
from edgedns.demo.script import Script, default, load
from edgedns.errors import EdgednsError
from edgedns.serve import worker

NAME = "www.cdn.example.net"
LOOK_EVERY = 0.5
DRAW_EVERY = 1.0
START_WITHIN = 60.0
# The targets are ours: each path every 6 s, and room beside it for confirming a loss at once.
PACE = ("--every=6s", "--timeout=700ms", "--per-address=4")


@click.command("demo")
@click.option("--script", "script_file", type=click.Path(path_type=Path), metavar="FILE",
              help="What happens when; else the demo's own.")  # fmt: skip
@click.option("--for", "duration", type=Duration(), help="Stop after so long.")
@click.option("--headless", is_flag=True, help="One plain line for each event and each row that moved.")
@click.option("--listen", default=str(DEFAULT_LISTEN[0]), show_default=True, metavar="ADDR:PORT", help="Where DNS is answered.")
@click.option("--admin", default=str(DEFAULT_ADMIN), show_default=True, metavar="ADDR:PORT", help="Where the page is.")
@click.option("--state", type=click.Path(path_type=Path), metavar="DIR", help="Keep everything here; else it goes at the end.")
def demo(script_file: Path | None, duration: float | None, headless: bool, listen: str, admin: str, state: Path | None) -> None:
    """Serve an example zone to a simulated Internet: watch cables being cut, and the answers move."""
    try:
        script = default() if script_file is None else load(script_file)
        dns, page = _free(parse_address(listen), "--listen"), _free(parse_address(admin), "--admin")
        with _directory(state) as directory:
            asyncio.run(Demo(script, script_file, dns, page, directory, headless).run(duration))
    except EdgednsError as error:
        raise click.ClickException(str(error)) from None


class Demo:
    """One run. The processes get options, packets and HTTP, nothing else; events are the simulator's own lines."""

    def __init__(
        self, script: Script, script_file: Path | None, dns: Address, page: Address, directory: Path, headless: bool
    ) -> None:
        self.script = script
        self.script_file = script_file
        self.directory = directory
        self.dns, self.page = str(dns), str(page)
        self.headless = headless or not sys.stdout.isatty()
        self.crew = Crew(directory)
        self.board = Board((dns.host, dns.port), f"http://{page}/", NAME, scenes.spots())
        self.simulator: dict[str, Any] = {}
        self.listening = asyncio.Event()
        self.told: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.url = f"http://{page}"

    async def run(self, duration: float | None) -> None:
        """Until Ctrl-C, the time asked for, or a process that ends by itself (EdgednsError)."""
        stopped = stop_signals(signal.SIGHUP)
        try:
            async with _session() as self.http:
                await run_until(stopped, duration, self._play(), self.crew.watch())
        finally:
            await self.crew.stop()
            end_workers(self.directory / "run")
        if self.headless:
            self._say(time.time(), "end", f"{self.board.asked} asked, {self.board.unanswered} unanswered")

    async def _play(self) -> None:
        """Start everything, then show until cancelled."""
        await self._start()
        jobs = (self._look(), Asker(self.board).run(), self._upcoming(), self._note_events(), self._draw())
        tasks = [asyncio.create_task(job) for job in jobs]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _start(self) -> None:
        targets = self.directory / "targets.jsonl"
        rules = Path(str(files("edgedns") / "demo" / "rules")).resolve()
        serve = [f"--rules={rules}", f"--listen={self.dns}", f"--admin={self.page}", f"--state={self.directory}"]
        await self.crew.start("serve", serve)
        await self._until_ready()
        script = [f"--script={self.script_file}"] if self.script_file else []
        await self.crew.start("simulate", ["--listen=127.0.0.1:0", f"--write-targets={targets}", *script], self._take_event)
        await self.listening.wait()
        sources = [f"--source={name}={address}" for name, address in self.simulator["providers"].items()]
        await self.crew.start("probe", ["--vantage=demo", f"--collector={self.url}", f"--targets={targets}", *PACE, *sources])
        await self._look_once()
        self.board.pasted = [spot async for spot in self._pasted()]
        self._greet()

    async def _until_ready(self) -> None:
        """The serving process has no other way to tell than /readyz."""
        until = time.monotonic() + START_WITHIN
        while time.monotonic() < until:
            with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                async with self.http.get(f"{self.url}/readyz") as reply:
                    if reply.status == 200:
                        return
            await asyncio.sleep(0.05)
        raise EdgednsError(f"nothing is served after {START_WITHIN:.0f} s")

    async def _pasted(self) -> AsyncIterator[Any]:
        """For each of the script's first events the network whose answer it moves most surely, if wan rules it."""
        for group in scenes.candidates(self.script, self.board.spots):
            for spot in group:
                query = {"name": NAME, "type": "A", "from": spot.network.address}
                async with self.http.get(f"{self.url}/v1/explain", params=query) as reply:
                    if (await reply.json()).get("kind") == "wan":
                        yield spot
                        break

    def _take_event(self, line: str) -> None:
        event = json.loads(line)
        if event["kind"] == "listening":
            self.simulator = event
            self.listening.set()
        elif event["kind"] != "end":
            self.board.events.append(event)
            self.told.put_nowait(event)
            if self.headless:
                print(console.event_line(event), flush=True)

    async def _look(self) -> None:
        while True:
            with contextlib.suppress(aiohttp.ClientError, TimeoutError):  # if serve is gone, the crew's watch tells
                await self._look_once()
            await asyncio.sleep(LOOK_EVERY)

    async def _look_once(self) -> None:
        async with self.http.get(f"{self.url}/v1/status") as reply:
            moved = self.board.take_status(await reply.json())
        if self.headless:
            for move in moved:
                if not move["is_level"]:
                    print(console.move_line(move), flush=True)

    async def _note_events(self) -> None:
        """Tell the server what happened, for the page."""
        while True:
            event = await self.told.get()
            with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                note = {"kind": event["kind"], "text": event["text"]}
                async with self.http.post(f"{self.url}/v1/notes", json=note) as reply:
                    await reply.read()

    async def _upcoming(self) -> None:
        """What the script has next."""
        start = self.simulator["at"]
        for at, text in scenes.beginnings(self.script):
            self.board.upcoming = start + at, text
            await asyncio.sleep(max(0.0, start + at - time.time()))
        self.board.upcoming = None

    async def _draw(self) -> None:
        if self.headless:
            return
        with Live(console=Console(), auto_refresh=False, vertical_overflow="crop") as live:
            while True:
                live.update(console.draw(self.board, time.time(), live.console.height), refresh=True)
                await asyncio.sleep(DRAW_EVERY)

    def _greet(self) -> None:
        if self.headless:
            now = time.time()
            self._say(now, "ready", f"DNS at {self.dns}, page at {self.board.page}")
            for spot in self.board.pasted:
                self._say(now, "dig", self.board.dig(spot))

    @staticmethod
    def _say(at: float, kind: str, text: str) -> None:
        print(f"{console.clock(at)} {kind:<8} {text}", flush=True)


def _session() -> aiohttp.ClientSession:
    token = read_token(None)
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return aiohttp.ClientSession(headers=headers, timeout=aiohttp.ClientTimeout(total=5))


@contextlib.contextmanager
def _directory(state: Path | None) -> Iterator[Path]:
    if state is not None:
        state.mkdir(parents=True, exist_ok=True)
        yield state.absolute()
        return
    with tempfile.TemporaryDirectory(prefix="edgedns-demo-", ignore_cleanup_errors=True) as name:
        yield Path(name)


def _free(address: Address, option: str) -> Address:
    """The address, its port chosen where it is 0; SettingsError in one sentence when another program has it."""
    if not address.is_loopback:
        raise SettingsError(f"the demo stays on this machine: {option} {address} is not a loopback address")
    kinds = (socket.SOCK_STREAM, socket.SOCK_DGRAM) if option == "--listen" else (socket.SOCK_STREAM,)
    port = address.port
    for kind in kinds:
        with socket.socket(address.family, kind) as probe:
            if kind == socket.SOCK_STREAM:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((address.host, port))
                if kind == socket.SOCK_STREAM:
                    probe.listen(1)
            except OSError as error:
                raise SettingsError(worker.listen_sentence(address, error).replace("--listen", option)) from None
            port = probe.getsockname()[1]
    return Address(address.host, port)


def end_workers(run: Path) -> None:
    """Workers outlive a control process that died, by design; the demo leaves nothing behind."""
    for path in run.glob("worker-*.json"):
        status = worker.read_status(run, int(path.stem.removeprefix("worker-")))
        if status is not None and worker.start_ticks(status.pid) == status.ticks:
            with contextlib.suppress(ProcessLookupError):
                os.kill(status.pid, signal.SIGTERM)
