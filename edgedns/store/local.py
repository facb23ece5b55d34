"""One machine's state directory: measurements, decisions, overrides, secrets and the last good rules.

Everything is written aside and renamed. What can't be read is reported and begun anew: a damaged file must not stop answers.
"""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgedns.errors import SourceError

Sections = dict[str, NDArray[Any]]
COOKIE_SECRET = 16
GOOD_RULES = "rules-good"


class LocalStore:
    """Files below `directory`. Not thread-safe: one control process has it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)

    def save_arrays(self, name: str, sections: Mapping[str, NDArray[Any]]) -> None:
        aside = self.directory / f".{name}.npz"
        with open(aside, "wb") as file:
            np.savez(file, **sections)  # type: ignore[arg-type]
            file.flush()
            os.fsync(file.fileno())
        aside.rename(self.directory / f"{name}.npz")

    def load_arrays(self, name: str) -> Sections | None:
        """What was saved under `name`, None if nothing was; SourceError when it is damaged."""
        return load_arrays(self.directory / f"{name}.npz")

    def load_json(self, name: str) -> Any:
        """What was saved under `name`, None if nothing was; SourceError when it is damaged."""
        path = self.directory / f"{name}.json"
        try:
            return json.loads(path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise SourceError(f"{path}: {error!r}; repair or remove it") from error

    def save_json(self, name: str, value: Any) -> None:
        self._write(f"{name}.json", json.dumps(value, indent=1).encode(), 0o644)

    def ensure_secrets(self) -> None:
        """Make the key of server cookies on a first start; only its owner can read it."""
        if not (self.directory / "secrets.json").exists():
            self._write("secrets.json", json.dumps({"cookies": [os.urandom(COOKIE_SECRET).hex()]}).encode(), 0o600)

    def ensure_salt(self) -> str:
        """The salt of hash units where the rules name none; kept, so that clients keep their side of a split."""
        path = self.directory / "salt"
        if not path.exists():
            self._write("salt", os.urandom(8).hex().encode(), 0o644)
        return path.read_text().strip()

    def keep_rules(self, directory: Path) -> None:
        """Copy a rules directory aside as the last good one."""
        good = self.directory / GOOD_RULES
        good.mkdir(exist_ok=True)
        names = {path.name for path in directory.iterdir() if path.is_file() and not path.name.startswith(".")}
        for name in names:
            shutil.copyfile(directory / name, good / f".{name}")
            (good / f".{name}").rename(good / name)
        for path in good.iterdir():
            if path.name not in names:
                path.unlink()

    def _write(self, name: str, content: bytes, mode: int) -> None:
        aside = self.directory / f".{name}"
        descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        with open(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        aside.rename(self.directory / name)


def load_arrays(path: Path) -> Sections | None:
    """The arrays of a file by name, None where there is no file; SourceError when it is damaged."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            return {key: stored[key] for key in stored.files}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
        raise SourceError(f"{path}: {error}; it is ignored, measuring begins anew") from error
