"""`edgedns follow`: round trips of users' own connections, from nginx's access log as it grows."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import click

from edgedns.cli import sending
from edgedns.cli.duration import Duration
from edgedns.cli.remote import token_option
from edgedns.cli.running import run_until, stop_signals
from edgedns.errors import EdgednsError, SourceError
from edgedns.probe.nginx import AccessLog
from edgedns.probe.tail import Tail

POLL = 0.25


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
        judge, say = AccessLog(sending.name(vantage, "--vantage"), providers, ceiling), sending.teller(vantage)
        outlet = sending.Outlet(collector, token, sending.sparingly(say))
        asyncio.run(_Following(Tail(file), judge, outlet, say).run(duration))
    except EdgednsError as error:
        raise click.ClickException(str(error)) from None


class _Following:
    """One run: the file, what is made of its lines, and the way to the collector."""

    def __init__(self, tail: Tail, judge: AccessLog, outlet: sending.Outlet, say: sending.Say) -> None:
        self.tail = tail
        self.judge = judge
        self.outlet = outlet
        self.say = say
        self.is_hindered = False

    async def run(self, duration: float | None) -> None:
        """Until a signal, or as long as was asked for. What is left when it ends is taken and sent."""
        stopped = stop_signals()
        self.say(f"following {self.tail.path}")
        try:
            await run_until(stopped, duration, self._read(), sending.tell(self.say, self._sum), self.outlet.run())
        finally:
            self._take_rest()
            await self.outlet.finish()
            self.say(self._sum())

    def _take_rest(self) -> None:
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
                    self.outlet.add(found)
            self.is_hindered = False
        except (SourceError, OSError) as error:
            if not self.is_hindered:
                self.say(f"{error}")
            self.is_hindered = True

    def _sum(self) -> str:
        """What became of the lines since the start."""
        counts, tail = self.judge.counts, self.tail
        beside = {"lines too long": tail.too_long, "octets skipped": tail.skipped, "rotations": tail.rotations}
        told = [*sending.counted(counts), *sending.counted(beside), *self.outlet.told()]
        return ", ".join([f"in all: {sum(counts.values())} lines", *told])
