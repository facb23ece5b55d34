"""The demo's console: the board drawn with rich, or told line by line where nobody looks at a terminal."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from edgedns.demo.board import Board, Spot

COLOURS = ("cyan", "magenta", "yellow", "green", "blue", "red")
FRESH = 8.0
BAR = 30
EVENTS_SHOWN = 3
MOVES_LEAST = 3
MOVES_MOST = 30


def clock(at: float) -> str:
    """The time of day here."""
    return time.strftime("%H:%M:%S", time.localtime(at))


def event_line(event: Mapping[str, Any]) -> str:
    return f"{clock(event['at'])} {event['kind']:<8} {event['text']}"


def move_line(move: Mapping[str, Any]) -> str:
    after, before = move["after"] or "nothing", move["before"] or "nothing"
    change = f"{before} -> {after} ({words(move['reason'])})"
    return f"{clock(move['at'])} {'moved':<8} {move['network']} {_who(move, 40)}: {change} for {rules(move)}"


def rules(move: Mapping[str, Any]) -> str:
    """The first rule that a move holds for, and how many more."""
    names = move["rules"] or ["a rule that is gone"]
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


def words(reason: str) -> str:
    return reason.lower().replace("_", " ")


def _who(move: Mapping[str, Any], most: int) -> str:
    return (move["as_name"] or "")[:most]


def draw(board: Board, now: float, height: int) -> RenderableType:
    """The whole console, on as many lines as there are; rows that moved take what the rest leaves."""
    colours = _colours(board)
    above: list[RenderableType] = [
        _heading(board),
        _title("paste one of these, and again after the next event"),
        _digs(board, colours, now),
        _title("events"),
        _events(board, now),
        _title(f"rows of {board.name} that moved"),
    ]
    below: list[RenderableType] = [_title("networks by the answer that they get"), _shares(board, colours)]
    used = 11 + 2 * len(board.pasted) + min(len(board.events), EVENTS_SHOWN) + len(colours)
    return Group(*above, _moves(board, colours, max(MOVES_LEAST, min(MOVES_MOST, height - used))), *below)


def _title(text: str) -> Text:
    return Text(f"\n{text}", style="bold")


def _colours(board: Board) -> dict[str, str]:
    names = [one["name"] for one in board.status.get("providers", ())]
    return {name: COLOURS[place % len(COLOURS)] for place, name in enumerate(names)}


def _heading(board: Board) -> Text:
    status = board.status
    queries = sum(status.get("queries", {}).values())
    text = Text(no_wrap=True, overflow="ellipsis")
    text.append("edgedns demo", style="bold")
    text.append("  ")
    text.append(board.page, style="underline")
    text.append(f"  serial {status.get('serial', 0)}  {queries:,} queries")
    text.append("  Ctrl-C ends it", style="dim")
    return text


def _digs(board: Board, colours: Mapping[str, str], now: float) -> Group:
    """Each line to paste, and under it who asks and what the answer is now."""
    lines = []
    for spot in board.pasted:
        network = spot.network
        below = Text("  # ", style="dim", no_wrap=True, overflow="ellipsis")
        below.append_text(_answer(spot, colours, now))
        below.append(f"  AS{network.asn} {network.name}, {network.country}")
        lines += [Text(board.dig(spot), no_wrap=True, overflow="crop"), below]
    return Group(*lines)


def _answer(spot: Spot, colours: Mapping[str, str], now: float) -> Text:
    text = Text(style="not dim")
    if spot.before:
        text.append(f"{spot.before} -> ", style="dim")
    style = colours.get(spot.answer, "")
    if spot.before and now - spot.changed_at < FRESH:
        style += " bold reverse"
    text.append(spot.answer or "...", style=style)
    return text


def _events(board: Board, now: float) -> Table:
    table = Table.grid(padding=(0, 1))
    for event in list(board.events)[-EVENTS_SHOWN:]:
        over = event["kind"] == "return"
        table.add_row(Text(clock(event["at"]), style="dim"), Text(event["text"], style="green" if over else "bold"))
    if board.upcoming is not None and board.upcoming[0] > now:
        at, text = board.upcoming
        table.add_row(Text(f"in {at - now:.0f} s", style="dim"), Text(text, style="dim"))
    return table


def _moves(board: Board, colours: Mapping[str, str], most: int) -> RenderableType:
    """Networks and the name shown only: levels above networks, and other names' rules, move along."""
    name = f"{board.name}."
    moves = [move for move in board.moves if not move["is_level"] and (move["name"], move["type"]) == (name, "A")][-most:]
    if not moves:
        return Text("none yet: the first rounds of probes fill the table", style="dim")
    table = Table.grid(padding=(0, 2))
    for move in reversed(moves):
        change = Text(f"{move['before'] or 'nothing'} -> ", style="dim", no_wrap=True)
        change.append(move["after"] or "nothing", style=colours.get(move["after"], "not dim"))
        who = Text(f"{move['network']} {_who(move, 24)}", no_wrap=True, overflow="ellipsis")
        table.add_row(Text(clock(move["at"]), style="dim"), change, who, Text(words(move["reason"]), style="dim", no_wrap=True))
    return table


def _shares(board: Board, colours: Mapping[str, str]) -> Table:
    """How many of the networks are answered each provider, by asking for all of them in turn."""
    given, table = board.given(), Table.grid(padding=(0, 2))
    most = max([*given.values(), 1])
    for name, colour in colours.items():
        bar = "█" * round(BAR * given[name] / most)
        table.add_row(Text(name, style=colour), Text(f"{given[name]:>3} networks"), Text(bar, style=colour))
    return table
