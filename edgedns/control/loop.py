"""Control: the one round loop, from samples to estimates to decisions to what is published."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

from edgedns import metrics
from edgedns.control.caps import Caps, CapsProblem, Solved, up_now
from edgedns.control.deciding import Deciding
from edgedns.control.inputs import Log, Paths
from edgedns.control.intake import Intake
from edgedns.control.measured import Measured, kept, kept_checks, kept_serials, restored
from edgedns.control.orders import Orders
from edgedns.control.passive import Passive
from edgedns.control.plausible import Weights, facts, observed
from edgedns.control.schedule import Force, Scheduler, fresh_until
from edgedns.control.uplift import Gained
from edgedns.control.worlds import Worlds
from edgedns.engine import lookup
from edgedns.engine.compile import atoms_file
from edgedns.engine.explain import Evidence
from edgedns.engine.moved import told
from edgedns.engine.snapshot import Snapshot, View
from edgedns.engine.world import Inputs, World
from edgedns.errors import EdgednsError, PublishRefused, SourceError
from edgedns.model import Family, NetworkKey, Override, State
from edgedns.probe.collector import Collector, Outcome
from edgedns.publish import CLOCK_SKEW, Publisher, Root, refuse_implausible
from edgedns.serve.current import Mapped
from edgedns.steer.caps.loads import Load
from edgedns.steer.deciding.decisions import Decisions, moves
from edgedns.steer.failure.checks import Checks, Target
from edgedns.steer.failure.health import Health
from edgedns.steer.space.asn import AsnTable
from edgedns.steer.table.rtt import RttStore
from edgedns.steer.table.wan import WanTable, estimate
from edgedns.store.local import LocalStore, load_arrays

MOVES_KEPT = 200
NOTES_KEPT = 50
SAVE_EVERY = 60.0


@dataclass(slots=True)
class Counts:
    """What was tried, each counted once."""

    reloads_good: int = 0
    reloads_bad: int = 0
    publishes: int = 0
    refused: int = 0
    rounds: int = 0


class Control:
    """The control process' state. After `start` something is in force, and it is published.

    One thread calls it, in turn; `worlds` says what may run beside. `now` is Unix seconds.
    """

    force: Force

    def __init__(self, paths: Paths, node: str, log: Log) -> None:
        self.paths = paths
        self.log = log
        self.store = LocalStore(paths.state)
        self.run = paths.state / "run"
        self.run.mkdir(exist_ok=True)
        self.registry = metrics.Registry(self.run / "registry.jsonl")
        self.publisher = Publisher(paths.state / "published", node)
        self.mapped = Mapped(paths.state / "published")
        self.orders = Orders(self.store, log)
        self.measured = Measured()
        self.passive = Passive()
        self.gained = Gained(self.store, log)
        self.deciding = Deciding(self.orders, self.measured, self.gained, self.asked)
        self.caps = Caps(self.store, log, paths.demand)
        knows = self.network_of, self._network_of_asn, self._knows_provider, self._knows_zone
        self.collector = Collector(*knows, table=lambda: self.world.ground.name)
        self.intake = Intake(self.collector)
        self.counts = Counts()
        self.recent: deque[dict[str, Any]] = deque(maxlen=MOVES_KEPT)
        self.notes: deque[dict[str, Any]] = deque(maxlen=NOTES_KEPT)
        self.worlds = Worlds(paths, self.store, self.orders, self._gathered, lambda: self.world, log)
        self._scheduler = Scheduler(self.publisher)
        self._published: tuple[object, ...] = ()
        self._opened: Snapshot | None = None
        self._round = 0
        self._saved_at = 0.0

    @property
    def world(self) -> World:
        return self.force.world

    @property
    def checks(self) -> Checks:
        """What the rules' `check:` found."""
        return self.deciding.checks

    @property
    def overrides(self) -> list[Override]:
        return self.orders.all

    @property
    def serial(self) -> int:
        """Of the root that was published last, 0 for none."""
        return int(self.publisher.root["serial"]) if self.publisher.root else 0

    def states(self, at: float) -> dict[str, State]:
        """Each provider's state by declaration and drains, as it is at a time."""
        return self.orders.states(self.world.rules, at)

    # -- starting

    def start(self, now: float) -> None:
        """Take up where the last control process ended, read the inputs and publish.

        RuleErrors or SourceError when there is nothing to serve.
        """
        self.store.ensure_secrets(now)
        self.orders.restore(now)
        self.caps.restore()
        self.gained.restore()
        self.intake.restore(self.store, self.log)
        root = restored("root", self.publisher.last, self.log) or {}
        world = self.worlds.first(kept_serials(root), now)
        self.force = self._resumed(world, root, now)
        self.worlds.tell()
        self.worlds.keep()
        self.publish(self.force, now)
        self._round = int(now // world.rules.round)

    def _resumed(self, world: World, root: Mapping[str, Any], now: float) -> Force:
        """Table, decisions and detector of the last root, so that the same answers are given; nominal where there are none."""
        self.measured.restore(self.store, lambda: kept(Health, self._stored(root, "health")), self.log)
        self.measured.keep_pace(world.rules.round)
        self.deciding.checks = restored("checks", lambda: kept_checks(root), self.log) or Checks()
        self.checks.follow(world.rules.providers)
        table = restored("table", lambda: kept(WanTable, self._stored(root, "table")), self.log)
        decisions = restored("decisions", lambda: kept(Decisions, self._stored(root, "decisions")), self.log)
        if table is not None and table.at > now + CLOCK_SKEW:
            self._refuse(f"the WAN table is dated {table.at - now:.0f} s in the future: check this machine's clock")
            table = None
        nothing = estimate(RttStore(world.rules.round))
        until = float(root.get("fresh_until") or 0.0)
        taken_at = min(until - world.rules.fresh_for, now) if until and table is not None else 0.0
        self.measured.sampled_at = max(taken_at, 0.0)
        force = Force(world, decisions or Decisions({}), table or nothing, self.measured.sampled_at)
        return self.deciding.decided(force, now)

    def _stored(self, root: Mapping[str, Any], kind: str) -> dict[str, Any] | None:
        name = root.get(kind)
        return load_arrays(self.publisher.directory / name) if name else None

    # -- rules and tables

    def take_rules(self, world: World | None, now: float) -> bool:
        """Serve rules that were read; False, counted, and nothing changes, when there are none."""
        self.counts.reloads_bad += world is None
        if not self._take(world, now):
            return False
        failed = bool(self.world.loaded.failed_zones)
        self.counts.reloads_bad += failed
        self.counts.reloads_good += not failed
        self.worlds.tell()
        self.worlds.keep()
        return True

    def take_table(self, world: World | None, now: float) -> bool:
        """Serve from a table that was read; False, and nothing changes, when there is none."""
        before = self.world.table.digest
        if not self._take(world, now):
            return False
        self.worlds.keep()
        if (table := self.world.table).digest != before:
            self.log(f"ASN table in force: {table.source}, dated {table.date}")
        return True

    def _take(self, world: World | None, now: float) -> bool:
        if world is None:
            return False
        try:
            self.measured.keep_pace(world.rules.round)
            self.checks.follow(world.rules.providers)
            self._adopt(self.deciding.decided(replace(self.force, world=world), now), now)
        except EdgednsError as error:
            self.log(f"not published: {error}")
            return False
        return True

    def _gathered(self, table: AsnTable, pins: Sequence[Override], salt: int) -> Inputs:
        return Inputs(table, pins, salt, self.registry.block, self.publisher.put, self.mapped.sections)

    # -- orders

    def completed_order(self, order: Override, now: float) -> Override:
        """A new order with its id and time; OrderError when it can't be followed."""
        return self.orders.completed(order, self.world.rules, now)

    def take_order(self, order: Override, world: World | None, now: float) -> None:
        """Follow a completed order at once; `world` has it compiled, None for a drain."""
        self._change_orders([*self.overrides, order], world, now)

    def drop_order(self, number: str, world: World | None, now: float) -> bool:
        """End an order; `world` is compiled without it, None for a drain. False when there is none of that id."""
        left = [one for one in self.overrides if one.id != number]
        if len(left) == len(self.overrides):
            return False
        self._change_orders(left, world, now)
        return True

    def _change_orders(self, orders: list[Override], world: World | None, now: float) -> None:
        """Orders never wait: they are kept and published at once. An error leaves those that were there."""
        before = self.overrides
        self.orders.replace_with(orders)
        try:
            self._adopt(self.deciding.decided(replace(self.force, world=world or self.world), now), now)
        except EdgednsError:
            self.orders.replace_with(before)
            raise

    # -- samples and time

    def ingest(self, body: bytes, now: float, vantage: str | None = None, ahead: float | None = None) -> Outcome:
        """One body of samples, as `Intake.read` takes it; a failure that it reveals is published at once."""
        outcome = self.intake.read(body, now, vantage, ahead)
        self.passive.take(outcome.others, self.measured, self.gained, self.force, now)
        self.measured.take_landed(outcome.landed, now)
        if len(batch := self.measured.admit(outcome.probes(), now, ahead, vantage)):
            self.gained.take(batch, self.force.decisions)
            try:
                changed = self.measured.take(batch, now)
            except ValueError as error:
                raise SourceError(f"these samples can't be taken: {error}") from error
            if changed:
                self._adopt(self._plausible(self.deciding.sudden(self.force, now), now), now)
        return outcome

    def take_check(self, target: Target, good: bool | None, note: str, now: float) -> None:
        """One result of a provider's `check:`; what it tips is said, and published at once."""
        change = self.checks.observe(target, good, note, now)
        if change is None:
            return
        self.log(change.text)
        if change.down is not None:
            self._adopt(self.deciding.decided(self.force, now), now)

    def tick(self, now: float) -> None:
        """To be called a few times a second: ends overrides, closes rounds, saves."""
        if self.orders.expire(now):
            self._adopt(self.deciding.decided(self.force, now), now)
        number = int(now // self.world.rules.round)
        if number != self._round:
            self._round = number
            self.close_round(now)
        if now - self._saved_at >= SAVE_EVERY:
            self.save(now)

    def close_round(self, now: float) -> None:
        """Count the round's samples, estimate, decide and publish what moved."""
        self.counts.rounds += 1
        self._heal()
        force = self.force
        self.passive.close_round(now)
        self.caps.observe(force, partial(self._view, now), self.run, self.registry, now)
        table = self.measured.close_round(list(self.world.rules.providers), now)
        self.gained.close_round(force, now, self.measured.vantages.counted)
        for line in self.measured.news(self.log):
            self.note("vantage", line, now)
        wished = self.deciding.from_table(replace(force, table=table, taken_at=now), now) if table is not None else None
        new = self._plausible(wished, now)
        self._adopt(replace(new, closed=new.decisions), now)

    # -- caps

    def caps_problem(self, now: float) -> CapsProblem | None:
        """What is to be solved for caps, beside the turns; None where nothing is due."""
        health = self.measured.health
        up = up_now(self.world.rules.providers, self.states(now), self.checks.failing, health)
        return self.caps.problem(self.force, partial(self._view, now), up, health.changes, now)

    def take_caps(self, solved: Solved, now: float) -> None:
        """Follow new prices."""
        decisions = self.caps.take(solved, self.force.decisions)
        self._adopt(self.deciding.decided(replace(self.force, decisions=decisions), now), now)

    def take_loads(self, loads: Sequence[Load], now: float) -> dict[str, Any]:
        """Measured loads; the reply. LoadError when one names what there is not."""
        return self.caps.take_loads(loads, self.force, partial(self._view, now), now)

    def _view(self, now: float) -> View:
        return self.snapshot().at(now)

    def save(self, now: float) -> None:
        """Keep measurements for the next control process."""
        self._saved_at = now
        self.measured.save(self.store)
        self.intake.save(self.store)
        self.gained.save()

    def _refuse(self, why: str) -> None:
        self.counts.refused += 1
        self.log(f"not published: {why}")

    def _plausible(self, wished: Force | None, now: float) -> Force:
        """`wished`; where there is none or law 8 refuses it, what is in force: failures are acted upon all the same."""
        if wished is not None:
            try:
                refuse_implausible(facts(self.force, wished, self.asked), now)
                return wished
            except PublishRefused as refusal:
                self._refuse(str(refusal))
        return self.deciding.decided(self.force, now)

    def asked(self) -> Weights | None:
        """The networks that asked, and how often; None where they are too few to speak."""
        ground = self.world.ground
        return observed(metrics.read_networks(self.run, ground.key), ground.atoms)

    # -- publishing

    def _adopt(self, force: Force, now: float) -> None:
        """Publish, then go over to it; when publishing fails, what was in force stays in force."""
        self.publish(force, now)
        before, self.force = self.force, force
        self._note_moves(before.decisions, now)

    def publish(self, force: Force, now: float) -> None:
        """Swap root if anything in it would differ; otherwise nothing is written."""
        world, last = force.world, self.publisher.root or {}
        until = fresh_until(force.taken_at, world.rules.fresh_for, float(last.get("fresh_until") or 0.0), now)
        later = partial(self.deciding.decisions, force, now)
        schedule = self._scheduler.schedule(force, until, self.orders.drain_ends(now), later, now)
        facts = (world.ground.name, world.base_name, schedule, until, tuple(world.serials.items()), self.checks.failing)
        if facts == self._published:
            return
        self._put_again(world)
        extra = {
            "table": self._scheduler.table(force.table),
            "decisions": self._scheduler.evidence("decisions", force.decisions.to_sections()),
            "health": self._scheduler.evidence("health", self.measured.health.to_sections()),
            "zones": {name: asdict(serial) for name, serial in world.serials.items()},
            "providers": self.orders.states(world.rules, now),
            "checks": self.checks.to_json(),
        }
        self.publisher.publish(Root(world.ground.name, world.base_name, schedule, now, until, extra))
        self.counts.publishes += 1
        self._published = facts

    def _heal(self) -> None:
        """Have files written again that somebody deleted or damaged: a new worker needs them all."""
        damaged = self.publisher.damaged()
        if not damaged:
            return
        self.log(f"published files are missing or damaged and are written again: {', '.join(sorted(damaged))}")
        self.run.mkdir(parents=True, exist_ok=True)
        self._published = ()

    def _put_again(self, world: World) -> None:
        """Those files of a world that were swept since it was made, because another root was published first."""
        if not self.publisher.stands(world.base_name):
            self.publisher.put("base", world.compiled.content)
        if not self.publisher.stands(world.ground.name):
            self.publisher.put("atoms", atoms_file(world.ground.atoms), world.ground.key)

    def sweep(self, in_use: set[int]) -> None:
        """Delete published files that no worker can still read; `in_use` are the serials that they serve."""
        if all(serial == self.serial for serial in in_use):
            self.publisher.sweep()
            metrics.drop_networks(self.run, [self.world.ground.key])

    def _note_moves(self, before: Decisions, now: float) -> None:
        """Keep what moved for those who watch, and say it in one line."""
        world = self.world
        moved = moves(before, self.force.decisions)
        entries = told(moved, world.rules, world.ground.atoms, world.table.names, now)[:MOVES_KEPT] if moved else []
        self.recent.extend(reversed(entries))
        if entries:
            first = entries[0]
            said = f"{first['network']}: {first['before']} -> {first['after']} ({first['reason'].lower()})"
            self.log(f"serial {self.serial}: {len(moved)} rows moved; {said}")

    def note(self, kind: str, text: str, now: float) -> dict[str, Any]:
        """Keep what somebody told about the world, to be shown beside what moved."""
        self.notes.append({"at": now, "kind": kind, "text": text})
        return self.notes[-1]

    # -- looking

    def snapshot(self) -> Snapshot:
        """What is published now, opened as a worker opens it."""
        root = self.publisher.root
        if root is None:
            raise SourceError("nothing is published yet")
        if self._opened is None or self._opened.serial != root["serial"]:
            self._opened = self.mapped.snapshot(root)
        return self._opened

    def uplift(self, limit: int, now: float) -> dict[str, Any]:
        """What steering gains over nominal; `limit` networks a rule."""
        return self.gained.told(self.force, self.asked(), limit, now)

    def evidence(self, now: float) -> Evidence:
        """What the published snapshot was decided from."""
        force = self.force
        rules, columns = force.world.rules, force.world.compiled.columns
        health, names, failing = self.measured.health, force.world.table.names, self.checks.failing
        told = (health, names, failing, force.decisions, self.passive.users())
        return Evidence(rules.providers, self.states(now), columns, force.table, *told)

    # -- what the collector asks

    def network_of(self, address: bytes) -> NetworkKey | None:
        atoms = self.world.ground.sections
        family, value, _ = lookup.client_key(address, False)
        network = atoms["network"][lookup.walk(atoms["index4"], atoms["index6"], family, value)]
        return self.world.ground.atoms.network_key(network) if network else None

    def _network_of_asn(self, number: int, family: Family) -> NetworkKey | None:
        return NetworkKey(number) if number in self.world.ground.asns else None

    def _knows_provider(self, name: str) -> bool:
        return name in self.world.rules.providers

    def _knows_zone(self, name: str) -> bool:
        return name in self.world.rules.zones
