"""What agents are told to probe, kept up with what is known: doubts after each body of samples, a plan after each round."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from ipaddress import ip_address
from typing import Any

from edgedns.control.loop import Control
from edgedns.control.picking import pick
from edgedns.control.questions import QuestionRefused, Questions
from edgedns.control.wanted import Wanted
from edgedns.probe.collector import Outcome
from edgedns.special import SPECIAL
from edgedns.steer.probing.worth import together

REST = 9.0  # times what a look took
CLOCK_SET = 60.0  # no look takes that long: the clock was set back


class Wishing:
    """`after` and `tick` belong in the control's turn; what the admin side calls does not wait for one.

    `together`: how many probes of all agents reach one address in a period, at most.
    """

    def __init__(self, control: Control) -> None:
        self.wanted = Wanted()
        self.questions = Questions()
        self._control = control
        self.together = 1
        self._unlooked = False
        self._look_at = 0.0
        self._round = -1

    def after(self, outcome: Outcome, now: float) -> None:
        """Follow a body of samples that was just ingested: whom they were of, and what they leave in doubt."""
        self.wanted.places.note(outcome)
        self._unlooked = True
        self._look(now)

    def tick(self, now: float) -> None:
        """To be called often: once a round, pick what is worth probing where agents have room."""
        self._look(now)
        number = int(now // self._control.world.rules.round)
        if number != self._round:
            self._round = number
            seen = self._control.measured.health.seen()
            self.together = together(seen, now, self.together)
            pick(self.wanted, seen, self._control.force, self._control.asked, now)

    def _look(self, now: float) -> None:
        """For doubts; of many paths that takes a while, and then less often: a tenth of the time at most."""
        if self._unlooked and self.wanted.vantages and not 0 < self._look_at - now < CLOCK_SET:
            begun = time.monotonic()
            self.wanted.doubt(self._control.measured.health.wants(now), now)
            self._unlooked, self._look_at = False, now + REST * (time.monotonic() - begun)

    def take(self, vantage: str, now: float) -> list[dict[str, Any]]:
        """What a vantage is to probe now: people first, they wait."""
        return [*self.questions.take(vantage, now), *self.wanted.take(vantage, now)]

    def ask(
        self, address: str, method: str, rounds: int, about: Mapping[str, Any], bars: Callable[[bytes], bool], now: float
    ) -> dict[str, Any]:
        """A person's question to every vantage that asks for work; QuestionRefused says why not. `bars`: who opted out."""
        sources = {name: self.wanted.vantages[name].sources for name in self.wanted.present(now)}
        if not sources:
            raise QuestionRefused("no vantage is connected: is `edgedns probe --collector` running anywhere?")
        if bars(ip_address(address).packed):
            raise QuestionRefused(f"{address} is on the opt-out list")
        if not self._allows(address):
            raise QuestionRefused(f"{address} is nobody's network by the special-purpose registries, and no target")
        return self.questions.ask(address, method, rounds, sources, about, now)

    def _allows(self, address: str) -> bool:
        packed = ip_address(address).packed
        if packed not in SPECIAL:
            return True
        network = self._control.collector.world.network_of(packed)
        return network is not None and self.wanted.places.holds(network, address)
