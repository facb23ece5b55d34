"""Worlds that lose packets, replayed: what users would have waited, with losses at their price and without."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from edgedns.steer.replay import play as playing
from edgedns.steer.replay.play import Plan, play
from edgedns.steer.replay.score import Score, score
from edgedns.steer.replay.trace import parse
from edgedns.steer.table.rows import Floats
from edgedns.steer.table.wan import TERMS

NETWORKS, PROVIDERS, SLOTS = 150, 6, 30
Shares = Callable[[np.random.Generator], Floats]


def arms(rng: np.random.Generator) -> Floats:
    """A fifth of all paths lose 5 to 40 %."""
    shape = (NETWORKS, PROVIDERS)
    return np.where(rng.random(shape) < 0.2, rng.uniform(0.05, 0.4, shape), 0.0)


def providers(rng: np.random.Generator) -> Floats:
    """Two providers lose everywhere."""
    return np.broadcast_to(np.array([0.05, 0.15, 0.0, 0.0, 0.0, 0.0]), (NETWORKS, PROVIDERS))


def alike(rng: np.random.Generator) -> Floats:
    """All paths lose the same."""
    return np.full((NETWORKS, PROVIDERS), 0.02)


def replayed(shares: Shares, seed: int = 0) -> Score:
    rng = np.random.default_rng(seed)
    base = np.exp(rng.normal(3.4, 0.7, (NETWORKS, 1)) + rng.normal(0, 0.35, (NETWORKS, PROVIDERS)))
    shape = (SLOTS, NETWORKS, PROVIDERS)
    rtt, lost = base * np.exp(rng.normal(0, 0.08, shape)), rng.random(shape) < shares(rng)
    lines = ["slot,asn,provider,rtt_ms\n"]
    lines += [
        f"{s},{64512 + n},p{p},{'lost' if lost[s, n, p] else format(rtt[s, n, p], '.2f')}\n" for s, n, p in np.ndindex(shape)
    ]
    trace, rejected = parse(lines)
    assert not rejected
    return score(play(trace, Plan()))


@pytest.mark.parametrize(("shares", "at_least"), [(arms, 0.76), (providers, 0.4)])
def test_lossy_paths_are_left(monkeypatch: pytest.MonkeyPatch, shares: Shares, at_least: float) -> None:
    priced = replayed(shares)
    monkeypatch.setattr(playing, "TERMS", replace(TERMS, wait=0.0))
    free = replayed(shares)
    assert priced.gap_captured is not None
    assert free.gap_captured is not None
    assert priced.gap_captured > max(at_least, free.gap_captured + 0.03)
    assert priced.switches_per_100 < 2


def test_what_all_lose_moves_nobody() -> None:
    """0.3 with no losses at all."""
    assert replayed(alike).switches_per_100 < 1.5
