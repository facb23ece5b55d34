"""`edgedns probe NAME|ADDR --from all`: how long from every vantage through every provider, as a table that fills up."""

from __future__ import annotations

import json
import socket
import statistics
import time
from collections.abc import Mapping
from ipaddress import ip_address
from typing import Any

import click
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from edgedns.cli.remote import Remote, server_option, token_option
from edgedns.model import METHODS

LOOK = 0.5
LATE = 30.0
NOTHING = "–"


@click.command("probe")
@click.argument("whom", metavar="NAME|ADDR")
@click.option("--from", "vantages", metavar="all", help="Ask every vantage of a server about NAME|ADDR, once.")
@click.option("--rounds", type=click.IntRange(1, 20), default=3, show_default=True, help="With --from: packets a path.")
@click.option("--method", type=click.Choice(METHODS), default="icmp", show_default=True,
              help="With --from: for an address that is no target.")  # fmt: skip
@click.option("--family", type=click.Choice(("4", "6")), help="With --from: which address of a name.  [the first]")
@click.option("--name", "steered", default="", metavar="NAME", help="With --from: whose answer is marked.  [the first record]")
@click.option("--json", "as_json", is_flag=True, help="With --from: the result as JSON, once it is there.")
@server_option
@token_option
def ask(
    whom: str, vantages: str, rounds: int, method: str, family: str | None, steered: str, as_json: bool, server: str, token: str
) -> None:  # fmt: skip
    """Time the way to NAME|ADDR from every vantage through every provider. One packet a second, whoever sends it."""
    if vantages != "all":
        raise click.UsageError(f"--from {vantages}: vantages are asked all at once; give --from all")
    address, remote = resolved(whom, family), Remote(server, token)
    asked = {"address": address, "method": method, "rounds": rounds, "name": steered}
    told = remote.post("/v1/probes", asked)
    if as_json:
        click.echo(json.dumps(_followed(remote, told), indent=2))
        return
    console = Console()
    console.print(_heading(whom, told))
    with Live(picture(told), console=console, refresh_per_second=4, transient=not console.is_terminal) as live:
        told = _followed(remote, told, live)
    if not console.is_terminal:
        console.print(picture(told))
    for line in _remarks(told):
        console.print(line)


def resolved(whom: str, family: str | None) -> str:
    """An address as it is, a name's first by this machine's resolver."""
    kind = {"4": socket.AF_INET, "6": socket.AF_INET6, None: socket.AF_UNSPEC}[family]
    try:
        return str(ip_address(whom))
    except ValueError:
        pass
    try:
        found = socket.getaddrinfo(whom, None, kind, socket.SOCK_DGRAM)
    except (OSError, UnicodeError) as error:
        raise click.ClickException(f"{whom!r} is no address, and no name that this machine can resolve: {error}") from None
    return str(found[0][4][0])


def _followed(remote: Remote, told: dict[str, Any], live: Live | None = None) -> dict[str, Any]:
    """Until it has ended, or nothing comes any more."""
    until = time.monotonic() + told["rounds"] * len(told["cells"]) + LATE
    while not told["done"] and time.monotonic() < until:
        time.sleep(LOOK)
        told = remote.get(f"/v1/probes/{told['id']}")
        if live is not None:
            live.update(picture(told))
    return told


def _heading(whom: str, told: Mapping[str, Any]) -> str:
    network = told.get("network") or {}
    owner = ", ".join(str(part) for part in (network.get("text"), network.get("as_name")) if part)
    return (whom if whom == told["address"] else f"{whom} ({told['address']})") + (f": {owner}" if owner else "")


def picture(told: Mapping[str, Any]) -> Table:
    """Providers across, vantages down; min and median in ms, loss where there was any. `*` marks the provider that is given."""
    providers = list(dict.fromkeys(cell["provider"] for cell in told["cells"]))
    cells = {(cell["vantage"], cell["provider"]): cell for cell in told["cells"]}
    table = Table("vantage", *(f"{name} *" if name == told.get("provider") else name for name in providers))
    for vantage in sorted({vantage for vantage, _ in cells}):
        table.add_row(vantage, *(_cell(cells.get((vantage, provider))) for provider in providers))
    return table


def _cell(cell: Mapping[str, Any] | None) -> Text:
    if cell is None:
        return Text(NOTHING, style="dim")
    rtts, lost = cell["rtts"], cell["lost"]
    if rtts:
        text = f"{min(rtts):.1f} / {statistics.median(rtts):.1f} ms"
        return Text(text + (f", {lost} of {lost + len(rtts)} lost" if lost else ""), style="yellow" if lost else "")
    if lost:
        return Text("lost", style="red")
    if cell["refused"]:
        return Text("not sent", style="dim")
    return Text("…" if cell["asked"] else NOTHING, style="dim")


def _remarks(told: Mapping[str, Any]) -> list[str]:
    lines = ["min / median of each path; what is lost here may be another vantage's to hear (anycast)"]
    if told.get("provider"):
        lines.append(f"* {told['provider']} is what {told['name']} is answered with there: {told['reason']}")
    whys = {f"{cell['vantage']}, {cell['provider']}: {cell['why']}" for cell in told["cells"] if cell.get("why")}
    lines += [f"not sent: {why}" for why in sorted(whys)]
    return lines + ([] if told["done"] else ["not all of it came back in time"])


class Either(click.Command):
    """`edgedns probe`: the agent, or a person's question where `--from` is given. Its help tells of both."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        own = {name for parameter in self.params for name in parameter.opts}
        self.params += [each for each in ask.params if isinstance(each, click.Option) and not own & {*each.opts}]

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        asked = any(word == "--from" or word.startswith("--from=") for word in args)
        if asked:
            return ask.make_context(info_name, args, parent, **extra)
        return super().make_context(info_name, args, parent, **extra)
