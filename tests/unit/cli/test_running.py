"""How commands that run until they are told to stop end."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from edgedns.cli.running import run_until


def run(duration: float | None, *jobs: Coroutine[Any, Any, object], stop: bool = False) -> None:
    async def main() -> None:
        stopped = asyncio.Event()
        if stop:
            stopped.set()
        await run_until(stopped, duration, *jobs)

    asyncio.run(asyncio.wait_for(main(), 20))


async def forever() -> None:
    await asyncio.Event().wait()


async def fail() -> None:
    raise ZeroDivisionError


def test_a_run_ends_with_a_signal_its_time_or_its_first_job() -> None:
    run(None, forever(), stop=True)
    run(0.01, forever())
    run(None, forever(), asyncio.sleep(0))


def test_a_job_that_fails_is_not_silent() -> None:
    with pytest.raises(ZeroDivisionError):
        run(None, forever(), fail())
