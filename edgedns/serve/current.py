"""What a serving process answers from: the published root, looked at now and then, and the files it names, mapped.

One reference is swapped when a new root is complete; whoever answers takes it once per query (law 5).
"""

from __future__ import annotations

import json
import mmap
import os
from array import array
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from edgedns import metrics
from edgedns.dns import types
from edgedns.engine import answer, fastpath, native, transfer
from edgedns.engine.answer import Secrets
from edgedns.engine.flat import ROOT_FORMAT, Sections, unpack
from edgedns.engine.seen import OCTETS, Ring
from edgedns.engine.snapshot import Base, Files, Snapshot
from edgedns.engine.tally import Tally
from edgedns.errors import SourceError

if TYPE_CHECKING:
    from edgedns.engine._fastpath import Native

PUBLISHED = "published"
SECRETS = "secrets.json"
COOKIE_SECRET = 16
AXFR, IXFR = (rtype.to_bytes(2, "big") for rtype in (types.AXFR, types.IXFR))
ENGINE = "EDGEDNS_ENGINE"
ENGINES = ("native", "python", "reference")

Identity = tuple[int, int, int]
ABSENT: Identity = (0, 0, 0)


def engine_name(environ: Mapping[str, str] = os.environ) -> str:
    """Which path answers: native where it was built, else python (both with the reference beside them), or the reference alone.

    SourceError where the environment asks for another than there is.
    """
    name = environ.get(ENGINE, "") or ("native" if native.AVAILABLE else "python")
    if name not in ENGINES:
        raise SourceError(f"{ENGINE} is {name!r}, and this build has {', '.join(ENGINES)}")
    if name == "native" and not native.AVAILABLE:
        raise SourceError(f"{ENGINE} is 'native', and that was not built: install again with gcc and Python.h at hand")
    return name


