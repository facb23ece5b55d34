"""What the commands that send samples share: how their options are read, and what ends them."""

from __future__ import annotations

import asyncio
import ipaddress
import re
import signal
import time
from collections.abc import Callable

import click

from edgedns.model import NAME
from edgedns.probe.source import Source


def stop_signals() -> asyncio.Event:
    """Set by the first SIGTERM or SIGINT."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    return stopped


def sparingly(say: Callable[[str], None], every: float = 60.0) -> Callable[[str], None]:
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


def url(text: str) -> str:
    """The collector's."""
    if not re.fullmatch(r"https?://[^\s/?#]+/?", text):
        raise click.BadParameter(f"{text!r} is not http://HOST:PORT", param_hint="--collector")
    return text
