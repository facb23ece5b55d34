"""Who may run when: the control's functions in turn, what takes seconds beside them, and changes of the world one by one."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

T = TypeVar("T")
NICE = 10


class Turns:
    """Two threads: `call` runs in turn, `beside` while turns go on, so that a failover never waits for rules to compile.

    Hold `changing` around whatever runs beside and what takes its result over.
    """

    def __init__(self) -> None:
        self.changing = asyncio.Lock()
        self._turn = ThreadPoolExecutor(1, "control")
        self._beside = ThreadPoolExecutor(1, "compile", _yield_to_workers)

    async def call(self, function: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._turn, partial(function, *arguments))

    async def beside(self, function: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._beside, partial(function, *arguments))

    def close(self) -> None:
        """Wait for what runs, and let nothing else begin."""
        self._beside.shutdown(cancel_futures=True)
        self._turn.shutdown(cancel_futures=True)


def _yield_to_workers() -> None:
    """Where CPUs are short, queries go before compiling. On Linux each thread has a priority of its own."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
