"""What the rules and the ASN table make together: atoms and a base, made anew only where an input changed.

Control process only. `put(kind, content, key)` stores a published file and gives its name (publish.Publisher.put).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from edgedns import __version__
from edgedns.dns import types
from edgedns.engine.cells import Space
from edgedns.engine.compile import Cells, Compiled, ZoneSource, atoms_file, compile_base, rule_prefixes
from edgedns.engine.flat import VERSION, Buffer, Sections, unpack
from edgedns.engine.inline import check_tests, nominal_decisions
from edgedns.engine.load import Loaded, with_last_good, with_serial
from edgedns.engine.overlay import Spreader, compile_overlay
from edgedns.engine.snapshot import Files, Snapshot
from edgedns.errors import Problem, RuleErrors, SourceError
from edgedns.model import Override, RuleSet
from edgedns.steer import asn
from edgedns.steer.asn import AsnTable
from edgedns.steer.atoms import Atoms, build

PUBLIC = "public-resolvers"


class Put(Protocol):
    def __call__(self, kind: str, content: Buffer, key: str = "") -> str: ...


@dataclass(frozen=True, slots=True)
class Serial:
    """A zone's SOA serial, and the digest of the static data that it stands for."""

    serial: int
    digest: str


@dataclass(frozen=True)
class Ground:
    """The atoms of one table under one set of prefixes, and what is derived from them; `name` is their file."""

    key: str
    name: str
    atoms: Atoms
    sections: Sections
    spreader: Spreader
    asns: frozenset[int]


@dataclass(frozen=True)
class World:
    """All that doesn't change with measurements; replaced as a whole."""

    loaded: Loaded
    table: AsnTable
    ground: Ground
    compiled: Compiled
    base_name: str
    serials: Mapping[str, Serial]

    @property
    def rules(self) -> RuleSet:
        return self.loaded.rules


@dataclass(frozen=True)
class Inputs:
    """What a world is made from, beside its rules. `cells` places counter blocks, `put` stores files, `opened` reads them."""

    table: AsnTable
    overrides: Sequence[Override]
    salt: int
    cells: Cells
    put: Put
    opened: Callable[[str], Sections]


def make_ground(rules: RuleSet, inputs: Inputs, last: Ground | None) -> Ground:
    """The atoms under the rules' prefixes: `last` again where nothing they depend on changed, else as published, else new."""
    public = rules.networks[PUBLIC]
    prefixes = rule_prefixes(rules, inputs.overrides)
    key = _digest(VERSION, __version__, inputs.table.digest, prefixes, sorted(public.asns), public.prefixes)
    if last is not None and last.key == key:
        return last
    name = f"atoms-{key}.bin"
    try:
        atoms = Atoms.from_sections(inputs.opened(name))
    except SourceError:
        atoms = build(inputs.table, (*prefixes, *public.prefixes), public.asns, public.prefixes)
        inputs.put("atoms", atoms_file(atoms), key)
    return Ground(key, name, atoms, inputs.opened(name), Spreader.of(atoms), frozenset(atoms.level_asn.tolist()))


def make_world(loaded: Loaded, inputs: Inputs, last: World | None, serials: Mapping[str, Serial], now: float) -> World:
    """Compile the rules; a zone whose inline tests fail stays as it was in `last` (or out, on a first start).

    A zone's SOA serial stays while its static data does, else it is `now` (Unix seconds). RuleErrors when no zone is left.
    """
    ground = make_ground(loaded.rules, inputs, last.ground if last else None)
    space = Space(ground.atoms, loaded.rules.networks, asn.continent)
    stamped = {name: _stamp(loaded, name, serials.get(name), now) for name in loaded.rules.zones}
    plain = _compile(loaded, stamped, space, (), inputs)
    wrong = _failed_tests(loaded, plain, ground, inputs)
    if wrong:
        held = _hold_back(loaded, wrong, last)
        if not held.rules.zones:
            raise RuleErrors(wrong)
        return make_world(held, inputs, last, serials, now)
    pins = [override for override in inputs.overrides if override.kind == "pin"]
    compiled = _compile(loaded, stamped, space, pins, inputs) if pins else plain
    return World(loaded, inputs.table, ground, compiled, inputs.put("base", compiled.content), stamped)


def _compile(
    loaded: Loaded, serials: Mapping[str, Serial], space: Space, pins: Sequence[Override], inputs: Inputs
) -> Compiled:
    zones = []
    for name, zone in loaded.rules.zones.items():
        records = with_serial(loaded.statics[name], serials[name].serial)
        zones.append(ZoneSource(zone, tuple((rr.owner, rr.type, rr.ttl, rr.rdata) for rr in records)))
    return compile_base(zones, loaded.rules.providers, space, pins, inputs.cells, inputs.salt)


def _stamp(loaded: Loaded, name: str, known: Serial | None, now: float) -> Serial:
    """The serial as given, or the time of the last change of the zone's static data."""
    records = loaded.statics[name]
    digest = _digest(*(tuple(rr[:4]) for rr in records))
    given = next(int.from_bytes(rr.rdata[-20:-16], "big") for rr in records if rr.type == types.SOA)
    if given:
        return Serial(given, digest)
    return known if known is not None and known.digest == digest else Serial(int(now), digest)


def _failed_tests(loaded: Loaded, compiled: Compiled, ground: Ground, inputs: Inputs) -> list[Problem]:
    """The inline tests that don't hold under these rules, without any operator's order."""
    if not any(zone.tests for zone in loaded.rules.zones.values()):
        return []
    decisions = nominal_decisions(loaded.rules, compiled)
    overlay = compile_overlay(compiled.columns, decisions, list(loaded.rules.providers), ground.spreader, inputs.salt)
    files = Files(ground.sections, unpack(compiled.content, "base"), (unpack(overlay, "overlay"),))
    snapshot = Snapshot({"serial": 0, "node": "tests", "schedule": [{"from": 0.0}]}, files)
    return check_tests(loaded, snapshot, inputs.table.first_address)


def _hold_back(loaded: Loaded, wrong: Sequence[Problem], last: World | None) -> Loaded:
    """Zones with failed tests as they were in `last`; left out where they were not in it."""
    files = {problem.file for problem in wrong}
    failed = frozenset(name for name, zone in loaded.rules.zones.items() if {t.where.file for t in zone.tests} & files)
    zones = {name: zone for name, zone in loaded.rules.zones.items() if name not in failed}
    statics = {name: records for name, records in loaded.statics.items() if name not in failed}
    rest = replace(
        loaded,
        rules=replace(loaded.rules, zones=zones),
        statics=statics,
        problems=sorted([*loaded.problems, *wrong]),
        failed_zones=loaded.failed_zones | failed,
    )
    return with_last_good(rest, last.loaded) if last else rest


def _digest(*parts: object) -> str:
    return hashlib.blake2b(repr(parts).encode(), digest_size=12).hexdigest()
