"""Caps kept: from what is asked and carried to prices, beside the turns, since that takes up to seconds.

`Caps.observe` counts each round; `Caps.problem` is asked for in turn, `CapsProblem.solve` runs beside, and `Caps.take` gives
the decisions that carry the new prices.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgedns import metrics
from edgedns.control.schedule import Force
from edgedns.engine.demand import (
    Demand,
    Rates,
    RuleInForce,
    answers_by_provider,
    counts_by_network,
    demand_given,
    demand_of,
    rules_in_force,
)
from edgedns.engine.forecast import Forecast, by_network, parse
from edgedns.engine.lookup import client_key, walk
from edgedns.engine.snapshot import View, Zone
from edgedns.engine.tally import TCP, TYPE_PLACE, V6
from edgedns.errors import EdgednsError, SourceError
from edgedns.model import Family, Provider, State
from edgedns.plainfile import read_plain
from edgedns.steer.caps.capacity import HEAVIEST, Limits, Plan, Prices, Splits
from edgedns.steer.caps.loads import Fit, Load
from edgedns.steer.caps.spill import absences, only_plans, pairs, plan_prices, with_plan
from edgedns.steer.deciding.decisions import Column, Decisions
from edgedns.steer.failure.checks import Failing
from edgedns.steer.failure.health import Health
from edgedns.steer.table.rows import Floats
from edgedns.store.local import LocalStore

# Below so many steered queries a round nobody's transit is filled from here, and shares are no shares.
QUERIES_LEAST = 1000
FEW = f"fewer than {QUERIES_LEAST} steered queries a round"
EVERY = 60.0
SOON = 10.0
HEAVIEST_AHEAD = 1500
LEAST = 1e-9
FILE = "loads"
LARGEST = 64 << 20  # of a file of demand: two million lines


@dataclass(frozen=True)
class Account:
    """How caps stand, in queries or bits a second. state: none (declared), idle, kept (no price needed), priced or unmet."""

    state: str = "none"
    note: str = ""
    names: tuple[str, ...] = ()
    cap: tuple[float, ...] = ()
    load: tuple[float, ...] = ()
    price: tuple[float, ...] = ()
    unmet: tuple[float, ...] = ()
    used: float = 0.0
    total: float = 0.0
    unit: str = "queries"

    def told(self) -> dict[str, Any]:
        """As status shows it; a provider whose cap is not in force has null for it."""
        rows = zip(self.names, self.cap, self.load, self.price, self.unmet, strict=True)
        providers = [
            {
                "provider": name,
                "cap": round(cap, 3) if np.isfinite(cap) else None,
                "load": round(load, 3),
                "price_ms": round(price, 3),
                "over": round(over, 3),
            }
            for name, cap, load, price, over in rows
        ]
        about = {"state": self.state, "note": self.note, "unit": self.unit, "total": round(self.total, 3)}
        return {**about, "providers": providers}


@dataclass(frozen=True)
class Solved:
    """New prices with the rows that they don't put right alone, the first for what is up now, and how that stands."""

    plans: Sequence[tuple[Prices, Mapping[Column, Splits]]]
    account: Account


@dataclass(frozen=True)
class CapsProblem:
    """Everything that prices follow from; nothing in it changes any more.

    caps: in the unit of demand, of its total; inf where there is none. note: of caps that are not in force.
    """

    force: Force
    rules: Callable[[], list[RuleInForce]]
    rates: Rates
    v6: float
    caps: Callable[[float], Floats]
    note: str
    up: frozenset[str]
    forecast: Forecast | None

    def solve(self) -> Solved:
        """Prices for what is up now, for each provider's absence (or return) and for that of two at once. CapsUnsolved."""
        world, decisions = self.force.world, self.force.decisions
        providers = world.rules.providers
        demand = self._demand()
        rows = demand.rows(decisions, world.ground.spreader)
        cap = self.caps(demand.total)
        few = self.forecast is None and demand.total < QUERIES_LEAST / world.rules.round
        if few or not rows or not np.isfinite(cap).any():
            why = FEW if few else self.note or "nothing is measured"
            return Solved((), Account("idle", why, total=demand.total))

        def plan(up: frozenset[str], ahead: bool) -> tuple[Prices, Mapping[Column, Splits], Plan]:
            limits, heaviest = Limits(cap, demand.fixed_load(providers, up)), HEAVIEST_AHEAD if ahead else HEAVIEST
            return plan_prices(decisions, rows, limits, list(providers), up, heaviest, ahead)

        prices, splits, now = plan(self.up, False)
        load = {name: float(share) for name, share in zip(providers, now.load, strict=True) if name in self.up}
        next_up = [*absences(self.up, providers), *pairs(load)]
        ahead = [plan(up, True)[:2] for up in next_up]
        return Solved([(prices, splits), *ahead], self._account(prices, now, cap, demand))

    def _demand(self) -> Demand:
        if self.forecast is None:
            return demand_of(self.rules(), self.rates, self.v6)
        ground = self.force.world.ground

        def find(address: bytes) -> int:
            family, value, _ = client_key(address, False)
            return int(ground.sections["network"][walk(ground.sections["index4"], ground.sections["index6"], family, value)])

        return demand_given(self.rules(), by_network(self.forecast, ground.atoms, find), self.v6)

    def _account(self, prices: Prices, plan: Plan, cap: Floats, demand: Demand) -> Account:
        over = plan.unmet > LEAST
        state = "unmet" if over.any() else "priced" if any(prices.ms.values()) else "kept"
        names = tuple(self.force.world.rules.providers)
        return Account(
            state, self.note, names, tuple(cap), tuple(plan.load), tuple(prices.ms.get(name, 0.0) for name in names),
            tuple(plan.unmet), plan.used, demand.total, "bits" if self.forecast and self.forecast.bits else "queries",
        )  # fmt: skip


