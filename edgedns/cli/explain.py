"""`edgedns explain`: why a client gets the answer that it gets."""

from __future__ import annotations

import json
import time
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import click
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from edgedns.cli.remote import Remote, server_option
from edgedns.dns import name as names
from edgedns.dns import types
from edgedns.engine.explain import Evidence, Question
from edgedns.engine.explain import explain as told_of
from edgedns.engine.inline import build_atoms, nominal
from edgedns.engine.load import load_rules
from edgedns.errors import EdgednsError
from edgedns.model import Family, Prefix
from edgedns.steer.failure.health import Health
from edgedns.steer.space import asn as tables
from edgedns.steer.table.rtt import RttStore
from edgedns.steer.table.wan import estimate

NOT_KNOWN = "–"


@click.command("explain")
@click.argument("name")
@click.argument("rtype", metavar="[TYPE]", default="A")
@click.option("--from", "client", metavar="ADDR", help="Who asks: a resolver's address, or a user's.")
@click.option("--subnet", metavar="PREFIX", help="The client subnet that the query carries.")
@click.option("--asn", metavar="N", help="Ask from the first address of this AS instead of --from.")
@click.option("--json", "as_json", is_flag=True, help="The whole explanation as JSON.")
@click.option("--rules", type=click.Path(path_type=Path), metavar="DIR", help="No server: what these rules say by themselves.")
@server_option
def explain(
    name: str, rtype: str, client: str | None, subnet: str | None, asn: str | None, as_json: bool,
    rules: Path | None, server: str,
) -> None:  # fmt: skip
    """Tell which answer a client gets, by which rule, and why each other provider lost."""
    if client is None and asn is None:
        raise click.UsageError("who asks? give --from ADDR or --asn N")
    query = {"name": name, "type": rtype.upper(), "from": client, "subnet": subnet, "asn": asn}
    given = {key: value for key, value in query.items() if value is not None}
    try:
        told = Remote(server).get("/v1/explain", given) if rules is None else _offline(rules, given, time.time())
    except EdgednsError as error:
        raise click.ClickException(str(error)) from None
    if as_json:
        click.echo(json.dumps(told, indent=2))
    else:
        show(told, Console())


def _offline(directory: Path, query: dict[str, str], now: float) -> dict[str, Any]:
    """What rules say when nothing was measured and all providers are as they declare."""
    loaded, table = load_rules(directory, now), tables.embedded()
    question = _question(query, table)
    compiled, snapshot = nominal(loaded, build_atoms(loaded.rules, table))
    providers = loaded.rules.providers
    states = {key: one.state for key, one in providers.items()}
    evidence = Evidence(providers, states, compiled.columns, estimate(RttStore()), Health(), table.names)
    return told_of(snapshot, question, evidence, now)


def _question(query: dict[str, str], table: tables.AsnTable) -> Question:
    try:
        client = ip_address(query["from"]).packed if "from" in query else table.first_address(_asn(query["asn"]))
        if client is None:
            raise click.ClickException(f"AS{_asn(query['asn'])} has no address in the ASN table")
        subnet = _prefix(query["subnet"]) if "subnet" in query else None
        return Question(names.from_text(query["name"]), types.type_number(query["type"]), client, subnet)
    except ValueError as error:
        raise click.ClickException(str(error)) from None


def _asn(text: str) -> int:
    digits = text.upper().removeprefix("AS")
    if not (digits.isascii() and digits.isdigit() and int(digits) < 1 << 32):
        raise click.BadParameter(f"{text!r} is not an AS number", param_hint="--asn")
    return int(digits)


def _prefix(text: str) -> Prefix:
    network = ip_network(text, strict=False)
    family: Family = 4 if network.version == 4 else 6
    return Prefix(family, network.network_address.packed, network.prefixlen)


def show(told: dict[str, Any], console: Console) -> None:
    """The explanation for people."""
    console.print(_summary(told))
    if told.get("candidates"):
        console.print()
        console.print(_candidates(told))
        console.print()
        console.print(_losers(told))


def _summary(told: dict[str, Any]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    for label, value in _facts(told):
        if value:
            table.add_row(label, value)
    return table


def _facts(told: dict[str, Any]) -> list[tuple[str, RenderableType]]:
    network = told.get("network") or {}
    rule = f"{told['rule']} ({told['kind']}) of zone {told['zone']}" if told["steered"] else "none: a plain record"
    scope = "" if told["scope"] is None else f"   scope /{told['scope']}"
    answer = Text(", ".join(told["answer"]) or told["rcode"], style="bold")
    if told.get("provider"):
        answer.append(f"   {told['provider']}, {_words(told['reason'])}", style="not bold")
    unit = "" if told.get("unit") is None else f"{told['unit']}"
    level = next((one["level"] for one in told.get("candidates", ()) if one.get("level")), "")
    return [
        ("query", f"{told['name']} {told['type']}"),
        ("client", told["client"]),
        ("subnet", told["subnet"] or ""),
        ("network", f"{network['text']}   {network.get('as_name') or ''}".rstrip() if network else ""),
        ("prefix", told.get("prefix") or ""),
        ("rule", rule if told["zone"] else "none: not in a zone of ours"),
        ("hash unit", unit),
        ("measured", f"for the {level}" if level == "network" else f"for the level above: {level}" if level else ""),
        ("users", ", ".join(_users(told))),
        ("left out", f"all samples of {', '.join(told['quarantined'])}: in quarantine" if told.get("quarantined") else ""),
        ("answer", answer),
        ("", "" if told["ttl"] is None else f"ttl {told['ttl']}{scope}   serial {told['serial']}"),
    ]


def _users(told: dict[str, Any]) -> list[str]:
    """What users' own connections had, by provider."""
    found = [(one["provider"], one["users"]) for one in told.get("candidates", ()) if "users" in one]
    return [f"{name} {users['rtt_ms']:.1f} ms in {users['connections']:.0f} connections" for name, users in found]


def _words(reason: str | None) -> str:
    return (reason or "").lower().replace("_", " ")


def _candidates(told: dict[str, Any]) -> Table:
    """Every candidate with what is known of it, the one that was given in bold."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("provider", no_wrap=True)
    for heading in ("WAN", "90 %", "W50", "RTT ms", "samples", "age s"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("health", no_wrap=True)
    for one in told["candidates"]:
        interval = f"{_signed(one.get('low'))} … {_signed(one.get('high'))}" if one.get("low") is not None else NOT_KNOWN
        table.add_row(
            one["provider"], _signed(one.get("wan")), interval, _number(one.get("w50"), 2), _number(one.get("rtt_ms"), 1),
            _number(one.get("samples"), 1), _number(one.get("age"), 0), _health(one),
            style="bold" if one["provider"] == told["provider"] else "",
        )  # fmt: skip
    return table


def _losers(told: dict[str, Any]) -> Table:
    """Why each was not given: sentences, which no column of numbers has room for."""
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    for one in told["candidates"]:
        if one["provider"] != told["provider"]:
            table.add_row(one["provider"], Text(f"lost: {one['lost_because']}", style="dim"))
    return table


def _health(one: dict[str, Any]) -> str:
    return str(one["health"] if one["state"] == "up" else one["state"])


def _signed(value: float | None) -> str:
    return NOT_KNOWN if value is None else f"{value:+.2f}"


def _number(value: float | None, places: int) -> str:
    return NOT_KNOWN if value is None else f"{value:.{places}f}"
