"""`edgedns probe`: time this vantage's paths through each provider and hand the samples to a collector."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import click

from edgedns.cli import sending, targeting, voice
from edgedns.cli.asking import Either
from edgedns.cli.duration import Duration
from edgedns.cli.remote import token_option
from edgedns.cli.running import run_until, stop_signals
from edgedns.config import Address
from edgedns.errors import EdgednsError
from edgedns.model import METHODS
from edgedns.probe.about import page
from edgedns.probe.agent import Agent, Counts, Plan, Sample
from edgedns.probe.catchment import Landing
from edgedns.probe.errands import Errands
from edgedns.probe.methods import Voice
from edgedns.probe.source import Source
from edgedns.probe.spool import Spool
from edgedns.steer.space.asn import embedded
from edgedns.steer.space.asn import load as load_table


@click.command(cls=Either)
@click.option("--vantage", required=True, help="This vantage's name, such as fra1.")
@click.option("--collector", required=True, metavar="URL", help="Where samples go, http://HOST:PORT; - prints them.")
@targeting.options
@click.option("--source", "sources", required=True, multiple=True, metavar=voice.SOURCE,
              help="The address of ours that a provider announces; once for each family.")  # fmt: skip
@click.option("--every", type=Duration(), default="10s", show_default=True, help="The period: each path once.")
@click.option("--method", type=click.Choice(METHODS), default="udp", show_default=True, help="For targets that name none.")
@click.option("--timeout", type=Duration(), default="1s", show_default=True, help="A reply later than this is lost.")
@click.option("--per-address", type=click.FloatRange(0.01, 1000), default=1.0, show_default=True,
              help="At most so many packets a second to one address, over 10 s.")  # fmt: skip
@click.option("--ceiling", type=click.FloatRange(1, 1e6), default=1000.0, show_default=True,
              help="At most so many packets a second in all.")  # fmt: skip
@click.option("--asn", type=click.Path(path_type=Path), metavar="FILE",
              help="A table as for serve: which targets share a network.  [embedded]")  # fmt: skip
@token_option
@click.option("--spool", type=click.Path(path_type=Path), metavar="DIR",
              help="Keeps samples on disk while the collector is away.  [in memory]")  # fmt: skip
@click.option("--spool-size", type=click.IntRange(1, 1 << 20), default=64, show_default=True, metavar="MB",
              help="At most so much of it; the oldest samples are lost first.")  # fmt: skip
@voice.key_option
@voice.port_option
@voice.http_option
@click.option("--for", "duration", type=Duration(), help="Stop after so long.")
@click.option("--once", is_flag=True, help="Stop after one period.")
def probe(
    vantage: str,
    collector: str,
    targets: str,
    sources: tuple[str, ...],
    asn: Path | None,
    token: str,
    **rest: Any,
) -> None:
    """Time this vantage's paths through each provider and hand the samples to a collector.

    With `NAME|ADDR --from all`: ask every vantage of a server once, for a person.
    """
    try:
        plan = Plan(sending.name(vantage, "--vantage"), rest["every"], rest["timeout"],
                    per_address=rest["per_address"], ceiling=rest["ceiling"], per_network=rest["per_network"])  # fmt: skip
        if targets == targeting.COLLECTOR and (collector == "-" or rest["once"]):
            raise click.BadParameter("a collector has to be there, and --once is over too soon", param_hint="--targets")
        told, say = targeting.about(rest["about"]), sending.teller(vantage)
        speech = voice.voice(rest["key_file"], rest["port"], rest["http_time"], told)
        origins = [voice.source(text) for text in sources]
        table = embedded() if asn is None else load_table(asn)
        whom = targeting.Whom(targets, rest["opt_out"], rest["method"], table, (collector, token, rest["networks"]))
        kept = None if rest["spool"] is None else Spool(rest["spool"], rest["spool_size"] << 20)
        outlet = sending.Outlet(collector, token, say, kept)
        wishes = None if collector == "-" or rest["once"] else (collector, token)
        session = _Session(plan, origins, whom, speech, outlet, wishes, say)
        pages = targeting.pages(rest["about_listen"], told)
        text = partial(page, plan, origins, told)
        asyncio.run(session.run(rest["duration"], rest["once"], pages, lambda: text(time.time())))
    except EdgednsError as error:
        raise click.ClickException(str(error)) from None


class _Session:
    """One run: the agent, its way to the collector, and a line on the console each period."""

    def __init__(
        self, plan: Plan, sources: list[Source], whom: targeting.Whom, speech: Voice, outlet: sending.Outlet,
        wishes: tuple[str, str] | None, say: sending.Say,
    ) -> None:  # fmt: skip
        """`wishes`: the collector whose errands are run, as (URL, token)."""
        self.plan = plan
        self.sources = sources
        self.whom = whom
        self.speech = speech
        self.outlet = outlet
        self.wishes = wishes
        self.say = say
        self.errands: Errands | None = None
        self.rtts: list[float] = []

    async def run(self, duration: float | None, once: bool, pages: list[Address], text: Callable[[], str]) -> None:
        """Until a signal, with the text served at these places."""
        async with targeting.telling(pages, text):
            await self._run(duration, once)

    async def _run(self, duration: float | None, once: bool) -> None:
        stopped = stop_signals()
        agent = Agent(
            self.plan, self.sources, self.whom.targets, self._take, time.time, Random(), self.speech, self._take_landing,
            self.whom.never,
        )  # fmt: skip
        self._greet(agent)
        agent.start(rounds=1 if once else None)
        jobs = [agent.idle.wait(), self._tell(agent), self.outlet.run(), *self.whom.followers(agent, self.say)]
        if self.wishes is not None:
            self.errands = Errands(agent, *self.wishes, self.say)
            jobs.append(self.errands.run())
        try:
            await run_until(stopped, duration, *jobs)
        finally:
            agent.stop()
            await self.outlet.finish()
            self._sum_up(agent.counts, agent, "in all: ")

    def _take(self, sample: Sample) -> None:
        if sample.rtt_ms is not None and len(self.rtts) < 100_000:
            self.rtts.append(sample.rtt_ms)
        self.outlet.add(sample.line())

    def _take_landing(self, landing: Landing) -> None:
        self.outlet.add(landing.line())

    def _greet(self, agent: Agent) -> None:
        self.say(f"{len(agent.paths)} paths to {agent.reached} targets, each every {agent.period:g} s")
        if agent.period > self.plan.every:
            self.say(f"that is longer than {self.plan.every:g} s, to keep --per-address and --ceiling")
        if agent.turns > 1:
            self.say(f"targets of a network take up to {agent.turns} turns, to keep --per-network")
        if agent.burst < self.plan.burst:
            self.say(f"probes of {agent.burst} packets instead of {self.plan.burst}, to keep --per-address")
        self.say(f"probing by {', '.join(agent.ways)}")
        if self.speech.port:
            self.say(f"listening at port {self.speech.port} for what other agents' probes bring here")
        if agent.deaf:
            more = f" (and {len(agent.deaf) - 1} more like that)" if len(agent.deaf) > 1 else ""
            self.say(f"not everything that lands here will be heard: {agent.deaf[0]}{more}")
        if self.outlet.waiting:
            self.say(f"{self.outlet.waiting} samples are kept from before")
        if agent.unreachable:
            self.say(f"{agent.unreachable} targets are left out: no --source has their endpoint's address family")

    async def _tell(self, agent: Agent) -> None:
        before = agent.counts.copy()
        while True:
            await asyncio.sleep(agent.period)
            now = agent.counts.copy()
            self._sum_up(now.since(before), agent)
            before = now

    def _sum_up(self, counts: Counts, agent: Agent, heading: str = "") -> None:
        parts = [f"{heading}{counts.probes} probes", f"{counts.replied} replied", f"{counts.lost} lost"]
        if self.rtts:
            parts.append(f"median {statistics.median(self.rtts):.2f} ms")
        self.rtts.clear()
        parts += sending.counted({
            "unsent": counts.unsent, "packets held back": counts.packets_held, "packets failed": counts.packets_failed,
            "stray packets": agent.strays, "replies to other agents": agent.landings.seen,
        })  # fmt: skip
        parts += self.outlet.told()
        if self.errands is not None and self.errands.done.asked:
            done = self.errands.done
            parts.append(f"{done.asked} asked for since the start: {done.begun} begun, {done.known} under way already, "
                         f"{done.unknown + done.refused} not possible")  # fmt: skip
        self.say(", ".join(parts))
