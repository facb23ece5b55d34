"""`edgedns plan`: what publishing a rules directory would change on a running server, before it is published."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from edgedns.cli.remote import Remote, server_option, token_option

PATIENCE = 120.0
SIZE_LIMIT = 24 << 20
MARKS = {"added": ("+", "green"), "removed": ("-", "red"), "changed": ("~", "yellow")}
SHOWN = 40


@click.command("plan")
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--json", "as_json", is_flag=True, help="The whole plan as JSON.")
@server_option
@token_option
def plan(directory: Path, as_json: bool, server: str, token: str) -> None:
    """Tell what publishing DIR would change: in the rules, and in the answers of those who ask. Nothing is published."""
    told = Remote(server, token, PATIENCE).post("/v1/plan", {"files": dict(_files(directory))})
    if as_json:
        click.echo(json.dumps(told, indent=2))
    else:
        show(told, str(directory), Console())


def _files(directory: Path) -> Iterator[tuple[str, str]]:
    """Every text that the rules could read, by its path inside the directory."""
    size = 0
    for folder, folders, names in os.walk(directory):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for path in (Path(folder) / name for name in sorted(names) if not name.startswith(".")):
            if not path.is_file():
                continue
            size += path.stat().st_size
            if size > SIZE_LIMIT:
                raise click.ClickException(f"{directory} holds more than {SIZE_LIMIT >> 20} MiB: is it a rules directory?")
            try:
                yield path.relative_to(directory).as_posix(), path.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise click.ClickException(f"can't read {path}: {error}") from None


def show(told: dict[str, Any], directory: str, console: Console) -> None:
    """The plan for people."""
    differences, answers = told["differences"], told["answers"]
    if not differences and not answers["moves"]:
        console.print(f"{directory}: nothing would change (serial {told['serial']} is served)")
        return
    for one in differences:
        console.print(_difference(one), soft_wrap=True)
    console.print()
    console.print(_heading(told), highlight=False, soft_wrap=True)
    if answers["moves"]:
        console.print(_moves(answers["moves"]))
    if len(answers["moves"]) > SHOWN:
        console.print(f"... and {len(answers['moves']) - SHOWN} more; --json has them")


def _difference(one: dict[str, Any]) -> Text:
    mark, style = MARKS[one["change"]]
    place = f"{one['zone']}  " if one["zone"] else ""
    text = Text(f"{mark} ", style=style).append(f"{place}{one['what']}", style="")
    for field in one["fields"]:
        text.append(f"\n      {field}", style="dim")
    return text


def _heading(told: dict[str, Any]) -> str:
    answers = told["answers"]
    weighed = (
        f"networks by the {told['queries']:,} queries they sent, names alike" if told["queries"]
        else "all networks and names alike, since nobody asked yet"
    )  # fmt: skip
    asked = f"{answers['questions']:,} questions from {told['networks']:,} places"
    return f"{answers['changed']:.2%} of the answers would be others ({asked}; weighted: {weighed})"


def _moves(moves: list[dict[str, Any]]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for heading in ("name", "type", "now", "then"):
        table.add_column(heading)
    table.add_column("share", justify="right", no_wrap=True)
    table.add_column("such as", no_wrap=True)
    for one in moves[:SHOWN]:
        share = f"{one['share']:.2%}" if one["share"] >= 0.00005 else "–"
        table.add_row(one["name"], one["type"], one["before"], one["after"], share, one["example"])
    return table
