"""The picture of `edgedns bench --plot`: latency over time, and who waits how long. Needs matplotlib (extra `plot`)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgedns import pictures
from edgedns.bench.latency import quantiles
from edgedns.bench.run import Result
from edgedns.bench.volley import Cell

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = {"p50": "#0b6e4f", "p95": "#c98a1b", "p99": "#a23b3b"}
SLOWEST = (1, 10, 100, 1000, 10_000, 100_000)


def draw(result: Result, path: Path) -> None:
    """Write it; SourceError when it can't be written."""
    pictures.require()
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, 3.6), layout="constrained")
    over_time, curve = figure.subplots(1, 2)
    _over_time(over_time, result)
    _curve(curve, result)
    rate = result[Cell.ANSWERED] / result.seconds
    figure.suptitle(f"{rate:,.0f} answers a second, {result.lost_share:.2%} lost", fontsize=11)
    pictures.write(figure, path)


def _over_time(axes: Axes, result: Result) -> None:
    at = [tick.at for tick in result.ticks]
    mark = "." if len(at) < 3 else ""
    for name, colour in COLOURS.items():
        axes.plot(at, [tick.latency[name] * 1e3 for tick in result.ticks], color=colour, label=name, marker=mark)
    axes.set(xlabel="seconds", ylabel="latency, ms", yscale="log")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8)
    rates = axes.twinx()
    rates.fill_between(at, [tick.answered for tick in result.ticks], color="#888888", alpha=0.15, linewidth=0)
    rates.set_ylabel("answers a second (grey)")
    rates.set_ylim(bottom=0)


def _curve(axes: Axes, result: Result) -> None:
    """As HdrHistogram draws it: one in so many waits longer."""
    most = max(10, result[Cell.ANSWERED])
    slower = [10 ** (step / 20) for step in range(20 * 6) if 10 ** (step / 20) <= most]
    waits = quantiles(result.histogram, [1 - 1 / each for each in slower])
    axes.plot(slower, [wait * 1e3 for wait in waits], color=COLOURS["p99"])
    axes.set(xscale="log", yscale="log", xlabel="one query in so many waits longer", ylabel="latency, ms")
    axes.set_xticks([each for each in SLOWEST if each <= most], minor=False)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.grid(alpha=0.25)
