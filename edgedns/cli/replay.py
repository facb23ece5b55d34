"""`edgedns replay`: past samples through the serving code, and what steering would have gained."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from edgedns.errors import EdgednsError, SourceError
from edgedns.steer.replay import Plan, Played, play
from edgedns.steer.score import Answers, Score, score
from edgedns.steer.trace import Rejected, Trace, parse

SHOWN = 5


@click.command("replay")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--objective", type=click.Choice(["graded", "median", "rtt"]), default="graded", help="what decides  [graded]")
@click.option("--probe-budget", type=click.FloatRange(0, 1), default=1.0, help="share of arms measured in a slot  [1]")
@click.option("--schedule", type=click.Choice(["random", "engine"]), default="random", help="which arms those are  [random]")
@click.option("--seed", type=int, default=0, help="of the dice that --schedule random throws  [0]")
@click.option("--leave-out", type=click.Choice(["vantage"]), help="decide for each vantage by a table that never saw it")
@click.option("--score-from", type=int, help="the first slot that counts  [the second]")
@click.option("--min-samples", type=float, default=1.0, help="the rule's: below it the level above decides  [1]")
@click.option("--margin-ms", type=float, default=0.0, help="the rule's  [0]")
@click.option("--margin-percent", type=float, default=5.0, help="the rule's  [5]")
@click.option("--nominal", default="", help="the rule's nominal order, names with commas  [by name]")
@click.option("--half-life", type=click.FloatRange(0.1), default=5.0, help="of samples, in slots  [5]")
@click.option("--json", "as_json", is_flag=True, help="print one JSON object")
def replay(
    file: Path,
    probe_budget: float,
    leave_out: str | None,
    score_from: int | None,
    nominal: str,
    as_json: bool,
    **terms: Any,
) -> None:
    """Replay FILE (CSV, may be gzipped) and print what the answers chosen would have cost, beside the baselines.

    Columns: slot or at, asn or client_asn, provider, rtt_ms (empty or `lost`: lost); optional country, prefix, vantage.
    """
    names = tuple(name.strip() for name in nominal.split(",") if name.strip())
    plan = Plan(budget=probe_budget, leave_out_vantage=leave_out is not None, nominal=names, **terms)
    try:
        trace, rejected = _load(file)
        result = score(_played(trace, plan), score_from)
    except EdgednsError as error:
        click.echo(f"error: {file}: {error}", err=True)
        raise SystemExit(2) from None
    for line in rejected[:SHOWN]:
        click.echo(f"{file}:{line.line}: skipped: {line.error}", err=True)
    if len(rejected) > SHOWN:
        click.echo(f"{file}: {len(rejected) - SHOWN} more lines skipped", err=True)
    if as_json:
        click.echo(json.dumps({**result.to_json(), "rejected": len(rejected), "seed": plan.seed}, indent=2))
    else:
        _print(result, len(rejected))


def _load(file: Path) -> tuple[Trace, list[Rejected]]:
    try:
        return parse(_lines(file))
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise SourceError(f"can't be read: {error}") from error


def _lines(file: Path) -> Iterator[str]:
    with file.open("rb") as raw:
        zipped = raw.read(2) == b"\x1f\x8b"
    with gzip.open(file, "rt", encoding="utf-8") if zipped else file.open(encoding="utf-8") as text:
        yield from text


def _played(trace: Trace, plan: Plan) -> Played:
    unknown = set(plan.nominal) - set(trace.batch.providers)
    if unknown:
        raise SourceError(f"no samples of {', '.join(sorted(unknown))}: it has {', '.join(trace.batch.providers)}")
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("replaying", total=None)
        return play(trace, plan, lambda done, of: progress.update(task, completed=done, total=of))


def _print(result: Score, rejected: int) -> None:
    table = Table("answers by", "mean", "p50", "p95", "p99", title="RTT of the answers chosen, ms")
    rows = {
        "edgedns": result.answers,
        "random provider": result.baselines["random"],
        f"best single ({result.best_single})": result.baselines["best_single"],
        "oracle in each slot": result.baselines["oracle"],
    }
    for name, answers in rows.items():
        table.add_row(name, *_cells(answers))
    console = Console(highlight=False, width=100)
    console.print(table)
    console.print(f"gap captured           {result.gap_captured:8.1%}")
    console.print(f"switches per 100       {result.switches_per_100:8.2f}")
    console.print(f"made 5 ms worse        {result.share_worse_5ms:8.1%}    than by the best single")
    console.print(f"made 5 ms better       {result.share_better_5ms:8.1%}")
    console.print(f"answers scored         {result.rows:8,}    lines skipped {rejected}")
    console.print("calibration            WAN believed -> share of wins over the next slot's median, less a half")
    for part in result.calibration:
        console.print(f"  {part['predicted']:+.2f} -> {part['realised']:+.2f}   ({part['arms']:,.0f} arms)")


def _cells(answers: Answers) -> list[str]:
    return [f"{value:.1f}" for value in (answers.mean_ms, answers.p50_ms, answers.p95_ms, answers.p99_ms)]
