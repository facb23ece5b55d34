"""How much of something may come: a bucket that fills at a rate."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Bucket:
    """Filled at `rate` a second up to `burst`. A clock that is set back fills nothing, and goes on from there."""

    rate: float
    burst: float
    level: float
    at: float

    def filled(self, now: float) -> float:
        """The level at `now`, in seconds of one clock."""
        self.level = min(self.burst, self.level + max(0.0, now - self.at) * self.rate)
        self.at = now
        return self.level

    def take(self, now: float, amount: float = 1.0) -> bool:
        """Take so much out if it is there."""
        if self.filled(now) < amount:
            return False
        self.level -= amount
        return True
