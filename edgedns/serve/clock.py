"""Unix time that never runs backwards within the process."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

STEP = 0.05  # seconds: a tick that comes sooner after another changes nothing


class Clock:
    """`now` is the time of the last `tick`, which any thread may give. Sampling it per packet would cost 2 % of a query.

    It follows the wall clock, and goes on at half speed while that lies behind because it was set back: time that
    stood still would hold up every limit and expiry that waits for it to pass.
    """

    __slots__ = ("_at", "_lock", "_monotonic", "_wall", "now")

    def __init__(self, wall: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._wall = wall
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._at = monotonic()
        self.now = wall()

    def tick(self) -> float:
        """Look at the time; `now`."""
        if self._monotonic() - self._at >= STEP:
            with self._lock:
                at = self._monotonic()
                self.now = max(self._wall(), self.now + (at - self._at) / 2)
                self._at = at
        return self.now
