"""All servers at once, asked in turn over rounds: do they steer alike, and what CPU does a query cost each?"""

from __future__ import annotations

import contextlib
import os
import socket
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import dns.message
import dns.rdatatype

from edgedns.bench import questions
from edgedns.bench.questions import Mix, Question, packet
from edgedns.bench.run import Plan, run
from edgedns.bench.subnets import Subnet
from edgedns.bench.volley import Cell, Magazine
from edgedns.dns import name, types
from tests.bench.peers.peer import CORE, NICE, Peer
from tests.bench.peers.served import BY_SOURCE, PROVIDERS, SOURCES, STEERED, ZONE, World

CHECKED = 2000
SUBNETS = 10_000
BURST = 32  # so many leave together, so that what a batch saves is alike for all
WARM = 0.2
SEED = 7
SHOWN = 3


@dataclass(frozen=True)
class Load:
    """A mix of questions, and where they come from."""

    name: str
    title: str
    magazine: Magazine
    sources: tuple[str, ...] = ()


@dataclass
class Score:
    """What was measured of one server: load -> microseconds of CPU per query, one a round."""

    peer: Peer
    cost: dict[str, list[float]] = field(default_factory=dict)
    lost: dict[str, float] = field(default_factory=dict)  # the most of any round
    alike: str = ""
    first_answer: float = 0.0
    memory: int = 0

    def median(self, load: str) -> float:
        return statistics.median(self.cost[load])


def loads(world: World, subnets: int = SUBNETS) -> list[Load]:
    """The four mixes; the same for every server and in every run."""
    dice = Random(SEED)
    steered = [Question(name.from_text(STEERED), types.A)]
    names = [Question(name.from_text(f"n{number}.{ZONE}"), types.A) for number in range(world.names)]
    return [
        Load("one", "one name", questions.load(steered, Mix(), dice)),
        Load("subnets", "10k client /24s", questions.load(steered, Mix(subnets=world.slash24s(subnets, dice)), dice)),
        Load("names", "10k names, 10 % NXDOMAIN", questions.load(names, Mix(nxdomain=0.1), dice)),
        Load("sources", "64 sources", questions.load(steered, Mix(), dice), tuple(_hosts(SOURCES))),
    ]


def _hosts(prefix: str) -> Iterator[str]:
    first, _, length = prefix.partition("/")
    number = int.from_bytes(socket.inet_aton(first), "big")
    return (socket.inet_ntoa((number + each).to_bytes(4, "big")) for each in range(1 << 32 - int(length)))


def check(peer: Peer, count: int = CHECKED) -> str:
    """How it steers, in words. RuntimeError where that is not what the table says."""
    if not peer.steers:
        return "-"
    wrong = [f"from {source}: {got}, not {wanted}" for source, got, wanted in _by_source(peer) if got != wanted]
    asked = peer.world.slash24s(count, Random(SEED + 1)) if peer.steers == "subnet" else []
    wrong += [f"for {each}: {got}, not {wanted}" for each, got, wanted in _by_subnet(peer, asked) if got != wanted]
    if wrong:
        raise RuntimeError(f"{peer.title} steers {len(wrong)} otherwise: {'; '.join(wrong[:SHOWN])}")
    return f"{len(asked):,} subnets, 64 sources" if asked else "64 sources"


def _by_source(peer: Peer) -> Iterator[tuple[str, str, str]]:
    for net, provider in BY_SOURCE.items():
        for host in map(str, net):
            yield host, _asked(peer, None, host), PROVIDERS[provider]


def _by_subnet(peer: Peer, subnets: Sequence[Subnet]) -> Iterator[tuple[Subnet, str, str]]:
    for subnet in subnets:
        yield subnet, _asked(peer, subnet), PROVIDERS[peer.world.provider_at(subnet)]


def _asked(peer: Peer, subnet: Subnet | None, source: str = "127.0.0.1") -> str:
    """The address that is given; an rcode or nothing in its place."""
    query = packet(Question(name.from_text(STEERED), types.A), subnet, Mix())
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((source, 0))
        sock.connect(("127.0.0.1", peer.port))
        sock.settimeout(2)
        for _ in range(5):
            sock.send(query)
            with contextlib.suppress(TimeoutError):
                reply = dns.message.from_wire(sock.recv(4096))
                found = [rr.address for rrset in reply.answer if rrset.rdtype == dns.rdatatype.A for rr in rrset]
                return " ".join(found) or str(reply.rcode())
    return "nothing"


def cost(peer: Peer, load: Load, seconds: float) -> tuple[float, float]:
    """(Microseconds of CPU per answered query, share lost)."""
    plan = Plan(
        "127.0.0.1", peer.port, rate=float(peer.rate), burst=BURST, duration=seconds, warmup=0.0, timeout=1.0,
        sources=load.sources, ports=1 if load.sources else 8,
    )  # fmt: skip
    before = peer.cpu()
    result = run(plan, load.magazine)
    used = peer.cpu() - before
    assert used > 0, f"{peer.title}: those that answer were not found"
    assert result[Cell.ANSWERED], f"{peer.title} answers nothing of {load.title}: {result.to_json()}\n{peer.said()}"
    assert not result[Cell.WRONG], f"{peer.title} answers other questions"
    return used / result[Cell.ANSWERED] * 1e6, result.lost_share


@contextlib.contextmanager
def started(world: World, kinds: Sequence[type[Peer]], folder: Path, ports: Sequence[int]) -> Iterator[list[Score]]:
    """All of them, running; ended whatever happens."""
    with contextlib.ExitStack() as stack:
        found = []
        for kind, port in zip(kinds, ports, strict=True):
            peer = kind(world, folder / kind.name, port)
            stack.callback(peer.stop)
            tell(f"starting {peer.title}")
            peer.start()
            found.append(Score(peer, first_answer=peer.first_answer))
        yield found


def contest(scores: Sequence[Score], mixes: Sequence[Load], rounds: int, seconds: float, checked: int = CHECKED) -> None:
    """Check, warm up, and measure round by round; each round asks all servers each mix, in another order."""
    for score in scores:
        tell(f"checking {score.peer.title}")
        score.alike = check(score.peer, checked)
    with beside_them():
        _measure(scores, mixes, rounds, seconds)
    for score in scores:
        score.memory = score.peer.memory()


@contextlib.contextmanager
def beside_them() -> Iterator[None]:
    """This process on the servers' core, as urgent as they are."""
    cores, nice = os.sched_getaffinity(0), os.getpriority(os.PRIO_PROCESS, 0)
    os.sched_setaffinity(0, {CORE})
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    if NICE:
        os.setpriority(os.PRIO_PROCESS, 0, NICE)
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        if NICE:
            os.setpriority(os.PRIO_PROCESS, 0, nice)


def _measure(scores: Sequence[Score], mixes: Sequence[Load], rounds: int, seconds: float) -> None:
    order = list(scores)
    for number in range(rounds + 1):
        tell(f"round {number} of {rounds}" if number else "warming up")
        for load in mixes:
            Random(number).shuffle(order)
            for score in order:
                used, lost = cost(score.peer, load, seconds if number else WARM)
                if number:
                    score.cost.setdefault(load.name, []).append(used)
                    score.lost[load.name] = max(lost, score.lost.get(load.name, 0.0))


def tell(text: str) -> None:
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {text}\n")
