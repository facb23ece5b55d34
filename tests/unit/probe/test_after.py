"""Many things due after the same time: in order, in time, by one timer; nothing is woken for what is over."""

from __future__ import annotations

import asyncio

import pytest

from edgedns.probe.after import After
from tests.driven import Driven


def played(delay: float, added: dict[float, str], slack: float = 0.0, over: str = "") -> list[tuple[float, str]]:
    """(time, item) of each call."""
    loop, called = Driven(), list[tuple[float, str]]()
    after = After[str](loop, delay, lambda item: called.append((round(loop.time(), 6), item)), slack, lambda item: item in over)
    for at, item in added.items():
        loop.call_at(at, after.add, item)
    loop.run_until_complete(asyncio.wait_for(asyncio.sleep(10.0), 20.0))
    loop.close()
    return called


def test_each_in_its_time() -> None:
    assert played(1.0, {0.0: "a", 0.25: "b", 3.0: "c"}) == [(1.0, "a"), (1.25, "b"), (4.0, "c")]


def test_within_the_slack_together() -> None:
    assert played(1.0, {0.0: "a", 0.25: "b", 0.75: "c"}, slack=0.5) == [(1.5, "a"), (1.5, "b"), (2.25, "c")]


def test_what_is_over_wakes_nobody_but_at_the_head() -> None:
    assert played(1.0, {0.0: "a", 0.25: "b", 0.5: "c"}, over="b") == [(1.0, "a"), (1.5, "c")]


def test_an_item_may_come_again() -> None:
    loop, times = Driven(), list[float]()

    def act(item: str) -> None:
        times.append(loop.time())
        if len(times) < 3:
            after.add(item)

    after = After[str](loop, 0.5, act)
    after.add("a")
    loop.run_until_complete(asyncio.sleep(5.0))
    loop.close()
    assert times == pytest.approx([0.5, 1.0, 1.5])


def test_an_item_that_is_added_by_another_does_not_delay_a_third() -> None:
    loop, called = Driven(), list[tuple[float, str]]()

    def act(item: str) -> None:
        called.append((loop.time(), item))
        if item == "a":
            after.add("of a")

    after = After[str](loop, 1.0, act)
    for at, item in ((0.0, "a"), (0.5, "b")):
        loop.call_at(at, after.add, item)
    loop.run_until_complete(asyncio.sleep(5.0))
    loop.close()
    assert called == [(1.0, "a"), (1.5, "b"), (2.0, "of a")]


def test_stopped_is_stopped() -> None:
    loop, called = Driven(), list[str]()
    after = After[str](loop, 1.0, called.append)
    after.add("a")
    after.stop()
    loop.run_until_complete(asyncio.sleep(3.0))
    loop.close()
    assert called == []
