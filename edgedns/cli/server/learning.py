"""`edgedns serve` and its agents' targets: files followed, who asks learnt, what is found given out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

from edgedns.cli.watch import Watch
from edgedns.config import Settings
from edgedns.control import Control
from edgedns.control.targets import Answered, Targets, Terms
from edgedns.probe.lists import Listed

LEARN = 5.0
SAVE = 60.0


class Learning:
    """Looks once a second, one look at a time; what takes long runs in a thread beside the turns."""

    def __init__(self, settings: Settings, control: Control, say: Callable[[str], None]) -> None:
        lists = tuple(Listed.parse(text) for text in settings.targets_list)
        terms = Terms(lists, settings.opt_out, settings.targets_method)
        self.targets = Targets(control.store, control.run, say, terms)
        self.answered = Answered()
        self._control = control
        self._watches: dict[Path, Watch] = {}
        self._restored = False
        self._learnt_at = 0.0
        self._saved_at = time.monotonic()

    async def look(self) -> None:
        """Read what changed; learn and keep what is due."""
        if not self._restored:
            await asyncio.to_thread(self.targets.restore)
            self._restored = True
        for path in self.targets.files:
            watch = self._watches.get(path)
            if watch is None or watch.changed():
                self._watches.setdefault(path, Watch(path))
                await asyncio.to_thread(self.targets.read, path)
                self._learnt_at = 0.0
        if time.monotonic() - self._learnt_at >= LEARN:
            self._learnt_at = time.monotonic()
            await asyncio.to_thread(self.targets.learn, self._control.world, self.answered.take_over(), time.time())
        if time.monotonic() - self._saved_at >= SAVE:
            await self.save()

    async def save(self) -> None:
        """Keep what was learnt for the next control process."""
        self._saved_at = time.monotonic()
        await asyncio.to_thread(self.targets.save)

    async def give(self, vantage: str, networks: int) -> bytes:
        return await asyncio.to_thread(self.targets.give, vantage, networks, time.time())
