"""An agent does what its collector wants, within its ceilings, and counts it. On real loopback sockets and HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections import Counter
from collections.abc import AsyncIterator
from random import Random
from typing import Any

import pytest
from aiohttp import web

from edgedns.probe import errands as module
from edgedns.probe.agent import Agent, Plan, Sample, Voice
from edgedns.probe.errands import Done, Errands
from tests.unit.probe.test_agent import ALDER, BIRCH, FAST, Peer, peer, target

QUESTION = {"addresses": ["203.0.113.7"], "provider": "alder", "probes": 1, "gap": 1.0, "why": "question", "id": "a-1"}


def agent_of(port: int, samples: list[Sample], plan: Plan = FAST, count: int = 1) -> Agent:
    targets = [target(port, f"203.0.113.{7 + k}") for k in range(count)]
    return Agent(plan, (ALDER, BIRCH), targets, samples.append, time.time, Random(1), Voice(bytes(32)))


def doubt(provider: str = "alder", address: str = "203.0.113.7", probes: int = 4) -> dict[str, Any]:
    return {"addresses": ["198.51.100.99", address], "provider": provider, "probes": probes, "gap": 0.1, "why": "doubt"}


def told(*entries: dict[str, Any]) -> bytes:
    return json.dumps({"wanted": entries, "together": 2}).encode()


@contextlib.asynccontextmanager
async def an_agent(plan: Plan = FAST, count: int = 1) -> AsyncIterator[tuple[Errands, Agent, Peer, list[Sample]]]:
    """One that doesn't probe by itself."""
    samples: list[Sample] = []
    async with peer() as (echo, port):
        agent = agent_of(port, samples, plan, count)
        try:
            yield Errands(agent, "http://127.0.0.1:9", "", print), agent, echo, samples
        finally:
            agent.stop()


def test_a_doubt_is_looked_into_from_the_providers_address_over_the_networks_targets() -> None:
    async def main() -> None:
        async with an_agent(count=2) as (errands, _, echo, samples):
            errands.obey(told(doubt(), doubt("birch", probes=1)))
            await asyncio.sleep(0.6)
            assert Counter(sender for _, sender in echo.seen) == {ALDER.address: 4, BIRCH.address: 1}
            assert Counter(sample.target.address for sample in samples if sample.provider == "alder") == {
                "203.0.113.7": 2, "203.0.113.8": 2,
            }  # fmt: skip
            assert errands.done == Done(asked=2, begun=2)

    asyncio.run(main())


def test_what_is_under_way_is_not_begun_again_and_what_is_not_known_is_left() -> None:
    async def main() -> None:
        async with an_agent() as (errands, _, echo, _samples):
            errands.obey(told(doubt(), doubt(), doubt("cedar"), doubt(address="198.51.100.1")))
            assert errands.done == Done(asked=4, begun=1, known=1, unknown=2)
            await asyncio.sleep(0.5)
            assert len(echo.seen) == 4

    asyncio.run(main())


def test_the_ceiling_of_an_address_holds_whoever_asks() -> None:
    async def main() -> None:
        plan = Plan("fra1", every=10.0, timeout=0.2, per_address=0.3)
        async with an_agent(plan) as (errands, agent, echo, _):
            errands.obey(told(doubt(), doubt("birch")))
            await asyncio.sleep(0.6)
            assert len(echo.seen) == 3
            assert agent.counts.packets_held == 5

    asyncio.run(main())


def test_room_is_half_of_a_ceiling_that_is_too_low_and_the_schedule_gives_it() -> None:
    async def main() -> None:
        plan = Plan("fra1", every=1.0, burst=1, per_address=1e3, ceiling=20.0)
        async with an_agent(plan, count=30) as (_, agent, _echo, _samples):
            assert agent.room == pytest.approx(9.0)
            before = agent.period
            agent.make_room(True)
            assert agent.period == 2 * before
            agent.make_room(False)
            assert agent.period == before
        async with an_agent() as (_, agent, _echo, _samples):
            assert agent.room == 0.0

    asyncio.run(main())


