"""What it takes to publish: a world from the real table, and a round that moved 100,000 networks of eight providers.

`python -m tests.bench.publishing` prints JSON: CPU and wall seconds of each step, the sizes written, and how long two workers
took from "decided" to answering anew, with the latencies of queries before and meanwhile; and around swaps of root alone, while
nothing is compiled beside them, interleaved with as long before each. A quiet machine is assumed.
"""

from __future__ import annotations

import json
import resource
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import dns.edns
import dns.message
import numpy as np

from edgedns.control import Control, Paths
from edgedns.control.schedule import Force
from edgedns.engine.world import Held, make_world
from edgedns.steer.deciding.decisions import Decisions
from edgedns.steer.table.batch import Batch
from edgedns.steer.table.rows import ROW
from tests.conformance.peers import free_port

NETWORKS, PROVIDERS = 100_000, 8
SETTLE = 3.0
SWAPS, WINDOW = 20, 0.4
ARRAYS = ("mean", "w50", "sd", "rtt", "typical", "samples", "seen")
NAMES = tuple(f"p{number}" for number in range(PROVIDERS))


def write_rules(directory: Path) -> Path:
    """Eight providers, and a name that is measured."""
    providers = "".join(f'  {name}: {{v4: [192.0.2.{i}], v6: ["2001:db8:{i}::1"]}}\n' for i, name in enumerate(NAMES, 1))
    (directory / "providers.yaml").write_text(f"version: 1\nproviders:\n{providers}", encoding="utf-8")
    zone = (
        "version: 1\nzone: cdn.example.net\nsoa: {mname: ns1, rname: noc@example.net, minimum: 60s}\nns: [ns1]\n"
        "records:\n  www: {ttl: 5s, rules: [{name: measured, wan: {among: all, nominal: [%s], min_samples: 1}}]}\n"
        'static:\n  - "ns1 A 192.0.2.53"\n'
    )
    (directory / "zone.yaml").write_text(zone % ", ".join(NAMES), encoding="utf-8")
    return directory


class Steps:
    """CPU and wall seconds of named steps."""

    def __init__(self) -> None:
        self.taken: dict[str, tuple[float, float]] = {}

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        cpu, wall = time.process_time(), time.monotonic()
        yield
        self.taken[name] = (round(time.process_time() - cpu, 3), round(time.monotonic() - wall, 3))


def samples(control: Control, now: float) -> Batch:
    """One of each provider and family for 100,000 networks of the table."""
    atoms, dice = control.world.ground.atoms, np.random.default_rng(1)
    chosen = np.sort(dice.choice(np.arange(1, len(atoms.net_asn)), NETWORKS, replace=False))
    rows = np.zeros(NETWORKS, dtype=ROW)
    rows["asn"], rows["country"] = atoms.net_asn[chosen], atoms.net_country[chosen]
    rows["family"], rows["block"] = atoms.net_family[chosen], atoms.net_block[chosen]
    row, provider, family = (axis.reshape(-1) for axis in np.indices((NETWORKS, PROVIDERS, 2)))
    rtt, zeros = dice.uniform(10, 200, len(row)), np.zeros(len(row), np.int64)
    return Batch(rows, NAMES, ("v",), row, provider, zeros, np.where(family == 1, 6, 4), rtt, np.full(len(row), now))


def moved(decisions: Decisions) -> Decisions:
    """The same with a ranking that begins with another target for every row."""
    columns = dict(decisions.columns)
    for key, column in columns.items():
        first = [ranking.targets[:1] for ranking in column.rankings]
        others = [next(i for i, one in enumerate(first) if one != own) for own in first]
        if len(column.keys):
            columns[key] = replace(column, ranking=np.array(others, np.int32)[column.ranking])
    return replace(decisions, columns=columns)


def ask(port: int, packet: bytes) -> list[tuple[float, float, str]]:
    """Ask one worker every few milliseconds, in a process of its own, until stdin ends: when, for how long, the answer."""
    ended, seen = threading.Event(), list[tuple[float, float, str]]()

    def wait_for_the_end() -> None:
        sys.stdin.read()
        ended.set()

    threading.Thread(target=wait_for_the_end, daemon=True).start()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(0.5)
        sock.connect(("127.0.0.1", port))
        while not ended.wait(0.002):
            since = time.monotonic()
            try:
                sock.send(packet)
                reply = sock.recv(4096)
            except OSError:  # the worker is not there yet
                continue
            until = time.monotonic()
            seen.append((until, until - since, reply[2:].hex()))
    return seen


