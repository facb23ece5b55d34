"""Options of `edgedns probe` about whom it probes and what it says of itself, and what follows them while it runs."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import click

from edgedns.cli.watch import Watch
from edgedns.config import Address, SettingsError, parse_address
from edgedns.errors import EdgednsError
from edgedns.model import Method
from edgedns.probe import feed, lists
from edgedns.probe.about import Page
from edgedns.probe.agent import Agent
from edgedns.probe.feed import Feed
from edgedns.probe.targets import Target, labelled, load
from edgedns.special import Prefixes
from edgedns.steer.space.asn import AsnTable

COLLECTOR = "collector"
LOOK = 1.0
_ABOUT = re.compile(r"(?:https?|mailto|tel):[!-~]{1,112}")
Say = Callable[[str], None]
F = TypeVar("F", bound=Callable[..., Any])

_OPTIONS = (
    click.option("--targets", required=True, metavar=f"FILE|{COLLECTOR}",
                 help="Whom to probe: JSON lines or YAML; or whom the collector names, asked each minute."),
    click.option("--networks", type=click.IntRange(1, 100_000), default=1000, show_default=True,
                 help=f"With --targets {COLLECTOR}: so many networks, those that ask most."),
    click.option("--opt-out", type=click.Path(path_type=Path), metavar="FILE",
                 help="Prefixes that are never probed, one a line; followed while it runs."),
    click.option("--per-network", type=click.FloatRange(0.01, 100_000),
                 help="At most so many packets a second to one network, over 10 s.  [5 x --per-address]"),
    click.option("--about", metavar="URI", default="", help="Whom to turn to: said in each packet that has room (RFC 9511)."),
    click.option("--about-listen", multiple=True, metavar="ADDR:PORT",
                 help="Answer there with a page that says who probes and how to opt out; several times if need be."),
)  # fmt: skip


def options(command: F) -> F:
    """All of them, in their order."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


class Whom:
    """A file's targets, or those that the collector gives; none of who opted out. EdgednsError where a file can't be read.

    `origin` is the collector as (URL, token, networks wanted of it).
    """

    def __init__(self, text: str, opt_out: Path | None, method: Method, table: AsnTable, origin: tuple[str, str, int]) -> None:
        self._origin = origin if text == COLLECTOR else None
        self.targets: tuple[Target, ...] = () if self._origin else labelled(load(Path(text), method), table.lookup)
        self._watch = opt_out and (opt_out, Watch(opt_out))
        self.never = lists.prefixes(opt_out) if opt_out else Prefixes()
        self._method = method
        self._table = table

    def followers(self, agent: Agent, say: Say) -> list[Coroutine[Any, Any, None]]:
        """What is to run beside the agent, until it is cancelled."""
        found = [_follow_opt_out(agent, *self._watch, say)] if self._watch else []
        return [*found, self._follow_collector(agent, *self._origin, say)] if self._origin else found

    async def _follow_collector(self, agent: Agent, url: str, token: str, networks: int, say: Say) -> None:
        async def take(body: bytes) -> None:
            given = await asyncio.to_thread(self._read, body)
            try:
                await agent.retarget_beside(given.targets)
            except EdgednsError as error:
                say(f"the collector's targets are not taken up: {error}")
                return
            left = f", {given.left_out} left out: no network's addresses" if given.left_out else ""
            say(f"{len(given.targets)} targets from the collector{left}")

        await Feed(url, token, agent.plan.vantage, networks, take, say).run()

    def _read(self, body: bytes) -> feed.Given:
        given = feed.read(body, self._method)
        return given._replace(targets=labelled(given.targets, self._table.lookup))


async def _follow_opt_out(agent: Agent, path: Path, watch: Watch, say: Say) -> None:
    """Bar whom the file names when it changes; while it can't be read it stays as it was."""
    while True:
        await asyncio.sleep(LOOK)
        if watch.changed():
            try:
                never = await asyncio.to_thread(lists.prefixes, path)
                await agent.bar(never)
                say(f"{path}: {len(never)} prefixes are never probed")
            except EdgednsError as error:
                say(f"{error}; it stays as it was")


def about(text: str) -> str:
    """--about: a URI, or nothing."""
    if text and not _ABOUT.fullmatch(text):
        raise click.BadParameter("it is a URI of at most 120 characters: https:, mailto: or tel:", param_hint="--about")
    return text


def pages(texts: tuple[str, ...], told: str) -> list[Address]:
    """Where --about-listen wants pages; they need something to say."""
    if texts and not told:
        raise click.BadParameter("say whom to turn to with --about", param_hint="--about-listen")
    try:
        return [parse_address(text) for text in texts]
    except SettingsError as error:
        raise click.BadParameter(str(error), param_hint="--about-listen") from None


@contextlib.asynccontextmanager
async def telling(places: list[Address], text: Callable[[], str]) -> AsyncIterator[None]:
    """What `text` gives as a page at these places for a while. EdgednsError where one can't be."""
    served = Page(text)
    try:
        for place in places:
            try:
                await served.listen(place.host, place.port)
            except OSError as error:
                raise EdgednsError(f"can't answer at {place}: {error.strerror or error}") from None
        yield
    finally:
        served.close()
