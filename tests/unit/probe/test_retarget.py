"""Other targets while it runs: what is dropped gets nothing more, what is new is asked, what stays keeps its place."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from ipaddress import ip_network

import pytest

from edgedns.probe.agent import Agent, Plan, Sample, Source
from edgedns.probe.paths import Paths
from edgedns.probe.source import NotPossible
from edgedns.probe.targets import Target, target_of
from edgedns.special import Prefixes
from tests.unit.probe.test_agent import ALDER, FAST, agent_of, peer, target


def hosts(port: int, numbers: range) -> list[Target]:
    """Each a network of its own."""
    return [target(port, f"203.{number}.113.7") for number in numbers]


async def until(agent: Agent, samples: list[Sample], count: int, within: float = 10) -> None:
    begun, there = time.monotonic(), len(samples)
    while len(samples) < there + count:
        assert time.monotonic() - begun < within, (agent.counts, len(samples))
        await asyncio.sleep(0.01)


def test_an_agent_without_targets_waits_and_takes_up_the_first_at_once() -> None:
    async def main() -> None:
        samples: list[Sample] = []
        plan = Plan("fra1", every=20.0, timeout=0.2, gap=0.01, per_address=1e3)
        async with peer() as (_, port):
            agent = agent_of(plan, [], samples)
            assert (agent.paths, agent.period, agent.burst, agent.unreachable) == ((), 20.0, 3, 0)
            agent.start()
            await asyncio.sleep(0.05)
            agent.retarget([target(port)])
            await until(agent, samples, 1, within=9)  # by dice in a tenth of the period: not in the next one
            agent.stop()

    asyncio.run(main())


def test_who_is_dropped_gets_nothing_more_and_who_is_new_is_asked_within_a_period() -> None:
    async def main() -> None:
        samples: list[Sample] = []
        async with peer(host="127.0.0.1") as (old, port), peer(host="127.0.0.2") as (new, other):
            agent = agent_of(FAST, [target(port)], samples)
            agent.start()
            await until(agent, samples, 6)
            agent.retarget([target(other, "203.0.113.9", "127.0.0.2")])
            since = time.time()
            await asyncio.sleep(0.05)  # what was on its way arrives
            seen = len(old.seen)
            assert seen > 0
            await until(agent, samples, 6)
            agent.stop()
        assert len(old.seen) == seen
        assert len(new.seen) > 0
        assert {sample.target.address for sample in samples if sample.at > since} == {"203.0.113.9"}
        assert agent.counts.lost == 0

    asyncio.run(main())


def test_who_stays_keeps_place_and_answers_known() -> None:
    async def main() -> None:
        async with peer() as (_, port):
            samples: list[Sample] = []
            agent = agent_of(FAST, hosts(port, range(1, 21)), samples)
            agent.start()
            await until(agent, samples, 40)
            before = [path.target.address for path in agent.paths if path.provider == "alder"]
            since = agent._round
            agent.retarget(hosts(port, range(11, 31)))
            while agent._coming is not None:
                await asyncio.sleep(0.01)
            after = [path.target.address for path in agent.paths if path.provider == "alder"]
            agent.stop()
        stayed = set(before) & set(after)
        assert len(stayed) == 10
        assert [address for address in before if address in stayed] == [address for address in after if address in stayed]
        assert {path.since for path in agent.paths if path.target.address in stayed} == {0}
        assert {path.since for path in agent.paths if path.target.address not in stayed} == {since + 1}
        assert all(arm[0] in {path.network for path in agent.paths} for arm in agent._answered)
        assert {path.network for path in agent.paths if path.target.address in stayed} <= {arm[0] for arm in agent._answered}

    asyncio.run(main())


def test_a_loss_of_a_target_that_is_gone_is_looked_into_nowhere() -> None:
    async def main() -> None:
        answers = True
        samples: list[Sample] = []
        async with peer(lambda packet, sender: [packet] if answers else []) as (echo, port):
            agent = agent_of(FAST, [target(port)], samples)
            agent.start()
            await until(agent, samples, 2)
            answers = False
            sent = agent.counts.packets
            while agent.counts.packets < sent + 3:
                await asyncio.sleep(0.005)
            agent.retarget([])
            await asyncio.sleep(0.02)
            seen = len(echo.seen)
            await asyncio.sleep(0.5)
            agent.stop()
        assert len(echo.seen) == seen
        assert agent.counts.confirmations == 0

    asyncio.run(main())


def test_what_can_not_be_probed_changes_nothing() -> None:
    async def main() -> None:
        samples: list[Sample] = []
        async with peer() as (_, port):
            agent = agent_of(FAST, [target(port)], samples)
            agent.start()
            agent._sources = (Source("alder", "192.0.2.1"),)  # an address that this machine has lost
            with pytest.raises(NotPossible):
                agent.retarget([target(port), target_of({"address": "203.0.113.8", "method": "tcp"})])
            await until(agent, samples, 4)
            agent.stop()
        assert {sample.target.address for sample in samples} == {"203.0.113.7"}

    asyncio.run(main())


def test_targets_of_a_network_over_its_ceiling_take_turns() -> None:
    async def main() -> None:
        plan = Plan("fra1", every=0.2, timeout=0.1, burst=1, per_address=1e3, per_network=20.0, confirmations=0)
        samples: list[Sample] = []
        async with peer() as (_, port):
            agent = agent_of(plan, [target(port, f"203.0.113.{n}") for n in range(1, 7)], samples)
            assert agent.turns == 6  # room for 3 packets a period: one target through both providers
            agent.start(rounds=12)
            await asyncio.wait_for(agent.idle.wait(), 10)
            agent.stop()
        each = [sum(sample.target.address.endswith(f".{n}") for sample in samples) for n in range(1, 7)]
        assert each == [4] * 6, "two of twelve rounds, through two providers"
        assert agent.counts.packets_held == 0

    asyncio.run(main())


def test_to_who_opted_out_no_packet_goes_whoever_asks_for_it() -> None:
    async def main() -> None:
        samples: list[Sample] = []
        told: list[Sample | None] = []
        async with peer() as (kept, port), peer(host="127.0.0.2") as (out, other):
            both = [target(port), target(other, "198.51.100.9", "127.0.0.2")]
            agent = agent_of(FAST, both, samples)
            agent.start()
            await until(agent, samples, 8)
            assert len(out.seen) > 0
            await agent.bar(Prefixes([ip_network("127.0.0.2/32")]))
            with pytest.raises(NotPossible, match=r"127\.0\.0\.2 is not to be probed: it is on the opt-out list"):
                agent.ask_once(both[1], ALDER, told.append)
            await asyncio.sleep(0.05)  # what was on its way arrives
            seen = len(out.seen)
            await until(agent, samples, 8)
            agent.retarget(both)
            await until(agent, samples, 8)
            assert (len(out.seen), told) == (seen, [])
            await agent.bar(Prefixes())
            await until(agent, samples, 8)
            agent.stop()
        assert len(out.seen) > seen
        assert len(kept.seen) > 0

    asyncio.run(main())


def test_who_opts_out_while_targets_are_laid_out_is_left_out_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        samples: list[Sample] = []
        async with peer() as (_, port), peer(host="127.0.0.2") as (out, other):
            agent = agent_of(FAST, [target(port)], samples)
            agent.start()
            laid, begun = agent._laid, asyncio.Event()
            loop = asyncio.get_running_loop()

            def slowly(targets: Sequence[Target], since: int) -> Paths:
                loop.call_soon_threadsafe(begun.set)
                time.sleep(0.2)
                return laid(targets, since)

            monkeypatch.setattr(agent, "_laid", slowly)
            both = [target(port), target(other, "198.51.100.9", "127.0.0.2")]
            slow = asyncio.create_task(agent.retarget_beside(both))
            await begun.wait()
            await asyncio.gather(agent.bar(Prefixes([ip_network("127.0.0.2/32")])), slow)
            await until(agent, samples, 8)
            assert agent.reached == 1
            assert out.seen == []
            await agent.bar(Prefixes())
            while not out.seen:
                await asyncio.sleep(0.01)
            agent.stop()

    asyncio.run(main())
