"""Bits per second that an answered query stands for, fitted from what providers were measured to carry (POST /v1/load)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

HALF_LIFE = 1800.0
VALID = 86400.0
TRUST = 0.25


class Load(NamedTuple):
    """What one provider carried, in bits per second, at a time (Unix seconds)."""

    provider: str
    bps: float
    at: float


@dataclass
class Fit:
    """Decayed sums by provider: bits per second, the queries a second that were answered with it then, and how many of both.

    `at` is when loads last came.
    """

    sums: dict[str, tuple[float, float, float]] = field(default_factory=dict)
    at: float = 0.0

    def take(self, loads: Sequence[Load], queries: Mapping[str, float], now: float) -> None:
        """Pair measured loads with the queries a second that each provider is given."""
        keep = 0.5 ** (max(now - self.at, 0.0) / HALF_LIFE) if self.at else 0.0
        self.sums = {name: (bps * keep, asked * keep, many * keep) for name, (bps, asked, many) in self.sums.items()}
        for load in loads:
            bps, asked, many = self.sums.get(load.provider, (0.0, 0.0, 0.0))
            self.sums[load.provider] = (bps + load.bps, asked + queries.get(load.provider, 0.0), many + 1.0)
        self.at = now

    def bits_per_query(self, provider: str, now: float) -> float | None:
        """What a query given to this provider brings it; None where nobody measured in the last day.

        Its own ratio, pulled towards that of all: by as much as a quarter of a provider's usual queries weighs. So a load that
        no query explains makes its queries dearer, and a provider that nobody measured has what is usual.
        """
        means = {name: (bps / many, asked / many) for name, (bps, asked, many) in self.sums.items() if many > 1e-6}
        whole = sum(asked for _, asked in means.values())
        if whole <= 0.0 or now - self.at > VALID:
            return None
        usual = sum(bps for bps, _ in means.values()) / whole
        trust = TRUST * whole / len(means)
        bps, asked = means.get(provider, (0.0, 0.0))
        ratio = (bps + usual * trust) / (asked + trust)
        return ratio if ratio > 0.0 else None

    def to_json(self) -> dict[str, Any]:
        return {"at": self.at, "sums": {name: list(sums) for name, sums in self.sums.items()}}

    @classmethod
    def from_json(cls, plain: Any) -> Fit:
        """What `to_json` gave; ValueError when it is not that."""
        try:
            sums = {str(name): (float(a), float(b), float(c)) for name, (a, b, c) in plain["sums"].items()}
            return cls(sums, float(plain["at"]))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"not the fit of loads: {error!r}") from error
