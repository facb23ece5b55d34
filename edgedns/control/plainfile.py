"""Files that operators name by options and replace while we run: read whole, never waited for, never without end."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import NamedTuple


class PlainFile(NamedTuple):
    content: bytes
    mode: int


def read_plain(path: Path, most: int) -> PlainFile:
    """A file's octets and permissions; OSError, or ValueError for a pipe, a device, or more than `most` octets.

    A pipe that nobody writes to must not be waited for: all that changes the world would wait, too.
    """
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        mode = os.fstat(file.fileno()).st_mode
        if not stat.S_ISREG(mode):
            raise ValueError("not a plain file")
        content = file.read(most + 1)
    if len(content) > most:
        raise ValueError(f"longer than {most} octets")
    return PlainFile(content, stat.S_IMODE(mode))
