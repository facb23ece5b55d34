"""The schedule: even, jittered, within budget; bursts; what a lost probe sets off. On real loopback sockets."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from random import Random
from typing import Any

import pytest

from edgedns.errors import EdgednsError
from edgedns.probe.agent import Agent, Counts, Plan, Sample, Source
from edgedns.probe.budget import Budget, burst_for, period_for
from edgedns.probe.measure import Endpoint, exchange
from edgedns.probe.methods import Voice, open_line
from edgedns.probe.source import NotPossible
from edgedns.probe.targets import Target, target_of

ALDER, BIRCH = Source("alder", "127.1.0.1"), Source("birch", "127.1.0.2")
VOICE = Voice(bytes(32))
Answer = Callable[[bytes, tuple[str, int]], list[bytes]]


class Peer(asyncio.DatagramProtocol):
    """Answers each datagram by what `answer` makes of it; keeps when and from where each came."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.seen: list[tuple[float, str]] = []

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, packet: bytes, sender: tuple[str, int]) -> None:
        self.seen.append((time.monotonic(), sender[0]))
        for reply in self.answer(packet, sender):
            self.transport.sendto(reply, sender)


@contextlib.asynccontextmanager
async def peer(answer: Answer = lambda packet, sender: [packet], host: str = "127.0.0.1") -> AsyncIterator[tuple[Peer, int]]:
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.create_datagram_endpoint(lambda: Peer(answer), (host, 0))
    try:
        yield protocol, transport.get_extra_info("sockname")[1]
    finally:
        transport.close()


def target(port: int, address: str = "203.0.113.7", host: str = "127.0.0.1") -> Target:
    return target_of({"address": address, "endpoint": f"[{host}]:{port}" if ":" in host else f"{host}:{port}"})


def agent_of(plan: Plan, targets: list[Target], samples: list[Sample], sources: tuple[Source, ...] = (ALDER, BIRCH)) -> Agent:
    return Agent(plan, sources, targets, samples.append, time.time, Random(1), VOICE)


async def run_rounds(
    rounds: int, plan: Plan, targets: list[Target], sources: tuple[Source, ...] = (ALDER, BIRCH)
) -> tuple[Agent, list[Sample]]:
    samples: list[Sample] = []
    agent = agent_of(plan, targets, samples, sources)
    agent.start(rounds=rounds)
    try:
        await asyncio.wait_for(agent.idle.wait(), 10)
    finally:
        agent.stop()
    return agent, samples


async def run_once(
    plan: Plan, targets: list[Target], sources: tuple[Source, ...] = (ALDER, BIRCH)
) -> tuple[Agent, list[Sample]]:
    return await run_rounds(1, plan, targets, sources)


FAST = Plan("fra1", every=0.1, timeout=0.2, gap=0.01, confirm_gap=0.02, per_address=1000.0, ceiling=10_000.0)


def test_each_provider_is_probed_from_its_own_address_and_gives_one_sample() -> None:
    async def main() -> None:
        async with peer() as (echo, port):
            agent, samples = await run_once(FAST, [target(port)])
        assert Counter(sender for _, sender in echo.seen) == {"127.1.0.1": 3, "127.1.0.2": 3}
        assert sorted(sample.provider for sample in samples) == ["alder", "birch"]
        assert all(sample.rtt_ms is not None and 0 < sample.rtt_ms < 50 for sample in samples)
        assert agent.counts == Counts(probes=2, replied=2, packets=6)
        assert agent.strays == 0

    asyncio.run(main())


def test_a_sample_is_the_least_of_its_burst() -> None:
    async def main() -> None:
        arrivals = 0

        def answer(packet: bytes, sender: tuple[str, int]) -> list[bytes]:
            nonlocal arrivals
            arrivals += 1
            if arrivals != 2:
                time.sleep(0.03)
            return [packet]

        async with peer(answer) as (_, port):
            _, samples = await run_once(Plan("fra1", every=0.1, timeout=1, gap=0.08, per_address=1e3), [target(port)], (ALDER,))
        assert samples[0].rtt_ms is not None
        assert samples[0].rtt_ms < 20

    asyncio.run(main())


