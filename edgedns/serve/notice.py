"""A signal when a file of a directory is replaced: fcntl(2), F_NOTIFY."""

from __future__ import annotations

import fcntl
import os
import signal
from collections.abc import Iterable
from pathlib import Path

SIGNAL = signal.SIGIO  # to be blocked before anything is followed, and waited for


def follow(directories: Iterable[Path]) -> bool:
    """From now on SIGNAL is sent to this process when a file in one of them is renamed; false where the kernel won't say.

    It can't where it was built without, and on file systems that others write to as well.
    """
    for directory in directories:
        try:
            descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)  # followed for as long as it is open
            fcntl.fcntl(descriptor, fcntl.F_NOTIFY, fcntl.DN_RENAME | fcntl.DN_MULTISHOT)
        except OSError:
            return False
    return True
