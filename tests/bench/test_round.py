"""A round for 100,000 networks x 8 providers x 2 families: at most 2 s of one core, 1 GB."""

from __future__ import annotations

import os

import pytest

from tests.bench.figures import figures, within


def measured(*words: str) -> list[dict[str, float]]:
    told: list[dict[str, float]] = figures("round_of_many.py", *words)
    return told


@pytest.mark.long
@pytest.mark.serial
@pytest.mark.timeout(900)
class TestRoundOfMany:
    """Every arm measured in every round, 1.6 million samples in each: the best of the rounds after the first."""

    def test_counted_estimated_and_decided_in_time_and_memory(self, capsys: pytest.CaptureFixture[str]) -> None:
        rounds = measured("6")
        best = min(rounds[1:], key=lambda took: took["round"])
        with capsys.disabled():
            print("\nCPU seconds of the best round:", {name: round(value, 2) for name, value in best.items()}, os.getloadavg())
        assert best["round"] <= within(2.0)
        assert max(took["rss_mb"] for took in rounds) <= 1000

    def test_the_detector_keeps_up_beside_it(self, capsys: pytest.CaptureFixture[str]) -> None:
        rounds = measured("3", "detect")
        with capsys.disabled():
            print("\nCPU seconds that the detector took:", [round(took["observe"], 2) for took in rounds])
        assert min(took["observe"] for took in rounds[1:]) <= within(3.0)
        assert max(took["rss_mb"] for took in rounds) <= 1200
