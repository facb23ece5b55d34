"""What the demo shows: the board's state, the networks whose lines are printed, the drawn console and the plain lines."""

from __future__ import annotations

from importlib.resources import files
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from edgedns.demo import console, scenes
from edgedns.demo.board import Board
from edgedns.demo.script import default

NAME = "www.cdn.example.net"
PROVIDERS = [{"name": "alder", "addresses": ["192.0.2.10"]}, {"name": "birch", "addresses": ["198.51.100.10"]}]


def status(*moves: dict[str, Any]) -> dict[str, Any]:
    return {"serial": 7, "queries": {"udp": 1200, "tcp": 3}, "samples": {"accepted": 5}, "providers": PROVIDERS, "moves": moves}


def move(at: float, **changes: Any) -> dict[str, Any]:
    return {
        "at": at, "network": "AS64500/NO/198.51.0.0/16", "as_name": "Example Access", "is_level": False, "name": f"{NAME}.",
        "type": "A", "rules": ["www/everyone-else A", "img/everyone-else A"], "before": "alder", "after": "birch",
        "reason": "FAILED_OVER", **changes,
    }  # fmt: skip


@pytest.fixture
def board() -> Board:
    made = Board(("127.0.0.1", 5300), "http://127.0.0.1:8053/", NAME, scenes.spots())
    made.pasted = made.spots[:3]
    made.take_status(status())
    return made


def test_a_move_is_new_once(board: Board) -> None:
    first, second, third = move(1.0), move(1.0, after="cedar"), move(2.0)
    assert board.take_status(status(first, second)) == [first, second]
    assert board.take_status(status(first, second)) == []
    assert board.take_status(status(first, second, third)) == [third]
    assert list(board.moves) == [first, second, third]


def test_an_answer_is_told_by_its_provider_and_keeps_what_was_before(board: Board) -> None:
    spot = board.spots[0]
    board.take_answer(spot, ["192.0.2.10"], 1.0)
    board.take_answer(spot, ["192.0.2.10"], 2.0)
    assert (spot.answer, spot.before, spot.changed_at) == ("alder", "", 1.0)
    board.take_answer(spot, ["198.51.100.10"], 3.0)
    assert (spot.answer, spot.before, spot.changed_at) == ("birch", "alder", 3.0)
    board.take_answer(board.spots[1], [], 3.0)
    board.take_answer(board.spots[2], ["203.0.113.99"], 3.0)
    assert board.given() == {"birch": 1, "nothing": 1, "203.0.113.99": 1}


def test_the_lines_printed_are_of_networks_that_cuts_move() -> None:
    script = default()
    groups = scenes.candidates(script, scenes.spots())
    cuts = [event for event in script.events if event.kind == "cut"]
    assert len(groups) == len(cuts) == 3
    for event, group in zip(cuts, groups, strict=True):
        assert group
        assert all(event.touches(spot.network) for spot in group)


def test_what_comes_next_never_ends() -> None:
    script = default()
    beginnings = scenes.beginnings(script)
    first = [next(beginnings) for _ in script.events]
    assert next(beginnings) == (first[0][0] + script.repeat, first[0][1])


@pytest.mark.parametrize(("width", "height"), [(80, 24), (80, 40), (140, 60)])
def test_the_console_fits_and_keeps_the_lines_to_paste_whole(board: Board, width: int, height: int) -> None:
    board.events.extend({"at": float(n), "kind": "cut", "text": f"event {n}"} for n in range(9))
    board.take_status(status(*(move(float(n), as_name="A very long name of a network " * 3) for n in range(1, 90))))
    for spot in board.spots:
        board.take_answer(spot, ["192.0.2.10"], 1.0)
    board.upcoming = 130.0, "something"
    screen = Console(width=width, file=StringIO(), record=True)
    screen.print(console.draw(board, 100.0, height))
    lines = screen.export_text().splitlines()
    assert len(lines) <= height
    assert max(map(len, lines)) <= width
    for spot in board.pasted:
        assert board.dig(spot) in lines
    assert any("alder -> birch" in line and "failed over" in line for line in lines)
    assert any("in 30 s" in line for line in lines)
    assert any(line.startswith("alder") and f"{len(board.spots)} networks" in line for line in lines)


def test_the_console_hides_levels_and_other_names(board: Board) -> None:
    board.take_status(status(move(1.0, is_level=True), move(2.0, name="dl.cdn.example.net."), move(3.0, type="AAAA")))
    screen = Console(width=100, file=StringIO(), record=True)
    screen.print(console.draw(board, 100.0, 40))
    assert "none yet" in screen.export_text()


def test_a_move_is_one_plain_line() -> None:
    line = console.move_line(move(1.0, before=""))
    assert line.partition(" ")[2] == (
        "moved    AS64500/NO/198.51.0.0/16 Example Access: nothing -> birch (failed over) for www/everyone-else A and 1 more"
    )


def test_the_demo_serves_the_example_rules() -> None:
    """An installed package has a copy, the repository a link."""
    shipped = Path(str(files("edgedns") / "demo" / "rules"))
    example = Path(__file__).parents[3] / "rules"
    names = {path.name for path in example.iterdir()}
    assert names == {path.name for path in shipped.iterdir()} >= {"providers.yaml", "cdn.example.net.yaml"}
    assert all((shipped / name).read_bytes() == (example / name).read_bytes() for name in names)
