"""`edgedns replay`: past samples through the serving code, and what steering would have gained."""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

import click
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from edgedns import pictures
from edgedns.cli import plot
from edgedns.engine.load import load_rules
from edgedns.errors import EdgednsError, SourceError
from edgedns.model import Record, Rule, Wan
from edgedns.steer.replay.labelled import Found, found, parse_labelled
from edgedns.steer.replay.play import Plan, Played, play
from edgedns.steer.replay.score import Answers, Score, curves, score
from edgedns.steer.replay.trace import Rejected, Trace, parse

SHOWN = 5
T = TypeVar("T")


@click.command("replay")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--objective", type=click.Choice(["graded", "median", "rtt"]), default="graded", help="What decides.  [graded]")
@click.option("--probe-budget", type=click.FloatRange(0, 1), default=1.0, help="Share of arms measured in a slot.  [1]")
@click.option("--schedule", type=click.Choice(["random", "engine"]), default="random", help="Which arms those are.  [random]")
@click.option("--seed", type=int, default=0, help="Of the dice that --schedule random throws.  [0]")
@click.option("--leave-out", type=click.Choice(["vantage"]), help="Decide for each vantage by a table that never saw it.")
@click.option("--score-from", type=int, metavar="SLOT", help="The first slot that counts.  [the second]")
@click.option("--rules", type=click.Path(path_type=Path), metavar="DIR", help="Judge a `wan` rule of this rules directory.")
@click.option("--rule", metavar="NAME", help="... the one of this name, where there are several.")
@click.option("--min-samples", type=float, default=1.0, help="Below it the level above decides.  [1]")
@click.option("--margin-ms", type=float, default=0.0, help="What a move must save at least.  [0]")
@click.option("--margin-percent", type=float, default=5.0, help="The same as a share.  [5]")
@click.option("--nominal", default="", help="The nominal order, names with commas.  [by name]")
@click.option("--half-life", type=click.FloatRange(0.1), default=5.0, help="Of samples, in slots.  [5]")
@click.option("--shifts", is_flag=True, help="FILE has labelled changes: how many of them the serving RTT CUSUM finds.")
@click.option("--interval", type=click.FloatRange(0.1), default=240.0, help="With --shifts: seconds between samples.  [240]")
@click.option("--plot", "plot_to", type=click.Path(path_type=Path), metavar="FILE", help="Draw the answers (.png, .svg).")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def replay(
    file: Path,
    probe_budget: float,
    leave_out: str | None,
    score_from: int | None,
    rules: Path | None,
    rule: str | None,
    nominal: str,
    shifts: bool,
    interval: float,
    plot_to: Path | None,
    as_json: bool,
    **terms: Any,
) -> None:
    """Replay FILE (CSV, may be gzipped) and print what the answers chosen would have cost, beside the baselines.

    Columns: slot or at (Unix seconds or ISO 8601), asn or client_asn, provider, rtt_ms (empty or `lost`: lost); optional
    country, prefix, vantage. With --shifts: probe, idx, rtt_ms, change_label. With --rules the rule's own terms count instead
    of the four given by options.
    """
    names = tuple(name.strip() for name in nominal.split(",") if name.strip())
    plan = Plan(budget=probe_budget, leave_out_vantage=leave_out is not None, nominal=names, **terms)
    try:
        if shifts:
            _shifts(file, interval, as_json)
            return
        plan = plan if rules is None else _judging(plan, rules, rule)
        _replay(file, plan, score_from, plot_to, as_json)
    except EdgednsError as error:
        click.echo(f"error: {file}: {error}", err=True)
        raise SystemExit(2) from None


def _replay(file: Path, plan: Plan, first: int | None, plot_to: Path | None, as_json: bool) -> None:
    if plot_to is not None:
        pictures.require()
    with _progress() as progress:
        trace, rejected = _read(file, parse, progress)
        played = _played(trace, plan, progress)
    result = score(played, first)
    _name_bad_lines(file, rejected)
    if plot_to is not None:
        plot.draw(curves(played, first), result, plot_to)
    if as_json:
        click.echo(json.dumps({**result.to_json(), "rejected": len(rejected), "seed": plan.seed}, indent=2))
    else:
        _print(result, len(rejected))


def _shifts(file: Path, interval: float, as_json: bool) -> None:
    with _progress() as progress:
        traces, rejected = _read(file, parse_labelled, progress)
    result = found(traces, interval)
    _name_bad_lines(file, rejected)
    if as_json:
        click.echo(json.dumps({**result.to_json(), "rejected": len(rejected)}, indent=2))
    else:
        _print_found(result, len(rejected))


