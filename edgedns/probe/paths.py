"""What an agent goes by: paths, a provider to a target each, in the order of a period; and what it gives: samples, counts."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from edgedns.probe.layout import Layout
from edgedns.probe.measure import Line
from edgedns.probe.targets import Target

K = TypeVar("K")
T = TypeVar("T")


class Sample(NamedTuple):
    """What one probe found; `at` in Unix seconds, `rtt_ms` None where it was lost."""

    at: float
    vantage: str
    provider: str
    target: Target
    rtt_ms: float | None

    def line(self) -> bytes:
        """One line for POST /v1/samples, without its newline."""
        fields: dict[str, object] = {"at": round(self.at, 3), "vantage": self.vantage, "provider": self.provider}
        if self.target.address:
            fields["address"] = self.target.address
        else:
            fields |= {"asn": self.target.asn, "family": self.target.family}
        if self.target.zone:
            fields["name"] = self.target.zone
        if self.rtt_ms is None:
            fields["lost"] = True
        else:
            fields["rtt_ms"] = round(self.rtt_ms, 3)
        return json.dumps(fields, separators=(",", ":")).encode()


@dataclass(slots=True)
class Counts:
    """Plain sums. probes = replied + lost + unsent + those under way; packets held back or refused are beside it."""

    probes: int = 0
    replied: int = 0
    lost: int = 0
    unsent: int = 0
    confirmations: int = 0
    packets: int = 0
    packets_held: int = 0
    packets_failed: int = 0
    behind: int = 0

    def since(self, before: Counts) -> Counts:
        return Counts(*(getattr(self, name) - getattr(before, name) for name in self.__slots__))

    def copy(self) -> Counts:
        return self.since(Counts())


@dataclass(slots=True, eq=False)
class Path:
    """One provider to one target, since a round; asked in one of `turns` rounds. Once it is `gone` no packet leaves on it."""

    target: Target
    provider: str
    network: str
    line: Line
    burst: int
    turn: int
    turns: int
    since: int
    gone: bool = False

    @property
    def arm(self) -> tuple[str, str]:
        return self.network, self.provider


class Paths:
    """The paths of one layout, in their order, and by network, target, and host."""

    def __init__(self, layout: Layout, paths: tuple[Path, ...], targets: int) -> None:
        self.period = layout.period
        self.all = paths
        self.of_arm = _by(paths, lambda path: path.arm)
        self.of_target = _by(paths, lambda path: path.target)
        self.of_host = {(path.target.endpoint.host, path.provider): path for path in reversed(paths)}
        self.of_whom = _by(tuple(self.of_target), lambda target: target.whom)
        self.unreachable = targets - len(self.of_target)
        self.crowd = max(Counter(path.target.endpoint.host for path in paths).values(), default=0)
        self.packets = sum(path.burst / path.turns for path in paths)


def _by(items: Sequence[T], key: Callable[[T], K]) -> Mapping[K, list[T]]:
    found: dict[K, list[T]] = {}
    for item in items:
        found.setdefault(key(item), []).append(item)
    return found
