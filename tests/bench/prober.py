"""What one agent takes for a probe, and by how much its round trips are wrong: python prober.py PATHS BURST SECONDS

An agent at its real schedule and ceilings, one period a second, against `mirror.c`: a path of 5 ms that knows how long it
really held each packet. Prints JSON: probes and packets a second, CPU microseconds a probe (user and system, receiving and
reporting included), probes a second that one core would do, the median round trip's error in ms, losses.

python prober.py memory NETWORKS PROVIDERS: the MB that an agent with so many targets and sources takes, after a
period, and the CPU seconds to begin.
"""

from __future__ import annotations

import asyncio
import json
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from random import Random

from edgedns.probe.agent import Agent, Plan, Sample, Source, Voice
from edgedns.probe.targets import target_of

PROVIDERS = 8
PATH_US = 5000
PORT = 5399
HOST = "127.90.0.1"


@contextmanager
def mirror(folder: Path) -> Iterator[list[float]]:
    """Where probes go; gives for how many ms it held the median packet, once it has ended."""
    made, held = folder / "mirror", list[float]()
    subprocess.run(["gcc", "-O2", "-Wall", "-Wextra", str(Path(__file__).with_name("mirror.c")), "-o", str(made)], check=True)
    process = subprocess.Popen([made, HOST, str(PORT), str(PATH_US)], stdout=subprocess.PIPE, text=True)
    try:
        yield held
    finally:
        process.send_signal(signal.SIGTERM)
        held.append(int(process.communicate(timeout=10)[0]) / 1000)


def agent_of(networks: int, plan: Plan, samples: list[Sample], providers: int) -> Agent:
    targets = [target_of({"address": f"10.{k >> 8}.{k & 255}.7", "endpoint": f"{HOST}:{PORT}"}) for k in range(networks)]
    sources = [Source(f"provider{number}", f"127.91.0.{number}") for number in range(1, providers + 1)]
    return Agent(plan, sources, targets, samples.append, time.time, Random(1), Voice(bytes(32)))


async def probing(paths: int, burst: int, seconds: float) -> dict[str, float]:
    samples: list[Sample] = []
    plan = Plan("fra1", every=1.0, burst=burst, per_address=1e6, per_network=1e6, ceiling=1e6)
    agent = agent_of(paths // PROVIDERS, plan, samples, PROVIDERS)
    cpu, wall = time.process_time(), time.monotonic()
    agent.start()
    await asyncio.sleep(seconds)
    cpu, wall = time.process_time() - cpu, time.monotonic() - wall
    counts = agent.counts.copy()
    agent.stop()
    rtts = [sample.rtt_ms for sample in samples if sample.rtt_ms is not None]
    return {
        "probes_per_s": counts.probes / wall, "packets_per_s": counts.packets / wall, "us_per_probe": 1e6 * cpu / counts.probes,
        "probes_per_s_core": counts.probes / cpu, "rtt_ms": statistics.median(rtts), "lost": float(counts.lost),
    }  # fmt: skip


def measured(paths: int, burst: int, seconds: float) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        with mirror(Path(folder)) as held:
            told = asyncio.run(probing(paths, burst, seconds))
        return told | {"error_ms": told["rtt_ms"] - held[0]}


async def kept(networks: int, providers: int) -> dict[str, float]:
    before, begun = _rss(), time.process_time()
    plain = (target_of({"address": f"10.{k >> 16}.{k >> 8 & 255}.{k & 255}"}) for k in range(networks))
    targets = [replace(target, label=f"AS{64500 + k}/DE/{k:08x}") for k, target in enumerate(plain)]
    sources = [Source(f"provider{number}", f"127.91.0.{number}") for number in range(1, providers + 1)]
    agent = Agent(Plan("fra1"), sources, targets, lambda sample: None, time.time, Random(1), Voice(bytes(32)))
    took = time.process_time() - begun
    for path in agent.paths:  # as after a period: who answered, and when packets went to each host and network
        agent._answered.add(path.arm)
        agent._budget.take(path.target.endpoint.host, 10.0 * path.turn, path.network)
    agent.stop()
    return {"mb": _rss() - before, "seconds": took, "paths": float(len(agent.paths))}


def _rss() -> float:
    """The most so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main(words: list[str]) -> dict[str, float]:
    if words[0] == "memory":
        return asyncio.run(kept(int(words[1]), int(words[2])))
    return measured(int(words[0]), int(words[1]), float(words[2]))


if __name__ == "__main__":
    print(json.dumps({name: round(value, 3) for name, value in main(sys.argv[1:]).items()}))
