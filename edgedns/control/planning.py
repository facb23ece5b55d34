"""What publishing other rules would change: they are compiled as if they were in force, and both are asked.

Nothing is published. Seconds of work: `draft` and `Plan.told` are to run beside the turns, `plan` in one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgedns import metrics
from edgedns.control.loop import Control
from edgedns.dns import types
from edgedns.engine.compile import rule_prefixes
from edgedns.engine.demand import U32, counts_by_network
from edgedns.engine.differences import differences
from edgedns.engine.explain import Question
from edgedns.engine.flat import Buffer, Sections, unpack
from edgedns.engine.load import load_rules
from edgedns.engine.overlay import compile_overlay
from edgedns.engine.plan import Asked, compare
from edgedns.engine.snapshot import Files, Snapshot
from edgedns.engine.world import PUBLIC, World, held_to_tests, make_world
from edgedns.model import Prefix, RuleSet
from edgedns.publish import name_of
from edgedns.steer.space.atoms import Atoms

QUESTIONS = 4000  # some 0.3 ms each, twice
NETWORKS_LEAST = 100
ADDRESS_TYPES = (types.A, types.AAAA)
Client = tuple[bytes, Prefix | None]  # as the client address and subnet of a question


@dataclass(slots=True)
class _Drafts:
    """Files as a publisher puts them, but in memory; those that are published are read there."""

    published: Callable[[str], Sections]
    files: dict[str, Sections] = field(default_factory=dict)

    def put(self, kind: str, content: Buffer, key: str = "") -> str:
        name = name_of(kind, content, key)
        self.files[name] = unpack(content, name)
        return name

    def opened(self, name: str) -> Sections:
        return self.files[name] if name in self.files else self.published(name)


def draft(control: Control, directory: Path, now: float) -> World:
    """The rules of a directory as they would be served. RuleErrors for errors and failed tests, SourceError for files."""
    world = control.world
    loaded = load_rules(directory, now)
    loaded.refuse_errors()
    drafts = _Drafts(control.mapped.sections)
    inputs = replace(control.worlds.inputs(world.table, loaded.rules), cells=_no_cells, put=drafts.put, opened=drafts.opened)
    rules = held_to_tests(loaded, inputs, world.serials, now, world.ground, None)
    rules.loaded.refuse_errors()
    return make_world(rules, inputs, world.serials, now, world.ground)


def _no_cells(kind: str, labels: Iterable[str], size: int) -> int:
    return 0


@dataclass(frozen=True)
class Plan:
    """Both worlds, as far as they are asked. `queries` by network id were counted lately."""

    old: World
    new: World
    before: Snapshot
    after: Snapshot
    queries: U32
    now: float

    def told(self) -> dict[str, Any]:
        """The plan as JSON (its form: edgedns/web/openapi.json)."""
        old, new = self.old.loaded, self.new.loaded
        names = sorted(_names(old.rules))  # nobody asks yet for what is new
        many = max(NETWORKS_LEAST, QUESTIONS // max(1, len(names) * len(ADDRESS_TYPES)))
        clients = [*_heaviest(self.old.ground.atoms, self.queries, many), *self._named()]
        asked = [
            Asked(Question(name, rtype, *client), weight)
            for client, weight in clients for name in names for rtype in ADDRESS_TYPES
        ]  # fmt: skip
        return {
            "serial": self.before.serial,
            "differences": [one.told() for one in differences(old, new)],
            "queries": int(self.queries.sum()),
            "networks": len(clients),
            "answers": compare(self.before, self.after, asked, self.now).told(),
        }

    def _named(self) -> Iterator[tuple[Client, float]]:
        """An address of whatever a rule names by itself, old or new: it may be far from those that ask most. Without weight."""
        for prefix in dict.fromkeys([*rule_prefixes(self.old.rules), *rule_prefixes(self.new.rules)]):
            yield (prefix.address, prefix), 0.0
        for asn in sorted(_asns(self.old.rules) | _asns(self.new.rules)):
            address = self.old.table.first_address(asn)
            if address is not None:
                yield (address, None), 0.0


def plan(control: Control, world: World, now: float) -> Plan:
    """What a drafted world is to be compared with, and what would be decided in it."""
    force = control.deciding.decided(replace(control.force, world=world), now)
    stale = float((control.publisher.root or {}).get("fresh_until") or 0.0) <= now
    overlay = compile_overlay(
        world.compiled.columns, force.decisions, list(world.rules.providers), world.ground.spreader, world.salt, stale
    )
    files = Files(world.ground.sections, unpack(world.compiled.content, "base"), (unpack(overlay, "overlay"),))
    after = Snapshot({"serial": control.serial, "node": "", "schedule": [{"from": 0.0}]}, files)
    ground = control.world.ground
    queries = counts_by_network(metrics.read_networks(control.run, ground.key), len(ground.atoms.net_asn))
    return Plan(control.world, world, control.snapshot(), after, queries, now)


def _names(rules: RuleSet) -> Iterator[bytes]:
    return (record.name for zone in rules.zones.values() for record in zone.records)


def _asns(rules: RuleSet) -> set[int]:
    matches = (rule.match for zone in rules.zones.values() for record in zone.records for rule in record.rules)
    named = (asn for network in rules.networks.values() if network.name != PUBLIC for asn in network.asns)
    return {asn for match in matches if match for asn in match.asns} | set(named)


def _heaviest(atoms: Atoms, queries: U32, many: int) -> Iterator[tuple[Client, float]]:
    """The first addresses of the `many` networks that ask most, and how much; where none did, of networks all over, each 1."""
    network, first = np.unique(atoms.network, return_index=True)
    weights = queries[network].astype(np.float64)
    if not weights.any():
        weights[:] = 1.0
        chosen = np.linspace(min(1, len(network) - 1), len(network) - 1, many).astype(np.int64)  # not unmapped space
        chosen = np.unique(chosen)
    else:
        chosen = np.argsort(-weights, kind="stable")[:many]
        chosen = chosen[weights[chosen] > 0]
    for one in chosen.tolist():
        atom = int(first[one])
        leaf = atoms.prefix(atom)
        # In public resolvers' space an atom is of users, its twin of the resolver itself.
        subnet = leaf if atom < atoms.public_atoms else None
        yield (leaf.address, subnet), float(weights[one])