def test_one_packet_lost_of_a_burst_is_no_loss() -> None:
    async def main() -> None:
        drops = iter([True, True, False])
        async with peer(lambda packet, sender: [] if next(drops) else [packet]) as (_, port):
            agent, samples = await run_once(FAST, [target(port)], (ALDER,))
        assert [sample.rtt_ms is None for sample in samples] == [False]
        assert agent.counts.lost == 0

    asyncio.run(main())


class Falls:
    """Answers one of ALDER's probes (three packets), then none; all of everybody else's."""

    def __init__(self) -> None:
        self.left = 3

    def __call__(self, packet: bytes, sender: tuple[str, int]) -> list[bytes]:
        if sender[0] != ALDER.address:
            return [packet]
        self.left -= 1
        return [packet] if self.left >= 0 else []


def test_a_lost_probe_sets_off_four_more_over_the_networks_targets() -> None:
    async def main() -> None:
        async with peer(Falls()) as (_, dead), peer(host="127.0.0.2") as (_, fine):
            same = [target(dead), target(fine, "203.0.113.9", "127.0.0.2")]
            other = [target(fine, "198.51.100.1", "127.0.0.2")]
            agent, samples = await run_rounds(2, FAST, same + other)
        assert agent.counts.confirmations == 4 + 1  # and one through birch
        lost = [sample for sample in samples if sample.rtt_ms is None]
        assert {sample.provider for sample in lost} == {"alder"}
        assert len(lost) == 1 + 2  # the probe, and the two of four that met the dead target again
        assert agent.counts.probes == 2 * 6 + 5 == agent.counts.replied + agent.counts.lost

    asyncio.run(main())


def test_a_lost_confirmation_sets_off_nothing() -> None:
    async def main() -> None:
        async with peer(Falls()) as (_, port):
            agent, samples = await run_rounds(2, FAST, [target(port)], (ALDER,))
        assert (agent.counts.confirmations, len(samples)) == (4, 2 + 4)

    asyncio.run(main())


def test_who_never_answers_is_asked_each_sixth_period_and_nothing_is_looked_into() -> None:
    async def main() -> None:
        def answer(packet: bytes, sender: tuple[str, int]) -> list[bytes]:
            return [packet] if sender[0] != ALDER.address else []

        async with peer(answer) as (_, port):
            agent, samples = await run_rounds(2 + 12, FAST, [target(port)])
        assert Counter(sample.provider for sample in samples) == {"birch": 14, "alder": 2 + 2}
        assert agent.counts.confirmations == 0

    asyncio.run(main())


@pytest.mark.parametrize(
    "answer",
    [
        lambda packet, sender: [b"x"],
        lambda packet, sender: [packet[:-1]],
        lambda packet, sender: [packet[:8] + b"\xff" * 8 + packet[16:]],
        lambda packet, sender: [bytes(len(packet))],
    ],
)
def test_a_forged_reply_is_a_stray(answer: Answer) -> None:
    async def main() -> None:
        async with peer(answer) as (_, port):
            agent, samples = await run_once(FAST, [target(port)], (ALDER,))
        assert all(sample.rtt_ms is None for sample in samples)
        assert agent.strays == agent.counts.packets

    asyncio.run(main())


def test_a_second_copy_and_another_senders_copy_are_strays() -> None:
    async def main() -> None:
        async with peer(lambda packet, sender: [packet, packet]) as (_, port):
            agent, samples = await run_once(FAST, [target(port)], (ALDER,))
            assert len(samples) == 1
        assert agent.strays >= 2  # the last reply's copy may come after the end

        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            other.bind(("127.0.0.9", 0))

            def aside(packet: bytes, sender: tuple[str, int]) -> list[bytes]:
                other.sendto(packet, sender)
                return []

            async with peer(aside) as (_, port):
                agent, samples = await run_once(FAST, [target(port)], (ALDER,))
        assert all(sample.rtt_ms is None for sample in samples)

    asyncio.run(main())


