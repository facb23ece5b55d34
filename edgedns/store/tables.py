"""The ASN tables that `edgedns data` keeps in the state directory: the one in use, and the one before it.

`index.json` names the files; renaming it is the one swap, so that whatever is interrupted leaves a valid table.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgedns.errors import SourceError
from edgedns.steer.space import asn
from edgedns.steer.space.asn import AsnTable
from edgedns.store.aside import opened_anew

FOLDER = "tables"
INDEX = "index.json"
LAST = "last.json"
_ASIDE = ".new-"
_TABLE = "asn-"


class Locked(SourceError):
    """Another update or rollback is under way."""


@dataclass(frozen=True, slots=True)
class Installed:
    """One table: its file, and where its ASNs came from. `sha256` is the download's, `fetched` is in Unix seconds."""

    file: str
    source: str
    url: str
    etag: str
    modified: float | None
    sha256: str
    rows4: int
    rows6: int
    date: str
    fetched: float


@dataclass(frozen=True, slots=True)
class Index:
    """None stands for the embedded table. After a rollback `previous` is what was left behind: updates leave it out."""

    current: Installed | None = None
    previous: Installed | None = None
    rolled_back: bool = False

    def swapped(self) -> Index:
        """After a rollback; a second one undoes the first."""
        return Index(self.previous, self.current, not self.rolled_back)

    @property
    def barred(self) -> Installed | None:
        """What updates leave out."""
        return self.previous if self.rolled_back else None


class Tables:
    """The folder of tables in a state directory. Reading needs nothing; writing is done by who holds `locked`."""

    def __init__(self, state: Path) -> None:
        self.folder = state / FOLDER

    @property
    def swapped_by(self) -> Path:
        """The file whose replacement is a change of the table in use."""
        return self.folder / INDEX

    def index(self) -> Index:
        """Which tables there are; SourceError when that can't be told."""
        try:
            stored = json.loads((self.folder / INDEX).read_bytes())
            return Index(_installed(stored["current"]), _installed(stored["previous"]), bool(stored["rolled_back"]))
        except FileNotFoundError:
            return Index()
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            said = f"{self.folder / INDEX} can't be read ({error!r}); delete it to begin anew with the embedded table"
            raise SourceError(said) from None

    def load(self, installed: Installed | None) -> AsnTable:
        """The table itself; SourceError when its file is gone or damaged."""
        return asn.load(self.folder / installed.file) if installed else asn.embedded()

    def in_use(self) -> AsnTable:
        """What a server without --asn serves from."""
        return self.load(self.index().current)

    def path(self) -> Path | None:
        """The file of the table in use; None for the embedded one."""
        current = self.index().current
        return self.folder / current.file if current else None

    def good_one(self) -> AsnTable:
        """The first that can be used: of the one in use, the one before it, and the embedded one, which always can."""
        with contextlib.suppress(SourceError):
            return self.load(self.sound().current)
        return asn.embedded()

    def sound(self) -> Index:
        """The index, without a table in use that is damaged: the one before stands in, unless it was rolled back."""
        index = self.index()
        for one in (index, Index(None if index.rolled_back else index.previous)):
            with contextlib.suppress(SourceError):
                self.load(one.current)
                return one
        return Index()

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Alone among updates and rollbacks; Locked where another one is at it, SourceError for whatever the disk says."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.folder / ".lock", os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise SourceError(f"can't write to {self.folder}: {error.strerror}; choose another with --state DIR") from None
        try:
            _lock(descriptor, self.folder)
            yield
        except OSError as error:
            raise SourceError(f"{self.folder}: {error}") from None
        finally:
            os.close(descriptor)

    def install(self, content: bytes, about: Installed, index: Index) -> Index:
        """Take a table (our own file form) into use; `about.file` is filled in. The one in use becomes the previous one."""
        digest = hashlib.sha256(content).hexdigest()
        current = Installed(**asdict(about) | {"file": f"{_TABLE}{digest[:24]}.xz"})
        aside = self._write_aside(current.file, content)
        asn.load(aside)  # what can't be read back must not be swapped in
        aside.replace(self.folder / current.file)
        return self.swap(Index(current, index.current))

    def swap(self, index: Index) -> Index:
        """Make another index the one in force, and delete what it doesn't name."""
        self._write_aside(INDEX, _json(asdict(index))).replace(self.folder / INDEX)
        self._sync_folder()
        self._sweep({one.file for one in (index.current, index.previous) if one})
        return index

    def note(self, at: float, result: str) -> None:
        """Keep what the last update or rollback came to, for `status`."""
        self._write_aside(LAST, _json({"at": at, "result": result})).replace(self.folder / LAST)

    def last(self) -> tuple[float, str] | None:
        """When the last update or rollback was, and what it came to; None where that is not known."""
        try:
            stored = json.loads((self.folder / LAST).read_bytes())
            return float(stored["at"]), str(stored["result"])
        except (OSError, ValueError, TypeError, KeyError, RecursionError):
            return None

    def aside(self, name: str) -> Path:
        """A path for something that is not in use yet; the next sweep deletes it."""
        return self.folder / f"{_ASIDE}{name}"

    def clear_asides(self) -> None:
        """Delete what an update that was interrupted left."""
        for path in self.folder.glob(f"{_ASIDE}*"):
            path.unlink(missing_ok=True)

    def _write_aside(self, name: str, content: bytes) -> Path:
        path = self.aside(name)
        with opened_anew(path) as file:
            os.fchmod(file.fileno(), 0o644)  # whoever typed this, the server's user is to read it
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        return path

    def _sync_folder(self) -> None:
        descriptor = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _sweep(self, keep: set[str]) -> None:
        self.clear_asides()
        for path in self.folder.glob(f"{_TABLE}*"):
            if path.name not in keep:
                path.unlink(missing_ok=True)


def _lock(descriptor: int, folder: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Locked(f"another update or rollback is at work in {folder}: wait for it") from None


def _installed(stored: dict[str, Any] | None) -> Installed | None:
    if stored is None:
        return None
    if "/" in stored["file"] or not stored["file"].startswith(_TABLE):
        raise ValueError(f"{stored['file']!r} is no table's name")
    return Installed(**stored)


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=1).encode()
