"""Publishing: files written aside and fsynced, then one rename of root (laws 5 and 8).

Files are named by what is in them, so that publishing what is already there writes nothing. Old generations stay until no
worker maps them; `sweep` deletes them then.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgedns.engine.flat import Buffer
from edgedns.errors import PublishRefused, SourceError

ROOT = "root.json"
FORMAT = 1
KEPT_GENERATIONS = 3
CLOCK_SKEW = 5.0


@dataclass(frozen=True, slots=True)
class Step:
    """From when (Unix seconds) which overlay file holds, if nothing newer is published."""

    start: float
    overlay: str


@dataclass(frozen=True, slots=True)
class Root:
    """What one publish says; `extra` is for people and the control process, workers don't read it."""

    atoms: str
    base: str
    schedule: tuple[Step, ...]
    published: float
    fresh_until: float
    extra: Mapping[str, Any]


class Publisher:
    """The one writer of a state directory's `published` folder."""

    def __init__(self, directory: Path, node: str) -> None:
        self.directory = directory
        self.node = node
        self._recent: list[set[str]] = []
        directory.mkdir(parents=True, exist_ok=True)

    def last(self) -> dict[str, Any] | None:
        """The root that stands, or None on a first start; SourceError when it can't be read."""
        return read_root(self.directory)

    def put(self, kind: str, content: Buffer, key: str = "") -> str:
        """Write one immutable file, if it isn't there, and give its name: by `key`, or by the content itself."""
        name = f"{kind}-{key or hashlib.blake2b(content, digest_size=12).hexdigest()}.bin"
        if not (self.directory / name).exists():
            _write(self.directory / name, content)
        return name

    def publish(self, root: Root) -> int:
        """Swap to a new root and give its serial, one more than the last."""
        last = self.last()
        serial = (int(last["serial"]) if last else 0) + 1
        content = {
            "format": FORMAT,
            "serial": serial,
            "node": self.node,
            "published": root.published,
            "fresh_until": root.fresh_until,
            "atoms": root.atoms,
            "base": root.base,
            "schedule": [{"from": step.start, "overlay": step.overlay} for step in root.schedule],
            **root.extra,
        }
        _write(self.directory / ROOT, json.dumps(content, indent=1).encode())
        self._recent = [*self._recent[-KEPT_GENERATIONS:], files_of(content)]
        return serial

    def sweep(self, mapped: Iterable[str] = ()) -> list[str]:
        """Delete files that no recent root and no worker refers to; gives their names."""
        last = self.last()
        keep = set(mapped).union(*self._recent, files_of(last) if last else ())
        gone = [path for path in self.directory.glob("*-*.bin") if path.name not in keep]
        for path in gone:
            path.unlink(missing_ok=True)
        return [path.name for path in gone]


def files_of(root: Mapping[str, Any]) -> set[str]:
    """The names of all files that a root refers to."""
    names = {root["atoms"], root["base"], *(step["overlay"] for step in root["schedule"])}
    return names | {root[kind] for kind in ("table", "decisions") if root.get(kind)}


def read_root(directory: Path) -> dict[str, Any] | None:
    """The root of a published folder, or None where nothing was published yet."""
    path = directory / ROOT
    try:
        root = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise SourceError(f"{path}: {error}; remove it and start again to publish anew") from error
    if not isinstance(root, dict) or root.get("format") != FORMAT:
        raise SourceError(f"{path}: not a root of format {FORMAT}; remove it and start again to publish anew")
    return root


@dataclass(frozen=True, slots=True)
class Facts:
    """What law 8 looks at: when the WAN table was measured, its rows and those of the last one, and what would move.

    `moved` and `limit` are shares (0 to 1) of query weight whose MEASURED answers would change; `oldest` is in seconds.
    """

    measured_at: float
    rows: int
    last_rows: int
    moved: float
    limit: float
    oldest: float


def refuse_implausible(facts: Facts, now: float) -> None:
    """Law 8: raise PublishRefused for a WAN table too old, too small, from the future, or that moves too much."""
    age = now - facts.measured_at
    if age < -CLOCK_SKEW:
        raise PublishRefused(f"the WAN table is dated {-age:.0f} s in the future: check this machine's clock")
    if facts.rows and age > facts.oldest:
        raise PublishRefused(f"the WAN table is {age:.0f} s old, more than {facts.oldest:.0f} s: are probes arriving?")
    if facts.rows < facts.last_rows // 2:
        raise PublishRefused(f"the WAN table shrank from {facts.last_rows} to {facts.rows} rows: are probes arriving?")
    if facts.moved > facts.limit:
        share = f"{facts.moved:.0%} of queries would move at once, the limit is {facts.limit:.0%}"
        raise PublishRefused(f"{share}: see `edgedns plan`")


def _write(path: Path, content: Buffer) -> None:
    """All or nothing: aside, fsync, rename, fsync of the folder."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    with open(aside, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    aside.rename(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
