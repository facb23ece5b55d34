"""What a query costs the native engine as names and prefixes multiply: instructions by callgrind, and CPU time beside them.

`python -m tests.bench.growth docs/growth.svg` measures (some two minutes) and draws. A world has either many names or many
prefixes; each is asked good questions, and random names that don't exist.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np

from edgedns import pictures
from edgedns.dns import types
from edgedns.engine import inline
from edgedns.engine.cells import Space
from edgedns.engine.compile import ZoneSource, atoms_file, compile_base, snapshot_of
from edgedns.engine.load import Loaded, load_rules
from edgedns.engine.overlay import Spreader, compile_overlay
from edgedns.engine.tally import Tally
from edgedns.steer.space import asn
from edgedns.steer.space.asn import AsnTable
from tests.conftest import SALT, Places, made_decisions, new_ring
from tests.fuzz.worlds import CEDAR, STEERED, write_sections
from tests.property.test_native import PROVIDERS

HERE = Path(__file__).parent
NAMES, PREFIXES = (10, 1000, 100_000), (1000, 100_000, 1_000_000)
QUERIES, ROUNDS, TRIES = 4096, 40, 5
APEX = b"\7steered\7example\0"
V6_SHARE = 0.3
COLOURS = {"names": "#0b6e4f", "NXDOMAIN, names": "#c98a1b", "prefixes": "#28527a", "NXDOMAIN, prefixes": "#a23b3b"}


@dataclass(frozen=True)
class Cost:
    """Of one query."""

    instructions: float
    nanoseconds: float


def table(prefixes: int) -> AsnTable:
    """That many /24s and /52s, no two neighbours of one ASN, spread over 1.0.0.0 to 223.255.255.0 and 2001:db8::/32."""
    six = int(prefixes * V6_SHARE)
    four = prefixes - six
    start4 = (np.linspace(0x010000, 0xDFFFFF, four).astype(np.uint32)) << np.uint32(8)
    hi = np.uint64(0x20010DB8_00000000) + (np.linspace(0, (1 << 20) - 1, six).astype(np.uint64) << np.uint64(12))
    return AsnTable(
        start4, start4 + np.uint32(255), _asns(four), np.full(four, b"DE", "S2"),
        hi, np.zeros(six, np.uint64), hi + np.uint64(0xFFF), np.full(six, 2**64 - 1, np.uint64),
        _asns(six), np.full(six, b"US", "S2"), {}, "made", "2036-01-01", f"made-{prefixes}", four, six,
    )  # fmt: skip


def _asns(count: int) -> np.ndarray:
    return (4_200_000_000 + np.arange(count) % 70_001).astype(np.uint32)


def sources(loaded: Loaded, names: int) -> list[ZoneSource]:
    (made,) = inline.sources(loaded)
    more = ((label(number) + APEX, types.A, 30, bytes((192, 0, 2, number & 0xFF))) for number in range(names))
    return [ZoneSource(made.rules, (*made.static, *more))]


def label(number: int) -> bytes:
    text = f"host-{number:06}".encode()
    return bytes((len(text),)) + text


def one_of(names: int) -> Callable[[Random], bytes]:
    return lambda dice: label(dice.randrange(names))


def write_world(directory: Path, names: int, prefixes: int) -> Path:
    directory.mkdir()
    (directory / "providers.yaml").write_text(PROVIDERS.replace("networks:", CEDAR), encoding="utf-8")
    (directory / "steered.example.yaml").write_text(STEERED, encoding="utf-8")
    loaded, places = load_rules(directory), Places()
    atoms = inline.build_atoms(loaded.rules, table(prefixes))
    space = Space(atoms, loaded.rules.networks, asn.continent)
    providers = list(loaded.rules.providers)
    compiled = compile_base(sources(loaded, names), loaded.rules.providers, space, (), places.block, SALT)
    decisions = made_decisions(inline.nominal_decisions(loaded.rules, compiled), atoms)
    overlay = compile_overlay(compiled.columns, decisions, providers, Spreader.of(atoms), SALT)
    cells = memoryview(bytearray(8 * places.used)).cast("Q")
    tally = Tally(cells, memoryview(bytearray(4 * len(atoms.net_asn))).cast("I"), new_ring())
    return write_sections(snapshot_of(atoms_file(atoms), compiled.content, overlay), tally, directory / "world")


def subnet(dice: Random) -> bytes:
    if dice.random() < V6_SHARE:
        return b"\0\x08\0\x0b\0\2\x38\0\x20\x01\x0d\xb8" + dice.randbytes(3)
    return b"\0\x08\0\7\0\1\x18\0" + bytes((dice.randrange(1, 224),)) + dice.randbytes(2)


def query(dice: Random, first: bytes) -> bytes:
    option = subnet(dice)
    opt = b"\0\0\x29\x04\xd0\0\0\0\0" + len(option).to_bytes(2, "big") + option
    return dice.randbytes(2) + b"\0\0\0\1\0\0\0\0\0\1" + first + APEX + b"\0\1\0\1" + opt


def write_queries(path: Path, first: Callable[[Random], bytes]) -> Path:
    dice = Random(path.name)
    packets = [query(dice, first(dice)) for _ in range(QUERIES)]
    path.write_bytes(b"".join(len(packet).to_bytes(2, "little") + packet for packet in packets))
    return path


def build(directory: Path) -> Path:
    made = directory / "growth"
    flags = ["-O2", "-g", "-std=c11", "-ffp-contract=off", "-DPy_LIMITED_API=0x030B0000", f"-I{sysconfig.get_path('include')}"]
    linked = ["-no-pie", "-Wl,-z,lazy", "-Wl,--unresolved-symbols=ignore-all"]
    subprocess.run(["gcc", *flags, str(HERE / "growth.c"), *linked, "-o", str(made)], check=True)
    return made


def cost(program: Path, world: Path, queries: Path, timed: bool) -> Cost:
    """Of one query of a file."""
    counting = ["valgrind", "--tool=callgrind", "--toggle-collect=answer_all", "--callgrind-out-file=/dev/null"]
    asking = [str(program), str(world), str(queries)]
    told = subprocess.run([*counting, *asking, "1"], capture_output=True, text=True, check=True)
    collected = re.search(r"Collected : (\d+)", told.stderr)
    assert collected
    assert int(told.stdout.split()[0]) == QUERIES, "each query is answered natively"
    return Cost(int(collected[1]) / QUERIES, min(nanoseconds(asking) for _ in range(TRIES)) if timed else 0.0)


def nanoseconds(asking: list[str]) -> float:
    told = subprocess.run([*asking, str(ROUNDS)], capture_output=True, text=True, check=True).stdout
    return float(told.split()[1])


@contextmanager
def workplace() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as made:
        yield Path(made)


def measure(timed: bool = True) -> dict[str, dict[int, Cost]]:
    """Kind of growth -> size -> cost."""
    found: dict[str, dict[int, Cost]] = {kind: {} for kind in COLOURS}
    with workplace() as directory:
        program = build(directory)
        missing = write_queries(directory / "missing", lambda dice: b"\x0c" + dice.randbytes(6).hex().encode())
        steered = write_queries(directory / "steered", lambda dice: b"\3www")
        for size in NAMES:
            world = write_world(directory / f"names-{size}", size, 1000)
            known = write_queries(directory / f"known-{size}", one_of(size))
            found["names"][size] = cost(program, world, known, timed)
            found["NXDOMAIN, names"][size] = cost(program, world, missing, timed)
        for size in PREFIXES:
            world = write_world(directory / f"prefixes-{size}", 10, size)
            found["prefixes"][size] = cost(program, world, steered, timed)
            found["NXDOMAIN, prefixes"][size] = cost(program, world, missing, timed)
    return found


def draw(found: dict[str, dict[int, Cost]], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, 3.4), layout="constrained")
    panels = (("instructions", "instructions"), ("nanoseconds", "ns of CPU"))
    for axes, (field, what) in zip(figure.subplots(1, 2), panels, strict=True):
        for kind, by_size in found.items():
            shape = "--" if kind.startswith("NXDOMAIN") else "-"
            costs = [getattr(one, field) for one in by_size.values()]
            axes.plot(list(by_size), costs, shape, marker=".", color=COLOURS[kind], label=kind)
        axes.set_xscale("log")
        axes.set(xlabel="names or prefixes", ylabel=f"{what} a query")
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.25)
    axes.legend(loc="lower right", fontsize=8)
    pictures.write(figure, path)


if __name__ == "__main__":
    costs = measure()
    print(json.dumps({kind: {size: one.__dict__ for size, one in by.items()} for kind, by in costs.items()}, indent=1))
    draw(costs, Path(sys.argv[1]))