def test_v6_goes_from_v6() -> None:
    async def main() -> None:
        async with peer(host="::1") as (_, port):
            _, samples = await run_once(FAST, [target(port, "2001:db8::7", "::1")], (ALDER, Source("birch", "::1")))
        assert [(sample.provider, sample.target.family) for sample in samples] == [("birch", 6)]

    asyncio.run(main())


def test_the_schedule_is_even_and_meets_every_provider_in_each_stretch() -> None:
    async def main() -> None:
        plan = Plan("fra1", every=1.0, timeout=0.1, burst=1, per_address=1e3, ceiling=1e5)
        async with peer() as (echo, port):
            targets = [target(port, f"203.{n}.113.7") for n in range(50)]
            start = time.monotonic()
            await run_once(plan, targets)
        tenths = Counter(int((at - start) * 10) for at, _ in echo.seen)
        assert sum(tenths.values()) == 100
        assert all(5 <= tenths[tenth] <= 15 for tenth in range(10))
        senders = [sender for _, sender in echo.seen]
        assert all(len(set(senders[at : at + 4])) == 2 for at in range(96))

    asyncio.run(main())


def test_probes_of_one_target_lie_far_apart() -> None:
    async def main() -> None:
        samples: list[Sample] = []
        targets = [target(9, f"203.{n}.113.7") for n in range(40)]
        agent = agent_of(FAST, targets, samples)
        agent.stop()
        at = {(path.target.address, path.provider): place for place, path in enumerate(agent.paths)}
        gaps = [(at[t.address, "birch"] - at[t.address, "alder"]) % 80 for t in targets]
        assert all(35 <= gap <= 45 for gap in gaps)

    asyncio.run(main())


def test_a_machine_that_slept_doesnt_catch_up_by_a_flood() -> None:
    async def main() -> None:
        async with peer() as (_, port):
            agent = agent_of(Plan("fra1", every=0.1, burst=1, per_address=1e3), [target(port)], [])
            agent.start()
            await asyncio.sleep(0.02)
            time.sleep(1.0)
            await asyncio.sleep(0.15)
            agent.stop()
        assert agent.counts.behind >= 1
        assert agent.counts.probes < 10

    asyncio.run(main())


def test_the_budget_of_an_address_holds_packets_back() -> None:
    budget = Budget(per_address=0.3, ceiling=1000)
    allowed = [now for now in (0, 1, 2, 3, 9.9, 10, 10.5, 11) if budget.take("a", now)]
    assert allowed == [0, 1, 2, 10, 11]
    assert budget.take("b", 11)


def test_the_ceiling_holds_for_all_addresses_together() -> None:
    budget = Budget(per_address=1000, ceiling=10)
    sent = sum(budget.take(str(n), 5 + n / 1000) for n in range(3000))
    assert 35 <= sent <= 38  # a second's worth at once, then nine tenths of it each second: a hundred in any ten


def test_a_crowded_address_gets_thinner_probes_or_a_longer_period() -> None:
    assert burst_for(paths=4, every=10, per_address=1, most=3) == 2
    assert burst_for(paths=1, every=10, per_address=1, most=3) == 3
    assert burst_for(paths=40, every=10, per_address=1, most=3) == 1
    assert period_for({"a": 4}, 12, every=10, per_address=1, ceiling=1000) == 10
    assert period_for({"a": 40, "b": 1}, 41, every=10, per_address=1, ceiling=1000) == 40
    assert period_for({"a": 4}, 18, every=1, per_address=100, ceiling=2) == 10


