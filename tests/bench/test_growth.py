"""Instructions a query as names and prefixes multiply, and when names are asked that don't exist: flat within 1.5 times."""

from __future__ import annotations

import shutil
import sysconfig
from pathlib import Path

import pytest

from tests.bench import growth

FLAT = 1.5
MEASURABLE = shutil.which("gcc") and shutil.which("valgrind") and Path(sysconfig.get_path("include"), "Python.h").exists()
pytestmark = pytest.mark.skipif(not MEASURABLE, reason="needs gcc, valgrind and Python.h")


@pytest.mark.long
def test_a_packet_that_comes_again_costs_half(tmp_path: Path) -> None:
    world, program = growth.write_world(tmp_path / "world", 10, 1000), growth.build(tmp_path)
    once = growth.write_queries(tmp_path / "once", lambda dice: b"\3www")
    again = tmp_path / "again"
    packets = once.read_bytes()
    again.write_bytes(packets[: 2 + int.from_bytes(packets[:2], "little")] * growth.QUERIES)
    costs = [growth.cost(program, world, queries, timed=False).instructions for queries in (once, again)]
    assert costs[1] < costs[0] / 2, costs


@pytest.mark.long
@pytest.mark.timeout(900)
def test_instructions_do_not_grow(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = growth.measure(timed=False)
    counts = {kind: {size: round(one.instructions) for size, one in by_size.items()} for kind, by_size in found.items()}
    with capsys.disabled():
        print("\ninstructions a query:", counts)
    for kind, by_size in counts.items():
        assert max(by_size.values()) <= FLAT * min(by_size.values()), kind
        assert min(by_size.values()) > 500, "what is counted is the answering"
    growth.draw(found, tmp_path / "growth.svg")
    assert b"</svg>" in (tmp_path / "growth.svg").read_bytes()
