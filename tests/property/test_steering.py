"""Laws of measuring and switching: noise, steps, order, merging, restarts."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from itertools import pairwise
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgedns.model import NetworkKey, Provider, RttSample, Wan
from edgedns.steer.deciding.decisions import Column, Decisions
from edgedns.steer.deciding.policy import decide
from edgedns.steer.failure.health import Health
from edgedns.steer.table.rows import Floats
from edgedns.steer.table.rtt import RttStore
from edgedns.steer.table.wan import WanTable, estimate

NAMES = ("alder", "birch", "cedar", "dogwood")
PROVIDERS = {name: Provider(name, (bytes(4),), (bytes(16),)) for name in NAMES}
COLUMN = Column(Wan(NAMES, NAMES), 4)
NETWORKS = [NetworkKey(64500 + i % 7, ("DE", "FR", "US")[i % 3], 4, i) for i in range(12)]
HOUR = 360

samples_strategy = st.lists(
    st.builds(
        RttSample,
        at=st.floats(1000, 1029.9),
        vantage=st.sampled_from(["fra1", "sin1"]),
        provider=st.sampled_from(NAMES),
        network=st.sampled_from([*NETWORKS[:5], NetworkKey(64500), NetworkKey(64999, "", 4, 3)]),
        family=st.sampled_from([4, 6]),
        rtt_ms=st.one_of(st.none(), st.floats(0.2, 10_000)),
    ),
    max_size=40,
)


class Engine:
    """Rounds through store, table and decide; may be put down and taken up again between rounds."""

    def __init__(self) -> None:
        self.store, self.health, self.now = RttStore(), Health(), 1000.0
        self.decisions: Decisions | None = None

    def round(self, samples: list[RttSample]) -> list[str]:
        for counted in self.health.observe(samples):
            self.store.observe_columns(counted)
        self.now += 10.0
        self.store.close_round(self.now)
        table = estimate(self.store)
        self.decisions = decide([COLUMN], PROVIDERS, {}, table, self.health, self.decisions, self.now, 20.0)
        return [self.decisions.columns[COLUMN].ranking_for(network).targets[0] for network in NETWORKS]

    def restarted(self) -> Engine:
        assert self.decisions is not None
        again = Engine()
        again.store = RttStore.from_sections(self.store.to_sections())
        again.health = Health.from_sections(self.health.to_sections())
        again.decisions, again.now = Decisions.from_sections(self.decisions.to_sections()), self.now
        return again


def measured(now: float, base: Floats, noise: float, rng: np.random.Generator) -> list[RttSample]:
    """One sample of every arm of every network; base[network, arm] in ms, noise a share."""
    rtt = base * (1 + rng.uniform(-noise, noise, base.shape))
    return [
        RttSample(now + (i * 4 + p) * 0.05, "fra1", name, network, 4, float(rtt[i, p]))
        for i, network in enumerate(NETWORKS) for p, name in enumerate(NAMES)
    ]  # fmt: skip


def switches(answers: list[list[str]]) -> list[int]:
    return [sum(a != b for a, b in pairwise(each)) for each in zip(*answers, strict=True)]


def run(seed: int, base_of: Callable[[int], Floats], rounds: int = HOUR, restart_at: Collection[int] = ()) -> list[list[str]]:
    engine, rng, answers = Engine(), np.random.default_rng(seed), []
    for number in range(rounds):
        answers.append(engine.round(measured(engine.now, base_of(number), 0.05, rng)))
        if number in restart_at:
            engine = engine.restarted()
    return answers


def close_bases(seed: int) -> Floats:
    """Arms of a network within some 10 % of each other, where noise can tempt."""
    rng = np.random.default_rng(seed)
    return rng.uniform(10, 100, (len(NETWORKS), 1)) * rng.uniform(0.95, 1.05, (len(NETWORKS), len(NAMES)))


@pytest.mark.parametrize("seed", [1, 2])
def test_an_hour_of_noise_gives_at_most_one_switch(seed: int) -> None:
    base = close_bases(seed)
    assert max(switches(run(seed, lambda number: base)[1:])) <= 1


def test_a_step_of_30_percent_gives_exactly_one_switch() -> None:
    rng = np.random.default_rng(3)
    before = rng.uniform(10, 100, (len(NETWORKS), 1)) * np.array([1.0, 1.1, 1.3, 1.6])
    after = before * np.array([1.3, 1.0, 1.0, 1.0])
    answers = run(3, lambda number: before if number < 120 else after)
    assert set(answers[119]) == {"alder"}
    assert switches(answers[119:]) == [1] * len(NETWORKS)
    assert set(answers[-1]) == {"birch"}


def test_a_restart_in_the_middle_changes_nothing() -> None:
    base = close_bases(4)
    after = base * np.array([1.4, 1.0, 1.0, 1.0])

    def step(number: int) -> Floats:
        return base if number < 60 else after

    straight = run(4, step, 100)
    assert run(4, step, 100, restart_at=(0, 30, 60, 61, 62, 63, 64, 65, 66, 90)) == straight
    assert straight[59] != straight[-1], "the step must have moved somebody"


def same(one: WanTable, other: WanTable) -> bool:
    a, b = one.to_sections(), other.to_sections()
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name], equal_nan=a[name].dtype.kind == "f") for name in a)


def closed(*parts: list[RttSample]) -> RttStore:
    store = RttStore()
    for part in parts:
        store.observe(part)
    store.close_round(1030.0)
    return store


@settings(max_examples=60, deadline=None)
@given(samples_strategy, st.randoms(use_true_random=False))
def test_order_within_a_round_does_not_matter(samples: list[RttSample], dice: Random) -> None:
    shuffled = samples.copy()
    dice.shuffle(shuffled)
    cut = dice.randrange(len(samples) + 1)
    assert same(estimate(closed(samples)), estimate(closed(shuffled[:cut], shuffled[cut:])))


@settings(max_examples=60, deadline=None)
@given(samples_strategy, st.integers(0, 40))
def test_two_collectors_merged_equal_one_that_saw_both(samples: list[RttSample], cut: int) -> None:
    one, other = closed(samples[:cut]), closed(samples[cut:])
    one.merge(other)
    assert same(estimate(one), estimate(closed(samples)))
    one.close_round(1100.0)
    both = closed(samples)
    both.close_round(1100.0)
    assert same(estimate(one), estimate(both))


@settings(max_examples=30, deadline=None)
@given(samples_strategy)
def test_stored_and_read_again_nothing_changes(samples: list[RttSample]) -> None:
    store = closed(samples)
    table = estimate(store)
    assert same(estimate(RttStore.from_sections(store.to_sections())), table)
    assert same(WanTable.from_sections(table.to_sections()), table)


@settings(max_examples=30, deadline=None)
@given(samples_strategy, st.permutations(NAMES))
def test_every_node_resolves_equals_alike(samples: list[RttSample], order: Sequence[str]) -> None:
    """The order in which providers are declared, and samples arrive, is no argument."""
    table = estimate(closed(samples[::-1]))
    elsewhere = decide([COLUMN], {name: PROVIDERS[name] for name in order}, {}, table, Health(), None, 1030.0, 20.0)
    here = decide([COLUMN], PROVIDERS, {}, estimate(closed(samples)), Health(), None, 1030.0, 20.0)
    assert here.columns[COLUMN].same_answers(elsewhere.columns[COLUMN])
