"""Durations on the command line: 10s, 1m30s, 250ms; a bare number is seconds."""

from __future__ import annotations

import re

import click

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")


class Duration(click.ParamType[float]):
    """Converts to seconds; above zero."""

    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        seconds = value if isinstance(value, float) else _seconds(str(value))
        if seconds is None:
            self.fail(f"{value!r} is not a duration such as 10s, 1m30s or 250ms", param, ctx)
        if not 0 < seconds <= 366 * 86400.0:
            self.fail(f"{value!r} is not within a year and above zero", param, ctx)
        return seconds


def _seconds(text: str) -> float | None:
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    parts = _PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        return None
    return sum(float(number) * _UNITS[unit] for number, unit in parts)
