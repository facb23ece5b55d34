"""`edgedns check`: every mistake in a rules directory, in words, as JSON or as GitHub annotations."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import click

from edgedns.cli.data import OLD_AFTER, age
from edgedns.engine.load import Loaded, load_rules, with_source
from edgedns.errors import Problem, RuleErrors, SourceError, problem
from edgedns.steer.space import asn as asntable
from edgedns.store.tables import Tables


@dataclass(frozen=True)
class Report:
    """What a check found; `loaded` is None where providers.yaml left nothing to use."""

    directory: Path
    problems: list[Problem]
    loaded: Loaded | None

    @property
    def errors(self) -> int:
        return sum(each.is_error for each in self.problems)

    @property
    def warnings(self) -> int:
        return len(self.problems) - self.errors


@click.command("check")
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--format", "form", type=click.Choice(["text", "json", "github"]), default="text", show_default=True,
              help="For people, for programs, or as annotations of a pull request.")  # fmt: skip
@click.option("--asn", type=click.Path(path_type=Path), metavar="FILE", help="The ASN table for the tests.  [embedded]")
@click.option("--state", type=click.Path(path_type=Path), metavar="DIR", help="A server's state directory: the table it uses.")
def check(directory: Path, form: str, asn: Path | None, state: Path | None) -> None:
    """Check the rules in DIR: schema, semantics, inline tests and expiry.

    Exits 0 when they are good or have warnings only, 1 for errors or failed tests, 2 when it could not run.
    """
    try:
        report = examine(directory, asn or (Tables(state).path() if state else None), time.time())
    except SourceError as error:
        click.echo(f"error: {error}", err=True)
        raise SystemExit(2) from None
    click.echo("\n".join(FORMS[form](report)))
    raise SystemExit(1 if report.errors else 0)


def examine(directory: Path, asn: Path | None, now: float) -> Report:
    """All that is wrong with a directory at `now`, failed tests included. SourceError where it can't be read."""
    try:
        loaded = load_rules(directory, now)
    except RuleErrors as errors:
        return Report(directory, errors.problems, None)
    return Report(directory, sorted([*loaded.problems, *_failed_tests(loaded, asn), *_old_table(asn, now)]), loaded)


def _failed_tests(loaded: Loaded, asn: Path | None) -> list[Problem]:
    """The inline tests that don't hold. The engine is imported only now: `edgedns schema` and errors don't need it."""
    from edgedns.engine.inline import run_tests

    return [with_source(each) for each in run_tests(loaded, asn)]


def _old_table(path: Path | None, now: float) -> list[Problem]:
    """A warning when the ASN table is so old that networks have moved since."""
    table = asntable.load(path) if path else asntable.embedded()
    days = age(table, datetime.fromtimestamp(now, UTC).date())
    if days <= OLD_AFTER:
        return []
    where = (str(path) if path else "embedded ASN table", 1, 1)
    return [problem(where, "W701", f"the ASN table is {days} days old (more than {OLD_AFTER}): networks have moved since")]


def _as_text(report: Report) -> list[str]:
    return [*(str(each) for each in report.problems), _summary(report)]


def _as_json(report: Report) -> list[str]:
    loaded = report.loaded
    content = {
        "problems": [asdict(each) for each in report.problems],
        "errors": report.errors,
        "warnings": report.warnings,
        "zones": sorted(loaded.rules.zones) if loaded else [],
        "failed_zones": sorted(loaded.failed_zones) if loaded else [],
    }
    return [json.dumps(content, indent=2)]


def _as_github(report: Report) -> list[str]:
    """Workflow commands (docs.github.com, "Workflow commands for GitHub Actions"), their escapes included."""
    return [*(_annotation(each) for each in report.problems), _summary(report)]


def _annotation(each: Problem) -> str:
    message = each.message.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    file = each.file.replace("%", "%25").replace(":", "%3A").replace(",", "%2C")
    return f"::{each.severity} file={file},line={each.line},col={each.column},title={each.code}::{message}"


def _summary(report: Report) -> str:
    counts = [_count(report.errors, "error"), _count(report.warnings, "warning")]
    if report.loaded is None:
        return f"{report.directory}: {', '.join(counts)}; nothing can be used"
    zones = report.loaded.rules.zones.values()
    parts = [
        _count(len(zones), "zone"),
        _count(sum(len(zone.records) for zone in zones), "steered name"),
        _count(sum(map(len, report.loaded.statics.values())), "static record"),
        _count(sum(len(zone.tests) for zone in zones), "test"),
    ]
    held = f"; held back: {', '.join(sorted(report.loaded.failed_zones))}" if report.loaded.failed_zones else ""
    return f"{report.directory}: {', '.join(parts)}: {', '.join(counts)}{held}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


FORMS: dict[str, Callable[[Report], Sequence[str]]] = {"text": _as_text, "json": _as_json, "github": _as_github}
