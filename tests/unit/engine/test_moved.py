"""What changed hands, told to people: never more of it than they read."""

from __future__ import annotations

from edgedns.engine.moved import MOST, told
from edgedns.model import NetworkKey, Reason
from edgedns.steer.deciding.decisions import Move, Ranking
from tests.conftest import Example

BEFORE, AFTER = Ranking(("alder",), Reason.MEASURED), Ranking(("birch",), Reason.MEASURED)


def test_a_hundred_thousand_moves_give_as_many_entries_as_are_kept(example: Example) -> None:
    columns = [column for column in example.compiled.columns if type(column.action).__name__ == "Wan"][:2]
    networks = [NetworkKey(4_200_000_000 + number) for number in range(MOST + 100)]
    moved = [Move(column, network, BEFORE, AFTER, 0.0) for column in columns for network in networks]
    entries = told(moved, example.loaded.rules, example.atoms, {}, 5.0)
    assert [entry["asn"] for entry in entries] == [4_200_000_000 + number for number in range(MOST)]
    once = told(moved[:1], example.loaded.rules, example.atoms, {}, 5.0)[0]["rules"]
    # The second column's moves are behind the first one's: their rules stand in the entries that are kept.
    assert all(len(entry["rules"]) > len(once) for entry in entries)
