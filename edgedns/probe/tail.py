"""A log file followed as it grows: whole lines, across rotation by renaming or by copying and truncating.

Read by polling. A file that was renamed is read on for a while beside its successor, since its writer goes on with it
until it is told to open the new one. What grows faster than it is read is skipped, and counted: late samples are of no use.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from edgedns.errors import SourceError

CHUNK = 1 << 20
LINE_LIMIT = 16 * 1024
BEHIND_LIMIT = 64 << 20
LINGER = 10.0  # seconds that a renamed file is read on after its last line
OLD_FILES = 4


class _File:
    """One open file, and what of it was read."""

    def __init__(self, path: Path, from_end: bool) -> None:
        self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        found = os.fstat(self.descriptor)
        if not stat.S_ISREG(found.st_mode):
            os.close(self.descriptor)
            raise SourceError(f"{path} is not a plain file")
        self.identity = found.st_dev, found.st_ino
        self.place = found.st_size if from_end else 0
        self.part = b""
        self.inside_line = self.place > 0 and os.pread(self.descriptor, 1, self.place - 1) != b"\n"
        self.read_to = -1  # the place at the last look, and since when it is that, once the file was renamed
        self.quiet_since = 0.0

    @property
    def size(self) -> int:
        return os.fstat(self.descriptor).st_size

    def jump(self, place: int, inside_line: bool) -> None:
        self.place, self.part, self.inside_line = place, b"", inside_line


class Tail:
    """`lines(now)` gives what was written since; the first time, what comes after the end of what is there.

    A file that is not there yet is waited for. `skipped` counts octets passed over because they were too many, `too_long`
    lines of more than LINE_LIMIT octets. SourceError where the path is no file that can be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.skipped = self.too_long = self.rotations = self.truncations = 0
        self.is_behind = False
        self._old: list[_File] = []
        self._current = self._open(from_end=True)

    def lines(self, now: float) -> Iterator[bytes]:
        """Whole lines without their ends, of at most CHUNK octets a file; `is_behind` when there is more at once.

        `now` is any clock in seconds that doesn't go back. SourceError, when what is there was read, where the name stands for
        what can't be.
        """
        refusal = None
        try:
            self._follow_name()
        except SourceError as error:
            refusal = error
        self.is_behind = False
        for file in list(self._old):
            yield from self._read(file)
            self._let_go(file, now)
        if self._current is not None:
            yield from self._read(self._current)
        if refusal is not None:
            raise refusal

    def close(self) -> None:
        for file in [*self._old, *([self._current] if self._current else [])]:
            os.close(file.descriptor)
        self._old, self._current = [], None

    def _open(self, from_end: bool = False) -> _File | None:
        try:
            return _File(self.path, from_end)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise SourceError(f"{self.path} can't be read: {error.strerror}") from None

    def _follow_name(self) -> None:
        """Whether the name stands for another file by now."""
        try:
            found = os.stat(self.path)
        except OSError:
            return
        if self._current is not None and self._current.identity == (found.st_dev, found.st_ino):
            return
        successor = self._open()
        if successor is None:
            return
        if self._current is not None:
            self.rotations += 1
            self._old.append(self._current)
        self._current = successor

    def _read(self, file: _File) -> Iterator[bytes]:
        size = file.size
        if size < file.place:
            self.truncations += 1
            file.jump(0, inside_line=False)
        if size - file.place > BEHIND_LIMIT:
            self.skipped += size - CHUNK - file.place
            file.jump(size - CHUNK, inside_line=True)
        block = os.pread(file.descriptor, CHUNK, file.place)
        file.place += len(block)
        self.is_behind |= file.place < size
        *lines, file.part = (file.part + block).split(b"\n")
        if file.inside_line:
            file.inside_line = not lines
            del lines[:1]
            file.part = b"" if file.inside_line else file.part
        if len(file.part) > LINE_LIMIT:
            self.too_long += 1
            file.part, file.inside_line = b"", True
        for line in lines:
            if len(line) <= LINE_LIMIT:
                yield line
            else:
                self.too_long += 1

    def _let_go(self, file: _File, now: float) -> None:
        """Close a renamed file once nobody writes to it any more, or when too many were renamed since."""
        if file.place != file.read_to:
            file.read_to, file.quiet_since = file.place, now
        if now - file.quiet_since >= LINGER or len(self._old) > OLD_FILES:
            self._old.remove(file)
            os.close(file.descriptor)
