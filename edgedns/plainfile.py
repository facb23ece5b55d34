"""Files that operators name by options and replace while we run: read whole, never waited for, never without end."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import NamedTuple

from edgedns.errors import SourceError

OTHERS_MAY = 0o006  # read, or write

Mark = tuple[int, int, int, int] | None


class PlainFile(NamedTuple):
    content: bytes
    mode: int

    @property
    def is_everybodys(self) -> bool:
        """Whether any user of the machine may read or write it."""
        return bool(self.mode & OTHERS_MAY)


def read_plain(path: Path, most: int) -> PlainFile:
    """A file's octets and permissions; SourceError, also for a pipe, a device, or more than `most` octets.

    A pipe that nobody writes to must not be waited for: all that changes the world would wait, too.
    """
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            if not stat.S_ISREG(mode):
                raise SourceError(f"{path}: not a plain file")
            content = file.read(most + 1)
    except OSError as error:
        raise SourceError(f"{path}: {error.strerror}") from error
    if len(content) > most:
        raise SourceError(f"{path}: longer than {most} octets")
    return PlainFile(content, stat.S_IMODE(mode))


def mark(path: Path | None) -> Mark:
    """Changes whenever the file is replaced, written to, or given other permissions; None while there is none."""
    try:
        status = path.stat() if path else None
    except OSError:
        return None
    return (status.st_ino, status.st_mtime_ns, status.st_size, status.st_mode) if status else None
