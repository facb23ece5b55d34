"""Commands that run until they are told to stop."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any


def stop_signals(*more: signal.Signals) -> asyncio.Event:
    """Set by the first SIGTERM or SIGINT, or by one of those named."""
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT, *more):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    return stopped


async def run_until(stopped: asyncio.Event, duration: float | None, *jobs: Coroutine[Any, Any, object]) -> None:
    """Run the jobs until the first of them ends, `stopped` is set, or the time is up. Raises what one of them failed with."""
    tasks = [asyncio.create_task(job) for job in (*jobs, stopped.wait())]
    try:
        done, _ = await asyncio.wait(tasks, timeout=duration, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()
