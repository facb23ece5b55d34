"""The one round loop: samples -> estimates -> decisions -> publish.

Everything here is called from one thread, one call at a time (cli/serve.py sees to that); `now` is Unix seconds. Each
input that fails leaves what was served before in force (law 4).
"""

from __future__ import annotations

import io
import secrets
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from edgedns import metrics
from edgedns.dns import name as names
from edgedns.engine import lookup
from edgedns.engine.explain import Evidence
from edgedns.engine.load import Loaded, load_rules, with_last_good
from edgedns.engine.moved import told
from edgedns.engine.overlay import compile_overlay
from edgedns.engine.snapshot import Snapshot
from edgedns.engine.world import Inputs, Serial, World, make_world
from edgedns.errors import EdgednsError, Problem, PublishRefused, RuleErrors, SourceError
from edgedns.model import Family, NetworkKey, Override, Reason, State
from edgedns.probe.collector import Collector, Outcome
from edgedns.publish import Facts, Publisher, Root, Step, refuse_implausible
from edgedns.serve.current import Mapped
from edgedns.serve.orders import OrderError, override_json, parse_override
from edgedns.steer import asn
from edgedns.steer.decisions import Decisions, moves
from edgedns.steer.health import Health
from edgedns.steer.policy import decide
from edgedns.steer.rtt import RttStore
from edgedns.steer.wan import WanTable, estimate
from edgedns.store.local import GOOD_RULES, LocalStore, load_arrays

MOVES_KEPT = 200
NOTES_KEPT = 50
SAVE_EVERY = 60.0
Log = Callable[[str], None]
T = TypeVar("T")


@dataclass(slots=True)
class Counts:
    """What was tried, each counted once."""

    reloads_good: int = 0
    reloads_bad: int = 0
    publishes: int = 0
    refused: int = 0
    rounds: int = 0


@dataclass(slots=True)
class Measured:
    """What probes taught: histograms, failure detection, the table of the last round and when samples last came."""

    rtt: RttStore
    health: Health
    table: WanTable
    sampled_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Paths:
    """Where inputs lie: the rules directory, and the ASN table (None: the embedded one)."""

    state: Path
    rules: Path
    asn: Path | None = None


