"""How fast samples may come in: octets a second, bodies that are read at once, and bodies that wait to be taken in.

Who is refused is told when to come again (Retry-After), keeps its samples and loses none.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from edgedns.serve.guard import Refused

BODIES_AT_ONCE = 4
WAITING_MOST = 8
LONGEST_WAIT = 30


@dataclass(slots=True)
class Inflow:
    """A bucket of octets for samples: filled at `rate` a second up to `burst`; and a queue of few bodies behind it."""

    rate: float = 16 << 20
    burst: float = 64 << 20
    level: float = 64 << 20
    at: float = 0.0
    reading: int = 0
    waiting: int = 0
    took: float = 0.0  # seconds for one body, of late
    clock: Callable[[], float] = field(default=time.monotonic, repr=False)

    def enter(self, now: float) -> None:
        """A body is to be read. Refused where that must wait."""
        self.level = min(self.burst, self.level + (now - self.at) * self.rate)
        self.at = now
        if self.waiting >= WAITING_MOST:
            wait = min(LONGEST_WAIT, max(1, math.ceil(self.waiting * self.took)))
            sentence = f"samples come faster than they can be taken in; try again in {wait} s"
            raise Refused(503, sentence, {"Retry-After": str(wait)})
        if self.level <= 0 or self.reading >= BODIES_AT_ONCE:
            wait = max(1, math.ceil(-self.level / self.rate))
            raise Refused(429, f"too much at once; try again in {wait} s", {"Retry-After": str(wait)})
        self.reading += 1

    def leave(self, octets: int) -> None:
        """It was read, or was not."""
        self.level -= octets
        self.reading -= 1

    @contextlib.contextmanager
    def taking(self) -> Iterator[None]:
        """While a body that was read waits to be taken in, and is."""
        began = self.clock()
        self.waiting += 1
        try:
            yield
        finally:
            self.took += (self.clock() - began - self.took) / 4
            self.waiting -= 1