class Asker:
    """One worker, and what asks it for one subnet."""

    def __init__(self, state: Path, slot: int, subnet: str) -> None:
        port, message = free_port(), dns.message.make_query("www.cdn.example.net", "A", use_edns=False)
        message.use_edns(0, 0, 1232, options=[dns.edns.ECSOption(subnet, 24)])
        command = [sys.executable, "-m", "edgedns.serve.worker", f"--state={state}", f"--slot={slot}"]
        self.worker = subprocess.Popen([*command, f"--listen=127.0.0.1:{port}"])
        asking = [sys.executable, "-m", "tests.bench.publishing", str(port), message.to_wire().hex()]
        self.asking = subprocess.Popen(asking, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.seen: list[tuple[float, float, str]] = []

    def end(self) -> None:
        self.seen = json.loads(self.asking.communicate(timeout=20)[0])
        self.worker.terminate()
        self.worker.wait(10)

    def p99(self, *spans: tuple[float, float]) -> float:
        """Milliseconds, of what was asked in any of these spans of time."""
        late = sorted(took for at, took, _ in self.seen if any(since <= at - took <= until for since, until in spans))
        return round(late[int(len(late) * 0.99)] * 1000, 2)

    def answered_anew(self, since: float) -> float:
        """Seconds from then to the first answer that differs from the one before it."""
        before = next(reply for at, _, reply in reversed(self.seen) if at < since)
        return round(next(at for at, _, reply in self.seen if at > since and reply != before) - since, 3)


def measured_force(control: Control, now: float, steps: Steps) -> Force:
    """What follows from a round in which each of 100,000 networks was measured over each provider."""
    control.measured.rtt.observe_columns(samples(control, now - 5))
    control.measured.sampled_at = now - 5
    with steps.step("estimate"):
        table = control.measured.close_round(list(NAMES), now)
    assert table is not None
    with steps.step("decide"):
        return control.deciding.decided(replace(control.force, table=table, taken_at=now), now)


def subnet_that_moves(control: Control, force: Force) -> str:
    """A measured IPv4 network's first address."""
    atoms = control.world.ground.atoms
    rows = next(column.rows for column in force.decisions.columns.values() if len(column.keys))
    keys = {(int(row["asn"]), bytes(row["country"]), int(row["block"])) for row in rows[rows["family"] == 4]}
    for atom in np.flatnonzero(atoms.family == 4)[::97]:
        network = int(atoms.network[atom])
        if (int(atoms.net_asn[network]), bytes(atoms.net_country[network]), int(atoms.net_block[network])) in keys:
            return str(ip_address(int(atoms.start_lo[atom])))
    raise LookupError("no measured network has an address")


def swap(published: Path, roots: tuple[bytes, bytes]) -> list[float]:
    """Swap between two roots every now and then; when (monotonic)."""
    swapped = []
    for number in range(SWAPS):
        (published / "aside").write_bytes(roots[number % 2])
        time.sleep(2 * WINDOW)
        (published / "aside").rename(published / "root.json")
        swapped.append(time.monotonic())
    time.sleep(2 * WINDOW)
    return swapped


def measure() -> dict[str, object]:
    steps, now = Steps(), time.time() // 10 * 10  # rounds are aligned
    with tempfile.TemporaryDirectory() as top:
        state, rules = Path(top, "state"), Path(top, "rules")
        rules.mkdir()
        control = Control(Paths(state, write_rules(rules)), "bench", lambda line: None)
        with steps.step("table, atoms, base and first publish"):
            control.start(now - 20)
        loaded = control.world.loaded
        with steps.step("compile"):
            make_world(Held(loaded), control.worlds.inputs(control.world.table, loaded.rules), control.world.serials, now)
        force = measured_force(control, now - 10, steps)
        with steps.step("first update"):
            control._adopt(force, now - 10)
        table = replace(force.table, at=now, **{name: getattr(force.table, name) * 1.001 for name in ARRAYS})
        another = replace(force, table=table, decisions=moved(force.decisions))
        askers = [Asker(state, slot, subnet_that_moves(control, force)) for slot in range(2)]
        time.sleep(SETTLE)
        quiet = time.monotonic()
        time.sleep(SETTLE)
        decided = time.monotonic()
        root = state / "published" / "root.json"
        last = root.read_bytes()
        with steps.step("update"):
            control.publish(another, now)
        time.sleep(SETTLE)
        swapped = swap(root.parent, (last, root.read_bytes()))
        for asker in askers:
            asker.end()
        answered = [asker.answered_anew(decided) for asker in askers]
        before = [asker.p99((quiet, decided)) for asker in askers]
        meanwhile = [asker.p99((decided, decided + max(answered))) for asker in askers]
        apart = [asker.p99(*((at - WINDOW, at) for at in swapped)) for asker in askers]
        around = [asker.p99(*((at, at + WINDOW) for at in swapped)) for asker in askers]
        with steps.step("failover"):  # with the table as it was
            control.publish(replace(another, decisions=moved(another.decisions)), now)
        sizes: dict[str, int] = {}
        for path in (state / "published").glob("*-*.bin"):
            kind = path.name.partition("-")[0]
            sizes[kind] = max(path.stat().st_size, sizes.get(kind, 0))
    rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    return {
        "steps": steps.taken,
        "decided_to_answered": answered,
        "p99_ms": {"before": before, "meanwhile": meanwhile},
        "swaps_p99_ms": {"apart": apart, "around": around},
        "octets": sizes,
        "control_rss_mb": rss,
    }


if __name__ == "__main__":
    print(json.dumps(ask(int(sys.argv[1]), bytes.fromhex(sys.argv[2])) if len(sys.argv) > 1 else measure(), indent=1))
