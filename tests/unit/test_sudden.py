"""Paths that get slower move their networks between rounds, and law 8 counts such moves together until the round ends."""

from __future__ import annotations

from pathlib import Path

from edgedns.control import Control, Paths
from tests.small import NETWORKS, samples, write_rules, write_table

NOW = 1_790_000_000.0
GOOD = {"alder": 35.0, "birch": 20.0, "cedar": 60.0}
SLOW = {**GOOD, "birch": 100.0}


def settled(top: Path, limit: float) -> tuple[Control, list[str], float]:
    """A control process in whose round everybody is on birch, what it says, and the time."""
    said: list[str] = []
    control = Control(
        Paths(top / "state", write_rules(top / "rules", limit=limit), write_table(top / "table.tsv")), "node", said.append
    )
    control.start(NOW)
    now = NOW
    for _ in range(8):
        for part in (1.0, 4.0, 7.0):
            control.ingest(samples(now + part, GOOD), now + part)
        now += 10.0
        control.close_round(now)
    assert on_birch(control) == NETWORKS
    return control, said, now


def on_birch(control: Control) -> int:
    """Networks that are given birch over IPv4."""
    column = next(one for one in control.force.decisions.columns.values() if one.arms and one.column.family == 4)
    return sum(
        column.rankings[column.ranking[row]].targets[0] == "birch"
        for row in range(len(column.keys))
        if column.rows[row]["block"] >= 0
    )


def slow(control: Control, now: float, some: range) -> None:
    """Four samples of each of these networks in one round, birch 80 ms slower."""
    for part in range(4):
        control.ingest(samples(now + part, SLOW, some), now + part)


def test_they_move_before_the_round_ends(tmp_path: Path) -> None:
    control, said, now = settled(tmp_path, limit=1.0)
    slow(control, now + 1.0, range(20))
    assert on_birch(control) == NETWORKS - 20
    control.close_round(now + 10.0)
    assert on_birch(control) == NETWORKS - 20
    assert "not published" not in "".join(said)


def test_one_by_one_they_are_not_more_than_all_at_once(tmp_path: Path) -> None:
    control, said, now = settled(tmp_path, limit=0.25)
    for first in range(0, 40, 5):
        slow(control, now + 1.0 + first / 10, range(first, first + 5))
    moved = NETWORKS - on_birch(control)
    assert 5 <= moved <= NETWORKS / 4
    assert "the limit is 25%" in "".join(said)
    control.close_round(now + 10.0)
    assert NETWORKS - on_birch(control) == moved, "this round's share is used up"
    control.ingest(samples(now + 11.0, SLOW, range(40)), now + 11.0)
    control.close_round(now + 20.0)
    assert moved < NETWORKS - on_birch(control) <= 2 * moved
