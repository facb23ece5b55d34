"""What is published depends on the decisions alone: not on what was published before, nor on a restart in between.

In the design's words, `with_decisions(s, d)` equals `compile(zones, atoms, d)`. Here an overlay takes the place of the former.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgedns.control import Control, Paths
from edgedns.engine import inline
from edgedns.engine.overlay import Spreader, compile_overlay
from edgedns.steer.deciding.decisions import Decisions
from tests.conftest import NOW, Example, made_decisions
from tests.small import ADDRESS, NETWORKS, samples, write_rules, write_table


@pytest.fixture(scope="module")
def spreader(example: Example) -> Spreader:
    return Spreader.of(example.atoms)


@settings(max_examples=3, deadline=None)
@given(seeds=st.lists(st.integers(1, 50), min_size=2, max_size=2, unique=True))
def test_an_overlay_is_a_function_of_its_decisions(example: Example, spreader: Spreader, seeds: list[int]) -> None:
    providers = list(example.loaded.rules.providers)
    nominal = inline.nominal_decisions(example.loaded.rules, example.compiled)
    one, other = (made_decisions(nominal, example.atoms, seed=seed) for seed in seeds)
    columns = list(one.columns)

    def published(decisions: Decisions) -> bytes:
        return compile_overlay(columns, decisions, providers, spreader, 77)

    alone = compile_overlay(columns, other, providers, Spreader.of(example.atoms), 77)
    assert published(one) != alone
    assert published(other) == alone
    assert published(Decisions.from_sections(other.to_sections())) == alone


def rounds(control: Control, seed: int, now: float) -> float:
    """Three rounds in which some networks change their best provider and some lose a provider."""
    dice = Random(seed)
    for _ in range(3):
        for network in range(NETWORKS):
            rtts: dict[str, float | None] = {name: float(dice.randrange(10, 90)) for name in ADDRESS if name != "alder"}
            control.ingest(samples(now + 1, {"alder": None if network < 5 else 50.0, **rtts}, [network]), now + 1)
        now += 10
        control.close_round(now)
    return now


@pytest.mark.parametrize("seed", [1, 2])
def test_what_grew_round_by_round_is_what_is_compiled_at_once(tmp_path: Path, seed: int) -> None:
    """`with_decisions(s, d)`, step by step and over a restart, is `compile(zones, atoms, d)` elsewhere, in each octet."""
    rules, table = write_rules(tmp_path / "rules"), write_table(tmp_path / "table.tsv")

    def begun(state: str, now: float) -> Control:
        control = Control(Paths(tmp_path / state, rules, table), state, lambda _: None)
        control.start(now)
        return control

    now = rounds(begun("here", NOW), seed, NOW)
    here = begun("here", now)
    first = here.publisher.root
    now = rounds(here, seed + 100, now)
    (tmp_path / "there").mkdir()
    shutil.copy(tmp_path / "here" / "salt", tmp_path / "there")
    there = begun("there", NOW)
    decisions = Decisions.from_sections(here.force.decisions.to_sections())
    there.publish(replace(there.force, decisions=decisions, table=here.force.table, taken_at=here.force.taken_at), now)
    one, other = here.publisher.root, there.publisher.root
    assert one is not None
    assert other is not None
    assert first is not None
    assert first["schedule"] != one["schedule"], "the rounds must have moved somebody"
    for part in ("atoms", "base"):
        assert one[part] == other[part]
    assert [step["overlay"] for step in one["schedule"]] == [step["overlay"] for step in other["schedule"]]
    names = [one["atoms"], one["base"], *(step["overlay"] for step in one["schedule"])]
    for name in names:
        assert (here.publisher.directory / name).read_bytes() == (there.publisher.directory / name).read_bytes()
