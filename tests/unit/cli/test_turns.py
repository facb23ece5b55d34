"""Turns: what compiles beside holds nothing up, and turns come one after the other."""

from __future__ import annotations

import asyncio
import threading

from edgedns.cli.server.turns import Turns


def test_a_turn_does_not_wait_for_what_runs_beside() -> None:
    async def run() -> None:
        turns, gate = Turns(), threading.Event()
        slow = asyncio.create_task(turns.beside(gate.wait, 10))
        await asyncio.sleep(0)
        assert await asyncio.wait_for(turns.call(lambda: "failover"), 5) == "failover"
        assert not slow.done()
        gate.set()
        assert await slow
        turns.close()

    asyncio.run(run())


def test_turns_never_overlap() -> None:
    busy, seen = threading.Lock(), []

    def turn(number: int) -> None:
        assert busy.acquire(blocking=False)
        seen.append(number)
        busy.release()

    async def run() -> None:
        turns = Turns()
        await asyncio.gather(*(turns.call(turn, number) for number in range(200)))
        turns.close()

    asyncio.run(run())
    assert seen == list(range(200))