@dataclass
class Caps:
    """What is counted and measured for caps, and how they stand."""

    store: LocalStore
    log: Callable[[str], None]
    file: Path | None = None
    forecast: Forecast | None = None
    fit: Fit = field(default_factory=Fit)
    rates: Rates = field(default_factory=Rates)
    account: Account = field(default_factory=Account)
    _file_seen: tuple[int, ...] = ()
    _observed_at: float = 0.0
    _solved_at: float = 0.0
    _solved_for: tuple[object, ...] = ()
    _failures: int = 0
    _v6: float = 0.0
    _known: tuple[tuple[object, ...], list[RuleInForce]] | None = None

    def restore(self) -> None:
        """Take up the fit that was kept."""
        try:
            kept = self.store.load_json(FILE)
            self.fit = Fit.from_json(kept) if kept is not None else Fit()
        except (EdgednsError, ValueError) as error:
            self.log(f"measured loads: {error}; fitting begins anew")

    def observe(self, force: Force, view: Callable[[], View], run: Path, registry: metrics.Registry, now: float) -> None:
        """Count what was asked since the last round; nothing where no provider has a cap."""
        if not declared(force.world.rules.providers):
            self.rates, self.account, self._solved_for = Rates(), Account(), ()
            return
        self._read_file()
        ground = force.world.ground
        try:
            networks = counts_by_network(metrics.read_networks(run, ground.key), len(ground.atoms.net_asn))
            cells = np.frombuffer(metrics.read_totals(run, registry.used), np.uint64)
            zones = view().base.zones
        except (EdgednsError, OSError) as error:  # a round goes on without (law 4)
            self.log(f"queries could not be counted: {error}")
            return
        self.rates = self.rates.after(ground.key, networks, cells, max(now - self._observed_at, LEAST))
        self._observed_at = now
        self._v6 = _share_of_aaaa(zones, self.rates.cells)

    def _read_file(self) -> None:
        """Follow the file that demand is given in; one that can't be read leaves what was in it before."""
        if self.file is None:
            return
        seen = _identity(self.file)
        if seen == self._file_seen:
            return
        self._file_seen = seen
        try:
            self.forecast = read_demand(self.file)
            self._solved_at = 0.0
        except SourceError as error:
            self.log(f"{error}\nthe demand stays as it was")

    def problem(
        self, force: Force, view: Callable[[], View], up: frozenset[str], failures: int, now: float
    ) -> CapsProblem | None:
        """What is to be solved now; None where nothing is due: each minute, sooner after paths failed or came back (`failures`

        counts that) and while caps rest, and at once when what is up has changed.
        """
        providers = force.world.rules.providers
        waits = self.forecast is None and self.rates.seconds < force.world.rules.round / 2
        if not declared(providers) or waits:
            return None
        why = (force.world.base_name, up, tuple(provider.capacity for provider in providers.values()))
        pause = SOON if failures != self._failures or self.account.state == "idle" else EVERY
        if self._solved_for == why and now - self._solved_at < pause:
            return None
        self._solved_for, self._solved_at, self._failures = why, now, failures
        seen = view()
        bits = self.forecast is not None and self.forecast.bits
        scale = {name: 1.0 if bits else self.fit.bits_per_query(name, now) for name in providers}
        return CapsProblem(
            force, lambda: self._rules(force, seen), self.rates, self._v6, lambda total: _caps(providers, scale, total),
            _without_loads(providers, scale), up, self.forecast,
        )  # fmt: skip

    def _rules(self, force: Force, view: View) -> list[RuleInForce]:
        """Read once for each base and phase: it takes a tenth of a second."""
        every = self.forecast is not None
        key = (force.world.base_name, force.world.ground.key, view.rows, every)
        known = self._known
        if known is None or known[0] != key:
            known = (key, rules_in_force(view, force.world.compiled.columns, force.world.ground.atoms, every))
            self._known = known
        return known[1]

    def take(self, solved: Solved, decisions: Decisions) -> Decisions:
        """The decisions with these prices in them; what changed about caps is said."""
        self._say(solved.account)
        self.account = solved.account
        decisions = only_plans(decisions, [frozenset(prices.up) for prices, _ in solved.plans])
        for i, (prices, splits) in enumerate(solved.plans):
            decisions = with_plan(decisions, prices, splits, first=i == 0)
        return decisions

    def _say(self, account: Account) -> None:
        over = [f"{n} by {o / c:.0%}" for n, c, o in zip(account.names, account.cap, account.unmet, strict=True) if o > LEAST]
        known = [n for n, o in zip(self.account.names, self.account.unmet, strict=True) if o > LEAST]
        if over and [name.split(" by ")[0] for name in over] != known:
            self.log(f"caps can't be met: over their caps are {', '.join(over)}; what is too much is shared out in proportion")
        if not over and known:
            self.log("caps are met again")
        if account.note and account.note not in (self.account.note, FEW):
            self.log(f"caps: {account.note}")

    def take_loads(self, loads: Sequence[Load], force: Force, view: Callable[[], View], now: float) -> dict[str, Any]:
        """Pair measured loads with the queries that they came from; the reply. LoadError when a provider isn't known."""
        names = list(force.world.rules.providers)
        unknown = [load.provider for load in loads if load.provider not in names]
        if unknown:
            raise LoadError(f"there is no provider {unknown[0][:60]!r}; there are {', '.join(names)}")
        given: dict[str, float] = {}
        if self.rates.seconds:
            answers = answers_by_provider(self._rules(force, view()), self.rates.cells, names)
            given = {name: count / self.rates.seconds for name, count in answers.items()}
        self.fit.take(loads, given, now)
        self.store.save_json(FILE, self.fit.to_json())
        fitted = {name: self.fit.bits_per_query(name, now) for name in names}
        return {"accepted": len(loads), "gbit_per_query": {name: _giga(bits) for name, bits in fitted.items()}}


