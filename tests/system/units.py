"""The systemd units that are shipped, as read."""

from __future__ import annotations

from configparser import RawConfigParser
from pathlib import Path

DEPLOY = Path(__file__).parents[2] / "deploy"
SERVICES = sorted(path.name for path in DEPLOY.glob("*.service"))


def unit(name: str) -> RawConfigParser:
    parser = RawConfigParser(strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string((DEPLOY / name).read_text())
    return parser
