"""The commands: one small file each, and the only place that wires rooms together."""

from __future__ import annotations

from importlib import import_module
from keyword import iskeyword

import click

from edgedns import __version__

# Command -> the module that holds it; loaded when asked for, since `--help` needs none of them.
COMMANDS = {
    "beacon": "beacon",
    "bench": "bench",
    "check": "check",
    "data": "data",
    "demo": "demo",
    "drain": "orders",
    "explain": "explain",
    "import": "importing",
    "follow": "follow",
    "orders": "orders",
    "pin": "orders",
    "plan": "plan",
    "probe": "probe",
    "reload": "reload",
    "replay": "replay",
    "schema": "schema",
    "serve": "serve",
    "simulate": "simulate",
    "top": "top",
    "undo": "orders",
}


class Lazy(click.Group):
    """A group whose commands are imported when they are used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        module = COMMANDS.get(cmd_name)
        if module is None:
            return None
        command = getattr(import_module(f"edgedns.cli.{module}"), f"{cmd_name}_" if iskeyword(cmd_name) else cmd_name)
        assert isinstance(command, click.Command)
        return command


@click.group(cls=Lazy, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="edgedns")
def main() -> None:
    """Authoritative DNS that answers each network with the provider that is fastest for it."""
