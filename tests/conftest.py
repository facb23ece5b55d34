"""Fixtures that several rooms' tests share: the example zone compiled over the real ASN table."""

from __future__ import annotations

import os
from collections.abc import Generator
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

import numpy as np
import pytest

from edgedns.engine import inline
from edgedns.engine.answer import Secrets
from edgedns.engine.cells import Space
from edgedns.engine.compile import Compiled, atoms_file, compile_base, snapshot_of
from edgedns.engine.load import Loaded, load_rules
from edgedns.engine.overlay import Spreader, compile_overlay
from edgedns.engine.seen import HEAD, SIZE, Ring
from edgedns.engine.snapshot import Snapshot
from edgedns.engine.tally import Tally
from edgedns.model import NetworkKey, Reason, Wan
from edgedns.steer.deciding.decisions import ColumnDecisions, Decisions, Ranking
from edgedns.steer.space import asn
from edgedns.steer.space.asn import AsnTable
from edgedns.steer.space.atoms import Atoms
from edgedns.steer.table.rows import pack, rows_of

RULES = Path(__file__).parents[1] / "rules"
SECRETS = Secrets((bytes(range(16)), bytes(range(16, 32))))
NOW = 1_790_000_000.0
SALT = 0x5EED


class Places:
    """Stands in for metrics.Registry: counter blocks laid one after the other."""

    def __init__(self) -> None:
        self.used = 64
        self.blocks: dict[tuple[str, tuple[str, ...]], int] = {}

    def block(self, kind: str, labels: tuple[str, ...], size: int) -> int:
        if (kind, labels) not in self.blocks:
            self.blocks[kind, labels] = self.used
            self.used += size
        return self.blocks[kind, labels]


def new_ring(step: int = 3) -> Ring:
    """A ring in memory of this process alone, each with the same dice."""
    return Ring(memoryview(bytearray(HEAD + 5000 * SIZE)), 5, step)


@dataclass(frozen=True)
class Example:
    """rules/ over the embedded table, as nominal and with made decisions at every level, some of them splits."""

    loaded: Loaded
    table: AsnTable
    atoms: Atoms
    compiled: Compiled
    places: Places
    nominal: Snapshot
    steered: Snapshot

    def tally(self) -> Tally:
        cells = memoryview(bytearray(8 * self.places.used)).cast("Q")
        return Tally(cells, memoryview(bytearray(4 * len(self.atoms.net_asn))).cast("I"), new_ring())


@pytest.fixture(scope="session")
def example() -> Example:
    loaded, table, places = load_rules(RULES), asn.embedded(), Places()
    atoms = inline.build_atoms(loaded.rules, table)
    compiled = compile_base(
        inline.sources(loaded),
        loaded.rules.providers,
        Space(atoms, loaded.rules.networks, asn.continent),
        (),
        places.block,
        SALT,
    )
    nominal = inline.nominal_decisions(loaded.rules, compiled)
    spreader, content = Spreader.of(atoms), atoms_file(atoms)
    names = list(loaded.rules.providers)
    both = (nominal, made_decisions(nominal, atoms))
    overlays = [compile_overlay(compiled.columns, each, names, spreader, SALT) for each in both]
    # One name is so long that errors have no room for it, one leaves them none for an extended error beside a cookie.
    nodes = ("a-node-with-quite-a-long-name", "node-of-test")
    pairs = zip(overlays, nodes, strict=True)
    snapshots = [snapshot_of(content, compiled.content, overlay, 7, node) for overlay, node in pairs]
    return Example(loaded, table, atoms, compiled, places, snapshots[0], snapshots[1])


def made_decisions(nominal: Decisions, atoms: Atoms, seed: int = 4) -> Decisions:
    """Rankings by dice for 4,000 networks and for some levels above them: reorderings, splits, holdouts, all-down."""
    dice = Random(seed)
    drawn = list(dict.fromkeys(atoms.network_key(dice.randrange(1, len(atoms.net_asn))) for _ in range(4000)))
    keys = {*drawn, *(NetworkKey(key.asn, key.country) for key in drawn[:800]), *(NetworkKey(key.asn) for key in drawn[:300])}
    keys |= {NetworkKey(-1, country) for country in ("DE", "US", "JP")} | {NetworkKey()}
    packed = np.unique(pack(rows_of(keys)))
    columns = {}
    for column, decided in nominal.columns.items():
        if not isinstance(column.action, Wan) or not decided.default.targets:
            columns[column] = decided
            continue
        rankings = _rankings(decided, dice)
        ranking = np.array([dice.randrange(len(rankings)) for _ in packed], np.int32)
        columns[column] = replace(decided, keys=packed, ranking=ranking, rankings=rankings, since=np.zeros(len(packed)))
    return Decisions(columns)


def _rankings(decided: ColumnDecisions, dice: Random) -> tuple[Ranking, ...]:
    targets = list(decided.default.targets)
    found = [Ranking((), Reason.ALL_DOWN, down="nodata"), Ranking((), Reason.ALL_DOWN, down="servfail")]
    for reason in (Reason.MEASURED, Reason.HELD, Reason.FAILED_OVER, Reason.NOMINAL):
        found.append(Ranking(tuple(dice.sample(targets, len(targets))), reason))
    for reason in (Reason.SPILLED, Reason.HOLDOUT):
        pair = tuple(dice.sample(targets, 2))
        found.append(Ranking(pair, reason, (0.7, 0.3)))
    for reason in (Reason.MEASURED, Reason.HELD):
        pair = tuple(dice.sample(targets, 2))
        found.append(Ranking(pair, reason, (0.8, 0.2), reasons=(reason, Reason.HOLDOUT)))
    return tuple(found)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Without root the tests that need it are listed as skipped."""
    if os.geteuid() == 0:
        return
    for item in items:
        if item.get_closest_marker("root"):
            item.add_marker(pytest.mark.skip(reason="needs root"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In CI nothing is skipped in silence: a tool that is absent fails the run."""
    report = yield
    if report.skipped and os.environ.get("CI") == "true" and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped, and CI lets nothing be skipped: {report.longrepr}"
    return report