def read_demand(path: Path) -> Forecast:
    """The demand that a file gives; SourceError."""
    content = read_plain(path, LARGEST).content
    try:
        return parse(content.decode(), str(path))
    except UnicodeDecodeError as error:
        raise SourceError(f"{path}: {error}") from error


class LoadError(EdgednsError):
    """A measured load can't be used."""


def _giga(bits: float | None) -> float | None:
    return None if bits is None else bits / 1e9


def _identity(path: Path) -> tuple[int, ...]:
    """Another one whenever a file is another; (0,) where there is none."""
    try:
        stat = path.stat()
    except OSError:
        return (0,)
    return stat.st_mtime_ns, stat.st_size, stat.st_ino


def up_now(providers: Mapping[str, Provider], states: Mapping[str, State], failing: Failing, health: Health) -> frozenset[str]:
    """The providers that are up over at least one family that they have."""
    families: tuple[Family, Family] = (4, 6)
    return frozenset(
        name
        for name, provider in providers.items()
        if states[name] == "up"
        and any(provider.addresses(f) and (name, f) not in failing and not health.provider_down(name, f) for f in families)
    )


def declared(providers: Mapping[str, Provider]) -> bool:
    """Does any provider have a cap?"""
    return any(provider.capacity for provider in providers.values())


def _share_of_aaaa(zones: Sequence[Zone], cells: Floats) -> float:
    """The part of AAAA in what was asked of A and AAAA, in all zones."""
    a = aaaa = 0.0
    for zone in zones:
        for transport in (0, V6, TCP, TCP + V6):
            a += float(cells[zone.requests + transport + TYPE_PLACE[1]])
            aaaa += float(cells[zone.requests + transport + TYPE_PLACE[28]])
    return aaaa / (a + aaaa) if a + aaaa > 0 else 0.0


def _caps(providers: Mapping[str, Provider], scale: Mapping[str, float | None], total: float) -> Floats:
    """Each provider's cap in queries a second, of `total`; inf where there is none, or none that can be told in queries."""
    caps = np.full(len(providers), np.inf)
    for i, (name, provider) in enumerate(providers.items()):
        bits = scale[name]
        if provider.capacity is not None and provider.capacity.unit == "share":
            caps[i] = provider.capacity.value * total
        elif provider.capacity is not None and bits is not None:
            caps[i] = provider.capacity.value / bits
    return caps


def _without_loads(providers: Mapping[str, Provider], scale: Mapping[str, float | None]) -> str:
    """What to say of caps that can't be in force."""
    named = [n for n, p in providers.items() if p.capacity is not None and p.capacity.unit == "bps" and scale[n] is None]
    if not named:
        return ""
    return f"in bits per second, and not in force until POST /v1/load says what is carried: {', '.join(named)}"
