"""Rules, zones and atoms -> a base file. Control process only (numpy).

`compile_base` is pure: the same inputs give the same octets, so that a base is named by its content.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from edgedns.dns import name as names
from edgedns.dns import types
from edgedns.dns.zone import Node, Zone
from edgedns.engine import flat
from edgedns.engine.cells import Space, policy_cells
from edgedns.engine.names import NameBuilder, add_zones
from edgedns.engine.snapshot import EXPLAIN, Files, Snapshot
from edgedns.engine.tally import ANSWERS, NO_PROVIDER, REQUESTS, RESPONSES
from edgedns.model import (
    NOWHERE,
    AllDown,
    Failover,
    Family,
    Override,
    Pin,
    Prefix,
    Provider,
    Record,
    Rule,
    RuleSet,
    Wan,
    Weighted,
    ZoneRules,
    providers_of,
)
from edgedns.steer.deciding.decisions import Column
from edgedns.steer.space.atoms import Atoms

Cells = Callable[[str, tuple[str, ...], int], int]
StaticRecord = tuple[bytes, int, int, bytes]
KINDS = {Pin: "pin", Weighted: "weighted", Failover: "failover", Wan: "wan"}
CODES = {"u1": "B", "u2": "H", "u4": "I", "i4": "i", "u8": "Q"}
FAMILIES: tuple[tuple[Family, int], ...] = ((4, types.A), (6, types.AAAA))
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ZoneSource:
    """One zone as it is to be served: its rules, and its plain records (owner, type, ttl, rdata), SOA and NS included."""

    rules: ZoneRules
    static: tuple[StaticRecord, ...]


@dataclass(frozen=True, slots=True)
class Policy:
    """What records with the same rules share: the rules (pins ordered by operators first) and what to do when all are down."""

    rules: tuple[Rule, ...]
    all_down: AllDown
    zone: str


@dataclass(frozen=True)
class Compiled:
    """A base file and the columns its overlays must fill, in order."""

    content: bytes
    columns: tuple[Column, ...]


def compile_base(
    zones: Sequence[ZoneSource],
    providers: Mapping[str, Provider],
    space: Space,
    overrides: Iterable[Override],
    cells: Cells,
    salt: int,
) -> Compiled:
    """The base file for these zones; `cells(kind, labels, size)` places counter blocks."""
    draft = _Draft(tuple(providers.values()), [one for one in overrides if one.kind == "pin"])
    built = [draft.add_zone(source) for source in zones]
    nodes = add_zones(built)
    phases, rows = _phases(space, list(draft.policies))
    meta = {
        "salt": str(salt),
        "providers": list(providers),
        "addresses": [[[a.hex() for a in one.v4], [a.hex() for a in one.v6]] for one in draft.providers],
        "zones": [_zone_meta(source.rules, zone, cells) for source, zone in zip(zones, built, strict=True)],
        "elsewhere": [cells("requests", ("",), REQUESTS), cells("responses", ("",), RESPONSES)],
        "ttls": list(draft.ttls),
        "policies": [[draft.rule_meta(rule, policy, cells) for rule in policy.rules] for policy in draft.policies],
        "phases": phases,
    }
    sections: dict[str, tuple[str, flat.Buffer]] = {
        "meta": ("B", json.dumps(meta, sort_keys=True).encode()),
        "record": ("I", _records(nodes, draft.providers, list(draft.ttls))),
        "slot": ("I", array("I", (part for *key, name in draft.slots for part in (*key, *nodes.store(name))))),
        "cells": ("I", np.concatenate(rows).data.cast("B") if rows else b""),
    }
    return Compiled(flat.pack(sections | nodes.sections()), tuple(draft.columns))


class _Draft:
    """Numbers policies, columns, TTLs and slots in the order they are first met, which is that of the rules files."""

    def __init__(self, providers: tuple[Provider, ...], pins: Sequence[Override]) -> None:
        self.providers = providers
        self.policies: dict[Policy, int] = {}
        self.columns: dict[Column, int] = {}
        self.ttls: dict[int, int] = {}
        self.slots: list[tuple[int, int, bytes]] = []
        self._pins = pins

    def add_zone(self, source: ZoneSource) -> Zone:
        """The zone with a slot for each steered name and family that somebody could be given an address of."""
        dynamic: dict[tuple[bytes, int], int] = {}
        for record in source.rules.records:
            policy = self._policy_of(record, source.rules)
            number = _number(self.policies, policy)
            for family, rtype in FAMILIES:
                if self._may_give(policy, family):
                    dynamic[record.name, rtype] = len(self.slots)
                    self.slots.append((number, _number(self.ttls, record.ttl) << 1 | (family == 6), record.name))
        zone = Zone.build(source.rules.apex, source.static, dynamic)
        # What is below this name the reference path answers: see names.NameBuilder and explain_name.
        node = Node(EXPLAIN + zone.apex, {}, {})
        return replace(zone, nodes={node.name: node, **zone.nodes}) if source.rules.explain_allow else zone

    def _policy_of(self, record: Record, zone: ZoneRules) -> Policy:
        """A record's policy: an operator's pin of its name is a rule before its own."""
        pins = tuple(
            Rule(f"pin-{pin.id}", pin.match, Pin(pin.provider), pin.owner, pin.reason, pin.until)
            for pin in self._pins
            if names.fold(names.from_text(pin.name)) == record.name
        )
        return Policy(pins + tuple(replace(rule, where=NOWHERE) for rule in record.rules), record.all_down, zone.name)

    def _may_give(self, policy: Policy, family: Family) -> bool:
        """RFC 7871 section 7.4: where nobody has an address, the negative answer is the same for all, and its scope 0."""
        named = {name for rule in policy.rules for name in providers_of(rule.action)} | {policy.all_down.use}
        return any(provider.name in named and provider.addresses(family) for provider in self.providers)

    def rule_meta(self, rule: Rule, policy: Policy, cells: Cells) -> dict[str, object]:
        who = [*(provider.name for provider in self.providers), NO_PROVIDER]
        families: tuple[Family, Family] = (4, 6)
        return {
            "name": rule.name,
            "kind": KINDS[type(rule.action)],
            "columns": [_number(self.columns, Column(rule.action, family, policy.all_down)) for family in families],
            "unit": isinstance(rule.action, Weighted),
            "answers": [cells("answers", (policy.zone, rule.name, name), ANSWERS) for name in who],
        }


def _number(numbers: dict[T, int], thing: T) -> int:
    """The place of a thing among those met so far."""
    return numbers.setdefault(thing, len(numbers))


def _zone_meta(rules: ZoneRules, zone: Zone, cells: Cells) -> dict[str, object]:
    return {
        "depth": max(map(names.label_count, zone.nodes)),
        "name": rules.name,
        "apex": rules.apex.hex(),
        "requests": cells("requests", (rules.name,), REQUESTS),
        "responses": cells("responses", (rules.name,), RESPONSES),
        "explain": [[prefix.address.hex(), prefix.length] for prefix in rules.explain_allow],
        "transfer": [[prefix.address.hex(), prefix.length] for prefix in rules.transfer_allow],
        "explain_only": bool(rules.explain_allow) and _is_bare(EXPLAIN + rules.apex, zone),
    }


def _is_bare(name: bytes, zone: Zone) -> bool:
    """Whether nothing of the zone's own is at this name or below."""
    node = zone.nodes[name]
    return not (node.rrsets or node.dynamic or any(other != name and other.endswith(name) for other in zone.nodes))


