"""The systemd units that are shipped, as read."""

from __future__ import annotations

from configparser import RawConfigParser
from pathlib import Path

DEPLOY = Path(__file__).parents[2] / "deploy"
SERVICES = sorted(path.name for path in DEPLOY.glob("*.service"))


class _Parser(RawConfigParser):
    def optionxform(self, optionstr: str) -> str:
        """Names as they are written."""
        return optionstr


def unit(name: str) -> RawConfigParser:
    parser = _Parser(strict=False)
    parser.read_string((DEPLOY / name).read_text())
    return parser
