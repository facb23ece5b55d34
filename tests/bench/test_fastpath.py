"""What a query costs: CPU of the loops beside echo.c's, and instructions as names multiply. `make test-long` runs it.

`python -m tests.bench.test_fastpath STATE` measures a published state instead: CPU per query of each engine, in microseconds.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import struct
import subprocess
import sys
import time
from pathlib import Path
from random import Random

import dns.edns
import dns.message
import pytest

from edgedns.bench.owners import cpu_seconds
from tests.conformance.peers import free_port

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
ROUNDS = 5
SECONDS = 1.0


def build(directory: Path, name: str) -> Path:
    made = directory / name
    subprocess.run(["gcc", "-O2", "-Wall", "-Wextra", str(HERE / f"{name}.c"), "-o", str(made)], check=True)
    return made


def write_queries(path: Path, kind: str, count: int = 10_000) -> Path:
    """A mix as blast.c reads it: one name; random client subnets, with cookies or not; random names; garbage."""
    dice, packets = Random(kind), []
    for number in range(1 if kind == "one" else count):
        name = f"x{number}y{dice.getrandbits(30)}.cdn.example.net." if kind == "random" else "www.cdn.example.net."
        message = dns.message.make_query(name, "A", use_edns=False)
        if kind in ("subnets", "cookies"):
            address = f"{dice.randrange(1, 224)}.{dice.randrange(256)}.{dice.randrange(256)}.0"
            options: list[dns.edns.Option] = [dns.edns.ECSOption(address, 24)]
            if kind == "cookies":
                options.append(dns.edns.GenericOption(dns.edns.OptionType.COOKIE, dice.randbytes(8)))
            message.use_edns(0, 0, 1232, options=options)
        packet = message.to_wire()
        if kind == "garbage":
            packet = dice.randbytes(2) + bytes((dice.randrange(128),)) + dice.randbytes(dice.randrange(9, 60))
        packets.append(packet)
    path.write_bytes(b"".join(struct.pack("<H", len(packet)) + packet for packet in packets))
    return path


class Target:
    """A server process on one core, shared with the generator: batches are then as large as the window allows, for all."""

    def __init__(self, command: list[str], port: int, environ: dict[str, str] | None = None) -> None:
        self.port = port
        self.process = subprocess.Popen(["taskset", "-c", "0", *command], env={**os.environ, **(environ or {})})

    def cost(self, blast: Path, queries: Path) -> float:
        """Microseconds of CPU per query."""
        before = self._cpu()
        command = ["taskset", "-c", "0", str(blast), "127.0.0.1", str(self.port), str(SECONDS), "256", str(queries)]
        replies = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[0])
        assert replies > 1000
        return (self._cpu() - before) / replies * 1e6

    def _cpu(self) -> float:
        used = cpu_seconds([self.process.pid])
        assert used is not None, "the server has ended"
        return used

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(10)


def worker(state: Path, engine: str, port: int, slot: int) -> Target:
    command = [sys.executable, "-m", "edgedns.serve.worker", f"--slot={slot}", f"--listen=127.0.0.1:{port}", f"--state={state}"]
    return Target(command, port, {"EDGEDNS_ENGINE": engine})


def measure(state: Path, directory: Path) -> dict[str, dict[str, float]]:
    """Kind of query -> who -> median microseconds of CPU, over interleaved rounds."""
    blast, ports = build(directory, "blast"), [free_port() for _ in range(3)]
    kinds = {kind: write_queries(directory / kind, kind) for kind in ("one", "subnets", "cookies", "random", "garbage")}
    targets = {"echo": Target([str(build(directory, "echo")), "127.0.0.1", str(ports[0])], ports[0])}
    for slot, engine in enumerate(("native", "python")):
        targets[engine] = worker(state, engine, ports[1 + slot], 50 + slot)
    time.sleep(3)
    costs: dict[str, dict[str, list[float]]] = {kind: {name: [] for name in targets} for kind in kinds}
    try:
        for _ in range(ROUNDS):
            for kind, queries in kinds.items():
                for name, target in targets.items():
                    costs[kind][name].append(target.cost(blast, queries))
    finally:
        for target in targets.values():
            target.stop()
    return {kind: {name: statistics.median(each) for name, each in by.items()} for kind, by in costs.items()}


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `edgedns serve` publishes for rules/ over the embedded table."""
    made, port = tmp_path_factory.mktemp("state"), free_port()
    command = [sys.executable, "-m", "edgedns", "serve", "--rules", str(ROOT / "rules"), "--state", str(made), "--admin", "off"]
    server = subprocess.Popen([*command, "--listen", f"127.0.0.1:{port}", "--workers", "1"])
    until = time.monotonic() + 60
    while not (made / "published" / "root.json").exists() and time.monotonic() < until:
        time.sleep(0.2)
    server.terminate()
    server.wait(20)
    return made


@pytest.mark.long
@pytest.mark.serial
@pytest.mark.timeout(600)
def test_cpu_per_query(state: Path, tmp_path: Path) -> None:
    """Native close to the kernel's floor, whatever is asked; no flood costs more than good queries do."""
    if not shutil.which("gcc") or not shutil.which("taskset"):
        pytest.skip("needs gcc and taskset")
    costs = measure(state, tmp_path)
    sys.stderr.write(json.dumps(costs, indent=1) + "\n")
    for kind, by in costs.items():
        assert by["native"] < 1.6 * by["echo"], kind
        # A cookie nobody has seen is a SipHash, which costs plain Python more than all the rest.
        assert by["python"] < (40 if kind == "cookies" else 12) * by["echo"], kind
    for kind in ("random", "garbage"):
        assert costs[kind]["native"] < 1.15 * costs["subnets"]["native"]


if __name__ == "__main__":
    place = Path(sys.argv[2] if len(sys.argv) > 2 else "/tmp/edgedns-bench")
    place.mkdir(exist_ok=True)
    print(json.dumps(measure(Path(sys.argv[1]), place), indent=1))
