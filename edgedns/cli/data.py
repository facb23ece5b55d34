"""`edgedns data`: which ASN table is in use and how old it is; updating it, and going back."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import NoReturn

import click
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from edgedns.cli.duration import Duration
from edgedns.config import default_state
from edgedns.errors import SourceError
from edgedns.steer.space import asn
from edgedns.steer.space.asn import AsnTable
from edgedns.store.download import DEADLINE, Announce, Refused, Terms
from edgedns.store.sources import KEY_VARIABLE, SOURCES, read_key
from edgedns.store.tables import Index, Installed, Tables
from edgedns.store.update import Limits, Update, rollback, update

OLD_AFTER = 30  # days
REFUSED = 1
COULD_NOT_RUN = 2

_CAVEAT = """\
caveat:  its publisher says that the data on npm contains bugs and that updates there will stop; run `edgedns data update`,
         or use --asn FILE for a table of your own. Credits (RouteViews, NRO, DB-IP: CC BY 4.0; IPtoASN: PDDL) are in NOTICE."""


@click.group("data")
def data() -> None:
    """The ASN table: what it is, how old it is, a newer one."""


_STATE = click.option(
    "--state", type=click.Path(path_type=Path), metavar="DIR", help="The server's state directory. [as for serve]"
)


@data.command("status")
@click.option("--asn", "path", type=click.Path(path_type=Path), metavar="FILE", help="A table that `serve --asn` is given.")
@_STATE
def status(path: Path | None, state: Path | None) -> None:
    """Print the source, date, size and age of the table in use; warn when it is old."""
    tables, today = _tables(state), datetime.now(UTC).date()
    try:
        index = Index() if path else tables.index()
        table = asn.load(path) if path else tables.load(index.current)
    except SourceError as error:
        _end(error)
    click.echo("\n".join([*report(table, path, today, index.current), *([] if path else history(tables, index))]))
    if (days := age(table, today)) > OLD_AFTER:
        click.echo(f"warning: the ASN table is {days} days old (more than {OLD_AFTER}): networks have moved since", err=True)


@data.command("update")
@click.option("--source", "name", type=click.Choice(list(SOURCES)), default="origin-asn", show_default=True,
              help="Whose table.")  # fmt: skip
@click.option("--url", default="", metavar="URL", help="The table from elsewhere: a mirror, or a file of your own.")
@click.option("--checksum-url", "checksum", default="", metavar="URL", help="Where its SHA-256 is.")
@click.option("--country-url", "countries", default="", metavar="URL", help="An MMDB of countries for a table without them.")
@click.option("--ca", type=click.Path(path_type=Path), metavar="FILE", help="Certificates to trust in place of the system's.")
@click.option("--key-file", type=click.Path(path_type=Path), metavar="FILE",
              help=f"Has MaxMind's ACCOUNT_ID:LICENSE_KEY; else {KEY_VARIABLE}.")  # fmt: skip
@click.option("--timeout", type=Duration(), default=DEADLINE, metavar="TIME", help="For each file. [10m]")
@click.option("--max-moved", type=str, metavar="PERCENT", help="Of the addresses may have another ASN. [5%, 0.1% more a day]")
@click.option("--allow-loss", is_flag=True, help="Take a table with far fewer ranges or countries.")
@click.option("--allow-older", is_flag=True, help="Take a table that is older than the one in use.")
@click.option("--dry-run", is_flag=True, help="Download and judge, and leave everything as it is.")
@_STATE
def update_command(
    name: str, url: str, checksum: str, countries: str, ca: Path | None, key_file: Path | None, timeout: float,
    max_moved: str | None, allow_loss: bool, allow_older: bool, dry_run: bool, state: Path | None,
) -> None:  # fmt: skip
    """Download a newer table, judge it beside the one in use, and take it; a running server follows at once.

    Exits 0 when it was taken or there is nothing new, 1 when it was refused, 2 when it could not run. Unless it was taken
    everything is as before.
    """
    source = SOURCES[name].elsewhere(url, checksum, countries)
    limits = Limits(_share(max_moved), allow_loss, allow_older)
    try:
        key = read_key(key_file) if source.needs_key else None
        if source.needs_key and key is None:
            raise SourceError(f"{name} wants a key of your own: --key-file FILE or {KEY_VARIABLE}, with ACCOUNT_ID:LICENSE_KEY")
        with _progress() as progress:
            terms = Terms(ca, key, timeout, progress=progress)
            result = update(_tables(state), Update(source, terms, limits, dry_run), time.time(), click.echo)
    except SourceError as error:
        _end(error)
    click.echo(result.said)
    if result.changed:
        click.echo(f"credit: {source.credit}")


@data.command("rollback")
@_STATE
def rollback_command(state: Path | None) -> None:
    """Take the previous table into use again; a second rollback undoes the first. Updates leave out what was left behind."""
    try:
        result = rollback(_tables(state), time.time())
    except SourceError as error:
        _end(error)
    click.echo(result.said)
    click.echo("updates leave out the table that was in use until now; the next other one is taken")


def report(table: AsnTable, path: Path | None, today: date, installed: Installed | None = None) -> list[str]:
    """What `status` prints of a table, line by line."""
    lines = [
        f"source:  {table.source} ({path or (installed.url if installed else 'embedded')})",
        f"date:    {table.date}",
        f"age:     {age(table, today)} days",
        f"ranges:  {table.rows4:,} IPv4, {table.rows6:,} IPv6",
        f"ASNs:    {table.asn_count():,}",
        f"digest:  {table.digest[:16]}",
    ]
    if installed:
        credit = [f"credit:  {SOURCES[installed.source].credit}"] if installed.source in SOURCES else []
        return [*lines, f"fetched: {_moment(installed.fetched)}", *credit]
    return lines if path else [*lines, *_CAVEAT.splitlines()]


def history(tables: Tables, index: Index) -> list[str]:
    """The table before, and what the last update came to."""
    lines = []
    if index.current or index.previous:
        one = index.previous
        told = f"{one.source}, dated {one.date}, fetched {_moment(one.fetched)}" if one else "the embedded table"
        lines = [f"{'rolled back from' if index.rolled_back else 'previous'}: {told}"]
    if last := tables.last():
        lines.append(f"last run: {_moment(last[0])}: {last[1]}")
    return lines


def age(table: AsnTable, today: date) -> int:
    """Days since the table was made; 0 for one dated in the future."""
    return max(0, (today - date.fromisoformat(table.date)).days)


def _tables(state: Path | None) -> Tables:
    return Tables(state or default_state(os.environ, os.geteuid() == 0))


def _share(text: str | None) -> float | None:
    """`7`, `7%` and `7.5%` as a share."""
    if text is None:
        return None
    try:
        share = float(text.removesuffix("%")) / 100
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise click.BadParameter(f"{text!r} is not a percentage, such as 7.5%", param_hint="--max-moved")
    return share


def _moment(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M} UTC"


@contextlib.contextmanager
def _progress() -> Iterator[Announce]:
    """A bar on a terminal, nothing elsewhere."""
    columns = (TextColumn("downloading"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, whole: bar.update(task, completed=done, total=whole)


def _end(error: SourceError) -> NoReturn:
    click.echo(f"error: {error}", err=True)
    raise SystemExit(REFUSED if isinstance(error, Refused) else COULD_NOT_RUN) from None
