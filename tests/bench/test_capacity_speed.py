"""How long caps take, on two cores; asserted is three times that (a slow machine is no mistake of ours)."""

from __future__ import annotations

import time

import numpy as np
import pytest

from edgedns.steer.caps.capacity import Limits, solve
from edgedns.steer.table.rows import Floats, Ints

SLACK = 3.0


def made(rows: int, providers: int = 8, seed: int = 1) -> tuple[Floats, Floats, Limits, Ints]:
    """Zipf demand over RTTs with a best provider each: (demand, cost, limits at 1.05 x the fair share, home)."""
    rng = np.random.default_rng(seed)
    demand = rng.permutation(1.0 / np.arange(1, rows + 1))
    rtt = rng.gamma(2.0, 15.0, (rows, 1)) + rng.gamma(1.5, 12.0, (rows, providers))
    cap = np.full(providers, 1.05 * demand.sum() / providers)
    return demand, rtt, Limits(cap, np.zeros(providers)), rtt.argmin(axis=1)


@pytest.mark.long
@pytest.mark.serial
@pytest.mark.parametrize(("rows", "seconds"), [(5_000, 2.0), (100_000, 3.0)])
def test_solving_is_quick_enough_for_a_round(rows: int, seconds: float) -> None:
    demand, rtt, limits, home = made(rows)
    solve(*made(100))  # what is loaded once is not counted
    began = time.perf_counter()
    plan = solve(demand, rtt - rtt.min(axis=1, keepdims=True), limits, home)
    took = time.perf_counter() - began
    extra = (demand[:, None] * plan.matrix() * rtt).sum() / (demand * rtt.min(axis=1)).sum() - 1
    print(f"{rows} networks x 8: {took:.2f} s, {extra:+.2%} RTT, {len(plan.split)} rows of their own")
    assert (plan.load <= limits.cap).all()
    assert extra <= 0.03
    assert took <= SLACK * seconds
