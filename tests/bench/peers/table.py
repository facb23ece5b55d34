"""The result as a Markdown table and as a chart."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

from edgedns import pictures
from tests.bench.peers.contest import BURST, Load, Score

AGAINST = "gdnsd"
COLOURS = ("#0b6e4f", "#c98a1b", "#4b6fa5", "#a23b3b")


def markdown(scores: Sequence[Score], mixes: Sequence[Load], rounds: int, seconds: float, prefixes: int) -> str:
    """CPU per query: median (least to most) of the rounds, and beside it the ratio to gdnsd's."""
    heads = [each.title for each in mixes]
    how = f"median (least to most) of {rounds} rounds of {seconds:g} s, all servers running and asked in turn"
    lines = [
        f"Server CPU per query in microseconds, {how}, open loop in bursts of {BURST}.",
        f"x: of {AGAINST}'s in the same round, median. {_machine()}. One table of {prefixes:,} prefixes.",
        "",
        "| server | " + " | ".join(heads) + " | queries/s | memory, MB | first answer, s | steers as the table says |",
        "|---|" + "---|" * (len(heads) + 4),
    ]
    base = next((score for score in scores if score.peer.name == AGAINST), None)
    for score in scores:
        cells = [_cell(score, load, base) for load in mixes]
        more = [f"{score.peer.rate:,}", f"{score.memory / 1e6:.0f}", f"{score.first_answer:.2f}", score.alike]
        lines.append("| " + " | ".join([f"{score.peer.title} {score.peer.version}".strip(), *cells, *more]) + " |")
    notes = [f"- {score.peer.title}: {score.peer.note}." for score in scores if score.peer.note]
    return "\n".join([*lines, "", *notes, *_losses(scores), ""])


def _cell(score: Score, load: Load, base: Score | None) -> str:
    costs = score.cost[load.name]
    ratio = f"{_ratio(costs, base.cost[load.name]):.2f}x, " if base else ""
    return f"**{score.median(load.name):.1f}** ({ratio}{min(costs):.1f} to {max(costs):.1f})"


def _ratio(costs: Sequence[float], others: Sequence[float]) -> float:
    """Median of the rounds' ratios: what slows a whole round slows both."""
    return statistics.median(cost / other for cost, other in zip(costs, others, strict=True))


def _losses(scores: Sequence[Score]) -> list[str]:
    lost = [
        f"{score.peer.title} {share:.1%} ({load})" for score in scores for load, share in score.lost.items() if share > 0.001
    ]  # fmt: skip
    told = f"Lost more than 0.1 % in some round: {', '.join(lost)}." if lost else "Nobody lost more than 0.1 % in any round."
    return [f"- {told}"]


def _machine() -> str:
    models = [line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    cores = f"{os.cpu_count()} x {models[0] if models else platform.machine()}"
    return f"{time.strftime('%Y-%m-%d')}, Linux {platform.release()}, {cores}, load {os.getloadavg()[1]:.1f}"


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines()


def raw(scores: Sequence[Score]) -> str:
    """Every figure of every round, as JSON: server -> mix -> microseconds of CPU per query."""
    return json.dumps({score.peer.name: score.cost for score in scores}, indent=1)


def chart(scores: Sequence[Score], mixes: Sequence[Load], path: Path) -> None:
    """Bars of the medians, with their spread, one group a server."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, 0.5 + 0.62 * len(scores)), layout="constrained")
    axes = figure.subplots()
    height = 0.8 / len(mixes)
    for number, load in enumerate(mixes):
        medians = [score.median(load.name) for score in scores]
        spread = [
            [score.median(load.name) - min(score.cost[load.name]) for score in scores],
            [max(score.cost[load.name]) - score.median(load.name) for score in scores],
        ]
        places = [row + number * height for row in range(len(scores))]
        axes.barh(places, medians, height, xerr=spread, color=COLOURS[number], label=load.title, error_kw={"elinewidth": 0.8})
    axes.set_yticks([row + 0.4 - height / 2 for row in range(len(scores))], [score.peer.title for score in scores])
    axes.invert_yaxis()
    axes.set(xscale="log", xlabel="server CPU per query, microseconds: median, least and most of the rounds")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xticks([2, 3, 5, 10, 20, 50])
    axes.grid(axis="x", alpha=0.25)
    axes.minorticks_off()
    axes.set_xlim(left=1.5)
    axes.legend(fontsize=8, loc="upper right")
    pictures.write(figure, path)
