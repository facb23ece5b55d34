"""`edgedns drain`, `pin`, `undo` and `orders`: what operators order beside the rules, each with an owner and a reason."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.table import Table

from edgedns.cli.duration import Duration
from edgedns.cli.remote import Remote, server_option, token_option

Command = TypeVar("Command", bound=Callable[..., Any])


def _order_options(command: Command) -> Command:
    """What each order has, and where it goes."""
    until = "A date or time (2036-12-05, 2036-12-05T18:00Z; UTC), Unix seconds, or how long from now, such as 2h."
    options = (
        click.option("--owner", required=True, help="Who answers for it."),
        click.option("--reason", required=True, help="Why."),
        click.option("--until", metavar="WHEN", help=until),
        server_option,
        token_option,
    )
    for option in reversed(options):
        command = option(command)
    return command


@click.command("drain")
@click.argument("provider")
@_order_options
def drain(provider: str, owner: str, reason: str, until: str | None, server: str, token: str) -> None:
    """Take PROVIDER out of all answers."""
    order = {"kind": "drain", "provider": provider, "owner": owner, "reason": reason, "until": _until(until)}
    _tell(Remote(server, token).post("/v1/overrides", order))


@click.command("pin")
@click.argument("name")
@click.argument("provider")
@click.option("--match", "matches", multiple=True, metavar="KEY=VALUE",
              help="Only for these: asn, prefix, country, continent or network; several values of a key are ORed.")  # fmt: skip
@_order_options
def pin(
    name: str, provider: str, matches: tuple[str, ...], owner: str, reason: str, until: str | None, server: str, token: str
) -> None:
    """Answer NAME with PROVIDER, whatever the rules say."""
    order: dict[str, Any] = {
        "kind": "pin", "name": name, "provider": provider, "owner": owner, "reason": reason, "until": _until(until)
    }  # fmt: skip
    if matches:
        order["match"] = _match(matches)
    _tell(Remote(server, token).post("/v1/overrides", order))


@click.command("undo")
@click.argument("number", metavar="ID")
@server_option
@token_option
def undo(number: str, server: str, token: str) -> None:
    """Take an order back; `edgedns orders` lists them with their ids."""
    removed = Remote(server, token).delete(f"/v1/overrides/{_id(number)}")
    click.echo(f"{removed['removed']} is taken back")


@click.command("orders")
@server_option
@token_option
def orders(server: str, token: str) -> None:
    """List the orders in force."""
    found = Remote(server, token).get("/v1/overrides")["overrides"]
    if not found:
        click.echo("no orders are in force")
        return
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for heading in ("id", "order", "owner", "until", "reason"):
        table.add_column(heading, no_wrap=heading in ("id", "until"))
    for one in found:
        table.add_row(one["id"], _sentence(one), one["owner"], _when(one["until"]), one["reason"])
    Console().print(table)


def _tell(order: dict[str, Any]) -> None:
    ends = "" if order["until"] is None else f", until {_when(order['until'])}"
    click.echo(f"{order['id']}: {_sentence(order)}{ends}; take it back with: edgedns undo {order['id']}")


def _sentence(order: dict[str, Any]) -> str:
    if order["kind"] == "drain":
        return f"drain {order['provider']}"
    only = " and ".join(f"{key} {' or '.join(map(str, values))}" for key, values in order.get("match", {}).items())
    return f"pin {order['name']} to {order['provider']}{f' for {only}' if only else ''}"


def _when(until: float | None) -> str:
    return "taken back" if until is None else time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(until))


def _until(text: str | None) -> str | float | None:
    """As the server takes it; a duration counts from now."""
    if text is None:
        return None
    if text.replace(".", "", 1).isdigit():
        return float(text)
    try:
        return time.time() + Duration().convert(text, None, None)
    except click.BadParameter:
        return text


def _match(matches: tuple[str, ...]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for text in matches:
        key, equals, value = text.partition("=")
        if not equals or not value:
            raise click.BadParameter(f"{text!r} is not KEY=VALUE, such as asn=64500", param_hint="--match")
        found.setdefault(key, []).append(value)
    return found


def _id(text: str) -> str:
    if not text.isalnum():
        raise click.BadParameter(f"{text!r} is not an order's id", param_hint="ID")
    return text
