"""Instructions a query as names and prefixes multiply, and when names are asked that don't exist: flat within 1.5 times."""

from __future__ import annotations

import shutil
import sysconfig
from pathlib import Path

import pytest

from tests.bench import growth

FLAT = 1.5


@pytest.mark.long
@pytest.mark.timeout(900)
def test_instructions_do_not_grow(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if not (shutil.which("gcc") and shutil.which("valgrind") and Path(sysconfig.get_path("include"), "Python.h").exists()):
        pytest.skip("needs gcc, valgrind and Python.h")
    found = growth.measure(timed=False)
    counts = {kind: {size: round(one.instructions) for size, one in by_size.items()} for kind, by_size in found.items()}
    with capsys.disabled():
        print("\ninstructions a query:", counts)
    for kind, by_size in counts.items():
        assert max(by_size.values()) <= FLAT * min(by_size.values()), kind
        assert min(by_size.values()) > 500, "what is counted is the answering"
    growth.draw(found, tmp_path / "growth.svg")
    assert b"</svg>" in (tmp_path / "growth.svg").read_bytes()
