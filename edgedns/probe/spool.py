"""Lines on disk while the collector is away: bounded, the oldest lost first and counted, there again after a kill -9.

Files of newline-delimited JSON, numbered, in a directory of its own that one process has at a time; `fresh.ndjson` beside them
has what is still in memory. An empty line ends a batch that must be sent again as it was, since the collector may have had it.
Lines reach the kernel as they are added; they are not forced to the disk, so a machine that loses its power may lose them.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from edgedns.errors import EdgednsError

FILES = 16  # into which the bound is divided: the oldest goes as a whole
LEAST = 64 * 1024
MOST_A_FILE = 4 << 20
_NAME = re.compile(r"[0-9]{12}\.ndjson")
_AT = re.compile(rb'\{"at": ?([0-9]{1,12}(?:\.[0-9]{1,9})?)[,}]')


class Spool:
    """lines that were there or were added = `taken` + `lost` + `expired` + `waiting`; `torn` ones were none.

    EdgednsError where the directory can't be used; OSError from `add`, `head` and `done` where a file can't.
    """

    def __init__(self, directory: Path, limit: int) -> None:
        self.directory = directory
        self.limit = max(limit, LEAST)
        self.waiting = self.lost = self.expired = self.torn = self.taken = 0
        self._size = min(self.limit // FILES, MOST_A_FILE)
        self._lines: dict[int, int] = {}  # of each file, oldest first
        self._bytes: dict[int, int] = {}
        self._writing: int | None = None  # descriptor of the newest file
        self._head: list[bytes] = []
        self._reading: deque[bytes] = deque()
        self._read: int | None = None  # number of the file that is being read
        self._end = 0  # octets of that file
        self._number = 0  # of the newest file there ever was, or the position would be one in another
        self._lock = self._open()
        self._journal = os.open(self._fresh, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._journaled = 0

    def add(self, lines: Sequence[bytes], alone: bool = False) -> None:
        """Keep lines; `alone`: as a batch of their own."""
        if not lines:
            return
        number, descriptor = self._newest()
        text = b"\n".join(lines) + b"\n"
        text = b"\n" + text + b"\n" if alone else text
        _write(descriptor, text, self._bytes[number])
        self._bytes[number] += len(text)
        self._lines[number] += len(lines)
        self.waiting += len(lines)
        self._trim()

    def journal(self, lines: Sequence[bytes]) -> None:
        """Keep a copy of lines that are in memory, until `clear`; as many as the bound admits."""
        text = b"".join(line + b"\n" for line in lines)
        if text and self._journaled + len(text) <= self.limit:
            _write(self._journal, text, self._journaled)
            self._journaled += len(text)

    def clear(self) -> None:
        """Nothing is in memory any more."""
        if self._journaled:
            os.ftruncate(self._journal, 0)
            self._journaled = 0

    def head(self, most: int, since: float) -> list[bytes]:
        """The oldest lines, the same ones until `done`; those of before `since` (Unix seconds) are dropped and counted."""
        while not self._head and self._lines:
            if self._read is None:
                self._read_oldest()
            while self._reading and len(self._head) < most:
                line = self._reading.popleft()
                if not line:
                    if self._head:
                        break
                elif _is_before(line, since):
                    self.expired += 1
                    self._gone()
                else:
                    self._head.append(line)
            if not self._head:
                self.done()
        return self._head

    def done(self) -> None:
        """What `head` gave is no more needed."""
        for _ in self._head:
            self._gone()
        self.taken += len(self._head)
        self._head = []
        if self._read is None:
            return
        if self._reading:
            self._note(self._read, self._end - sum(len(line) + 1 for line in self._reading))
        else:
            self._drop(self._read)

    def put_back(self) -> None:
        """`head` is to give it again, or less of it."""
        self._reading.extendleft(reversed(self._head))
        self._head = []

    def close(self) -> None:
        """Leave the directory to others; what is kept stays."""
        self._end_file()
        os.close(self._journal)
        os.close(self._lock)

    @property
    def _fresh(self) -> Path:
        return self.directory / "fresh.ndjson"

    def _gone(self) -> None:
        self.waiting -= 1
        if self._read is not None:
            self._lines[self._read] -= 1

    def _open(self) -> int:
        try:
            self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            lock = os.open(self.directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._find()
            except BaseException:
                os.close(lock)
                raise
        except BlockingIOError:
            raise EdgednsError(f"the spool {self.directory} is another process'") from None
        except OSError as error:
            raise EdgednsError(f"the spool {self.directory} can't be used: {error.strerror}") from None
        return lock

    def _find(self) -> None:
        """What an earlier process left."""
        number, offset = self._position()
        found = sorted(path for path in self.directory.iterdir() if _NAME.fullmatch(path.name))
        self._number = max([number, 0, *(int(path.stem) for path in found)])
        if self._fresh.exists() and self._fresh.stat().st_size:  # what was in memory when that process was killed
            self._number += 1
            found.append(self._fresh.rename(self._path(self._number)))
        for path in found:
            mine = int(path.stem)
            text = path.read_bytes()
            self.torn += not text.endswith(b"\n") and len(text) > 0
            left = text[offset if mine == number else 0 : text.rfind(b"\n") + 1]
            self._lines[mine] = sum(1 for line in left.split(b"\n") if line)
            self._bytes[mine] = len(text)
            self.waiting += self._lines[mine]
        self._trim()

    def _position(self) -> tuple[int, int]:
        """(file, offset) up to which an earlier process had handed lines over."""
        with contextlib.suppress(OSError, ValueError):
            number, offset = (self.directory / "position").read_text(encoding="ascii").split()
            return int(number), int(offset)
        return -1, 0

    def _note(self, number: int, offset: int) -> None:
        descriptor = os.open(self.directory / "position", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.pwrite(descriptor, b"%012d %012d\n" % (number, offset), 0)  # as long as what it replaces, so never torn
        finally:
            os.close(descriptor)

    def _path(self, number: int) -> Path:
        return self.directory / f"{number:012d}.ndjson"

    def _newest(self) -> tuple[int, int]:
        """The file to write to and its descriptor: none that is being read, was there before or is full."""
        newest = self._number
        if self._writing is None or newest == self._read or self._bytes[newest] >= self._size:
            self._end_file()
            newest += 1
            self._writing = os.open(self._path(newest), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            self._lines[newest] = self._bytes[newest] = 0
            self._number = newest
        return newest, self._writing

    def _end_file(self) -> None:
        if self._writing is not None:
            os.close(self._writing)
            self._writing = None

    def _read_oldest(self) -> None:
        oldest = min(self._lines)
        if oldest == max(self._lines):
            self._end_file()
        number, offset = self._position()
        text = self._path(oldest).read_bytes()
        self._end = text.rfind(b"\n") + 1
        left = text[offset if number == oldest else 0 : self._end]
        self._read, self._reading = oldest, deque(left.split(b"\n")[:-1])

    def _trim(self) -> None:
        while sum(self._bytes.values()) > self.limit and len(self._lines) > 1:
            oldest = min(self._lines)
            self.lost += self._lines[oldest]
            self.waiting -= self._lines[oldest]
            if oldest == self._read:
                self._head = []
            self._drop(oldest)

    def _drop(self, number: int) -> None:
        if number == max(self._lines):
            self._end_file()
        del self._lines[number], self._bytes[number]
        if number == self._read:
            self._read, self._reading = None, deque()
        with contextlib.suppress(FileNotFoundError):
            self._path(number).unlink()


def _write(descriptor: int, text: bytes, length: int) -> None:
    """Append all of it to a file of so many octets, or nothing: half a line would spoil the next one."""
    try:
        if os.write(descriptor, text) < len(text):
            raise OSError("the disk is full")
    except OSError:
        with contextlib.suppress(OSError):
            os.ftruncate(descriptor, length)
        raise


def _is_before(line: bytes, since: float) -> bool:
    told = _AT.match(line)
    return told is not None and float(told[1]) < since
