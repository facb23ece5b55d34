"""What the commands that send samples share: how their options are read, where samples go, and what is said."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import sys
import time
from collections.abc import Callable, Mapping
from typing import TypeVar

import click

from edgedns.cli.remote import base_url
from edgedns.model import NAME
from edgedns.probe.source import Source
from edgedns.probe.spool import Spool
from edgedns.probe.uplink import Uplink

TELL_EVERY = 60.0
LAST_POST = 1.0
Say = Callable[[str], None]
Name = TypeVar("Name", bound=str)


class Outlet:
    """Where samples go: to the collector, or to standard output where that is `-`."""

    def __init__(self, collector: str, token: str, say: Say, spool: Spool | None = None) -> None:
        self._uplink = None if collector == "-" else Uplink(base_url(collector, "--collector"), token, say, spool=spool)

    @property
    def waiting(self) -> int:
        """Lines that nobody has taken yet."""
        return self._uplink.backlog if self._uplink else 0

    def add(self, line: bytes) -> None:
        if self._uplink is None:
            print(line.decode(), flush=True)
        else:
            self._uplink.add(line)

    async def run(self) -> None:
        """Until cancelled."""
        await (asyncio.Event().wait() if self._uplink is None else self._uplink.run())

    async def finish(self) -> None:
        """One more post of what waits. After `run` was cancelled."""
        if self._uplink is not None and self._uplink.backlog:
            await self._uplink.finish(LAST_POST)

    def told(self) -> list[str]:
        """What became of the lines, in words; nothing for standard output."""
        if self._uplink is None:
            return []
        beside = {"dropped": self._uplink.dropped, "too old to send": self._uplink.expired}
        return [f"{self._uplink.accepted} samples accepted, {self._uplink.backlog} waiting", *counted(beside)]


def counted(counts: Mapping[Name, int]) -> list[str]:
    """Each count that is not 0, with its name."""
    return [f"{count} {name.replace('_', ' ')}" for name, count in counts.items() if count]


def teller(vantage: str) -> Say:
    """Says a sentence on standard error: the time and the vantage first. A console that is gone hinders nobody."""

    def say(text: str) -> None:
        with contextlib.suppress(OSError):
            print(f"{time.strftime('%H:%M:%S')} {vantage}: {text}", file=sys.stderr, flush=True)

    return say


async def tell(say: Say, summed: Callable[[], str]) -> None:
    """Say once a minute what `summed` gives; until cancelled."""
    while True:
        await asyncio.sleep(TELL_EVERY)
        say(summed())


def sparingly(say: Say, every: float = 60.0) -> Say:
    """`say`, but what begins with the same two words once in so many seconds: users come from networks that no table knows."""
    said: dict[tuple[str, ...], float] = {}

    def saying(text: str) -> None:
        now, begins = time.monotonic(), tuple(text.split()[:2])
        if now - said.get(begins, -every) >= every:
            said[begins] = now
            say(text)

    return saying


def name(text: str, option: str) -> str:
    """A vantage's or provider's name."""
    if not NAME.fullmatch(text):
        raise click.BadParameter(f"{text!r} is not a name of letters, digits, dots and hyphens", param_hint=option)
    return text


def source(text: str) -> Source:
    """PROVIDER=ADDRESS, the address of ours that the provider announces."""
    provider, _, address = text.partition("=")
    packed = _canonical(address)
    if packed is None:
        raise click.BadParameter(f"{text!r} is not PROVIDER=ADDRESS", param_hint="--source")
    return Source(name(provider, "--source"), packed)


def _canonical(address: str) -> str | None:
    try:
        return str(ipaddress.ip_address(address))
    except ValueError:
        return None
