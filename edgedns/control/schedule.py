"""What is published: the overlay that holds now, those that workers turn to by themselves, and the evidence beside them."""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgedns.engine.overlay import compile_overlay
from edgedns.engine.world import World
from edgedns.publish import Publisher, Step
from edgedns.steer.deciding.decisions import Decisions
from edgedns.steer.table.wan import WanTable


@dataclass(frozen=True)
class Force:
    """What is in force, replaced as a whole: a world, the decisions in it, the table they came from.

    `taken_at` is when that table was taken (Unix seconds), 0 while there never was one with samples. `closed` are the
    decisions that were in force at the end of the last round, None before there was one.
    """

    world: World
    decisions: Decisions
    table: WanTable
    taken_at: float = 0.0
    closed: Decisions | None = None


Later = Callable[[float], Decisions]
Sections = Mapping[str, NDArray[Any]]


class Scheduler:
    """Makes what a root refers to and hands it to the publisher."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher
        self._table: tuple[WanTable | None, str] = (None, "")

    def schedule(self, force: Force, fresh_until: float, ends: Set[float], later: Later, now: float) -> tuple[Step, ...]:
        """What holds now, from each end of a drain on (`later` decides for such a time) and once nothing is fresh."""
        times = sorted(ends | ({fresh_until} if fresh_until > now else set()))
        steps = [Step(0.0, self._overlay(force.world, force.decisions, nominal=fresh_until <= now))]
        decisions = force.decisions
        for at in times:
            if at in ends:
                decisions = later(at)
            steps.append(Step(at, self._overlay(force.world, decisions, nominal=at >= fresh_until)))
        return tuple(steps)

    def _overlay(self, world: World, decisions: Decisions, nominal: bool) -> str:
        content = compile_overlay(
            world.compiled.columns, decisions, list(world.rules.providers), world.ground.spreader, world.salt, nominal
        )
        return self._publisher.put("overlay", content)

    def evidence(self, kind: str, sections: Sections) -> str:
        """State that belongs to a root, kept as a file beside it."""
        return self._publisher.put(kind, _packed(sections))

    def table(self, table: WanTable) -> str:
        """The table as evidence. One that is as it was is not packed again: a failover waits for no 90 MB.

        Named by its time and checksum: a digest of 90 MB takes five times as long.
        """
        last, name = self._table
        if table is not last or not self._publisher.stands(name):
            content = _packed(table.to_sections())
            key = f"{int(table.at * 1000):016x}{zlib.crc32(content):08x}"
            self._table = table, self._publisher.put("table", content, key)
        return self._table[1]


def _packed(sections: Sections) -> memoryview:
    content = io.BytesIO()
    np.savez(content, **sections)  # type: ignore[arg-type]
    return content.getbuffer()


def fresh_until(taken_at: float, fresh_for: float, published: float, now: float) -> float:
    """Until when a table taken at `taken_at` counts as fresh: as `published` before, unless that is a tenth short.

    So a root is not replaced each round for the sake of a few seconds. 0 while there is no table.
    """
    if not taken_at:
        return 0.0
    wanted = taken_at + fresh_for
    stays = published <= wanted < published + fresh_for / 10 and published - now > fresh_for / 2
    return published if stays else wanted
