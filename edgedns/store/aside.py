"""Files written aside, to be renamed into place: always anew, so that nothing that lies there already is written through."""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO


def opened_anew(path: Path, mode: int = 0o644) -> IO[bytes]:
    """`path` for writing, emptied, with these permissions (less the umask). OSError where it can't be made.

    Root may type a command in a state directory that is the server's user's: a link planted there must not lead root's pen
    elsewhere, nor may what was left there lend its permissions to a secret.
    """
    path.unlink(missing_ok=True)
    return open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode), "wb")
