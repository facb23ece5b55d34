"""Publishing in time: compile of the real table and rules, and 100,000 networks x 8 providers to all workers.

CPU is held to the figure itself; what the clock says, to three times, on a machine that has other things to do.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgedns.engine import inline
from edgedns.engine.cells import Space
from edgedns.engine.compile import atoms_file, compile_base
from edgedns.engine.load import load_rules
from edgedns.steer.space import asn
from tests.conftest import RULES, SALT, Places

COMPILE, PUBLISH, SLACK = 2.0, 1.0, 3.0
FLOOR = 1.0  # ms: below it the scheduler decides, not what is measured
TOP = Path(__file__).parents[2]


@pytest.mark.long
@pytest.mark.serial
class TestPublishSpeed:
    def test_compile_of_the_real_table_and_zone(self, capsys: pytest.CaptureFixture[str]) -> None:
        """Atoms and base; reading the table, which happens when it changes, is told beside it."""
        since = time.process_time()
        loaded, table = load_rules(RULES), asn.embedded()
        read = time.process_time()
        atoms = inline.build_atoms(loaded.rules, table)
        space = Space(atoms, loaded.rules.networks, asn.continent)
        compile_base(inline.sources(loaded), loaded.rules.providers, space, (), Places().block, SALT)
        compiled = time.process_time()
        atoms_file(atoms)
        with capsys.disabled():
            packed = time.process_time() - compiled
            print(f"\nCPU: read {read - since:.2f} s, compile {compiled - read:.2f} s, pack {packed:.2f} s")
        assert compiled - read < COMPILE * SLACK

    def test_an_update_of_all_networks_reaches_the_workers(self, capsys: pytest.CaptureFixture[str]) -> None:
        told = subprocess.run(
            [sys.executable, "-m", "tests.bench.publishing"], cwd=TOP, capture_output=True, text=True, check=True, timeout=300
        )
        found = json.loads(told.stdout)
        with capsys.disabled():
            print(f"\n{json.dumps(found)}")
        assert found["steps"]["update"][0] <= PUBLISH
        assert max(found["decided_to_answered"]) <= PUBLISH * SLACK
        assert found["steps"]["failover"][0] <= PUBLISH / 2, "the table is not packed again"
        for before, meanwhile in zip(*found["p99_ms"].values(), strict=True):
            assert meanwhile <= 2 * SLACK * max(before, FLOOR)
        for apart, around in zip(*found["swaps_p99_ms"].values(), strict=True):
            assert around <= SLACK * max(apart, FLOOR), "taking over what was published holds up no query"
        assert found["octets"]["overlay"] > 2_000_000, "every network has a ranking of its own"
