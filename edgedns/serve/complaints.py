"""At most one line a second about what goes wrong while answering."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable


def _write(line: str) -> None:
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(line)
        sys.stderr.flush()


class Complaints:
    """Call it with each exception; lines that came too soon are counted and the next line says how many."""

    def __init__(
        self,
        name: str,
        write: Callable[[str], None] = _write,
        monotonic: Callable[[], float] = time.monotonic,
        every: float = 1.0,
    ) -> None:
        self._name = name
        self._write = write
        self._monotonic = monotonic
        self._every = every
        self._next = float("-inf")
        self._unsaid = 0

    def __call__(self, where: str, error: BaseException) -> None:
        now = self._monotonic()
        if now < self._next:
            self._unsaid += 1
            return
        self._next = now + self._every
        more = f" (and {self._unsaid} more since the last line)" if self._unsaid else ""
        self._unsaid = 0
        text = " ".join(str(error).split())
        self._write(f"{self._name}: {where}: {type(error).__name__}: {text}{_place(error)}{more}\n")


def _place(error: BaseException) -> str:
    trace = error.__traceback__
    if trace is None:
        return ""
    while trace.tb_next:
        trace = trace.tb_next
    return f" at {trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"
