"""The plot of `edgedns replay --plot`: what the answers would have cost. Needs matplotlib (extra `plot`)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgedns import pictures
from edgedns.steer.replay.score import Curves, Score

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = {"oracle": "#222222", "edgedns": "#0b6e4f", "random": "#c98a1b", "best_single": "#a23b3b"}
SHAPES = {"oracle": ":", "edgedns": "-", "random": "-.", "best_single": "--"}


def percent(share: float | None) -> str:
    """A share as text; a dash where there is none."""
    return "-" if share is None else f"{share:.1%}"


def draw(curves: Curves, result: Score, path: Path) -> None:
    """Write the plot; SourceError when it can't be written."""
    pictures.require()
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, 3.6), layout="constrained")
    shares, slots = figure.subplots(1, 2)
    names = {
        "oracle": "oracle in each slot", "edgedns": "edgedns", "random": "random provider",
        "best_single": f"best single ({result.best_single})",
    }  # fmt: skip
    _shares(shares, curves, names)
    _slots(slots, curves, names)
    figure.suptitle(f"{result.rows:,} answers: {percent(result.gap_captured)} of the gap to the oracle captured", fontsize=11)
    pictures.write(figure, path)


def _shares(axes: Axes, curves: Curves, names: dict[str, str]) -> None:
    quantiles = np.linspace(0.0, 100.0, 401)
    for way, name in names.items():
        ms = np.percentile(curves.sorted_ms[way], quantiles)
        axes.plot(ms, quantiles, SHAPES[way], color=COLOURS[way], label=name, zorder=3 if way == "oracle" else 2)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set(xlabel="RTT of the answer, ms", ylabel="answers that are faster, %", ylim=(0, 100))
    axes.grid(alpha=0.25)
    axes.legend(loc="lower right", fontsize=8)


def _slots(axes: Axes, curves: Curves, names: dict[str, str]) -> None:
    mark = "." if len(curves.slots) == 1 else ""
    for way in names:
        axes.plot(curves.slots, curves.mean_ms[way], SHAPES[way], color=COLOURS[way], marker=mark)
    axes.set(xlabel="slot", ylabel="mean RTT, ms")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.25)
