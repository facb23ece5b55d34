"""Lists that others made: addresses that may be probed (hitlists, RIPE Atlas anchors), and prefixes that want to be left alone.

A list of addresses is told by its content: one address a line, with `#` for comments; a table with a line of column names
(separated by tabs, commas or semicolons); or the JSON of RIPE Atlas' list of anchors (https://atlas.ripe.net/api/v2/anchors/).
"""

from __future__ import annotations

import csv
import ipaddress
import json
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from edgedns import lines
from edgedns.errors import SourceError
from edgedns.special import Prefixes, prefix_of

SIZE_LIMIT = 64 << 20
LIST_LIMIT = 1_000_000
COLUMNS = ("address", "ip", "ip_address", "addr", "target")
ATLAS_KEYS = ("ip_v4", "ip_v6")


class Listed(NamedTuple):
    """A file and which of its columns has the addresses ('' for the one that is named so, or the only one)."""

    path: Path
    column: str = ""

    @classmethod
    def parse(cls, text: str) -> Listed:
        """FILE or FILE:COLUMN; a file that is there by the whole name is meant."""
        name, colon, column = text.rpartition(":")
        return cls(Path(name).absolute(), column) if colon and name and not Path(text).exists() else cls(Path(text).absolute())

    def __str__(self) -> str:
        return f"{self.path}:{self.column}" if self.column else str(self.path)


def addresses(listed: Listed) -> list[bytes]:
    """The addresses of a list, packed, each once, in its order. SourceError names the first lines that are none."""
    path = listed.path
    _require_sane(path)
    found = _anchors(path) if _is_json(path) else lines.read(path, lambda file, source: _table(file, source, listed.column))
    if len(found) > LIST_LIMIT:
        raise SourceError(f"{path}: more than {LIST_LIMIT:,} addresses")
    return list(dict.fromkeys(found))


def prefixes(path: Path) -> Prefixes:
    """The prefixes of a list, one a line; a list of none is one too. SourceError names bad lines: nothing is left out of it."""
    _require_sane(path)

    return Prefixes(lines.read(path, lambda file, source: lines.parse(file, source, prefix_of)))


def _require_sane(path: Path) -> None:
    """A pipe would be waited for, and what is too large would fill the memory."""
    try:
        found = path.stat()
    except OSError as error:
        raise SourceError(f"{path} can't be read: {error.strerror}") from None
    if not stat.S_ISREG(found.st_mode):
        raise SourceError(f"{path} is not a file")
    if found.st_size > SIZE_LIMIT:
        raise SourceError(f"{path}: over {SIZE_LIMIT >> 20} MiB")


def _is_json(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(256).lstrip()[:1] in (b"{", b"[")


def _table(file: Iterable[str], source: str, column: str) -> list[bytes]:
    rows = (line.partition("#")[0].strip() for line in file)
    return lines.parse(rows, source, _Column(column), "addresses")


class _Column:
    """Finds the addresses of a table line by line: what its first line says decides."""

    def __init__(self, wanted: str) -> None:
        self._wanted = wanted
        self._delimiter = ""
        self._place = 0
        self._begun = False

    def __call__(self, line: str) -> bytes | None:
        if not line:
            return None
        if not self._begun:
            self._begun = True
            if self._is_header(line):
                return None
        row = _fields(line, self._delimiter) if self._delimiter else [line]
        if len(row) <= self._place:
            raise ValueError(f"there is no column {self._place + 1}")
        return _packed(row[self._place])

    def _is_header(self, line: str) -> bool:
        """Whether a first line has names in it; ValueError where they don't tell which column is meant."""
        self._delimiter = next((each for each in "\t,;" if each in line), "")
        names = [name.strip() for name in _fields(line, self._delimiter or ",")]
        wanted = (self._wanted,) if self._wanted else COLUMNS
        place = next((place for name in wanted for place, each in enumerate(names) if each.lower() == name.lower()), None)
        if place is not None:
            self._place = place
            return True
        if len(names) == 1 and not self._wanted:
            return False
        raise ValueError(f"which column has the addresses? Say FILE:COLUMN with one of {', '.join(names)[:200]}")


def _fields(line: str, delimiter: str) -> list[str]:
    try:
        return next(csv.reader([line], delimiter=delimiter))
    except csv.Error as error:
        raise ValueError(str(error)) from None


def _packed(text: str) -> bytes:
    address = ipaddress.ip_address(text.strip())
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id is not None:
            raise ValueError(f"{text!r} names an interface")
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped.packed
    return address.packed


def _anchors(path: Path) -> list[bytes]:
    """Those in service, by what RIPE Atlas says of each."""
    try:
        tree = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise SourceError(f"{path} is not JSON: {str(error)[:200]}") from None
    entries = tree.get("results") if isinstance(tree, dict) else tree
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise SourceError(f"{path}: this is not RIPE Atlas' list of anchors, which has them under `results`")
    served = [entry for entry in entries if not entry.get("is_disabled") and not entry.get("date_decommissioned")]
    texts = [entry[key] for entry in served for key in ATLAS_KEYS if entry.get(key) is not None]
    try:
        found = [_packed(text) if isinstance(text, str) else _refuse(text) for text in texts]
    except ValueError as error:
        raise SourceError(f"{path}: {error}") from None
    if not found:
        raise SourceError(f"{path} has no addresses under {' and '.join(ATLAS_KEYS)}")
    return found


def _refuse(value: object) -> bytes:
    raise ValueError(f"{str(value)[:80]!r} is not an address")