class Mapped:
    """Published files by name, mapped once and kept while a root refers to them."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._open: dict[str, Sections] = {}
        self._base: tuple[Sections, Base] | None = None

    def snapshot(self, root: Mapping[str, Any]) -> Snapshot:
        """The Snapshot of a root; SourceError when it or a file of it is missing or damaged, and nothing changes then."""
        if root.get("format") != ROOT_FORMAT:
            raise SourceError(f"{self._directory}: a root of format {root.get('format')}, this edgedns reads {ROOT_FORMAT}")
        names = [root["atoms"], root["base"], *(step["overlay"] for step in root["schedule"])]
        opened = {name: self._open.get(name) or self.sections(name) for name in names}
        files = Files(opened[root["atoms"]], opened[root["base"]], tuple(opened[name] for name in names[2:]))
        known = self._base[1] if self._base and self._base[0] is files.base else None
        made = Snapshot(root, files, known)
        self._open, self._base = opened, (files.base, made.base)
        return made

    def sections(self, name: str) -> Sections:
        """One published file; SourceError when it is missing or damaged."""
        path = self._directory / name
        try:
            with open(path, "rb") as file:
                return unpack(memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)), name)
        except (OSError, ValueError) as error:
            raise SourceError(f"{path}: {error}") from error


class Serving(NamedTuple):
    """What changes together: a snapshot, and the counters that its network ids index."""

    snapshot: Snapshot
    tally: Tally


class Current:
    """The snapshot being served by this process, and the way packets are answered from it."""

    def __init__(self, state: Path, counters: metrics.Counters) -> None:
        self.places = (state / PUBLISHED, state)
        # As text: they are looked at often, and a Path would cost more than the look.
        self._root_path, self._secrets_path = str(state / PUBLISHED / "root.json"), str(state / SECRETS)
        self._mapped = Mapped(state / PUBLISHED)
        self._root_seen = self._secrets_seen = ABSENT
        self._counters, self._ring = counters, _open_ring(counters)
        self._secrets = Secrets((os.urandom(16),))
        self.engine = engine_name()
        self.bell = array("Q", (0,))  # counts what `look` may give another answer after
        self._fast = {"native": native.reply, "python": fastpath.reply}.get(self.engine)
        self._serving: Serving | None = None

    @property
    def snapshot(self) -> Snapshot | None:
        return self._serving.snapshot if self._serving else None

    @property
    def serial(self) -> int:
        return self._serving.snapshot.serial if self._serving else 0

    def refresh(self, now: float) -> None:
        """Follow root and secrets when they have been replaced; an exception leaves what was served before."""
        try:
            self._follow_root(now)
        finally:  # neither waits for the other to be well
            self._follow_secrets()

    def respond(self, packet: bytes, client: bytes, transport: str, now: float) -> bytes | None:
        """One packet answered; None is silence."""
        serving = self._serving
        if serving is None:
            return None
        snapshot, tally = serving
        if self._fast is not None:
            reply = self._fast(snapshot, packet, client, transport, now, self._secrets, tally)
            if reply is not None:
                return reply or None
        if IXFR in packet and transport == "udp":
            told = transfer.datagram(snapshot, packet, client, now, self._secrets, tally)
            if told is not None:
                return told
        return answer.respond(snapshot, packet, client, transport, now, self._secrets, tally)

    def replies(self, received: Sequence[tuple[bytes, bytes]], now: float) -> list[bytes | None]:
        """What plain Python answers at once of a batch, (packet, client) over UDP; None for what `respond` is to answer."""
        serving = self._serving
        if serving is None or self.engine != "python":
            return [None] * len(received)
        return fastpath.replies(serving.snapshot, received, now, serving.tally)

    def cookie_secrets(self) -> Sequence[bytes]:
        """Those of server cookies, which tell rate limiting whose address is not forged."""
        return self._secrets.cookies

    def transfer(self, packet: bytes, client: bytes, now: float) -> Iterator[bytes] | None:
        """The messages that answer a query over TCP for a transfer; None where `respond` is to answer."""
        serving = self._serving
        if serving is None or not (AXFR in packet or IXFR in packet):
            return None
        return transfer.begin(serving.snapshot, packet, client, now, self._secrets, serving.tally)

    def look(self, now: float) -> Native | None:
        """What a loop of the native engine answers from at `now`; None where another engine answers, or nothing is served."""
        serving = self._serving
        if serving is None or self.engine != "native":
            return None
        return native.native_of(serving.snapshot.at(now), self._secrets, serving.tally)

    def _follow_root(self, now: float) -> None:
        seen = _identity(self._root_path)
        if seen in (self._root_seen, ABSENT):
            return
        snapshot = self._mapped.snapshot(json.loads(_read(self._root_path)))
        snapshot.at(now)
        self._serving = Serving(snapshot, self._tally_for(snapshot))
        self._root_seen = seen
        self.bell[0] += 1

    def _follow_secrets(self) -> None:
        seen = _identity(self._secrets_path)
        if seen not in (self._secrets_seen, ABSENT):
            keys = tuple(bytes.fromhex(text) for text in json.loads(_read(self._secrets_path))["cookies"])
            if not keys or any(len(key) != COOKIE_SECRET for key in keys):
                raise SourceError(f"{self._secrets_path}: cookie secrets are {COOKIE_SECRET} octets each")
            self._secrets, self._secrets_seen = Secrets(keys), seen
            self.bell[0] += 1

    def _tally_for(self, snapshot: Snapshot) -> Tally:
        """Queries are counted by network id, whose meaning comes with the atoms file."""
        atoms, path = snapshot.root["atoms"], self._counters.path
        if self._serving and self._serving.snapshot.root["atoms"] == atoms:
            return self._serving.tally
        if path is None:
            return Tally(self._counters.cells)
        slot, digest = _slot(path), atoms.removeprefix("atoms-").removesuffix(".bin")
        place = metrics.networks_path(path.parent, slot, digest)
        try:
            counts = metrics.NetworkCounts(place, len(snapshot.files.atoms["net_asn"]))
        except OSError:  # better uncounted answers than none
            return Tally(self._counters.cells, ring=self._ring)
        return Tally(self._counters.cells, counts.counts, self._ring)


def open_current(state: str, counters: metrics.Counters) -> Current:
    """What `edgedns.serve.worker` answers with."""
    return Current(Path(state), counters)


def _open_ring(counters: metrics.Counters) -> Ring | None:
    """The ring of samples beside a worker's counters."""
    if counters.path is None:
        return None
    try:
        place = metrics.ring_path(counters.path.parent, _slot(counters.path))
        return Ring(metrics.map_ring(place, OCTETS), int.from_bytes(os.urandom(8), "little"))
    except OSError:  # better no sample than no answers
        return None


def _slot(path: Path) -> int:
    return int(path.stem.removeprefix("worker-"))


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _identity(path: str) -> Identity:
    """Changes whenever the file is replaced or written to; zeros while there is none."""
    try:
        status = os.stat(path)
    except OSError:
        return ABSENT
    return status.st_ino, status.st_mtime_ns, status.st_size
