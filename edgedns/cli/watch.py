"""Whether an input on disk is another than the one that was read: by looking, not by events.

Looking sees what events miss: a directory that was itself replaced, ConfigMaps (whose files are links into a folder that is
swapped), files in folders below, network file systems.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TypeAlias

Print: TypeAlias = "tuple[tuple[str, int, int, int], ...]"


def fingerprint(path: Path) -> Print:
    """Name, inode, time and size of a file, or of each file of a directory and below; hidden ones are left out."""
    if not path.is_dir():
        return _one(path)
    found: list[tuple[str, int, int, int]] = []
    for folder, folders, names in os.walk(path):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if not name.startswith("."):
                found += _one(Path(folder, name))
    return tuple(sorted(found))


def _one(path: Path) -> Print:
    try:
        status = path.stat()
    except OSError:
        return ()
    return ((str(path), status.st_ino, status.st_mtime_ns, status.st_size),)


class Watch:
    """One file or directory; make it before the first reading."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read = self._last = fingerprint(path)

    def changed(self) -> bool:
        """True once for each change, when two looks in a row saw the same: a file that is still being written waits."""
        now, before = fingerprint(self._path), self._last
        self._last = now
        if now != before or now == self._read:
            return False
        self._read = now
        return True
