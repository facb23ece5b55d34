"""An asyncio loop on a clock that is driven: it waits for nothing, and hours pass in a moment."""

from __future__ import annotations

import asyncio
import selectors


class _Jumping(selectors.DefaultSelector):
    """Where nothing is due the loop's clock goes on to what is due next."""

    loop: Driven

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        found = super().select(0)
        if not found and timeout:
            self.loop.now += timeout
        return found


class Driven(asyncio.SelectorEventLoop):
    """`now` is its time in seconds, from 0 on. Of no use with real sockets: their replies come too late."""

    def __init__(self) -> None:
        self.now = 0.0
        selector = _Jumping()
        selector.loop = self
        super().__init__(selector)

    def time(self) -> float:
        return self.now
