"""`edgedns reload`: a running server reads its rules, ASN table, settings and program again, and loses no query over it."""

from __future__ import annotations

import time
from typing import Any

import click

from edgedns.cli.remote import Remote, server_option, token_option

PATIENCE = 120.0  # seconds: a rehearsal reads rules and tables, and so does the new beginning
LOOK = 0.2


@click.command("reload")
@server_option
@token_option
def reload(server: str, token: str) -> None:
    """Read rules, ASN table and settings again; begin anew where settings or the installed program are others.

    Exit 0 when all of it is in force, 1 when something stays as it was, and why.
    """
    remote = Remote(server, token, PATIENCE)
    before = remote.get("/v1/status")["started"]
    found: dict[str, Any] = remote.post("/v1/reload", {})
    moved = any(line.startswith("admin: ") for line in found["changed"])
    if found["restarts"] and not moved:
        _wait(remote, before)
    for line in found["changed"]:
        click.echo(line)
    for line in found["kept"]:
        click.echo(f"stays as it was: {line}", err=True)
    if found["kept"]:
        raise SystemExit(1)
    if not found["changed"]:
        click.echo("nothing changed")


def _wait(remote: Remote, before: float) -> None:
    """Until the server that began anew answers; where its admin side is elsewhere now, nobody could tell here."""
    until, why = time.monotonic() + PATIENCE, "it has not begun"
    while time.monotonic() < until:
        try:
            if remote.get("/v1/status")["started"] > before:
                return
        except click.ClickException as error:
            why = error.message
        time.sleep(LOOK)
    raise click.ClickException(f"the control process has not come back ({why}); workers go on, and the log says more")