def test_what_can_not_leave_gives_no_sample() -> None:
    async def main() -> None:
        agent, samples = await run_once(FAST, [target(9, host="192.0.2.1")], (ALDER,))  # EINVAL: loopback can't go there
        assert samples == []
        assert agent.counts == Counts(probes=1, unsent=1, packets_failed=3)

    asyncio.run(main())


def test_no_source_of_the_targets_family_is_said() -> None:
    async def main() -> None:
        with pytest.raises(EdgednsError, match="no source has the address family"):
            agent_of(FAST, [target(9, host="::1")], [])

    asyncio.run(main())


def test_a_source_that_is_not_ours_is_said() -> None:
    async def main() -> None:
        with pytest.raises(NotPossible, match=r"can't probe by udp from 192\.0\.2\.1: no interface here has that address"):
            agent_of(FAST, [target(9)], [], (Source("alder", "192.0.2.1"),))

    asyncio.run(main())


def test_stop_ends_at_once_and_gives_nothing_more() -> None:
    async def main() -> None:
        samples: list[Sample] = []
        async with peer(lambda packet, sender: []) as (echo, port):
            agent = agent_of(FAST, [target(port)], samples)
            agent.start()
            await asyncio.sleep(0.15)
            agent.stop()
            await asyncio.sleep(0.1)  # what was on its way arrives
            seen = len(echo.seen)
            samples.clear()
            await asyncio.sleep(0.3)
        assert (len(echo.seen), samples) == (seen, [])

    asyncio.run(main())


# One exchange by each method.


def test_tcp_connect_times_the_handshake_and_a_refusal_is_a_reply() -> None:
    async def main() -> None:
        line = open_line("tcp", ALDER, "fra1", VOICE)
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            taken = await exchange(line, Endpoint("127.0.0.1", port), 1)
            connection, sender = server.accept()
            connection.close()
        refused = await exchange(line, Endpoint("127.0.0.1", port), 1)
        line.close()
        assert sender[0] == "127.1.0.1"
        assert taken is not None
        assert refused is not None
        assert 0 < taken < 20
        assert 0 < refused < 20

    asyncio.run(main())


def test_tcp_to_a_full_queue_is_lost() -> None:
    async def main() -> None:
        with socket.socket() as server:
            server.bind(("127.0.0.1", 0))
            server.listen(0)
            endpoint = Endpoint(*server.getsockname())
            with socket.create_connection(endpoint[:2]), contextlib.ExitStack() as stack:
                for _ in range(3):
                    more = stack.enter_context(socket.socket())
                    more.setblocking(False)
                    more.connect_ex(endpoint[:2])
                line = open_line("tcp", ALDER, "fra1", VOICE)
                assert await exchange(line, endpoint, 0.2) is None
                line.close()

    asyncio.run(main())


def test_dns_over_udp() -> None:
    async def main() -> None:
        def refuse(packet: bytes, sender: tuple[str, int]) -> list[bytes]:
            return [packet[:2] + b"\x80\x05" + packet[4:]]

        async with peer(refuse) as (_, port):
            line = open_line("dns", ALDER, "fra1", VOICE)
            rtt = await exchange(line, Endpoint("127.0.0.1", port), 1)
            line.close()
        assert rtt is not None

    asyncio.run(main())


def test_a_busy_event_loop_does_not_lengthen_what_is_measured() -> None:
    async def main() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as echo:
            echo.bind(("127.0.0.1", 0))
            line = open_line("udp", ALDER, "fra1", VOICE)
            rtts: list[float] = []
            # The kernel begins to stamp packets a moment after the first socket asks for it: the last of three counts.
            for _ in range(3):
                line.send(Endpoint(*echo.getsockname()), rtts.append)
                packet, sender = echo.recvfrom(2048)
                echo.sendto(packet, sender)
                time.sleep(0.1)
                await asyncio.sleep(0.01)
            line.close()
        assert rtts[2] < 20

    asyncio.run(main())
