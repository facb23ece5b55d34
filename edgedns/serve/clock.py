"""Unix time that never runs backwards within the process."""

from __future__ import annotations

import time
from collections.abc import Callable


class Clock:
    """Call it for the time. It follows the wall clock: at once when that is ahead, at half speed when it was set back.

    A set-back wall clock would otherwise stand still here, and with it every limit and expiry that waits for time to pass.
    `follow` is to be called now and then, by one thread.
    """

    __slots__ = ("_at", "_last", "_monotonic", "_offset", "_wall")

    def __init__(self, wall: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._wall = wall
        self._monotonic = monotonic
        self._at = monotonic()
        self._offset = wall() - self._at
        self._last = 0.0

    def __call__(self) -> float:
        now = self._monotonic() + self._offset
        if now > self._last:
            self._last = now
        return self._last

    def follow(self) -> None:
        """Adjust to the wall clock."""
        at = self._monotonic()
        ahead = self._offset - (self._wall() - at)
        self._offset -= min(ahead, (at - self._at) / 2)
        self._at = at
