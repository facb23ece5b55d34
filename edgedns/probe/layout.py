"""The probes of one period: their order, how many packets each has, and whose turn it is where a network has too many.

Pure. A network whose targets together would get more than its ceiling is not asked more slowly as a whole: its targets
take turns, period by period, each with all of its providers, so that providers are compared at the same places.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from edgedns.probe.budget import burst_for, period_for
from edgedns.probe.source import Source
from edgedns.probe.targets import Target


@dataclass(frozen=True, slots=True)
class Plan:
    """How one agent probes; seconds. Packets a second: `per_address` to one host, `per_network` to all hosts of a network

    (None: five times as many as to one), `ceiling` in all.
    """

    vantage: str
    every: float = 10.0
    timeout: float = 1.0
    burst: int = 3
    gap: float = 0.05
    confirmations: int = 4
    confirm_gap: float = 0.2
    per_address: float = 1.0
    ceiling: float = 1000.0
    per_network: float | None = None

    @property
    def of_network(self) -> float:
        return 5 * self.per_address if self.per_network is None else self.per_network


class Arm(NamedTuple):
    """A target through a provider: packets a probe, and that it is asked in one of `turns` periods, the one numbered `turn`."""

    target: Target
    source: Source
    burst: int
    turn: int
    turns: int


class Layout(NamedTuple):
    """The arms of one period (seconds) in their order."""

    period: float
    arms: tuple[Arm, ...]


def laid_out(plan: Plan, sources: Sequence[Source], targets: Sequence[Target], together: int = 0) -> Layout:
    """Where each target stands in the order is where it stands among `targets`; those of no source's family are left out.

    `together`: how many probes of all agents reach one address in a period, at most; 0 where only ours are known of.
    """
    pairs = _spread([(target, _of_family(sources, target)) for target in targets])
    if not pairs:
        return Layout(plan.every, ())
    burst_of = _bursts(plan, pairs, together)
    turn_of = _turns(plan, pairs, burst_of)
    arms = tuple(Arm(target, source, burst_of[target.endpoint.host], *turn_of[target]) for target, source in pairs)
    paths_of = {host: max(paths, together) for host, paths in Counter(arm.target.endpoint.host for arm in arms).items()}
    packets = math.ceil(sum(arm.burst / arm.turns for arm in arms))
    return Layout(period_for(paths_of, packets, plan.every, plan.per_address, plan.ceiling), arms)


def _of_family(sources: Sequence[Source], target: Target) -> list[Source]:
    family = 6 if ":" in target.endpoint.host else 4
    return [source for source in sources if source.family == family]


def _spread(wanted: Sequence[tuple[Target, list[Source]]]) -> list[tuple[Target, Source]]:
    """The order of one period: the probes of one target lie far apart, and each short stretch meets every provider."""
    placed: list[tuple[int, int, Target, Source]] = []
    for number, (target, sources) in enumerate(wanted):
        for arm, source in enumerate(sources):
            turn = (number + arm * len(wanted) // len(sources)) % len(wanted)
            placed.append((turn, arm, target, source))
    placed.sort(key=lambda place: place[:2])
    return [(target, source) for _, _, target, source in placed]


def _bursts(plan: Plan, pairs: Sequence[tuple[Target, Source]], together: int) -> dict[str, int]:
    """Packets a probe, by host."""
    kept = plan.confirmations + 1  # and a witness
    paths_of = Counter(target.endpoint.host for target, _ in pairs)
    each = min(plan.per_address, plan.of_network)
    return {host: burst_for(max(paths, together), plan.every, each, plan.burst, kept) for host, paths in paths_of.items()}


def _turns(plan: Plan, pairs: Sequence[tuple[Target, Source]], burst_of: Mapping[str, int]) -> dict[Target, tuple[int, int]]:
    """(turn, turns) of each target: as few turns as keep the ceiling of its network, with room to look into a loss."""
    packets = Counter(target for target, _ in pairs)
    networks: dict[str, list[Target]] = {}
    for target in packets:
        networks.setdefault(target.network, []).append(target)
    room = plan.of_network * plan.every - plan.confirmations - 1
    turn_of: dict[Target, tuple[int, int]] = {}
    for targets in networks.values():
        most = max(packets[target] * burst_of[target.endpoint.host] for target in targets)
        turns = math.ceil(len(targets) / max(1, room // most))
        turn_of |= {target: (number % turns, turns) for number, target in enumerate(targets)}
    return turn_of