class Control:
    """The control process' state. After `start` there is a world, and it is published."""

    world: World
    decisions: Decisions

    def __init__(self, paths: Paths, node: str, log: Log) -> None:
        self.paths = paths
        self.log = log
        self.store = LocalStore(paths.state)
        (paths.state / "run").mkdir(exist_ok=True)
        self.registry = metrics.Registry(paths.state / "run" / "registry.json")
        self.publisher = Publisher(paths.state / "published", node)
        self.mapped = Mapped(paths.state / "published")
        self.store.ensure_secrets()
        self.salt = self.store.ensure_salt()
        self.counts = Counts()
        self.recent: deque[dict[str, Any]] = deque(maxlen=MOVES_KEPT)
        self.notes: deque[dict[str, Any]] = deque(maxlen=NOTES_KEPT)
        self.problems: list[Problem] = []
        self.collector = Collector(self._network_of, self._network_of_asn, self._knows_provider, self._knows_zone)
        self.overrides: list[Override] = []
        self.measured = Measured(RttStore(), Health(), estimate(RttStore()))
        self.serial = 0
        self._published: tuple[object, ...] = ()
        self._opened: Snapshot | None = None
        self._round = 0
        self._changes = 0
        self._saved_at = 0.0

    # -- starting, rules and tables

    def start(self, now: float) -> None:
        """Take up where the last control process ended, load the inputs and publish.

        RuleErrors or SourceError when there is nothing to serve.
        """
        self.overrides = self._restored("overrides", self._load_overrides, [])
        root = self._restored("root", self.publisher.last, None)
        serials = {name: Serial(**plain) for name, plain in (root or {}).get("zones", {}).items()}
        table = asn.load(self.paths.asn) if self.paths.asn else asn.embedded()
        loaded = self._first_rules(now)
        self.world = make_world(loaded, self._inputs(table), None, serials, now)
        self.decisions = self._decide(now, self._restore_measurements(root or {}, now))
        self._note_problems()
        self.publish(now)

    def _first_rules(self, now: float) -> Loaded:
        """The rules; where they have errors, completed by the last good ones that this state directory kept."""
        good = self.store.directory / GOOD_RULES
        try:
            loaded = load_rules(self.paths.rules, now)
        except (RuleErrors, SourceError) as error:
            if not good.is_dir():
                raise
            self.log(f"{error}\nthe rules can't be used; the last good ones are served")
            return load_rules(good, now)
        if loaded.failed_zones and good.is_dir():
            return with_last_good(loaded, load_rules(good, now))
        return loaded

    def reload_rules(self, now: float) -> bool:
        """Read the rules directory again; False, and nothing changes, when nothing in it can be used."""
        try:
            loaded = with_last_good(load_rules(self.paths.rules, now), self.world.loaded)
            self._take(make_world(loaded, self._inputs(self.world.table), self.world, self.world.serials, now), now)
        except EdgednsError as error:
            self.counts.reloads_bad += 1
            self.problems = error.problems if isinstance(error, RuleErrors) else []
            self.log(f"{error}\nthe rules stay as they were")
            return False
        self.counts.reloads_good += not self.world.loaded.failed_zones
        self.counts.reloads_bad += bool(self.world.loaded.failed_zones)
        self._note_problems()
        return True

    def reload_table(self, now: float) -> bool:
        """Read the ASN table again; False, and the old one stays, when it can't be used."""
        try:
            table = asn.load(self.paths.asn) if self.paths.asn else asn.embedded()
            self._take(make_world(self.world.loaded, self._inputs(table), self.world, self.world.serials, now), now)
        except EdgednsError as error:
            self.log(f"{error}\nthe ASN table stays as it was")
            return False
        return True

    def _take(self, world: World, now: float) -> None:
        self.world = world
        self._turn_to(self._decide(now, self.decisions), now)
        self.publish(now)

    def _inputs(self, table: asn.AsnTable) -> Inputs:
        return Inputs(table, self.overrides, self.salt, self.registry.block, self.publisher.put, self.mapped.sections)

    def _note_problems(self) -> None:
        loaded = self.world.loaded
        self.problems = loaded.problems
        for problem in loaded.problems:
            if problem.severity == "error":
                self.log(str(problem))
        for name in sorted(loaded.failed_zones):
            served = "stays as it was" if name in loaded.rules.zones else "is not served"
            self.log(f"zone {name} has errors and {served}")
        if not loaded.failed_zones:
            self.store.keep_rules(self.paths.rules)

    # -- samples and time

    def ingest(self, body: bytes, now: float) -> Outcome:
        """One body of samples; a failure that it reveals is published at once."""
        outcome = self.collector.accept(body, now)
        if outcome.accepted:
            self.measured.sampled_at = now
            for batch in self.measured.health.observe(outcome.accepted):
                self.measured.rtt.observe_columns(batch)
            self._act_on_health(now)
        return outcome

    def _act_on_health(self, now: float) -> None:
        if self.measured.health.changes != self._changes:
            self._changes = self.measured.health.changes
            self._turn_to(self._decide(now, self.decisions), now)
            self.publish(now)

    def tick(self, now: float) -> None:
        """To be called a few times a second: ends overrides, closes rounds, saves."""
        if any(one.until is not None and one.until <= now for one in self.overrides):
            self.overrides = [one for one in self.overrides if one.until is None or one.until > now]
            self._orders_changed(now)
        number = int(now // self.world.rules.round)
        if number != self._round:
            self._round = number
            self.close_round(now)
        if now - self._saved_at >= SAVE_EVERY:
            self.save(now)

    def close_round(self, now: float) -> None:
        """Count the round's samples, estimate, decide and publish what moved."""
        self.counts.rounds += 1
        measured = self.measured
        measured.rtt.close_round(now)
        table = estimate(measured.rtt, only=list(self.world.rules.providers))
        decisions = self._decide(now, self.decisions, table)
        try:
            refuse_implausible(self._facts(table, decisions), now)
        except PublishRefused as refusal:
            self.counts.refused += 1
            self.log(f"not published: {refusal}")
            decisions = self._decide(now, self.decisions)
        else:
            measured.table = table
        self._turn_to(decisions, now)
        self.publish(now)

    def _facts(self, table: WanTable, decisions: Decisions) -> Facts:
        rules, last = self.world.rules, self.measured.table
        return Facts(
            measured_at=self.measured.sampled_at,
            rows=len(table.keys),
            last_rows=len(last.keys) if self._is_fresh(table.at) else 0,
            moved=_measured_moves(self.decisions, decisions),
            limit=rules.max_moved_share,
            oldest=float("inf"),
        )

    def _decide(self, now: float, before: Decisions | None, table: WanTable | None = None) -> Decisions:
        return self._decide_at(now, before, self.states(now), table or self.measured.table)

    def _decide_at(
        self, now: float, before: Decisions | None, states: Mapping[str, State], table: WanTable | None = None
    ) -> Decisions:
        rules, measured = self.world.rules, self.measured
        ttl = max((record.ttl for zone in rules.zones.values() for record in zone.records), default=0)
        columns = self.world.compiled.columns
        return decide(columns, rules.providers, states, table or measured.table, measured.health, before, now, ttl)

    def states(self, at: float) -> dict[str, State]:
        """Each provider's state by declaration and drains, as it is at a time."""
        states: dict[str, State] = {name: provider.state for name, provider in self.world.rules.providers.items()}
        for order in self.overrides:
            if order.kind == "drain" and (order.until is None or order.until > at) and states.get(order.provider) == "up":
                states[order.provider] = "drain"
        return states

    # -- publishing

    def publish(self, now: float) -> None:
        """Swap root if anything in it would differ; otherwise nothing is written."""
        world, ground = self.world, self.world.ground
        fresh_until = self.measured.sampled_at + world.rules.fresh_for if self.measured.sampled_at else 0.0
        schedule = self._schedule(now, fresh_until)
        facts = (ground.name, world.base_name, schedule, fresh_until, tuple(world.serials.items()))
        if facts == self._published:
            return
        extra = {
            "table": self._stored("table", self.measured.table.to_sections()),
            "decisions": self._stored("decisions", self.decisions.to_sections()),
            "zones": {name: asdict(serial) for name, serial in world.serials.items()},
            "providers": self.states(now),
        }
        root = Root(ground.name, world.base_name, schedule, now, fresh_until, extra)
        self.serial = self.publisher.publish(root)
        self.counts.publishes += 1
        self._published = facts

    def _schedule(self, now: float, fresh_until: float) -> tuple[Step, ...]:
        """What holds now, and what workers turn to by themselves when a drain ends or nothing fresh was published."""
        ends = {one.until for one in self.overrides if one.kind == "drain" and one.until is not None and one.until > now}
        times = sorted(ends | ({fresh_until} if fresh_until > now else set()))
        steps = [Step(0.0, self._overlay(self.decisions, nominal=fresh_until <= now))]
        for at in times:
            later = self._decide_at(now, self.decisions, self.states(at))
            steps.append(Step(at, self._overlay(later, nominal=at >= fresh_until)))
        return tuple(steps)

    def _overlay(self, decisions: Decisions, nominal: bool) -> str:
        world = self.world
        providers = list(world.rules.providers)
        content = compile_overlay(world.compiled.columns, decisions, providers, world.ground.spreader, self.salt, nominal)
        return self.publisher.put("overlay", content)

    def _stored(self, kind: str, sections: dict[str, Any]) -> str:
        """Evidence and state, kept beside the snapshot that was made from them."""
        content = io.BytesIO()
        np.savez(content, **sections)
        return self.publisher.put(kind, content.getvalue())

    def sweep(self, in_use: set[int]) -> None:
        """Delete published files that no worker can still read; `in_use` are the serials that they serve."""
        if all(serial == self.serial for serial in in_use):
            self.publisher.sweep()
            metrics.drop_networks(self.paths.state / "run", [self.world.ground.key])

    def _turn_to(self, decisions: Decisions, now: float) -> None:
        """From now on these decide; what they move is noted for those who watch."""
        moved = moves(self.decisions, decisions)
        self.decisions = decisions
        world = self.world
        entries = told(moved, world.rules, world.ground.atoms, world.table.names, now)[:MOVES_KEPT]
        self.recent.extend(reversed(entries))
        if entries:
            first = entries[0]
            self.log(f"{len(entries)} rows moved; {first['network']}: {first['before']} -> {first['after']}")

    def note(self, kind: str, text: str, now: float) -> dict[str, Any]:
        """Keep what somebody told about the world, to be shown beside what moved."""
        self.notes.append({"at": now, "kind": kind, "text": text})
        return self.notes[-1]

    # -- looking

    def snapshot(self) -> Snapshot:
        """What is published now, opened as a worker opens it."""
        root = self.publisher.last()
        if root is None:
            raise SourceError("nothing is published yet")
        if self._opened is None or self._opened.serial != root["serial"]:
            self._opened = self.mapped.snapshot(root)
        return self._opened

    def evidence(self, now: float) -> Evidence:
        world, measured = self.world, self.measured
        columns = world.compiled.columns
        return Evidence(world.rules.providers, self.states(now), columns, measured.table, measured.health, world.table.names)

    # -- orders

    def add_override(self, order: Override, now: float) -> Override:
        """Take an operator's order; OrderError when it names what there is not."""
        rules = self.world.rules
        if order.provider not in rules.providers:
            raise OrderError(f"there is no provider {order.provider!r}; there are {', '.join(rules.providers)}")
        if order.until is not None and order.until <= now:
            raise OrderError("'until' has passed already")
        if order.kind == "pin" and not self._steers(order.name):
            raise OrderError(f"no zone steers the name {order.name!r}")
        if order.match and not set(order.match.networks) <= set(rules.networks):
            raise OrderError(f"there are no such networks in the rules: {', '.join(order.match.networks)}")
        order = replace(order, id=secrets.token_hex(4), created=now)
        self.overrides = [*self.overrides, order]
        self._orders_changed(now)
        return order

    def remove_override(self, number: str, now: float) -> bool:
        left = [one for one in self.overrides if one.id != number]
        if len(left) == len(self.overrides):
            return False
        self.overrides = left
        self._orders_changed(now)
        return True

    def _orders_changed(self, now: float) -> None:
        """Orders never wait: they are saved, compiled (a pin is a rule) and published at once."""
        self.store.save_json("overrides", [override_json(one) for one in self.overrides])
        world = self.world
        self._take(make_world(world.loaded, self._inputs(world.table), world, world.serials, now), now)

    def _load_overrides(self) -> list[Override]:
        found = []
        for plain in self.store.load_json("overrides") or []:
            known = {"id": plain.pop("id"), "created": plain.pop("created")}
            found.append(replace(parse_override(plain), **known))
        return found

    def _steers(self, text: str) -> bool:
        try:
            wanted = names.fold(names.from_text(text))
        except ValueError:
            return False
        return any(record.name == wanted for zone in self.world.rules.zones.values() for record in zone.records)

    # -- what the collector asks

    def _network_of(self, address: bytes) -> NetworkKey | None:
        atoms = self.world.ground.sections
        family, value, _ = lookup.client_key(address, False)
        atom = lookup.walk(atoms["index4"], atoms["index6"], family, value)
        network = atoms["network"][atom]
        return self.world.ground.atoms.network_key(network) if network else None

    def _network_of_asn(self, number: int, family: Family) -> NetworkKey | None:
        return NetworkKey(number) if number in self.world.ground.asns else None

    def _knows_provider(self, name: str) -> bool:
        return name in self.world.rules.providers

    def _knows_zone(self, name: str) -> bool:
        return name in self.world.rules.zones

    # -- what outlives the process

    def save(self, now: float) -> None:
        """Keep measurements and decisions for the next control process."""
        self._saved_at = now
        measured = self.measured
        self.store.save_arrays("rtt", measured.rtt.to_sections())
        self.store.save_arrays("health", measured.health.to_sections())

    def _restore_measurements(self, root: Mapping[str, Any], now: float) -> Decisions | None:
        """What probes taught before; gives the decisions that were in force."""
        rtt = self._restored("histograms", lambda: _from(RttStore, self.store.load_arrays("rtt")), RttStore())
        health = self._restored("health", lambda: _from(Health, self.store.load_arrays("health")), Health())
        table = self._restored("table", lambda: _from(WanTable, self._published_arrays(root.get("table"))), None)
        fresh_until = float(root.get("fresh_until", 0.0))
        sampled_at = fresh_until - self.world.rules.fresh_for if fresh_until else 0.0
        self.measured = Measured(rtt, health, table or estimate(rtt), sampled_at)
        self._changes = health.changes
        self._round = int(now // self.world.rules.round)
        stored = self._published_arrays(root.get("decisions"))
        decisions: Decisions | None = self._restored("decisions", lambda: _from(Decisions, stored), None)
        return decisions

    def _published_arrays(self, name: str | None) -> dict[str, Any] | None:
        return load_arrays(self.publisher.directory / name) if name else None

    def _restored(self, what: str, load: Callable[[], T | None], otherwise: T) -> T:
        try:
            found = load()
        except EdgednsError as error:
            self.log(f"{what}: {error}")
            return otherwise
        return otherwise if found is None else found

    def _is_fresh(self, at: float) -> bool:
        return at - self.measured.sampled_at < self.world.rules.fresh_for


def _from(kind: Any, sections: dict[str, Any] | None) -> Any:
    return None if sections is None else kind.from_sections(sections)


def _measured_moves(before: Decisions, after: Decisions) -> float:
    """The share of measured rows whose measured answer would change."""
    moved = [move for move in moves(before, after) if Reason.MEASURED is move.before.reason is move.after.reason]
    rows = sum(len(column.keys) for column in after.columns.values())
    return len(moved) / rows if rows else 0.0
