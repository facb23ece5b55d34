"""The inline `tests:` of zone files: they test the rules, not the weather.

All providers up, no overrides, the nominal table, at the date that each test gives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from edgedns.dns import name, types
from edgedns.dns.edns import ClientSubnet, Edns
from edgedns.dns.message import Query
from edgedns.engine.answer import answer
from edgedns.engine.cells import Space
from edgedns.engine.compile import Compiled, ZoneSource, atoms_file, compile_base, rule_prefixes, snapshot_of
from edgedns.engine.load import Loaded
from edgedns.engine.overlay import Spreader, compile_overlay
from edgedns.engine.snapshot import Snapshot
from edgedns.errors import Problem
from edgedns.model import InlineTest, Prefix, RuleSet
from edgedns.steer.deciding.decisions import Decisions
from edgedns.steer.deciding.policy import decide
from edgedns.steer.failure.health import Health
from edgedns.steer.space import asn
from edgedns.steer.space.atoms import Atoms, build
from edgedns.steer.table.rtt import RttStore
from edgedns.steer.table.wan import estimate

DOCUMENTATION = bytes((192, 0, 2, 1))
PAYLOAD = 1232


def run_tests(loaded: Loaded, asn_path: Path | None = None) -> list[Problem]:
    """Every test that fails, as a Problem at its place. SourceError when the ASN table can't be read."""
    if not any(zone.tests for zone in loaded.rules.zones.values()):
        return []
    table = asn.load(asn_path) if asn_path else asn.embedded()
    snapshot = nominal_snapshot(loaded, build_atoms(loaded.rules, table))
    return check_tests(loaded, snapshot, table.first_address)


def build_atoms(rules: RuleSet, table: asn.AsnTable) -> Atoms:
    """The atoms of a table under a set of rules."""
    public = rules.networks["public-resolvers"]
    return build(table, (*rule_prefixes(rules), *public.prefixes), public.asns, public.prefixes)


def nominal_snapshot(loaded: Loaded, atoms: Atoms) -> Snapshot:
    """What the rules say when nothing was measured and everything is up; holds for all times."""
    return nominal(loaded, atoms)[1]


def nominal(loaded: Loaded, atoms: Atoms) -> tuple[Compiled, Snapshot]:
    """The same, and the rules as compiled."""
    space = Space(atoms, loaded.rules.networks, asn.continent)
    compiled = compile_base(sources(loaded), loaded.rules.providers, space, (), _no_cells, 0)
    decisions = nominal_decisions(loaded.rules, compiled)
    overlay = compile_overlay(compiled.columns, decisions, list(loaded.rules.providers), Spreader.of(atoms), 0)
    return compiled, snapshot_of(atoms_file(atoms), compiled.content, overlay)


def nominal_decisions(rules: RuleSet, compiled: Compiled) -> Decisions:
    up = {key: replace(provider, state="up") for key, provider in rules.providers.items()}
    return decide(compiled.columns, up, {}, estimate(RttStore()), Health(), None, 0.0, 0.0)


def sources(loaded: Loaded) -> list[ZoneSource]:
    """The zones of a directory as compile wants them."""
    return [
        ZoneSource(zone, tuple((rr.owner, rr.type, rr.ttl, rr.rdata) for rr in loaded.statics[key]))
        for key, zone in loaded.rules.zones.items()
    ]


def check_tests(
    loaded: Loaded, snapshot: Snapshot, first_address: Callable[[int], bytes | None]
) -> list[Problem]:
    """The tests that fail against a snapshot of the rules. They are asked in order of date, as time can't go back.

    Zones that stand as they were because their new file has errors are not tested again.
    """
    tests = [test for name, zone in loaded.rules.zones.items() if name not in loaded.failed_zones for test in zone.tests]
    problems = []
    for test in sorted(tests, key=lambda test: test.at or 0.0):
        wrong = _failure(test, snapshot, first_address)
        if wrong:
            where = test.where
            problems.append(Problem(where.file, where.line, where.column, "E190", f"test failed: {wrong}"))
    return sorted(problems)


def _failure(test: InlineTest, snapshot: Snapshot, first_address: Callable[[int], bytes | None]) -> str:
    asker = test.client.address if test.client else first_address(test.asn) if test.asn else DOCUMENTATION
    if asker is None:
        return f"AS{test.asn} has no address in the ASN table"
    rtype = types.type_number(test.type)
    got = _given(snapshot, test.name, rtype, asker, test.subnet, test.at or 0.0)
    if got in test.expect:
        return ""
    return f"{name.to_text(test.name)} {test.type} gives {got}, expected {' or '.join(test.expect)}"


def _given(snapshot: Snapshot, qname: bytes, rtype: int, asker: bytes, subnet: Prefix | None, at: float) -> str:
    """The provider given, or the rcode, or NODATA."""
    option = subnet and ClientSubnet(1 if subnet.family == 4 else 2, subnet.length, 0, subnet.address)
    edns = Edns(PAYLOAD, 0, False, option) if option else None
    query = Query(0, types.QUERY, False, False, qname, name.fold(qname), rtype, types.IN, edns, b"")
    given, choice = answer(snapshot, query, asker, at)
    if choice.provider:
        return choice.provider
    if given.response.rcode == types.NOERROR:
        return "NOERROR" if given.response.answer else "NODATA"
    return types.rcode_name(given.response.rcode)


def _no_cells(kind: str, labels: Iterable[str], size: int) -> int:
    return 0