Phases = list[list[tuple[float, int]]]


def _phases(space: Space, policies: Sequence[Policy]) -> tuple[Phases, list[npt.NDArray[np.uint32]]]:
    """For each policy (since when, which row of cells), and the rows: one for all times, one more after each rule's end."""
    phases: Phases = []
    rows: list[npt.NDArray[np.uint32]] = []
    for policy in policies:
        starts = [0.0, *sorted({rule.until for rule in policy.rules if rule.until is not None})]
        phases.append([(start, len(rows) + i) for i, start in enumerate(starts)])
        rows += [policy_cells(space, policy.rules, start) for start in starts]
    return phases, rows


def _records(nodes: NameBuilder, providers: Sequence[Provider], ttls: Sequence[int]) -> array[int]:
    """(offset, octets, count) of each provider's prebuilt records by TTL and family, owner 0xC00C."""
    rows = array("I")
    for ttl in ttls:
        for family, rtype in FAMILIES:
            for provider in providers:
                addresses = provider.addresses(family)
                content = b"".join(
                    b"\xc0\x0c" + rtype.to_bytes(2, "big") + b"\0\1" + ttl.to_bytes(4, "big") + len(a).to_bytes(2, "big") + a
                    for a in addresses
                )
                rows.extend((*nodes.store(content), len(addresses)))
    return rows


def rule_prefixes(rules: RuleSet, overrides: Iterable[Override] = ()) -> tuple[Prefix, ...]:
    """Every prefix that a rule, a named network or an operator's pin tells apart: what atoms are cut along."""
    matches = [rule.match for zone in rules.zones.values() for record in zone.records for rule in record.rules]
    matches += [override.match for override in overrides]
    found = {prefix for match in matches if match is not None for prefix in match.prefixes}
    found |= {prefix for network in rules.networks.values() for prefix in network.prefixes}
    return tuple(sorted(found))


def atoms_file(atoms: Atoms) -> bytes:
    """The published form of a set of atoms."""
    sections = atoms.sections()
    return flat.pack({name: (CODES[column.dtype.str[1:]], column.data.cast("B")) for name, column in sections.items()})


def snapshot_of(atoms: bytes, base: bytes, overlay: bytes, serial: int = 0, node: str = "local") -> Snapshot:
    """A Snapshot in memory, for tests of rules and for `explain --rules`; one overlay holds for ever."""
    root = {"serial": serial, "node": node, "schedule": [{"from": 0.0}]}
    files = Files(flat.unpack(atoms, "atoms"), flat.unpack(base, "base"), (flat.unpack(overlay, "overlay"),))
    return Snapshot(root, files)
