"""`edgedns top`: who asks a running server most, for what, and what they are told, as it happens."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import click
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from edgedns.cli.duration import Duration
from edgedns.cli.remote import Remote, server_option, token_option

EVERY = 2.0


def _answer(one: dict[str, Any]) -> str:
    return f"{one['provider'] or 'nobody'}  by {one['rule']} of {one['zone']}, {one['reason'].lower().replace('_', ' ')}"


KINDS: dict[str, Callable[[dict[str, Any]], str]] = {
    "names": lambda one: f"{one['name'] or '(not a question)'} {one['type']}",
    "networks": lambda one: f"{one['network']}  {one['as_name'] or ''}".rstrip(),
    "clients": lambda one: str(one["client"]),
    "answers": _answer,
    "rcodes": lambda one: str(one["rcode"]),
}


@click.command("top")
@click.option("--by", "kinds", type=click.Choice(list(KINDS)), multiple=True, help="Only this; again for more.  [all]")
@click.option("--over", type=Duration(), default="10s", show_default=True, help="Queries of so long ago at most.")
@click.option("--lines", type=click.IntRange(1, 1000), default=8, show_default=True, help="Rows of each kind.")
@click.option("--once", is_flag=True, help="Print once; so it does where no terminal is.")
@click.option("--json", "as_json", is_flag=True, help="Print once, as JSON.")
@server_option
@token_option
def top(
    kinds: tuple[str, ...], over: float, lines: int, once: bool, as_json: bool, server: str, token: str
) -> None:
    """Show who asks most, for what, and what they are told, by a sample of the queries."""
    remote, console = Remote(server, token), Console()

    def look() -> dict[str, Any]:
        told: dict[str, Any] = remote.get("/v1/top", {"seconds": str(max(1, round(over))), "limit": str(lines)})
        return told

    if as_json:
        click.echo(json.dumps(look(), indent=2))
    elif once or not console.is_terminal:
        console.print(shown(look(), kinds or tuple(KINDS)))
    else:
        _follow(look, kinds or tuple(KINDS), console)


def _follow(look: Callable[[], dict[str, Any]], kinds: tuple[str, ...], console: Console) -> None:
    """Until Ctrl-C."""
    try:
        with Live(shown(look(), kinds), console=console, screen=True, auto_refresh=False) as live:
            while True:
                time.sleep(EVERY)
                live.update(shown(look(), kinds), refresh=True)
    except KeyboardInterrupt:
        return


def shown(told: dict[str, Any], kinds: tuple[str, ...]) -> Group:
    """The tables for people."""
    return Group(_heading(told), *(_table(kind, told[kind], told["samples"]) for kind in kinds))


def _heading(told: dict[str, Any]) -> Text:
    samples = told["samples"]
    if not samples:
        return Text(f"nobody asked in the last {told['seconds']:g} s, or too few for the sample")
    parts = [f"about {told['rate']:,.0f} queries/s over {told['seconds']:g} s ({samples:,} samples)"]
    for key, words in (("forwarded", "with a client subnet"), ("tcp", "over TCP"), ("proven", "from a proven address")):
        parts.append(f"{told[key] / samples:.0%} {words}")
    return Text(", ".join(parts))


def _table(kind: str, rows: list[dict[str, Any]], samples: int) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", title_justify="left")
    table.add_column("share", justify="right", no_wrap=True, width=6)
    table.add_column(kind, no_wrap=True, overflow="ellipsis")
    for one in rows:
        table.add_row(f"{one['samples'] / samples:.1%}", Text(KINDS[kind](one)))
    return table
