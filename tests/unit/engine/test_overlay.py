"""Overlays: every network gets the ranking of its nearest row, splits hold their shares and move only what must move."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgedns.engine import inline
from edgedns.engine.flat import unpack
from edgedns.engine.overlay import Spreader, compile_overlay, split_table
from edgedns.engine.snapshot import NONE, RANKING, SPLIT_SLOTS, unit_slot
from edgedns.errors import PublishRefused
from edgedns.model import Failover, NetworkKey, Reason, Wan
from edgedns.steer.deciding.decisions import Column, ColumnDecisions, Decisions, Ranking
from edgedns.steer.table.rows import pack, rows_of
from tests.conftest import Example, made_decisions

NAMES = ("alder", "birch", "cedar", "dogwood")
SALT = 77


def first_targets(content: bytes, column: int, networks: int) -> list[tuple[int, int]]:
    """(reason, first target) of every network in a column of an overlay."""
    overlay = unpack(content, "overlay")
    fixed, offset = overlay["column"][column * 2 : column * 2 + 2]
    found = []
    for network in range(networks):
        number = overlay["ranking_of"][offset + network] if fixed == NONE else fixed
        row = overlay["ranking"][number * RANKING : (number + 1) * RANKING]
        found.append((row[1], row[4] & 0xFF if row[2] else -1))
    return found


@pytest.fixture(scope="module")
def spreader(example: Example) -> Spreader:
    return Spreader.of(example.atoms)


def test_every_network_gets_the_ranking_of_its_nearest_row(example: Example, spreader: Spreader) -> None:
    """Against Decisions.ranking_for, which looks each key up by itself."""
    decisions = made_decisions(inline.nominal_decisions(example.loaded.rules, example.compiled), example.atoms, seed=9)
    columns = list(decisions.columns)
    at = next(i for i, column in enumerate(columns) if isinstance(column.action, Wan))
    decided, providers = decisions.columns[columns[at]], list(example.loaded.rules.providers)
    content = compile_overlay(columns, decisions, providers, spreader, SALT)
    given = first_targets(content, at, len(example.atoms.net_asn))
    atoms, dice = example.atoms, Random(3)
    twins = range(atoms.public_networks + 1, 2 * atoms.public_networks + 1)
    for number in [0, *dice.sample(range(len(atoms.net_asn)), 20_000), *dice.sample(twins, 200)]:
        key = atoms.network_key(number)
        row = decided.index(key)
        own = row >= 0 and decided.rows[row]["block"] >= 0
        alone = number in twins and not own  # a public resolver's address says nothing about what is around it
        ranking = decided.default if alone else decided.ranking_for(key)
        first = providers.index(ranking.targets[0]) if ranking.targets else -1
        assert given[number] == (int(ranking.reason), first), key


def test_nominal_is_one_ranking_for_everyone(example: Example, spreader: Spreader) -> None:
    decisions = made_decisions(inline.nominal_decisions(example.loaded.rules, example.compiled), example.atoms)
    content = compile_overlay(list(decisions.columns), decisions, NAMES, spreader, SALT, nominal=True)
    overlay = unpack(content, "overlay")
    assert len(overlay["ranking_of"]) == 0
    assert all(fixed != NONE for fixed in overlay["column"][::2])
    assert compile_overlay(list(decisions.columns), decisions, NAMES, spreader, SALT, nominal=True) == content


def test_more_rankings_than_fit_are_refused(spreader: Spreader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgedns.engine.overlay.RANKINGS_MAX", 2)
    column = Column(Failover(NAMES), 4)
    rankings = tuple(Ranking((name,), Reason.ORDERED) for name in NAMES)
    keys = pack(rows_of([NetworkKey(n) for n in (1, 2, 3, 4)]))
    decided = ColumnDecisions(column, rankings[0], rankings[0], np.sort(keys), np.arange(4, dtype=np.int32), rankings)
    with pytest.raises(PublishRefused, match="more than 2 different rankings"):
        compile_overlay([column], Decisions({column: decided}), NAMES, spreader, SALT)


def test_a_provider_that_left_the_rules_is_left_out(spreader: Spreader) -> None:
    column = Column(Failover(("elm", "birch")), 4)
    ranking = Ranking(("elm", "birch"), Reason.ORDERED)
    decided = Decisions({column: ColumnDecisions(column, ranking, replace(ranking, targets=("elm",)))})
    assert first_targets(compile_overlay([column], decided, NAMES, spreader, SALT), 0, 1) == [(Reason.ORDERED, 1)]
    nobody = unpack(compile_overlay([column], decided, NAMES, spreader, SALT, nominal=True), "overlay")
    assert nobody["ranking"][:3].tolist() == [1, int(Reason.ORDERED), 0]  # NODATA rather than a foreign address


@given(st.lists(st.floats(0.05, 1), min_size=2, max_size=4), st.integers(0, 2**64 - 1))
def test_splits_hold_their_shares(weights: list[float], salt: int) -> None:
    members = [(name, i, weight) for i, (name, weight) in enumerate(zip(NAMES, weights, strict=False))]
    got = Counter(split_table(members, salt))
    for _, i, weight in members:
        share = weight / sum(weights)
        assert abs(got[i] / SPLIT_SLOTS - share) < 5 * (share * (1 - share) / SPLIT_SLOTS) ** 0.5 + 0.002


@given(st.integers(0, 3), st.integers(0, 2**64 - 1))
def test_who_leaves_a_split_moves_only_what_was_its_own(leaver: int, salt: int) -> None:
    members = [(name, i, 1.0 + i) for i, name in enumerate(NAMES)]
    before = np.frombuffer(split_table(members, salt), np.uint8)
    after = np.frombuffer(split_table([one for one in members if one[1] != leaver], salt), np.uint8)
    assert (before[before != leaver] == after[before != leaver]).all()
    assert leaver not in after


def test_hash_units_are_spread_evenly() -> None:
    slots = Counter(unit_slot(SALT, unit) for unit in range(1 << 16))
    assert len(slots) == SPLIT_SLOTS
    assert max(slots.values()) < 50
    assert unit_slot(SALT, 5) != unit_slot(SALT + 1, 5)
