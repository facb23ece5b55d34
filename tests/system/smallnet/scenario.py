"""What happens, read from a file of `scenarios/`, and how long each path is at any time of it.

An event changes the paths of an arm, `where`, or a machine. Keys of `where`, all optional: provider, region, family, networks
(a list of numbers, or `{every: N, from: M}`). What changes: `rtt` (`+80ms`, `25ms`), `jitter`, `loss` (`100%`), `bursts`
(chances per packet to go bad and to go good again), `pop`. `until` undoes it; `flap` does and undoes it in turn, after so long.
Machines: `cut: POP` (its packets go nowhere), `kill: collector`, `start: collector`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from .globe import PROVIDERS, Arm, Way, World

FOLDER = Path(__file__).parent.parent / "scenarios"
PATH_KEYS = {"rtt", "jitter", "loss", "bursts", "pop"}
MACHINE_KEYS = {"cut", "kill", "start"}


class Turn(NamedTuple):
    """At `at` seconds after the warm-up an event begins or ends."""

    at: float
    event: int
    begins: bool


@dataclass(frozen=True)
class Event:
    at: float
    until: float | None
    flap: float | None
    where: Mapping[str, Any]
    change: Mapping[str, Any]
    machine: tuple[str, str] | None

    def turns(self, number: int, lasts: float) -> Iterator[Turn]:
        end = lasts if self.until is None else self.until
        step, begins, at = self.flap or max(end - self.at, 1.0), True, self.at
        while at < end:
            yield Turn(at, number, begins)
            begins, at = not begins, at + step
        if not begins and end < lasts:
            yield Turn(end, number, False)

    def touches(self, arm: Arm, world: World) -> bool:
        where = self.where
        networks = where.get("networks")
        if isinstance(networks, dict):
            if arm.network % networks["every"] != networks.get("from", 0):
                return False
        elif networks is not None and arm.network not in networks:
            return False
        return bool(
            where.get("provider", PROVIDERS[arm.provider].name) == PROVIDERS[arm.provider].name
            and where.get("region", world.networks[arm.network].region) == world.networks[arm.network].region
            and where.get("family", arm.family) == arm.family
        )

    def changed(self, path: Way) -> Way:
        what = dict(self.change)
        rtt = what.pop("rtt", None)
        if rtt is not None:
            what["rtt"] = path.rtt + _number(rtt) if str(rtt).startswith("+") else _number(rtt)
        if "jitter" in what:
            what["jitter"] = _number(what["jitter"])
        if "loss" in what:
            what["loss"] = _number(what["loss"])
        if "bursts" in what:
            what["bursts"] = tuple(_number(chance) for chance in what["bursts"])
        return path.changed(**what)


@dataclass(frozen=True)
class Scenario:
    """`warm`: seconds that agents measure before anything happens; `lasts`: seconds from then on."""

    name: str
    about: str
    warm: float
    lasts: float
    events: tuple[Event, ...]
    families: tuple[int, ...] = (4,)
    networks: int = 100
    seen: dict[frozenset[int], dict[Arm, Way]] = field(default_factory=dict, compare=False)

    @cached_property
    def turns(self) -> list[Turn]:
        """What begins and ends, in its order."""
        return sorted(turn for number, event in enumerate(self.events) for turn in event.turns(number, self.lasts))

    @cached_property
    def _holding(self) -> list[frozenset[int]]:
        """The numbers of the events that hold before the first turn, and after each."""
        made = [frozenset[int]()]
        for turn in self.turns:
            made.append(made[-1] | {turn.event} if turn.begins else made[-1] - {turn.event})
        return made

    def under_way(self, at: float) -> frozenset[int]:
        """The numbers of the events that hold at a time."""
        return self._holding[bisect_right(self.turns, at, key=lambda turn: turn.at)]

    def paths(self, world: World, at: float) -> dict[Arm, Way]:
        """Every path as it is at a time."""
        return self.paths_under(world, self.under_way(at))

    def paths_under(self, world: World, holding: frozenset[int]) -> dict[Arm, Way]:
        if holding not in self.seen:
            made = dict(world.paths)
            for number in sorted(holding):
                event = self.events[number]
                if event.change:
                    made |= {arm: event.changed(path) for arm, path in made.items() if event.touches(arm, world)}
            self.seen[holding] = made
        return self.seen[holding]


def load(name: str) -> Scenario:
    """A scenario by its file's name; ValueError for what it doesn't know."""
    tree = yaml.safe_load((FOLDER / f"{name}.yaml").read_text())
    events = tuple(_event(each) for each in tree["events"])
    plain = {key: tree[key] for key in ("families", "networks") if key in tree}
    if "families" in plain:
        plain["families"] = tuple(plain["families"])
    return Scenario(name, tree["about"], _number(tree["warm"]), _number(tree["lasts"]), events, **plain)


def _event(tree: Mapping[str, Any]) -> Event:
    unknown = tree.keys() - PATH_KEYS - MACHINE_KEYS - {"at", "until", "flap", "where"}
    if unknown:
        raise ValueError(f"unknown key {sorted(unknown)[0]!r}")
    machine = [(key, str(tree[key])) for key in MACHINE_KEYS if key in tree]
    change = {key: tree[key] for key in PATH_KEYS if key in tree}
    until, flap = (None if key not in tree else _number(tree[key]) for key in ("until", "flap"))
    return Event(_number(tree["at"]), until, flap, tree.get("where", {}), change, machine[0] if machine else None)


def _number(text: object) -> float:
    """`30s`, `+80ms`, `1.5%`, `10m`, or a plain number: seconds, milliseconds, a share."""
    words = str(text).strip()
    for unit, worth in (("ms", 1.0), ("s", 1.0), ("m", 60.0), ("%", 0.01)):
        if words.endswith(unit):
            return float(words[: -len(unit)]) * worth
    return float(words)
