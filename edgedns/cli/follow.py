"""`edgedns follow`: round trips of users' own connections, from nginx's access log as it grows."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from pathlib import Path

import click

from edgedns.cli import sending
from edgedns.cli.duration import Duration
from edgedns.cli.remote import token_option
from edgedns.errors import EdgednsError, SourceError
from edgedns.probe.nginx import AccessLog
from edgedns.probe.tail import Tail
from edgedns.probe.uplink import Uplink

POLL = 0.25
TELL_EVERY = 60.0
LAST_POST = 1.0


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--vantage", required=True, help="This vantage's name, such as fra1.")
@click.option("--collector", required=True, metavar="URL", help="Where samples go, http://HOST:PORT; - prints them.")
@click.option("--source", "sources", required=True, multiple=True, metavar="PROVIDER=ADDRESS",
              help="The address of ours that a provider announces; once for each family.")  # fmt: skip
@click.option("--ceiling", type=click.FloatRange(1, 1e6), default=1000.0, show_default=True,
              help="At most so many samples a second.")  # fmt: skip
@token_option
@click.option("--for", "duration", type=Duration(), help="Stop after so long.")
def follow(
    file: Path, vantage: str, collector: str, sources: tuple[str, ...], ceiling: float, token: str, duration: float | None,
) -> None:  # fmt: skip
    """Follow nginx's access log FILE and hand the round trips of users' connections to a collector."""
    try:
        providers = {one.address: one.provider for one in map(sending.source, sources)}
        judge = AccessLog(sending.name(vantage, "--vantage"), providers, ceiling)
        following = _Following(Tail(file), judge, vantage, collector, token)
        asyncio.run(following.run(duration))
    except EdgednsError as error:
        raise click.ClickException(str(error)) from None


class _Following:
    """One run: the file, what is made of its lines, and the way to the collector."""

    def __init__(self, tail: Tail, judge: AccessLog, vantage: str, collector: str, token: str) -> None:
        self.tail = tail
        self.judge = judge
        self.vantage = vantage
        self.uplink = None if collector == "-" else Uplink(sending.url(collector), token, sending.sparingly(self.say))
        self.is_hindered = False

    def say(self, text: str) -> None:
        with contextlib.suppress(OSError):
            print(f"{time.strftime('%H:%M:%S')} {self.vantage}: {text}", file=sys.stderr, flush=True)

    async def run(self, duration: float | None) -> None:
        """Until a signal, or as long as was asked for. What is left when it ends is taken and sent."""
        stopped = asyncio.create_task(sending.stop_signals().wait())
        running = [asyncio.create_task(self._read()), asyncio.create_task(self._tell())]
        if self.uplink is not None:
            running.append(asyncio.create_task(self.uplink.run()))
        self.say(f"following {self.tail.path}")
        done, rest = await asyncio.wait([stopped, *running], timeout=duration, return_when=asyncio.FIRST_COMPLETED)
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)
        self._finish()
        if self.uplink is not None and self.uplink.backlog:
            await self.uplink.finish(LAST_POST)
        self.say(self._sum())
        for task in done:
            task.result()

    def _finish(self) -> None:
        self._take()
        while self.tail.is_behind:
            self._take()
        self.tail.close()

    async def _read(self) -> None:
        while True:
            self._take()
            await asyncio.sleep(0 if self.tail.is_behind else POLL)

    def _take(self) -> None:
        """What was written since. A file that can't be read is told of once, and tried again."""
        now = time.time()
        try:
            for line in self.tail.lines(time.monotonic()):
                found = self.judge.sample(line, now)
                if found is not None:
                    self._send(found)
            self.is_hindered = False
        except (SourceError, OSError) as error:
            if not self.is_hindered:
                self.say(f"{error}")
            self.is_hindered = True

    def _send(self, line: bytes) -> None:
        if self.uplink is None:
            print(line.decode(), flush=True)
        else:
            self.uplink.add(line)

    async def _tell(self) -> None:
        while True:
            await asyncio.sleep(TELL_EVERY)
            self.say(self._sum())

    def _sum(self) -> str:
        """What became of the lines since the start."""
        counts, tail = self.judge.counts, self.tail
        parts = [f"in all: {sum(counts.values())} lines"]
        parts += [f"{count} {verdict.replace('_', ' ')}" for verdict, count in counts.items() if count]
        beside = ((tail.too_long, "lines too long"), (tail.skipped, "octets skipped"), (tail.rotations, "rotations"))
        parts += [f"{count} {what}" for count, what in beside if count]
        if self.uplink is not None:
            parts.append(f"{self.uplink.accepted} accepted, {self.uplink.backlog} waiting")
        return ", ".join(parts)
