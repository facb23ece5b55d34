"""Watching inputs by looking: saves of every kind are seen once, half-written files wait."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from edgedns.cli.watch import Watch


def by_renaming(path: Path) -> None:
    path.with_name(".new").write_text("2")
    os.replace(path.with_name(".new"), path)


def replace_directory(top: Path) -> None:
    shutil.copytree(top, f"{top}.new")
    top.rename(f"{top}.old")
    os.rename(f"{top}.new", top)


SAVES: dict[str, Callable[[Path], object]] = {
    "written in place": lambda top: (top / "a.yaml").write_text("22"),
    "replaced by renaming": lambda top: by_renaming(top / "a.yaml"),
    "a file more": lambda top: (top / "b.yaml").write_text("1"),
    "a file less": lambda top: (top / "a.yaml").unlink(),
    "a file below": lambda top: (top / "zones/z").write_text("22"),
    "the directory replaced": lambda top: replace_directory(top),
    "the directory gone": lambda top: shutil.rmtree(top),
}


@pytest.fixture
def top(tmp_path: Path) -> Path:
    (tmp_path / "rules/zones").mkdir(parents=True)
    (tmp_path / "rules/a.yaml").write_text("1")
    (tmp_path / "rules/zones/z").write_text("1")
    return tmp_path / "rules"


@pytest.mark.parametrize("save", SAVES)
def test_a_save_is_seen_once_and_only_when_it_has_settled(top: Path, save: str) -> None:
    watch = Watch(top)
    assert [watch.changed() for _ in range(3)] == [False] * 3
    SAVES[save](top)
    assert [watch.changed() for _ in range(4)] == [False, True, False, False]


def test_a_file_that_is_still_written_waits(top: Path) -> None:
    watch = Watch(top)
    for size in range(5):
        (top / "a.yaml").write_text("x" * (size + 2))
        assert not watch.changed()
    assert watch.changed()


def test_what_is_undone_before_it_was_read_is_nothing(top: Path) -> None:
    watch = Watch(top)
    (top / "b.yaml").write_text("1")
    assert not watch.changed()
    (top / "b.yaml").unlink()
    assert [watch.changed() for _ in range(3)] == [False] * 3


def test_hidden_files_are_no_rules(top: Path) -> None:
    watch = Watch(top)
    (top / ".a.yaml.swp").write_text("1")
    (top / ".git").mkdir()
    (top / ".git/HEAD").write_text("1")
    assert [watch.changed() for _ in range(3)] == [False] * 3


def test_a_config_map_is_followed(tmp_path: Path) -> None:
    top = tmp_path / "rules"
    for number in (1, 2):
        (top / f"..{number}").mkdir(parents=True)
        (top / f"..{number}/a.yaml").write_text("same")
    (top / "..data").symlink_to("..1")
    (top / "a.yaml").symlink_to("..data/a.yaml")
    watch = Watch(top)
    (top / "..new").symlink_to("..2")
    os.replace(top / "..new", top / "..data")
    assert [watch.changed() for _ in range(3)] == [False, True, False]


def test_a_single_file_is_followed_through_its_absence(tmp_path: Path) -> None:
    table = tmp_path / "table.tsv"
    table.write_text("1")
    watch = Watch(table)
    table.unlink()
    assert [watch.changed() for _ in range(3)] == [False, True, False]
    table.write_text("2")
    assert [watch.changed() for _ in range(3)] == [False, True, False]
