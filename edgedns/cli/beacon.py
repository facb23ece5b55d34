"""`edgedns beacon`: faces web pages: the script that measures in browsers, and their reports on the way to a collector."""

from __future__ import annotations

import asyncio
import re
import time
from typing import Any

import click

from edgedns.cli import sending
from edgedns.cli.duration import Duration
from edgedns.cli.remote import token_option
from edgedns.cli.running import run_until, stop_signals
from edgedns.config import parse_address
from edgedns.errors import EdgednsError
from edgedns.probe.beacon import Beacons, OverRate
from edgedns.serve import beacon as pages
from edgedns.serve.admin import start
from edgedns.serve.guard import Refused


@click.command()
@click.option("--listen", required=True, metavar="ADDR:PORT", help="Where pages find the script and report.")
@click.option("--vantage", required=True, help="What these samples' source is called, such as web.")
@click.option("--collector", required=True, metavar="URL", help="Where samples go, http://HOST:PORT; - prints them.")
@click.option("--object", "objects", required=True, multiple=True, metavar="PROVIDER=URL",
              help="The tiny object of each provider, under a name whose addresses are its own.")  # fmt: skip
@click.option("--origin", "origins", required=True, multiple=True, metavar="ORIGIN",
              help="Whose pages may report, such as https://www.example.net.")  # fmt: skip
@click.option("--share", default="1%", show_default=True, metavar="PERCENT", help="The share of page views that measure.")
@click.option("--rate", type=click.FloatRange(0.1, 1e5), default=100.0, show_default=True,
              help="At most so many reports a second.")  # fmt: skip
@click.option("--proxy", "proxies", multiple=True, metavar="PREFIX", help="Whose X-Forwarded-For is believed.")
@token_option
@click.option("--for", "duration", type=Duration(), help="Stop after so long.")
def beacon(listen: str, vantage: str, collector: str, objects: tuple[str, ...], token: str, **rest: Any) -> None:
    """Face web pages: serve the script that times each provider from a browser, and take its reports."""
    try:
        terms = pages.Terms(
            dict(_object(text) for text in objects), _share(rest["share"]), frozenset(map(_origin, rest["origins"])),
            _prefixes(rest["proxies"]),
        )  # fmt: skip
        if len(terms.objects) != len(objects):
            raise click.BadParameter("the same provider is given twice", param_hint="--object")
        judge = Beacons(sending.name(vantage, "--vantage"), list(terms.objects), rest["rate"])
        say = sending.teller(vantage)
        outlet = sending.Outlet(collector, token, sending.sparingly(say))
        asyncio.run(_Facing(terms, judge, outlet, say).run(listen, rest["duration"]))
    except EdgednsError as error:
        raise click.ClickException(str(error)) from None


class _Facing:
    """One run: pages on one side, the collector on the other."""

    def __init__(self, terms: pages.Terms, judge: Beacons, outlet: sending.Outlet, say: sending.Say) -> None:
        self.terms = terms
        self.judge = judge
        self.outlet = outlet
        self.say = say

    async def run(self, listen: str, duration: float | None) -> None:
        """Until a signal, or as long as was asked for."""
        stopped = stop_signals()
        app = pages.make_app(self.terms, self._take)
        runner, address = await start(app, pages.listen(parse_address(listen)))
        self.say(f"script: http://{address}/beacon.js")
        try:
            await run_until(stopped, duration, sending.tell(self.say, self._sum), self.outlet.run())
        finally:
            await runner.cleanup()
            await self.outlet.finish()
            self.say(self._sum())

    def _take(self, body: bytes, client: bytes) -> None:
        """One report; a Refused is what its sender is told."""
        try:
            lines = self.judge.take(body, client, time.time())
        except OverRate as error:
            raise Refused(429, str(error), {"Retry-After": str(error.wait)}) from None
        for line in lines:
            self.outlet.add(line)

    def _sum(self) -> str:
        """What became of the reports since the start."""
        counts = self.judge.counts
        return ", ".join([f"in all: {sum(counts.values())} reports", *sending.counted(counts), *self.outlet.told()])


def _object(text: str) -> tuple[str, str]:
    provider, _, url = text.partition("=")
    if not re.fullmatch(r"https?://[^\s/?#]+/[!-~]*", url):
        such = "alder=https://alder.example.net/1x1"
        raise click.BadParameter(f"{text!r} is not PROVIDER=URL, such as {such}", param_hint="--object")
    return sending.name(provider, "--object"), url


def _origin(text: str) -> str:
    """Scheme, host and port alone (RFC 6454), as browsers write it."""
    if not re.fullmatch(r"https?://[a-z0-9.:\[\]_-]+", text):
        raise click.BadParameter(f"{text!r} is not an origin, such as https://www.example.net", param_hint="--origin")
    return text


def _share(text: str) -> float:
    if not re.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,6})?%", text) or not 0 < float(text[:-1]) <= 100:
        raise click.BadParameter(f"{text!r} is not a share, such as 1%", param_hint="--share")
    return float(text[:-1]) / 100


def _prefixes(texts: tuple[str, ...]) -> tuple[pages.Network, ...]:
    try:
        return pages.networks(texts)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--proxy") from None
