"""What a serving process answers from: the published root, looked at now and then, and the files it names, mapped.

One reference is swapped when a new root is complete; whoever answers takes it once per query (law 5).
"""

from __future__ import annotations

import json
import mmap
import os
from pathlib import Path
from typing import Any

from edgedns import metrics
from edgedns.engine import answer, fastpath
from edgedns.engine.answer import Secrets
from edgedns.engine.flat import Sections, unpack
from edgedns.engine.snapshot import Files, Snapshot
from edgedns.engine.tally import Tally
from edgedns.errors import SourceError

PUBLISHED = "published"
SECRETS = "secrets.json"


class Mapped:
    """Published files by name, mapped once and kept while a root refers to them."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._open: dict[str, Sections] = {}

    def snapshot(self, root: dict[str, Any]) -> Snapshot:
        """The Snapshot of a root; SourceError when a file of it is missing or damaged, and nothing changes then."""
        names = [root["atoms"], root["base"], *(step["overlay"] for step in root["schedule"])]
        opened = {name: self._open.get(name) or self.sections(name) for name in names}
        files = Files(opened[root["atoms"]], opened[root["base"]], tuple(opened[name] for name in names[2:]))
        made = Snapshot(root, files)
        self._open = opened
        return made

    def sections(self, name: str) -> Sections:
        """One published file; SourceError when it is missing or damaged."""
        path = self._directory / name
        try:
            with open(path, "rb") as file:
                return unpack(memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)), name)
        except (OSError, ValueError) as error:
            raise SourceError(f"{path}: {error}") from error


class Current:
    """The snapshot being served by this process, and the way packets are answered from it."""

    def __init__(self, state: Path, counters: metrics.Counters) -> None:
        self._published = state / PUBLISHED
        self._secrets_path = state / SECRETS
        self._mapped = Mapped(self._published)
        self._root_seen: tuple[int, int] = (0, 0)
        self._secrets_seen: tuple[int, int] = (0, 0)
        self._counters = counters
        self._tally = Tally(counters.cells)
        self._secrets = Secrets((os.urandom(16),))
        self._fast = None if os.environ.get("EDGEDNS_ENGINE") == "reference" else fastpath.reply
        self.snapshot: Snapshot | None = None

    @property
    def serial(self) -> int:
        return self.snapshot.serial if self.snapshot else 0

    def refresh(self, now: float) -> None:
        """Follow root and secrets when they have been replaced; SourceError leaves what was served before."""
        self._follow_secrets()
        seen = _identity(self._published / "root.json")
        if seen == self._root_seen:
            return
        root = json.loads((self._published / "root.json").read_bytes())
        snapshot = self._mapped.snapshot(root)
        snapshot.at(now)
        self._count_networks(root["atoms"], snapshot)
        self.snapshot = snapshot
        self._root_seen = seen

    def respond(self, packet: bytes, client: bytes, transport: str, now: float) -> bytes | None:
        """One packet answered; None is silence."""
        snapshot = self.snapshot
        if snapshot is None:
            return None
        if self._fast is not None:
            reply = self._fast(snapshot, packet, client, transport, now, self._secrets, self._tally)
            if reply is not None:
                return reply or None
        return answer.respond(snapshot, packet, client, transport, now, self._secrets, self._tally)

    def _follow_secrets(self) -> None:
        seen = _identity(self._secrets_path)
        if seen != self._secrets_seen and seen != (0, 0):
            cookies = json.loads(self._secrets_path.read_bytes())["cookies"]
            self._secrets = Secrets(tuple(bytes.fromhex(text) for text in cookies))
            self._secrets_seen = seen

    def _count_networks(self, atoms: str, snapshot: Snapshot) -> None:
        """Queries are counted by network id, whose meaning comes with the atoms file."""
        path = self._counters.path
        digest = atoms.removeprefix("atoms-").removesuffix(".bin")
        if path is None or (self.snapshot is not None and self.snapshot.root["atoms"] == atoms):
            return
        slot = int(path.stem.removeprefix("worker-"))
        size = len(snapshot.files.atoms["net_asn"])
        counts = metrics.NetworkCounts(metrics.networks_path(path.parent, slot, digest), size).counts
        self._tally = Tally(self._counters.cells, counts)


def open_current(state: str, counters: metrics.Counters) -> Current:
    """What `edgedns.serve.worker` answers with."""
    return Current(Path(state), counters)


def _identity(path: Path) -> tuple[int, int]:
    """Changes whenever the file is replaced; (0, 0) while there is none."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return 0, 0
    return status.st_ino, status.st_mtime_ns
