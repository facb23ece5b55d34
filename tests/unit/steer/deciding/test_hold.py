"""The guard looks at what users have, not at how an arm stands beside others."""

from __future__ import annotations

import numpy as np

from edgedns.model import Wan
from edgedns.steer.deciding.decisions import HOLD
from edgedns.steer.deciding.hold import Evidence, Hold, Pace, step
from edgedns.steer.table.rows import Floats

ACTION = Wan(("alder", "birch"), ("alder", "birch"), margin_ms=0.0, margin_percent=5.0)


def seen(typical: list[float], shared: float) -> Evidence:
    """One row of two arms; the lower RTT has the higher value."""
    rtt: Floats = np.array([typical])
    yes = np.ones((1, 2), dtype=np.bool_)
    value = -np.log(rtt)
    return Evidence(yes, value, value - 0.01, rtt, np.full((1, 2), 50.0), yes[:, 0], np.ones(1), ~yes, np.array([shared]))


def rounds(hold: Hold, evidence: Evidence, first: int, count: int) -> Hold:
    for number in range(first, first + count):
        hold, _ = step(ACTION, evidence, hold, Pace(now=1000.0 + 10 * number))
    return hold


def moved() -> Hold:
    """Alder lost 7 % and birch 5 %: the row went from 93.8 to 85.7 ms, of which all arms lose 50."""
    hold = np.zeros(1, dtype=HOLD)
    hold["settled"], hold["left"], hold["pending"], hold["second"], hold["moved"] = True, -1, -1, -1, 0.0
    hold = rounds(hold, seen([43.8, 35.7], shared=50.0), 0, 2)
    assert hold["home"].tolist() == [1]
    return hold


def test_that_the_one_left_has_recovered_is_no_fault_of_the_move() -> None:
    hold = rounds(moved(), seen([20.0, 77.7], shared=0.0), 2, 4)
    assert hold["home"].tolist() == [0], "it is better now"
    assert hold["guard_until"].tolist() == [0.0]


def test_a_move_after_which_users_wait_longer_is_taken_back() -> None:
    hold = rounds(moved(), seen([43.8, 60.0], shared=50.0), 2, 2)
    assert hold["home"].tolist() == [0]
    assert hold["guard_until"][0] > 1000.0
