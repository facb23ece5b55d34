"""What is published depends on the decisions alone: not on what was published before, nor on a restart in between.

In the design's words, `with_decisions(s, d)` equals `compile(zones, atoms, d)`. Here an overlay takes the place of the former.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgedns.engine import inline
from edgedns.engine.overlay import Spreader, compile_overlay
from edgedns.steer.decisions import Decisions
from tests.conftest import Example, made_decisions


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
