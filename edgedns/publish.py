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

from edgedns.engine.flat import ROOT_FORMAT, Buffer
from edgedns.errors import PublishRefused, SourceError

ROOT = "root.json"
KEPT_GENERATIONS = 3
CLOCK_SKEW = 5.0
EVIDENCE = ("table", "decisions", "health")

Identity = tuple[int, int, int]
ABSENT: Identity = (0, 0, 0)


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
    """The one writer of a state directory's `published` folder. SourceError where that can't be written.

    `root` is what this process published last, None before it did.
    """

    def __init__(self, directory: Path, node: str) -> None:
        self.directory = directory
        self.node = node
        self.root: dict[str, Any] | None = None
        self._recent: list[set[str]] = []
        self._waiting: set[str] = set()  # put since the last root: the next one may refer to them
        self._known: dict[str, Identity] = {}
        self._make_directory()

    def last(self) -> dict[str, Any] | None:
        """The root on disk, or None where there is none; SourceError when it can't be read."""
        return read_root(self.directory)

    def put(self, kind: str, content: Buffer, key: str = "") -> str:
        """Write one immutable file, if it isn't there as it should be, and give its name."""
        name = name_of(kind, content, key)
        identity = _identity(self.directory / name)
        self._waiting.add(name)
        self._known[name] = identity if _holds(self.directory / name, content) else self._write(name, content)
        return name

    def stands(self, name: str) -> bool:
        """Whether a file that this process put is there as it was written."""
        return self._known.get(name, ABSENT) == _identity(self.directory / name) != ABSENT

    def publish(self, root: Root) -> int:
        """Swap to a new root and give its serial, one more than the last that can be read."""
        content = {
            "format": ROOT_FORMAT,
            "serial": self._last_serial() + 1,
            "node": self.node,
            "published": root.published,
            "fresh_until": root.fresh_until,
            "atoms": root.atoms,
            "base": root.base,
            "schedule": [{"from": step.start, "overlay": step.overlay} for step in root.schedule],
            **root.extra,
        }
        identity = self._write(ROOT, json.dumps(content, indent=1).encode())
        files = files_of(content)
        waiting, self._waiting = self._waiting, set()
        self._recent = [*self._recent[-KEPT_GENERATIONS:], files | waiting]
        self._known = {name: self._known.get(name) or _identity(self.directory / name) for name in files} | {ROOT: identity}
        self.root = content
        return int(content["serial"])

    def damaged(self) -> set[str]:
        """Names of files of the published root (itself included) that are gone or were changed since they were written."""
        wanted = {ROOT, *files_of(self.root)} if self.root else set()
        return {name for name in wanted if not self.stands(name)}

    def sweep(self, mapped: Iterable[str] = ()) -> list[str]:
        """Delete files that no recent root and no worker refers to, and none is going to; gives their names."""
        keep = set(mapped).union(self._waiting, *self._recent, files_of(self.root) if self.root else ())
        gone = [path for path in self.directory.glob("*-*.bin") if path.name not in keep]
        own = f".{os.getpid()}"  # the others are of a process that died while writing
        gone += [path for path in self.directory.glob(".*.*.*") if not path.name.endswith(own)]
        for path in gone:
            path.unlink(missing_ok=True)
        return [path.name for path in gone]

    def _last_serial(self) -> int:
        if self.root is not None:
            return int(self.root["serial"])
        try:
            last = self.last()
        except SourceError:  # it can't be gone on from; what it says is replaced
            return 0
        return int(last["serial"]) if last else 0

    def _make_directory(self) -> None:
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SourceError(f"can't make {self.directory}: {error.strerror}") from error

    def _write(self, name: str, content: Buffer) -> Identity:
        self._make_directory()
        try:
            return write_aside(self.directory / name, content)
        except OSError as error:
            raise SourceError(f"can't write {self.directory / name}: {error.strerror or error}") from error


def name_of(kind: str, content: Buffer, key: str = "") -> str:
    """What a published file is called: by `key`, or by its content."""
    return f"{kind}-{key or hashlib.blake2b(content, digest_size=12).hexdigest()}.bin"


def files_of(root: Mapping[str, Any]) -> set[str]:
    """The names of all files that a root refers to."""
    names = {root["atoms"], root["base"], *(step["overlay"] for step in root["schedule"])}
    return names | {root[kind] for kind in EVIDENCE if root.get(kind)}


def read_root(directory: Path) -> dict[str, Any] | None:
    """The root of a published folder, or None where nothing was published yet; SourceError when it is none."""
    path = directory / ROOT
    try:
        root = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise SourceError(f"{path}: {error}; it is published anew") from error
    if not isinstance(root, dict) or root.get("format") != ROOT_FORMAT or not isinstance(root.get("serial"), int):
        raise SourceError(f"{path}: not a root of format {ROOT_FORMAT}; it is published anew")
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
        raise PublishRefused(f"{share} (max_moved_share in providers.yaml)")


def write_aside(path: Path, content: Buffer) -> Identity:
    """All or nothing: aside, fsync, rename, fsync of the folder. OSError leaves what was there."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    with open(aside, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    identity = _identity(aside)
    aside.rename(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return identity


def _holds(path: Path, content: Buffer) -> bool:
    """Whether a file is there with this content; one that was damaged is to be written again."""
    try:
        return path.stat().st_size == memoryview(content).nbytes and path.read_bytes() == content
    except OSError:
        return False


def _identity(path: Path) -> Identity:
    """Changes whenever a file is replaced or written to; zeros where there is none."""
    try:
        status = path.stat()
    except OSError:
        return ABSENT
    return status.st_ino, status.st_mtime_ns, status.st_size
