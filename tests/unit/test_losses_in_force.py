"""A path that loses packets, from samples to answers, and what explain says of it."""

from __future__ import annotations

from pathlib import Path

from edgedns.control import Control, Paths
from edgedns.dns import types
from edgedns.engine.explain import Question, explain
from edgedns.model import Prefix
from tests.small import samples, write_rules, write_table

NOW = 1_790_000_000.0
WWW = b"\3www\7example\3net\0"
RTTS: dict[str, float | None] = {"alder": 50.0, "birch": 30.0, "cedar": 60.0}


def lose(control: Control, rounds: int) -> float:
    """Of birch each seventh probe of the first five networks, three of them a round; the time then."""
    now = NOW
    for probe in range(3 * rounds):
        at = now + 1 + probe % 3 * 3
        losing = [i for i in range(5) if (probe + i) % 7 == 0]
        well = [i for i in range(40) if i not in losing]
        control.ingest(samples(at, RTTS, well) + b"\n" + samples(at, {**RTTS, "birch": None}, losing), at)
        if probe % 3 == 2:
            now += 10
            control.close_round(now)
    return now


def test_the_fastest_that_loses_a_seventh_is_left_and_explain_says_why(tmp_path: Path) -> None:
    paths = Paths(tmp_path / "state", write_rules(tmp_path / "rules"), write_table(tmp_path / "table.tsv"))
    control = Control(paths, "node", lambda _: None)
    control.start(NOW)
    now = lose(control, 30)
    for i in (*range(5), 20):
        question = Question(WWW, types.A, bytes((127, 0, 0, 1)), Prefix(4, bytes((10, i, 1, 0)), 24))
        told = explain(control.snapshot(), question, control.evidence(now), now)
        assert told["provider"] == ("birch" if i == 20 else "alder")
        arm = {each["provider"]: each for each in told["candidates"]}
        assert arm["birch"]["health"] in ("up", "suspect"), "that would be a failure, which is another reason to leave"
        assert arm["birch"]["rtt_ms"] < 35
        if i == 20:
            assert arm["birch"]["loss"] < 0.01
        else:
            assert 0.05 < arm["birch"]["loss"] < 0.25
            assert f"{arm['birch']['loss']:.0%} being lost, is not above" in arm["birch"]["lost_because"]
            assert "being lost" not in arm["cedar"]["lost_because"]
