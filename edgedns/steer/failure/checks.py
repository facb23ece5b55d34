"""What the rules' `check:` results say: up or down, by thresholds, IPv4 and IPv6 apart.

Pure: probe/check.py asks, this counts. A family of a provider is down while any of its addresses is, since each answer
gives all of them. An address that was never checked is up: only failures take one out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, NamedTuple

from edgedns.model import Check, Family, Provider

Failing = frozenset[tuple[str, Family]]


class Target(NamedTuple):
    """One address of a provider (packed), which is checked by itself."""

    provider: str
    address: bytes

    @property
    def family(self) -> Family:
        return 4 if len(self.address) == 4 else 6

    @property
    def text(self) -> str:
        return str(ip_address(self.address))


class Change(NamedTuple):
    """A provider's family that went down, came back, or (None) can't be checked from here, and the result that says so."""

    provider: str
    family: Family
    down: bool | None
    note: str

    @property
    def text(self) -> str:
        """As the log says it."""
        state = {True: "is down", False: "is up again", None: "can't be checked from here"}[self.down]
        return f"check: {self.provider} {state} over IPv{self.family}: {self.note}"


@dataclass(slots=True)
class Standing:
    """Where one address stands: `against` counts the results in a row that speak against its state."""

    down: bool = False
    against: int = 0
    checked: float = 0.0
    note: str = ""


def targets_of(providers: Mapping[str, Provider]) -> dict[Target, Check]:
    """Every address that the rules want checked, and how."""
    return {
        Target(name, address): provider.check
        for name, provider in providers.items()
        if provider.check is not None
        for address in (*provider.v4, *provider.v6)
    }


class Checks:
    """The standing of every address that is checked."""

    def __init__(self) -> None:
        self._checks: dict[Target, Check] = {}
        self._standing: dict[Target, Standing] = {}

    def follow(self, providers: Mapping[str, Provider]) -> None:
        """From now on these are checked; addresses that were before keep their standing, others are forgotten."""
        self._checks = targets_of(providers)
        self._standing = {target: self._standing.get(target) or Standing() for target in self._checks}

    def observe(self, target: Target, good: bool | None, note: str, at: float) -> Change | None:
        """Count one result (`at` in Unix seconds); the Change where it tips the provider's family.

        `good` None, that this host could not ask, counts nothing and is told once. Unknown targets count nothing.
        """
        check = self._checks.get(target)
        if check is None:
            return None
        standing = self._standing[target]
        if good is None:
            known, standing.note = standing.note, note
            return Change(target.provider, target.family, None, f"{target.text}: {note}") if known != note else None
        standing.checked, standing.note = at, note
        standing.against = standing.against + 1 if good == standing.down else 0
        if standing.against < (check.up_after if standing.down else check.down_after):
            return None
        before = self.failing
        standing.down, standing.against = not standing.down, 0
        if self.failing == before:
            return None
        return Change(target.provider, target.family, standing.down, f"{target.text}: {note}")

    @property
    def failing(self) -> Failing:
        """The (provider, family) pairs that are down."""
        return frozenset((target.provider, target.family) for target, each in self._standing.items() if each.down)

    @property
    def checked(self) -> Failing:
        """The (provider, family) pairs that are checked at all."""
        return frozenset((target.provider, target.family) for target in self._checks)

    def told(self, provider: str) -> list[dict[str, Any]]:
        """Each checked address of a provider, as status shows it; `checked` is null before its first result."""
        return [
            {"address": target.text, "down": each.down, "checked": each.checked or None, "note": each.note}
            for target, each in self._standing.items()
            if target.provider == provider
        ]

    def to_json(self) -> list[list[Any]]:
        """What a restart goes on from."""
        return [
            [target.provider, target.address.hex(), each.down, each.against, each.checked, each.note]
            for target, each in self._standing.items()
        ]

    @classmethod
    def from_json(cls, plain: Any) -> Checks:
        """The standings that `to_json` gave, of use after `follow`; ValueError when they are not."""
        checks = cls()
        try:
            for provider, address, down, against, checked, note in plain:
                standing = Standing(bool(down), int(against), float(checked), str(note))
                checks._standing[Target(str(provider), bytes.fromhex(address))] = standing
        except TypeError as error:
            raise ValueError(f"these are no standings of checks: {error}") from error
        return checks
