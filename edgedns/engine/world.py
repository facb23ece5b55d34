"""What the rules and the ASN table make together: atoms and a base, made anew only where an input changed.

Control process only. `put(kind, content, key)` stores a published file and gives its name (publish.Publisher.put).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

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
from edgedns.steer.space import asn
from edgedns.steer.space.asn import AsnTable
from edgedns.steer.space.atoms import Atoms, build

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
    """All that doesn't change with measurements; replaced as a whole. `salt` keys the hash units."""

    loaded: Loaded
    table: AsnTable
    ground: Ground
    compiled: Compiled
    base_name: str
    serials: Mapping[str, Serial]
    salt: int

    @property
    def rules(self) -> RuleSet:
        return self.loaded.rules


@dataclass(frozen=True)
class Inputs:
    """What a world is made from, beside its rules. `cells` places counter blocks, `put` stores files, `opened` reads them.

    `salt` is that of hash units where the rules name none.
    """

    table: AsnTable
    pins: Sequence[Override]
    salt: int
    cells: Cells
    put: Put
    opened: Callable[[str], Sections]


def make_ground(rules: RuleSet, inputs: Inputs, last: Ground | None) -> Ground:
    """The atoms under the rules' prefixes: `last` again where nothing they depend on changed, else as published, else new."""
    public = rules.networks[PUBLIC]
    prefixes = rule_prefixes(rules, inputs.pins)
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


class Held(NamedTuple):
    """Rules held to their tests, and what they compile to without any order (None where that was not needed)."""

    loaded: Loaded
    plain: Compiled | None = None


def make_world(rules: Held, inputs: Inputs, serials: Mapping[str, Serial], now: float, last: Ground | None = None) -> World:
    """Compile rules whose tests hold, or don't matter now: neither an order nor a new ASN table waits for them.

    A zone's SOA serial stays while its static data does, else it is `now` (Unix seconds).
    """
    loaded = rules.loaded
    ground = make_ground(loaded.rules, inputs, last)
    stamped = _stamped(loaded, serials, now)
    compiled = None if inputs.pins else rules.plain
    compiled = compiled or _compile(loaded, stamped, ground, inputs, inputs.pins)
    salt = salt_of(loaded.rules, inputs.salt)
    return World(loaded, inputs.table, ground, compiled, inputs.put("base", compiled.content), stamped, salt)


def held_to_tests(
    loaded: Loaded, inputs: Inputs, serials: Mapping[str, Serial], now: float, last: Ground | None, good: Loaded | None
) -> Held:
    """New rules, each zone whose inline tests fail as it was in `good`, or out where it was not in it.

    RuleErrors when no zone is left. To be made a world of with the same table, serials and time.
    """
    if not any(zone.tests for zone in loaded.rules.zones.values()):
        return Held(loaded)
    inputs = replace(inputs, pins=())
    ground = make_ground(loaded.rules, inputs, last)
    compiled = _compile(loaded, _stamped(loaded, serials, now), ground, inputs, ())
    wrong = _failed_tests(loaded, compiled, ground, inputs)
    if not wrong:
        return Held(loaded, compiled)
    held = _hold_back(loaded, wrong, good)
    if not held.rules.zones:
        raise RuleErrors(wrong)
    return Held(held)


def salt_of(rules: RuleSet, otherwise: int) -> int:
    """The key of hash units: from the rules' `salt:`, so that nodes agree, else this node's own."""
    return int.from_bytes(hashlib.blake2b(rules.salt.encode(), digest_size=8).digest()) if rules.salt else otherwise


def _compile(
    loaded: Loaded, serials: Mapping[str, Serial], ground: Ground, inputs: Inputs, pins: Sequence[Override]
) -> Compiled:
    zones = []
    for name, zone in loaded.rules.zones.items():
        records = with_serial(loaded.statics[name], serials[name].serial)
        zones.append(ZoneSource(zone, tuple((rr.owner, rr.type, rr.ttl, rr.rdata) for rr in records)))
    space = Space(ground.atoms, loaded.rules.networks, asn.continent)
    return compile_base(zones, loaded.rules.providers, space, pins, inputs.cells, salt_of(loaded.rules, inputs.salt))


def _stamped(loaded: Loaded, serials: Mapping[str, Serial], now: float) -> dict[str, Serial]:
    return {name: _stamp(loaded, name, serials.get(name), now) for name in loaded.rules.zones}


def _stamp(loaded: Loaded, name: str, known: Serial | None, now: float) -> Serial:
    """The serial as given, or the time of the last change of the zone's static data; always more than the one before."""
    records = loaded.statics[name]
    digest = _digest(*(tuple(rr[:4]) for rr in records))
    given = next(int.from_bytes(rr.rdata[-20:-16], "big") for rr in records if rr.type == types.SOA)
    if given:
        return Serial(given, digest)
    if known is None:
        return Serial(int(now), digest)
    return known if known.digest == digest else Serial(max(int(now), known.serial + 1) & 0xFFFFFFFF, digest)


def _failed_tests(loaded: Loaded, compiled: Compiled, ground: Ground, inputs: Inputs) -> list[Problem]:
    """The inline tests that don't hold under these rules, without any operator's order."""
    decisions = nominal_decisions(loaded.rules, compiled)
    providers, salt = list(loaded.rules.providers), salt_of(loaded.rules, inputs.salt)
    overlay = compile_overlay(compiled.columns, decisions, providers, ground.spreader, salt)
    files = Files(ground.sections, unpack(compiled.content, "base"), (unpack(overlay, "overlay"),))
    snapshot = Snapshot({"serial": 0, "node": "tests", "schedule": [{"from": 0.0}]}, files)
    return check_tests(loaded, snapshot, inputs.table.first_address)


def _hold_back(loaded: Loaded, wrong: Sequence[Problem], good: Loaded | None) -> Loaded:
    """Zones with failed tests as they were in `good`; left out where they were not in it."""
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
    return with_last_good(rest, good) if good else rest


def _digest(*parts: object) -> str:
    return hashlib.blake2b(repr(parts).encode(), digest_size=12).hexdigest()
