"""`edgedns data`: which ASN table is in use, and how old it is."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path

import click

from ..errors import SourceError
from ..steer import asn
from ..steer.asn import AsnTable

OLD_AFTER = 30  # days

_CAVEAT = """\
caveat:  its publisher says that the data on npm contains bugs and that updates there will stop; use --asn FILE
         for a table of your own. Credits (RouteViews, NRO, DB-IP: CC BY 4.0; IPtoASN: PDDL) are in NOTICE."""


@click.group("data")
def data() -> None:
    """The ASN table: what it is, how old it is."""


@data.command("status")
@click.option("--asn", "path", type=click.Path(path_type=Path), help="a table in place of the embedded one")
def status(path: Path | None) -> None:
    """Print the source, date, size and age of the table; warn when it is old."""
    try:
        table = asn.load(path) if path else asn.embedded()
    except SourceError as error:
        click.echo(f"error: {error}", err=True)
        raise SystemExit(2) from None
    today = datetime.now(UTC).date()
    click.echo("\n".join(report(table, path, today)))
    if (days := age(table, today)) > OLD_AFTER:
        click.echo(f"warning: the ASN table is {days} days old (more than {OLD_AFTER}): networks have moved since", err=True)


def report(table: AsnTable, path: Path | None, today: date) -> list[str]:
    """What `status` prints, line by line."""
    lines = [
        f"source:  {table.source} ({path or 'embedded'})",
        f"date:    {table.date}",
        f"age:     {age(table, today)} days",
        f"ranges:  {table.rows4:,} IPv4, {table.rows6:,} IPv6",
        f"ASNs:    {table.asn_count():,}",
        f"digest:  {table.digest[:16]}",
    ]
    return lines if path else [*lines, *_CAVEAT.splitlines()]


def age(table: AsnTable, today: date) -> int:
    """Days since the table was made; 0 for one dated in the future."""
    return max(0, (today - date.fromisoformat(table.date)).days)
