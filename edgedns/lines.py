"""Files of one thing a line."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from edgedns.errors import SourceError

SHOWN = 5
T = TypeVar("T")


def parse(lines: Iterable[str], source: str, one: Callable[[str], T | None], nothing: str = "") -> list[T]:
    """What `one` makes of each line; None for those with nothing in them, ValueError says what is wrong.

    SourceError names bad lines (five of them), and, if it is said what there is to be, where there is `nothing` of it.
    """
    found, wrong = [], []
    for number, line in enumerate(lines, 1):
        try:
            made = one(line)
        except ValueError as error:
            wrong.append(f"{source}:{number}: {error}")
            continue
        if made is not None:
            found.append(made)
    if wrong:
        more = [f"... and {len(wrong) - SHOWN} more"] if len(wrong) > SHOWN else []
        raise SourceError("\n".join([*wrong[:SHOWN], *more]))
    if nothing and not found:
        raise SourceError(f"{source} has no {nothing}")
    return found


def read(path: Path, parsed: Callable[[Iterable[str], str], list[T]]) -> list[T]:
    """What `parsed(lines, source)` makes of a file; SourceError."""
    try:
        with path.open(encoding="utf-8") as file:
            return parsed(file, str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"{path} can't be read: {error}") from error
