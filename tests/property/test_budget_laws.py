"""Nobody gets more than the ceilings say in any ten seconds, however probes fall: one address, one network, all together."""

from __future__ import annotations

from collections import Counter
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from edgedns.probe.budget import WINDOW, Budget
from edgedns.probe.layout import Plan, laid_out
from edgedns.probe.source import Source
from edgedns.probe.targets import Target, target_of

RATES = st.floats(0.01, 30)
# Pauses are eighths of a second: sums of such floats are exact, so that ten seconds are ten seconds.
PACKETS = st.lists(st.tuples(st.integers(0, 24), st.integers(0, 5)), min_size=1, max_size=400)


def most_in_a_window(times: list[float], window: float = WINDOW) -> int:
    """The most that lie in any half-open window."""
    return max((sum(at <= other < at + window for other in times) for at in times), default=0)


@settings(max_examples=150, deadline=None)
@given(RATES, RATES, st.floats(1, 30), PACKETS)
def test_no_ceiling_is_ever_passed(each: float, network: float, ceiling: float, packets: list[tuple[int, int]]) -> None:
    budget = Budget(each, ceiling, network)
    now, sent = 1000.0, []
    for pause, host in packets:
        now += pause / 8
        if budget.take(f"host {host}", now, f"network {host % 2}"):
            sent.append((now, host))
        if pause == 24:
            budget.forget(now)
    assert most_in_a_window([at for at, _ in sent]) <= ceiling * WINDOW
    for host in range(6):
        span = max(WINDOW, 1 / each)
        assert most_in_a_window([at for at, whom in sent if whom == host], span) <= each * span + 1e-9
    for half in range(2):
        span = max(WINDOW, 1 / network)
        assert most_in_a_window([at for at, whom in sent if whom % 2 == half], span) <= network * span + 1e-9


@given(st.integers(1, 40), st.floats(0.5, 4))
def test_what_is_refused_costs_nothing(refusals: int, each: float) -> None:
    """A host that asks too much takes nothing away from the others of its network."""
    budget = Budget(per_address=0.1, ceiling=1000, per_network=each)
    assert budget.take("greedy", 0.0, "network")
    assert not any(budget.take("greedy", 0.0, "network") for _ in range(refusals))
    others = sum(budget.take(f"host {number}", 0.0, "network") for number in range(100))
    assert others == int(each * WINDOW) - 1


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=60), st.integers(1, 8), st.floats(0.5, 3), st.integers(0, 1 << 32))
def test_the_schedule_keeps_the_ceilings_without_holding_packets_back(
    places: list[int], providers: int, per_network: float, seed: int
) -> None:
    """Where one probe of a target through all providers fits the network's ceiling at all."""
    plan = Plan("fra1", per_address=1.0, per_network=per_network, ceiling=1e6, confirmations=0)
    sources = [Source(f"p{number}", f"127.1.0.{number + 1}") for number in range(providers)]
    targets: list[Target] = [
        target_of({"address": f"203.{place}.113.{number + 1}"}) for number, place in enumerate(places)
    ]
    Random(seed).shuffle(targets)
    layout = laid_out(plan, sources, targets)
    assert {arm.target for arm in layout.arms} == set(targets)
    turns = max(arm.turns for arm in layout.arms)
    for turn in range(turns):
        packets: Counter[str] = Counter()
        for arm in layout.arms:
            packets[arm.target.network] += arm.burst * (turn % arm.turns == arm.turn)
        if providers <= per_network * 10 - 1:
            assert max(packets.values()) <= per_network * layout.period
    once = [arm for arm in layout.arms if sum(turn % arm.turns == arm.turn for turn in range(arm.turns)) == 1]
    assert len(once) == len(targets) * providers
