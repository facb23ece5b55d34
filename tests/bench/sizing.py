"""What a machine carries: `python -m tests.bench.sizing [--short]` prints the tables of docs/sizing.md.

One worker on one core, the generator on another; the example zone, the embedded table, a client subnet in each query.
Steady load, three times that, and twice what can be carried at most, for each engine. A quiet machine is assumed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from edgedns.bench.owners import cpu_seconds
from tests.conformance.peers import free_port

ROOT = Path(__file__).parents[2]
PROFILES = {"light": 500, "medium": 5_000, "heavy": 36_000, "very heavy": 120_000}  # queries a second
ENGINES = ("native", "python")
QUESTIONS = ("--name", "www.cdn.example.net", "--name", "img.cdn.example.net", "--ecs", "10000", "--nxdomain", "0.1")


class Served(NamedTuple):
    port: int
    worker: int
    control: int


@contextmanager
def serving(engine: str, state: Path, cores: str = "0") -> Iterator[Served]:
    """`edgedns serve` with one worker, on these cores."""
    port = free_port()
    command = ["taskset", "-c", cores, sys.executable, "-m", "edgedns", "serve", "--rules", str(ROOT / "rules")]
    options = ["--state", str(state), "--listen", f"127.0.0.1:{port}", "--admin=off", "--workers=1", "--rate-limit=off"]
    server = subprocess.Popen(
        [*command, *options],
        env={**os.environ, "EDGEDNS_ENGINE": engine}, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert server.stderr is not None
        for line in server.stderr:
            if b" serving " in line:
                break
        time.sleep(5.0)  # the control process settles
        status = json.loads(next((state / "run").glob("worker-*.json")).read_text())
        yield Served(port, status["pid"], server.pid)
    finally:
        server.terminate()
        server.wait(20)


def asked(served: Served, seconds: float, *words: str) -> dict[str, Any]:
    """What `edgedns bench` reports, with the worker's CPU as shares of a core and microseconds a query."""
    command = ["taskset", "-c", "1", sys.executable, "-m", "edgedns", "bench", f"127.0.0.1:{served.port}", *QUESTIONS]
    about = ["--json", "--max-loss", "1", "--warmup", "0.01s", "--duration", f"{seconds}s"]
    before = cpu_seconds([served.worker])
    done = subprocess.run([*command, *about, *words], capture_output=True, check=True)
    told: dict[str, Any] = json.loads(done.stdout)
    after = cpu_seconds([served.worker])
    if before is None or after is None:
        raise RuntimeError(f"the worker, process {served.worker}, has ended")
    used = after - before
    return {**told, "core": used / seconds, "cpu_us": used / max(told["answered"], 1) * 1e6}


def row(name: str, told: dict[str, Any]) -> str:
    latency = told["latency_ms"]
    times = " | ".join(f"{latency[key]:.2f}" for key in ("p50", "p95", "p99"))
    loss = f"{100 * told['lost_share']:.2g} %"
    return f"| {name} | {told['qps']:,.0f} | {loss} | {times} | {100 * told['core']:.0f} % | {told['cpu_us']:.1f} |"


HEAD = "| load | answered/s | lost | p50 ms | p95 ms | p99 ms | of one core | us a query |\n|---|---|---|---|---|---|---|---|"


def most(served: Served, seconds: float) -> float:
    """Queries a second that the worker answers at most, always asked by 1,000 at once."""
    told = asked(served, seconds, "--outstanding", "1000")
    print(row("closed loop, 1,000 at once", told), flush=True)
    return float(told["qps"])


def measure(engine: str, state: Path, seconds: float) -> None:
    with serving(engine, state) as served:
        print(f"\n{engine}\n\n{HEAD}", flush=True)
        peak = most(served, seconds)
        for name, rate in PROFILES.items():
            for factor, load in ((1, name), (3, f"{name}, three times")):
                if rate * factor <= 0.9 * peak:
                    burst = str(max(1, rate * factor // 2000))
                    print(row(load, asked(served, seconds, "--rate", str(rate * factor), "--burst", burst)), flush=True)
        over = asked(served, seconds, "--rate", str(int(2 * peak)), "--burst", "64")
        print(row("twice the most", over))
        goodput = f"{over['qps'] / peak:.0%} of the most; the generator sent {over['sent'] / seconds / peak:.1f} times as much"
        print(f"\ngoodput {goodput}")
        for who, pid in (("worker", served.worker), ("control process", served.control)):
            print(f"{who}: {memory(pid)}")


def memory(pid: int) -> str:
    """Of its own, and with what it shares with other processes, in MB."""
    kinds = dict.fromkeys(("Rss", "Pss", "Private_Dirty", "Private_Clean"), 0)
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        kind, _, size = line.partition(":")
        if kind in kinds:
            kinds[kind] = int(size.split()[0])
    return ", ".join(f"{kind} {size / 1024:.0f} MB" for kind, size in kinds.items())


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        for each in ENGINES:
            measure(each, Path(folder) / each, 2.0 if "--short" in sys.argv else 10.0)
