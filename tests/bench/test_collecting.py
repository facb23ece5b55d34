"""One collector: 100,000 samples a second on one core, memory bounded with 100,000 networks."""

from __future__ import annotations

import os

import pytest

from tests.bench.figures import figures, within


def told(*words: str) -> dict[str, float]:
    found: dict[str, float] = figures("collecting.py", *words)
    return found


def test_what_is_measured_is_taken() -> None:
    found = told("300", "3", "2", "2")
    assert found["samples_a_round"] == 300 * 3 * 2
    assert found["us_read"] > 0


@pytest.mark.long
@pytest.mark.serial
@pytest.mark.timeout(900)
class TestOneCollector:
    def test_a_hundred_thousand_samples_a_second_on_one_core(self, capsys: pytest.CaptureFixture[str]) -> None:
        """Read, and all that is done with them: histograms, the detector, who is trusted; rounds closed and estimated."""
        found = told("20000", "8", "1", "4")
        with capsys.disabled():
            print("\n", found, os.getloadavg())
        assert found["us_read"] <= within(6.0)
        assert found["us_ingest"] <= within(10.0)

    def test_memory_with_100_000_networks_and_8_providers(self, capsys: pytest.CaptureFixture[str]) -> None:
        found = told("100000", "8", "1", "2")
        with capsys.disabled():
            print("\n", found, os.getloadavg())
        assert found["rss_mb"] <= 2000
