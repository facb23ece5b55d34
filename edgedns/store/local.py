"""One machine's state directory: measurements, overrides, secrets, the last good rules and ASN table.

Everything is written aside and renamed. What can't be read is reported and begun anew: a damaged file must not stop answers.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgedns.errors import SourceError
from edgedns.store.aside import opened_anew

Sections = dict[str, NDArray[Any]]
COOKIE_SECRET = 16
SECRETS = "secrets.json"
GOOD_RULES = "rules-good"
GOOD_TABLE = "asn-good"


class CookieSecrets(NamedTuple):
    """Secrets of server cookies, the one that makes them first; it does so since a Unix time. `shared`: they came in a file."""

    keys: tuple[bytes, ...]
    since: float
    shared: bool = False

    def __repr__(self) -> str:
        """Nothing of the keys: what fails with them at hand may be logged."""
        return f"CookieSecrets({len(self.keys)} keys, since={self.since}, shared={self.shared})"


class LocalStore:
    """Files below `directory`, which is made. Not thread-safe: one control process has it. SourceError where it can't write."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        require_writable(directory)

    # -- measurements and orders

    def save_arrays(self, name: str, sections: Mapping[str, NDArray[Any]]) -> None:
        content = io.BytesIO()
        np.savez(content, **sections)  # type: ignore[arg-type]
        self._write(f"{name}.npz", content.getvalue())

    def load_arrays(self, name: str) -> Sections | None:
        """What was saved under `name`, None if nothing was; SourceError when it is damaged."""
        return load_arrays(self.directory / f"{name}.npz")

    def save_json(self, name: str, value: Any) -> None:
        self._write(f"{name}.json", json.dumps(value, indent=1).encode())

    def load_json(self, name: str) -> Any:
        """What was saved under `name`, None if nothing was; SourceError when it is damaged."""
        path = self.directory / f"{name}.json"
        try:
            return json.loads(path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RecursionError) as error:
            raise SourceError(f"{path}: {error}; it is ignored") from error

    # -- secrets

    def cookie_secrets(self) -> CookieSecrets | None:
        """Those that were kept; None where there are none that can be used."""
        try:
            kept = json.loads((self.directory / SECRETS).read_bytes())
            keys = tuple(bytes.fromhex(text) for text in kept["cookies"])
            found = CookieSecrets(keys, float(kept.get("since", 0.0)), bool(kept.get("shared", False)))
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None
        return found if keys and all(len(key) == COOKIE_SECRET for key in keys) else None

    def keep_cookie_secrets(self, secrets: CookieSecrets) -> None:
        """Put them where the workers look; only their owner can read them."""
        keys = [key.hex() for key in secrets.keys]
        self._write(SECRETS, json.dumps({"cookies": keys, "since": secrets.since, "shared": secrets.shared}).encode(), 0o600)

    def ensure_secrets(self, now: float) -> None:
        """Make the secret of server cookies where there is none that can be used."""
        if self.cookie_secrets() is None:
            self.keep_cookie_secrets(CookieSecrets((os.urandom(COOKIE_SECRET),), now))

    def ensure_salt(self) -> int:
        """The salt of hash units where the rules name none; kept, so that clients keep their side of a split."""
        try:
            return int((self.directory / "salt").read_text(encoding="ascii").strip(), 16) & (1 << 64) - 1
        except (OSError, ValueError):
            salt = os.urandom(8)
            self._write("salt", salt.hex().encode())
            return int.from_bytes(salt, "big")

    # -- inputs as they last were good

    @property
    def good_rules(self) -> Path:
        return self.directory / GOOD_RULES

    @property
    def good_table(self) -> Path:
        return self.directory / GOOD_TABLE

    def keep_rules(self, directory: Path) -> None:
        """Copy a rules directory aside as the last good one: the old copy or the new one, never a mixture."""
        fresh = Path(tempfile.mkdtemp(prefix=f"{GOOD_RULES}-", dir=self.directory))
        link = self.directory / f".{GOOD_RULES}"
        try:
            shutil.copytree(directory, fresh, ignore=shutil.ignore_patterns(".*"), dirs_exist_ok=True)
            link.unlink(missing_ok=True)
            link.symlink_to(fresh.name)
            link.replace(self.good_rules)
        except OSError as error:  # shutil.Error, with one entry a file, is one too
            shutil.rmtree(fresh, ignore_errors=True)
            raise SourceError(f"the rules could not be kept in {self.good_rules}: {error}") from error
        for path in self.directory.glob(f"{GOOD_RULES}-*"):
            if path != fresh:
                shutil.rmtree(path, ignore_errors=True)

    def keep_table(self, path: Path) -> None:
        """Copy an ASN table aside as the last good one."""
        aside = self.directory / f".{GOOD_TABLE}"
        try:
            there = self.good_table.stat() if self.good_table.exists() else None
            if there and (there.st_mtime_ns, there.st_size) == (path.stat().st_mtime_ns, path.stat().st_size):
                return
            shutil.copy2(path, aside)
            aside.replace(self.good_table)
        except OSError as error:
            raise SourceError(f"the ASN table could not be kept in {self.good_table}: {error}") from error

    def _write(self, name: str, content: bytes, mode: int = 0o644) -> None:
        aside = self.directory / f".{name}"
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            with opened_anew(aside, mode) as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            aside.rename(self.directory / name)
        except OSError as error:
            raise SourceError(f"can't write {self.directory / name}: {error.strerror or error}") from error


def require_writable(directory: Path) -> None:
    """Make the state directory; SourceError, in a sentence, where it can't be made or written."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        said = f"can't write to the state directory {directory}: {error.strerror}; choose another with --state DIR"
        raise SourceError(said) from error


def load_arrays(path: Path) -> Sections | None:
    """The arrays of a file by name, None where there is no file; SourceError when it is damaged."""
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as stored:
            return {key: stored[key] for key in stored.files}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, zipfile.BadZipFile, EOFError, AttributeError, TypeError, KeyError, SyntaxError) as error:
        raise SourceError(f"{path}: {error}; it is ignored, measuring begins anew") from error
