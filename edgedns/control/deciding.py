"""What follows from a world, a table and all that happened since: the decisions that are to be published next."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal

from edgedns.control.measured import Measured, set_back
from edgedns.control.orders import Orders
from edgedns.control.plausible import Weights
from edgedns.control.schedule import Force
from edgedns.control.uplift import Gained
from edgedns.publish import CLOCK_SKEW
from edgedns.steer.deciding.decisions import Decisions
from edgedns.steer.deciding.policy import decide
from edgedns.steer.failure.checks import Checks

New = Literal["table", "shift", "nothing"]


@dataclass(slots=True)
class Deciding:
    """What is looked at beside the world and table; `asked` gives the networks that asked, and how often."""

    orders: Orders
    measured: Measured
    gained: Gained
    asked: Callable[[], Weights | None]
    checks: Checks = field(default_factory=Checks)

    def decided(self, force: Force, now: float) -> Force:
        """What is in force with failures, drains and prices as they are; nobody moves for a better time."""
        return replace(force, decisions=self.decisions(force, now, now))

    def from_table(self, force: Force, now: float) -> Force:
        """The same, from a new table and all else that is new with a round."""
        return replace(force, decisions=self.decisions(force, now, now, "table"))

    def sudden(self, force: Force, now: float) -> Force | None:
        """The same, away from paths that have got slower since the table was made; None where there are none."""
        if not self.measured.health.any_slower(force.table.at):
            return None
        return replace(force, decisions=self.decisions(force, now, now, "shift"))

    def decisions(self, force: Force, now: float, at: float, new: New = "nothing") -> Decisions:
        """What follows now, going on from the decisions in force; with drains as they are `at` a time."""
        rules, before = force.world.rules, force.decisions
        if before.table_at > now + CLOCK_SKEW:  # else no table would be newer until the clock has caught up
            before = set_back(before, now)
        ttl = max((record.ttl for zone in rules.zones.values() for record in zone.records), default=0)
        columns, states = force.world.compiled.columns, self.orders.states(rules, at)
        seen = force.table, self.measured.health, before, now, ttl, None, self.checks.failing
        asked, losing = (self.asked(), self.gained.losing) if new == "table" else (None, None)
        return decide(columns, rules.providers, states, *seen, asked, losing, sudden=new == "shift")
