"""Real agents, a real server and its clients on a small Internet while it misbehaves: see `smallnet` and `scenarios/`.

What is wrong is judged by the world's own truth: a dead path, or one 30 ms longer than the best there is. Deadlines are the
design's, asserted at three times. EDGEDNS_PLOTS=DIR keeps a plot of each scenario.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from smallnet import globe, scenario, stage, verdict
from smallnet.verdict import Verdict

SLACK = 3.0
Play = Callable[[str], Verdict]
pytestmark = [pytest.mark.root, pytest.mark.timeout(900)]


@pytest.fixture
def play(tmp_path: Path) -> Play:
    if lacking := stage.missing():
        pytest.skip(f"needs {', '.join(lacking)}")

    def played(name: str) -> Verdict:
        scene = scenario.load(name)
        world = globe.make(scene.networks)
        with stage.stage(world, tmp_path, scene.families) as made:
            start = made.play(scene)
            digged = made.dig(0, "+short").split()
            assert digged, made.log("server")
            assert digged[0] in verdict.OF_ADDRESS
        judged = Verdict(scene, world, verdict.read(tmp_path / "answers.csv", start), (tmp_path / "server.log").read_text())
        sys.stderr.write(f"\n{name}: {json.dumps(judged.summary())}\n")
        if folder := os.environ.get("EDGEDNS_PLOTS"):
            verdict.draw(judged, Path(folder) / f"{name}.svg")
        assert judged.empty() == 0
        assert not judged.last_wrong(-5.0, 0.0), "the agents had measured before it happened"
        return judged

    return played


def at(percent: float, wrong: dict[int, float]) -> float:
    """A percentile of the seconds to the last wrong answer, over the networks that got any."""
    return float(np.percentile([*wrong.values(), 0.0], percent))


def test_a_provider_black_holed_everywhere(play: Play) -> None:
    told = play("blackout")
    assert at(99, told.last_wrong(0.0, 20.0)) <= 4.0 * SLACK
    assert not told.last_wrong(20.0, told.scenario.lasts), "it comes back, and nobody is sent to it too early"


def test_ipv6_broken_while_ipv4_is_fine(play: Play) -> None:
    told = play("v6_broken")
    assert at(99, told.last_wrong(0.0, told.scenario.lasts)) <= 4.0 * SLACK
    before, after = (told.share("alder", family=4, since=since) for since in (-5.0, told.scenario.lasts - 5.0))
    assert after >= 0.75 * before > 0.0, "nobody leaves it over IPv4"
    assert told.share("alder", family=6, since=-5.0) > 0.0 == told.share("alder", family=6, since=told.scenario.lasts - 5.0)


@pytest.mark.long
def test_single_paths_die(play: Play) -> None:
    told = play("one_path")
    assert at(95, told.last_wrong(0.0, told.scenario.lasts)) <= 14.0 * SLACK
    assert max(told.switches().values()) <= 2


@pytest.mark.long
def test_a_cable_is_cut(play: Play) -> None:
    told = play("cable_cut")
    assert at(95, told.last_wrong(0.0, told.scenario.lasts)) <= 14.0 * SLACK
    assert told.costs()["edgedns"] < min(told.costs()["anycast"], told.costs()["best static"])


@pytest.mark.long
def test_an_isp_becomes_slow(play: Play) -> None:
    told = play("slow_isp")
    assert at(95, told.last_wrong(0.0, told.scenario.lasts)) <= 14.0 * SLACK
    assert told.costs()["edgedns"] < min(told.costs()["anycast"], told.costs()["best static"])


@pytest.mark.long
def test_a_catchment_that_moves_is_no_failure(play: Play) -> None:
    told = play("moved_catchment")
    assert at(95, told.last_wrong(0.0, told.scenario.lasts)) <= 14.0 * SLACK
    assert "cedar is down" not in told.log


@pytest.mark.long
def test_a_vantage_that_is_cut_off_moves_nobody(play: Play) -> None:
    told = play("vantage_cut")
    assert not told.last_wrong(0.0, told.scenario.lasts)
    assert sum(told.switches().values()) <= 15, "single paths that lost their last while others were not probed at all"


@pytest.mark.long
def test_a_collector_that_dies_leaves_answers_and_its_successor_finds_what_happened(play: Play) -> None:
    told = play("collector_killed")
    back = next(event.at for event in told.scenario.events if event.machine == ("start", "collector"))
    assert at(99, told.last_wrong(back, told.scenario.lasts)) <= 14.0 * SLACK


@pytest.mark.long
def test_bursty_loss_on_a_good_path_is_no_reason_to_leave_it(play: Play) -> None:
    told = play("bursty_loss")
    assert not told.last_wrong(0.0, told.scenario.lasts)
    assert sum(told.switches().values()) <= 10


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_a_flapping_path_moves_its_network_at_most_twice_in_ten_minutes(play: Play) -> None:
    told = play("flapping")
    assert max(told.switches().values()) <= 2
