"""How long each path of the demo's Internet takes: base RTT, daily drift, jitter, loss, and what events add.

Pure: `now` and the dice are arguments. The same script and networks make the same Internet.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from random import Random

from edgedns.demo.networks import Network
from edgedns.demo.script import Event, Script, Transit

DAY = 86400.0
TIE_ONE_IN = 8
TIE_MARGIN = 1.01


@dataclass(slots=True)
class Path:
    """One provider to one network; `add_ms` and `loss` are as the events now have it."""

    base_ms: float
    phase: float
    add_ms: float = 0.0
    loss: float = 0.0


class Internet:
    """All paths: `paths[provider][network]`, in the script's and the networks' order."""

    def __init__(self, script: Script, networks: Sequence[Network]) -> None:
        self.script = script
        self.networks = tuple(networks)
        columns = [_column(script, network) for network in networks]
        self.paths = [[column[row] for column in columns] for row in range(len(script.providers))]
        self.apply(())

    def apply(self, events: Iterable[Event]) -> None:
        """From now on exactly these events are under way."""
        under_way = tuple(events)
        for transit, row in zip(self.script.providers, self.paths, strict=True):
            for network, path in zip(self.networks, row, strict=True):
                here = [event for event in under_way if event.provider in ("", transit.name) and event.touches(network)]
                path.add_ms = sum(event.add_ms for event in here)
                path.loss = max([self.script.loss, *(event.loss for event in here)])

    def delay_ms(self, path: Path, now: float, dice: Random) -> float | None:
        """What one packet's round trip takes at Unix time `now`; None if it is lost."""
        if path.loss and dice.random() < path.loss:
            return None
        swing = 1 + self.script.drift * math.sin(2 * math.pi * (now / DAY + path.phase))
        jitter = dice.expovariate(1 / self.script.jitter_ms) if self.script.jitter_ms else 0.0
        return path.base_ms * swing + path.add_ms + jitter

    def touched(self, event: Event) -> list[Network]:
        return [network for network in self.networks if event.touches(network)]


def _column(script: Script, network: Network) -> list[Path]:
    """The paths of all providers to one network: the country's distance is shared, the rest is each path's own."""
    distance = Random(f"{script.seed}/{network.country}").uniform(0.8, 1.25)
    phase = Random(f"{script.seed}/{network.asn}/phase").random()
    rtts = [_rtt(script, transit, network) * distance for transit in script.providers]
    if len(rtts) > 1 and Random(f"{script.seed}/{network.asn}/tie").randrange(TIE_ONE_IN) == 0:
        first, second = sorted(range(len(rtts)), key=rtts.__getitem__)[:2]
        rtts[second] = rtts[first] * TIE_MARGIN
    return [Path(rtt, phase) for rtt in rtts]


def _rtt(script: Script, transit: Transit, network: Network) -> float:
    """Its continent's figure, off by what the country and the network itself have of their own."""
    country = Random(f"{script.seed}/{network.country}/{transit.name}").gauss(0, script.spread)
    own = Random(f"{script.seed}/{network.asn}/{transit.name}").gauss(0, script.spread / 2)
    most = 2.5 * script.spread
    return transit.rtt_ms[network.continent] * math.exp(max(-most, min(most, country + own)))