@contextmanager
def _progress() -> Iterator[Progress]:
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        yield progress


def _read(file: Path, read: Callable[[Iterable[str]], T], progress: Progress) -> T:
    """What `read` makes of the file's lines."""
    try:
        with file.open("rb") as raw:
            zipped = raw.peek(2)[:2] == b"\x1f\x8b"
            watched = progress.wrap_file(raw, total=file.stat().st_size, description="reading")
            content = gzip.GzipFile(fileobj=watched) if zipped else watched
            return read(io.TextIOWrapper(cast(BinaryIO, content), encoding="utf-8-sig", errors="replace", newline=""))
    except (OSError, EOFError, zlib.error) as error:
        raise SourceError(f"can't be read: {error}") from error


def _judging(plan: Plan, directory: Path, name: str | None) -> Plan:
    """The plan under the terms of one wan rule; SourceError when it isn't clear which, RuleErrors for rules with errors."""
    loaded = load_rules(directory)
    loaded.refuse_errors()
    found = [
        (record, each, each.action) for zone in loaded.rules.zones.values() for record in zone.records for each in record.rules
        if isinstance(each.action, Wan) and name in (None, each.name)
    ]  # fmt: skip
    if not found:
        raise SourceError(f"{directory} has no `wan` rule" + (f" named {name!r}" if name else ""))
    if len({(action, record.ttl) for record, _, action in found}) > 1:
        raise SourceError(f"which rule of {directory}? give --rule: {', '.join(_told(*one[:2]) for one in found)}")
    record, _, action = found[0]
    return replace(plan, wan=action, ttl=float(record.ttl))


def _told(record: Record, rule: Rule) -> str:
    return f"{rule.name} (of {record.label})"


def _played(trace: Trace, plan: Plan, progress: Progress) -> Played:
    here = ", ".join(trace.batch.providers)
    unknown = set(plan.nominal) - set(trace.batch.providers)
    if unknown:
        raise SourceError(f"no samples of {', '.join(sorted(unknown))}: it has {here}")
    if plan.wan is not None and not set(plan.wan.among) & set(trace.batch.providers):
        raise SourceError(f"the rule chooses among {', '.join(plan.wan.among)}; the samples are of {here}")
    if plan.leave_out_vantage and not any(trace.batch.vantages):
        raise SourceError("--leave-out vantage needs a column `vantage`")
    if not trace.timed:
        plan = replace(plan, ttl=0.0)  # a slot is no time that a TTL could be compared with
    task = progress.add_task("replaying", total=None)
    return play(trace, plan, lambda done, of: progress.update(task, completed=done, total=of))


def _name_bad_lines(file: Path, rejected: list[Rejected]) -> None:
    for line in rejected[:SHOWN]:
        click.echo(f"{file}:{line.line}: skipped: {line.error}", err=True)
    if len(rejected) > SHOWN:
        click.echo(f"{file}: {len(rejected) - SHOWN} more lines skipped", err=True)


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
    console.print(f"gap captured           {plot.percent(result.gap_captured):>8}")
    console.print(f"switches per 100       {result.switches_per_100:8.2f}")
    console.print(f"made 5 ms worse        {result.share_worse_5ms:8.1%}    than by the best single")
    console.print(f"made 5 ms better       {result.share_better_5ms:8.1%}")
    console.print(f"answers scored         {result.rows:8,}    lines skipped {rejected}")
    console.print("calibration            WAN believed -> share of wins over the next slot's median, less a half")
    for part in result.calibration:
        console.print(f"  {part['predicted']:+.2f} -> {part['realised']:+.2f}   ({part['arms']:,.0f} arms)")


def _print_found(result: Found, rejected: int) -> None:
    console = Console(highlight=False, width=100)
    console.print(f"labelled shifts of 10 ms or more {result.shifts:8,}    in {result.traces} traces, {result.days:,.0f} days")
    console.print(f"found within 5 samples           {result.recall:8.1%}    {result.found:,}")
    alarms = f"{result.unlabelled:,} of {result.alarms:,} alarms"
    console.print(f"unlabelled a day and trace       {result.unlabelled_per_day:8.2f}    {alarms}")
    console.print(f"samples                          {result.rows:8,}    lines skipped {rejected}")


def _cells(answers: Answers) -> list[str]:
    return [f"{value:.1f}" for value in (answers.mean_ms, answers.p50_ms, answers.p95_ms, answers.p99_ms)]
