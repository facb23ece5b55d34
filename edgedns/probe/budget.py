"""How often an address may be probed, a network, and everybody together: a good neighbour's ceilings.

Each holds in *any* ten seconds, however the packets fall: so many a second, averaged over that.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping

from edgedns.probe.bucket import Bucket

WINDOW = 10.0
SUSTAINED = 0.9  # of the ceiling in all: with one second's worth at once this makes no more than ten seconds' worth in ten


class _Sent:
    """When the last packets went, to each of many; no more than `rate` a second over the window."""

    def __init__(self, rate: float) -> None:
        self._window = max(WINDOW, 1 / rate)
        self._most = max(1, math.floor(rate * self._window))
        self._times: dict[str, deque[float]] = {}

    def allows(self, whom: str, now: float) -> bool:
        times = self._times.get(whom)
        return times is None or len(times) < self._most or now - times[0] >= self._window

    def note(self, whom: str, now: float) -> None:
        self._times.setdefault(whom, deque(maxlen=self._most)).append(now)

    def forget(self, now: float) -> None:
        """Whoever got nothing for a while."""
        self._times = {whom: times for whom, times in self._times.items() if now - times[-1] < self._window}


class Budget:
    """Counts packets. At most so many a second: `per_address` to a host, `per_network` to a network, `ceiling` in all."""

    def __init__(self, per_address: float, ceiling: float, per_network: float = math.inf) -> None:
        self.ceiling = ceiling
        self._hosts = _Sent(per_address)
        self._networks = None if per_network == math.inf else _Sent(per_network)
        self._all = Bucket(sustained(ceiling), max(1.0, ceiling), max(1.0, ceiling), -math.inf)

    def take(self, host: str, now: float, network: str = "") -> bool:
        """May one packet go to `host` of `network` at `now` (seconds of any steady clock)? A yes is spent, a no is not."""
        if not self._hosts.allows(host, now) or (self._networks and not self._networks.allows(network, now)):
            return False
        if not self._all.take(now):
            return False
        self._hosts.note(host, now)
        if self._networks:
            self._networks.note(network, now)
        return True

    def forget(self, now: float) -> None:
        """Let go of hosts and networks that got nothing lately, so that what is kept is bounded by who is probed."""
        self._hosts.forget(now)
        if self._networks:
            self._networks.forget(now)


def sustained(ceiling: float) -> float:
    """Packets a second that a ceiling lets through for long."""
    return ceiling * SUSTAINED


def burst_for(paths: int, every: float, per_address: float, most: int, kept: int = 0) -> int:
    """Packets a probe may have, 1 to `most`, where `paths` probes reach one host in each period.

    kept: packets a period that are left for looking into a loss, as far as bursts of one leave any.
    """
    return max(1, min(most, math.floor((per_address * every - kept) / paths)))


def period_for(paths_of: Mapping[str, int], packets: int, every: float, per_address: float, ceiling: float) -> float:
    """The period asked for, or the shortest that keeps both ceilings, given `packets` in all and probes by host."""
    return max(every, max(paths_of.values()) / per_address, packets / sustained(ceiling))
