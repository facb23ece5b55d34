"""Many things that are each due after the same time: one queue and one timer, since a timer each costs as much as a packet."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class After(Generic[T]):
    """Calls `act` with each item, `delay` seconds after it was added or up to `slack` later, in order."""

    def __init__(self, loop: asyncio.AbstractEventLoop, delay: float, slack: float, act: Callable[[T], None]) -> None:
        self._loop = loop
        self._delay = delay
        self._slack = slack
        self._act = act
        self._items: deque[tuple[float, T]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, item: T) -> None:
        due = self._loop.time() + self._delay
        self._items.append((due, item))
        if self._timer is None:
            self._timer = self._loop.call_at(due + self._slack, self._run)

    def stop(self) -> None:
        """Nothing that waits is done any more."""
        self._items.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _run(self) -> None:
        self._timer = None
        now = self._loop.time()
        while self._items and self._items[0][0] <= now:
            self._act(self._items.popleft()[1])
        if self._items and self._timer is None:
            self._timer = self._loop.call_at(self._items[0][0] + self._slack, self._run)