class Desk:
    """A collector's side of it."""

    def __init__(self, *replies: bytes) -> None:
        self.replies, self.bodies, self.status = list(replies), list[dict[str, Any]](), 200

    async def post(self, request: web.Request) -> web.Response:
        self.bodies.append(await request.json())
        if self.status != 200:
            return web.json_response({"error": "nothing here"}, status=self.status)
        if not self.replies:
            await asyncio.sleep(min(self.bodies[-1]["wait"], 0.2))
        return web.Response(body=self.replies.pop(0) if self.replies else told(), content_type="application/json")

    @property
    def results(self) -> list[dict[str, Any]]:
        return [one for body in self.bodies for one in body.get("results", [])]


@contextlib.asynccontextmanager
async def at_work(desk: Desk, agent: Agent, said: list[str]) -> AsyncIterator[Errands]:
    app = web.Application()
    app.router.add_post("/v1/wanted", desk.post)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    errands = Errands(agent, f"http://127.0.0.1:{runner.addresses[0][1]}/", "s3cret", said.append)
    task = asyncio.create_task(errands.run())
    try:
        yield errands
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await runner.cleanup()


async def until(holds: Any, within: float = 10.0) -> None:
    async with asyncio.timeout(within):
        while not holds():
            await asyncio.sleep(0.01)


def test_a_persons_question_is_answered_to_the_collector_and_is_no_sample() -> None:
    async def main() -> None:
        async with an_agent() as (_, agent, _echo, samples):
            elsewhere = QUESTION | {"addresses": ["192.0.2.99"]}
            desk = Desk(told(QUESTION, QUESTION | {"provider": "cedar"}, elsewhere))
            async with at_work(desk, agent, []) as errands:
                await until(lambda: len(desk.results) == 3)
            found = {(one["provider"], "rtt_ms" in one): one for one in desk.results}
            assert 0 < found["alder", True]["rtt_ms"] < 500
            assert "no source of cedar" in found["cedar", False]["why"]
            assert "192.0.2.99 is not to be probed" in found["alder", False]["why"]
            assert errands.done == Done(asked=3, begun=1, refused=2)
            assert samples == []
            assert desk.bodies[0]["vantage"] == "fra1"
            assert {"provider": "birch", "family": 4} in desk.bodies[0]["sources"]

    asyncio.run(main())


def test_a_lost_packet_and_one_that_was_held_back_are_told_apart() -> None:
    async def main() -> None:
        plan = Plan("fra1", timeout=0.1, per_address=0.1)
        samples: list[Sample] = []
        async with peer(lambda packet, sender: []) as (_, port):
            agent = agent_of(port, samples, plan)
            desk = Desk(told(QUESTION, QUESTION))
            async with at_work(desk, agent, []):
                await until(lambda: len(desk.results) == 2)
            agent.stop()
        assert {"lost" if one.get("rtt_ms", 1) is None else one["why"] for one in desk.results} == {
            "lost", "held back: its address had enough packets",
        }  # fmt: skip

    asyncio.run(main())


@pytest.mark.parametrize(("status", "says"), [(404, 0), (405, 0), (500, 1), (401, 1)])
def test_a_collector_that_knows_nothing_of_it_leaves_the_schedule_alone(
    status: int, says: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PAUSE_LEAST", 0.01)
    monkeypatch.setattr(module, "PAUSE_MOST", 0.02)
    monkeypatch.setattr(module, "UNKNOWN_THERE", 0.02)

    async def main() -> None:
        said: list[str] = []
        async with an_agent() as (_, agent, _echo, _samples):
            desk = Desk(told(doubt()))
            desk.status = status
            async with at_work(desk, agent, said) as errands:
                await until(lambda: len(desk.bodies) >= 3)
                assert len(said) == says, "once"
                desk.status = 200
                await until(lambda: errands.done.begun == 1)

    asyncio.run(main())
