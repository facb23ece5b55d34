"""Which arms are worth a probe: uncertainty times traffic, who serves is watched, nobody active starves."""

from __future__ import annotations

import numpy as np

from edgedns.steer.probing.worth import FEW, STARVING, Field, chosen, worth

NOW = 1_000_000.0
NAN = float("nan")


def field(
    samples: list[list[float]], typical: list[list[float]], weight: list[float], ago: float | list[list[float]] = 5.0
) -> Field:
    """Networks that the first arm serves, each probed `ago` seconds ago; an arm that was never (inf) is heard by nobody."""
    shape = np.array(samples).shape
    last = NOW - np.broadcast_to(np.array(ago, dtype=np.float64), shape)
    return Field(np.array(samples), np.array(typical), np.zeros(shape[0], np.int64), np.array(weight), np.isfinite(last), last)


def test_the_doubtful_and_the_busy_first() -> None:
    known, doubtful = [50.0, 50.0, 50.0], [50.0, 50.0, 6.0]
    of = field([known, doubtful, doubtful], [[20.0, 30.0, 22.0]] * 3, [10.0, 10.0, 100.0])
    assert [divmod(int(at), 3) for at in chosen(of, NOW, 2)] == [(2, 2), (1, 2)]


def test_an_arm_that_nobody_hears_is_never_chosen() -> None:
    of = field([[9.0, 9.0], [9.0, 0.0]], [[20.0, 20.0], [20.0, NAN]], [1.0, 1.0], [[5.0, 5.0], [5.0, np.inf]])
    assert sorted(chosen(of, NOW, 100).tolist()) == [0, 1, 2]


def test_who_serves_is_watched_the_more_the_longer_it_was_not_seen() -> None:
    of = field([[50.0, 50.0]] * 2, [[20.0, 200.0]] * 2, [1.0, 1.0], [[10.0, 10.0], [40.0, 10.0]])
    value = worth(of, NOW)
    assert value[1, 0] > 3 * value[0, 0] > 0.0
    assert value[0, 0] > value[0, 1], "ten times as slow, and that is sure"


def test_active_networks_get_each_arm_looked_at_once_a_minute_from_half_of_the_budget() -> None:
    rows, rng = 100, np.random.default_rng(1)
    of = field(
        [[50.0, 50.0, FEW / 2]] * rows, [[20.0, 25.0, 300.0]] * rows, list(rng.pareto(1.0, rows) + 0.01),
        [[5.0, 5.0, STARVING + 1.0]] * rows,
    )  # fmt: skip
    found = chosen(of, NOW, 40)
    assert len(found) == 40
    assert set(found[:20] % 3) == {2}
    assert set(found[:20] // 3) == set(np.argsort(-of.weight)[:20]), "the busiest ones"
    assert not (set(found[:20]) & set(found[20:])), "each once"


def test_nothing_starves_where_nobody_asks_or_it_was_just_seen() -> None:
    idle = field([[50.0, 0.0]], [[20.0, 300.0]], [0.0], 100.0)
    assert len(chosen(idle, NOW, 10)) == 0
    seen = field([[50.0, 0.0]] * 2, [[20.0, 300.0]] * 2, [1.0, 1.0], [[5.0, 5.0], [5.0, 100.0]])
    assert int(chosen(seen, NOW, 2)[0]) == 3


def test_the_same_field_gives_the_same_list() -> None:
    of = field([[5.0] * 4] * 50, [[20.0] * 4] * 50, [1.0] * 50)
    assert chosen(of, NOW, 30).tolist() == chosen(of, NOW, 30).tolist()
