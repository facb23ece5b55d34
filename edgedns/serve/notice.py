"""A signal when a file of a directory is replaced: fcntl(2), F_NOTIFY."""

from __future__ import annotations

import fcntl
import os
import signal
from collections.abc import Iterable
from pathlib import Path

SIGNAL = signal.SIGIO  # to be blocked before anything is followed, and waited for

Identity = tuple[int, int]


class Notices:
    """While `stand` says so, SIGNAL is sent to this process when a file in one of the directories is renamed."""

    def __init__(self, directories: Iterable[Path]) -> None:
        # As text: they are looked at often, and a Path would cost more than the look.
        self._followed: dict[str, tuple[Identity, int] | None] = dict.fromkeys(map(str, directories))

    def stand(self) -> bool:
        """Follow the directories that are not, or that others have taken the place of; false where one can't be.

        None can be where the kernel was built without, nor one on a file system that others write to as well.
        """
        return all(self._stands(directory) for directory in self._followed)

    def _stands(self, directory: str) -> bool:
        followed = self._followed[directory]
        try:
            if followed and followed[0] == _identity(os.stat(directory)):
                return True
        except OSError:
            pass
        if followed:
            os.close(followed[1])
        self._followed[directory] = _follow(directory)
        return self._followed[directory] is not None


def _follow(directory: str) -> tuple[Identity, int] | None:
    """Which directory it is, and the descriptor: it is followed for as long as that is open. None where it can't be."""
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.fcntl(descriptor, fcntl.F_NOTIFY, fcntl.DN_RENAME | fcntl.DN_MULTISHOT)
    except OSError:
        os.close(descriptor)
        return None
    return _identity(os.fstat(descriptor)), descriptor


def _identity(status: os.stat_result) -> Identity:
    return status.st_dev, status.st_ino
