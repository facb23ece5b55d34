"""One agent: 10,000 probes a second on one core, round trips right to 0.2 ms at the median, memory bounded."""

from __future__ import annotations

import os
import shutil

import pytest

from tests.bench.figures import figures, within


def told(*words: str) -> dict[str, float]:
    found: dict[str, float] = figures("prober.py", *words)
    return found


@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc for the path that knows its length")
class TestOneAgent:
    def test_round_trips_are_right(self) -> None:
        found = told("800", "1", "2.5")
        assert abs(found["error_ms"]) <= 3 * 0.2
        assert found["lost"] == 0.0

    @pytest.mark.long
    @pytest.mark.serial
    def test_ten_thousand_probes_a_second_on_one_core(self, capsys: pytest.CaptureFixture[str]) -> None:
        single, burst = told("4000", "1", "8"), told("4000", "3", "8")
        with capsys.disabled():
            print("\none packet a probe:", single, "\nthree:", burst, os.getloadavg())
        assert single["us_per_probe"] <= within(100.0)
        assert abs(single["error_ms"]) <= 0.2

    @pytest.mark.long
    @pytest.mark.serial
    def test_memory_with_100_000_networks_and_8_providers(self, capsys: pytest.CaptureFixture[str]) -> None:
        found = told("memory", "100000", "8")
        with capsys.disabled():
            print("\n", found)
        assert found["paths"] == 800_000
        assert found["mb"] <= 1000
