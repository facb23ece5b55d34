"""Many things that are each due after the same time: one queue and one timer, since a timer each costs as much as a packet."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class After(Generic[T]):
    """Calls `act` with each item, `delay` seconds after it was added or up to `slack` later, in order.

    But for those that need it no more by then (`is_over`): these wake nobody.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        delay: float,
        act: Callable[[T], None],
        slack: float = 0.0,
        is_over: Callable[[T], bool] = lambda item: False,
    ) -> None:
        self._loop = loop
        self._delay = delay
        self._slack = slack
        self._act = act
        self._is_over = is_over
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
        """What is added meanwhile is due after what waits already: the timer that is set at the end is the first's."""
        now = self._loop.time()
        while self._items and self._items[0][0] <= now:
            self._act(self._items.popleft()[1])
        while self._items and self._is_over(self._items[0][1]):
            self._items.popleft()
        self._timer = self._loop.call_at(self._items[0][0] + self._slack, self._run) if self._items else None
