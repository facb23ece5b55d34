"""`edgedns schema`: the rules language as JSON Schema, for editors."""

from __future__ import annotations

import json

import click

from edgedns.steer.rules.shape import json_schema


@click.command("schema")
def schema() -> None:
    """Print the JSON Schema of the rules files (the one committed as schema/edgedns.v1.json)."""
    click.echo(text(), nl=False)


def text() -> str:
    """The schema as it is committed and printed."""
    return json.dumps(json_schema(), indent=2) + "\n"
