"""How often an address may be probed, and everybody together: a good neighbour's ceilings."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping

WINDOW = 10.0


class Budget:
    """Counts packets. At most `per_address` a second to one host in any 10 s, and `ceiling` a second in all."""

    def __init__(self, per_address: float, ceiling: float) -> None:
        self.ceiling = ceiling
        self._each = max(1, math.floor(per_address * WINDOW))
        self._sent: dict[str, deque[float]] = {}
        self._left = ceiling
        self._filled_at = -math.inf

    def take(self, host: str, now: float) -> bool:
        """May one packet go to `host` at `now` (seconds of any steady clock)? A yes is spent."""
        sent = self._sent.get(host)
        if sent is None:
            sent = self._sent[host] = deque(maxlen=self._each)
        if len(sent) == self._each and now - sent[0] < WINDOW:
            return False
        self._left = min(self.ceiling, self._left + (now - self._filled_at) * self.ceiling)
        self._filled_at = now
        if self._left < 1.0:
            return False
        self._left -= 1.0
        sent.append(now)
        return True


def burst_for(paths: int, every: float, per_address: float, most: int, kept: int = 0) -> int:
    """Packets a probe may have, 1 to `most`, where `paths` probes reach one host in each period.

    kept: packets a period that are left for looking into a loss, as far as bursts of one leave any.
    """
    return max(1, min(most, math.floor((per_address * every - kept) / paths)))


def period_for(paths_of: Mapping[str, int], packets: int, every: float, per_address: float, ceiling: float) -> float:
    """The period asked for, or the shortest that keeps both ceilings, given `packets` in all and probes by host."""
    return max(every, max(paths_of.values()) / per_address, packets / ceiling)
