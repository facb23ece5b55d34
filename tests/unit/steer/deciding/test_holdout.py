"""The holdout: who is held out, that they stay so whoever serves, and that both paths count them apart."""

from __future__ import annotations

from array import array

import numpy as np
import pytest

from edgedns.engine.overlay import split_table
from edgedns.engine.snapshot import SPLIT_SLOTS
from edgedns.model import Reason, Wan
from edgedns.steer.deciding.decisions import Column, ColumnDecisions, Decisions, Ranking
from edgedns.steer.deciding.holdout import held_out

ARMS = ("alder", "birch", "cedar")
COLUMN = Column(Wan(ARMS, ARMS, holdout=0.1), 4)
NOMINAL = Ranking(ARMS, Reason.NOMINAL)


def after(ranking: Ranking, share: float = 0.1) -> Ranking:
    decided = ColumnDecisions(COLUMN, NOMINAL, NOMINAL, ranking=np.zeros(1, np.int32), rankings=(ranking,), arms=ARMS)
    made = held_out(decided, share)
    assert made.default == made.nominal == NOMINAL
    return made.rankings[0]


@pytest.mark.parametrize("reason", [Reason.MEASURED, Reason.HELD, Reason.GUARDED])
def test_where_measurements_chose_another_a_share_stays(reason: Reason) -> None:
    held = after(Ranking(("cedar", "birch", "alder"), reason))
    assert held == Ranking(("cedar", "alder"), reason, (0.9, 0.1), reasons=(reason, Reason.HOLDOUT))
    assert after(Ranking(("cedar", "birch"), reason)).targets == ("cedar", "birch"), "nominal is the first that is up"


@pytest.mark.parametrize(
    "ranking",
    [
        Ranking(("alder", "cedar"), Reason.MEASURED),
        Ranking(("cedar",), Reason.MEASURED),
        Ranking(("cedar", "alder"), Reason.FAILED_OVER),
        Ranking(("cedar", "alder"), Reason.SPILLED),
        Ranking(("cedar", "alder"), Reason.ALL_DOWN),
        Ranking(("cedar", "alder"), Reason.MEASURED, (0.5, 0.5)),
        Ranking((), Reason.ALL_DOWN, down="nodata"),
    ],
)
def test_nobody_else_is(ranking: Ranking) -> None:
    assert after(ranking) == ranking


def test_without_a_share_nothing_changes() -> None:
    ranking = Ranking(("cedar", "alder"), Reason.MEASURED)
    assert after(ranking, 0.0) == ranking


def test_decisions_keep_it() -> None:
    rankings = (after(Ranking(("cedar", "birch"), Reason.MEASURED)),)
    column = ColumnDecisions(COLUMN, NOMINAL, NOMINAL, rankings=rankings, arms=ARMS)
    kept = Decisions.from_sections(Decisions({COLUMN: column}).to_sections())
    assert kept.columns[COLUMN].rankings == rankings


def places(serving: str, share: float) -> set[int]:
    """The places of a split table that are held out for provider 0."""
    index = ARMS.index(serving)
    table = split_table([(serving, index, 1 - share)], 7, (0, share))
    assert set(table) <= {0, index}
    return {place for place, target in enumerate(table) if target == 0}


def test_the_same_units_are_held_out_whoever_serves() -> None:
    assert places("birch", 0.1) == places("cedar", 0.1)
    assert places("birch", 0.02) < places("birch", 0.1) < places("birch", 0.5)


@pytest.mark.parametrize("share", [0.001, 0.01, 0.1, 0.5, 1.0])
def test_the_share_is_met(share: float) -> None:
    assert abs(len(places("birch", share)) - share * SPLIT_SLOTS) <= 0.5


def test_other_splits_are_as_they_were() -> None:
    members = [("alder", 0, 0.7), ("birch", 1, 0.3)]
    counts = array("I", np.bincount(np.frombuffer(split_table(members, 7), np.uint8), minlength=2))
    assert abs(counts[0] / SPLIT_SLOTS - 0.7) < 0.03
    three = split_table([("cedar", 2, 0.5), *members], 7)
    two = split_table(members, 7)
    assert all(b == a for a, b in zip(two, three, strict=True) if b != 2), "who comes takes places, and moves no others"
