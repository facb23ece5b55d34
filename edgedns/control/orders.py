"""Operators' orders: pins and drains, kept in the state directory until they end."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from edgedns.dns import name as names
from edgedns.errors import EdgednsError
from edgedns.model import Override, RuleSet, State
from edgedns.serve.orders import OrderError, override_json, parse_override
from edgedns.store.local import LocalStore

MOST = 200
FILE = "overrides"


class Orders:
    """The orders in force, in the order they were given."""

    def __init__(self, store: LocalStore, log: Callable[[str], None]) -> None:
        self.all: list[Override] = []
        self._store = store
        self._log = log

    def restore(self, now: float) -> None:
        """Take up what was kept; an entry that can't be read is reported and left out."""
        try:
            kept = self._store.load_json(FILE) or []
            self.all = [one for one in map(self._restored, kept) if one is not None and not _ended(one, now)]
        except (EdgednsError, TypeError) as error:
            self._log(f"the overrides that were kept can't be used: {error}")

    def _restored(self, plain: Any) -> Override | None:
        try:
            body = {key: value for key, value in plain.items() if key not in ("id", "created")}
            return replace(parse_override(body), id=str(plain["id"]), created=float(plain["created"]))
        except (EdgednsError, AttributeError, KeyError, TypeError, ValueError) as error:
            self._log(f"an override that was kept can't be used: {error!r}")
            return None

    def completed(self, order: Override, rules: RuleSet, now: float) -> Override:
        """A new order with its id and time; OrderError when it can't be followed."""
        if order.provider not in rules.providers:
            raise OrderError(f"there is no provider {order.provider!r}; there are {', '.join(rules.providers)}")
        if _ended(order, now):
            raise OrderError("'until' has passed already")
        if order.kind == "pin" and not _steers(rules, order.name):
            raise OrderError(f"no zone steers the name {order.name!r}")
        unknown = [name for name in order.match.networks if name not in rules.networks] if order.match else []
        if unknown:
            raise OrderError(f"there is no network {unknown[0]!r} in the rules")
        if len(self.all) >= MOST:
            raise OrderError(f"there are {MOST} overrides already; end some of them first")
        return replace(order, id=secrets.token_hex(4), created=now)

    def replace_with(self, orders: list[Override]) -> None:
        """Keep these from now on; SourceError, and nothing changes, when they can't be saved."""
        self._store.save_json(FILE, [override_json(one) for one in orders])
        self.all = orders

    def expire(self, now: float) -> bool:
        """Drop those that have ended; False when there were none."""
        left = [one for one in self.all if not _ended(one, now)]
        if len(left) == len(self.all):
            return False
        ended = [one for one in self.all if one not in left]
        self.all = left
        for one in ended:
            self._log(f"the {one.kind} {one.id} of {one.provider} has ended")
        self.replace_with(left)
        return True

    def pins(self, rules: RuleSet, orders: Iterable[Override] | None = None) -> list[Override]:
        """The pins, of these orders or all, that can be followed: since they were given a provider may have left the rules."""
        return [one for one in (self.all if orders is None else orders) if one.kind == "pin" and _can_follow(one, rules)]

    def states(self, rules: RuleSet, at: float) -> dict[str, State]:
        """Each provider's state by declaration and drains, as it is at a time."""
        states: dict[str, State] = {name: provider.state for name, provider in rules.providers.items()}
        for one in self.all:
            if one.kind == "drain" and not _ended(one, at) and states.get(one.provider) == "up":
                states[one.provider] = "drain"
        return states

    def drain_ends(self, now: float) -> set[float]:
        """When drains end by themselves."""
        return {one.until for one in self.all if one.kind == "drain" and one.until is not None and one.until > now}


def _ended(order: Override, at: float) -> bool:
    return order.until is not None and order.until <= at


def _can_follow(order: Override, rules: RuleSet) -> bool:
    networks = order.match.networks if order.match else ()
    return order.provider in rules.providers and all(name in rules.networks for name in networks)


def _steers(rules: RuleSet, text: str) -> bool:
    try:
        wanted = names.fold(names.from_text(text))
    except ValueError:
        return False
    return any(record.name == wanted for zone in rules.zones.values() for record in zone.records)
