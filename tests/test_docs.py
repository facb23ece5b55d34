"""What the docs show is true: every command, option, setting, route and metric named there exists."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import click
import pytest

from edgedns import cli, config, metrics

TOP = Path(__file__).parents[1]
PAGES = [TOP / "README.md", *sorted((TOP / "docs").glob("*.md"))]
COMMAND = re.compile(r"(?:^|[`\s])edgedns ((?:[a-z]+)(?: [^`#\n|]*)?)")


def commands(text: str) -> list[str]:
    return [found.strip() for found in COMMAND.findall(text) if found.split()[0] in cli.COMMANDS or "--" in found]


def resolve(words: list[str]) -> tuple[click.Command, list[str]]:
    group: click.Command = cli.main
    while isinstance(group, click.Group) and words:
        found = group.get_command(click.Context(group), words[0])
        assert found is not None, f"there is no command {words[0]!r}"
        group, words = found, words[1:]
    return group, words


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_and_options_exist(page: Path) -> None:
    for shown in commands(page.read_text(encoding="utf-8")):
        command, rest = resolve(shlex.split(shown.replace("\\", " "), posix=True))
        options = (name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts))
        known = {*options, "--help", "--version"}
        unknown = {word.split("=")[0] for word in rest if word.startswith("--")} - known
        assert not unknown, f"{page.name}: edgedns {shown}: {unknown}"


def test_every_command_is_told_of() -> None:
    text = (TOP / "docs" / "operating.md").read_text(encoding="utf-8")
    assert {name for name in cli.COMMANDS if f"edgedns {name}" not in text} == set()


def test_settings_are_those_of_serve() -> None:
    text = (TOP / "docs" / "operating.md").read_text(encoding="utf-8")
    shown = set(re.findall(r"^\| `--([a-z-]+) ", text, re.M))
    assert shown == {*config.OPTIONS, "config"}


def test_metrics_are_counted() -> None:
    text = (TOP / "docs" / "operating.md").read_text(encoding="utf-8")
    for name, labels in re.findall(r"`(edgedns_[a-z_]+?)(?:_total)?\{([a-z,]+)\}`", text):
        shapes = {shape.name: (*shape.labels, *shape.cell_labels) for shape in metrics.SHAPES.values()}
        if name in shapes:
            assert shapes[name] == tuple(labels.split(",")), name


def test_every_metric_is_told_of() -> None:
    text = (TOP / "docs" / "operating.md").read_text(encoding="utf-8")
    sources = (path.read_text(encoding="utf-8") for path in (TOP / "edgedns").rglob("*.py"))
    made = {name for source in sources for name in re.findall(r'"(edgedns_[a-z0-9_]+)"', source)}
    assert {name for name in made if name not in text} == set()


def test_routes_are_described() -> None:
    described = json.loads((TOP / "edgedns" / "web" / "openapi.json").read_text(encoding="utf-8"))["paths"]
    text = (TOP / "docs" / "operating.md").read_text(encoding="utf-8")
    for route in set(re.findall(r"`(?:GET |POST )?(/(?:v1/[a-z]+|metrics|healthz|readyz))`", text)):
        assert route in described, route


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
