"""Each wrong file here gives exactly the message beside it.

NAME.yaml is a whole rules directory (as rules/zone.yaml), NAME/ a directory of several files; NAME.txt is what is said.
"""

from __future__ import annotations

import re
import shutil
from collections import Counter
from pathlib import Path

import pytest

from edgedns.engine.inline import run_tests
from edgedns.engine.load import load_rules, with_source
from edgedns.errors import Problem, RuleErrors

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
CASES = sorted(path.stem for path in HERE.glob("[EW]*.txt"))
NOW = 1795305600.0  # 2026-11-22
READERS = [
    *(ROOT / "edgedns/steer/rules").glob("*.py"),
    *(ROOT / "edgedns" / name for name in ("dns/zonetext.py", "dns/zonecheck.py", "engine/load.py", "engine/inline.py")),
]


def problems(case: str, tmp_path: Path) -> list[Problem]:
    folder = HERE / case
    if folder.is_dir():
        shutil.copytree(folder, tmp_path / "rules")
    else:
        (tmp_path / "rules").mkdir()
        shutil.copy(HERE / f"{case}.yaml", tmp_path / "rules/zone.yaml")
    try:
        loaded = load_rules("rules", NOW)
        return sorted([*loaded.problems, *(with_source(each) for each in run_tests(loaded))])
    except RuleErrors as errors:
        return errors.problems


@pytest.mark.parametrize("case", CASES)
def test_message(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    said = "".join(f"{each}\n" for each in problems(case, tmp_path))
    assert said == (HERE / f"{case}.txt").read_text()


def test_every_case_has_its_message() -> None:
    inputs = {path.stem for path in HERE.glob("[EW]*.yaml")} | {
        path.name for path in HERE.glob("[EW]*") if path.is_dir()
    }
    assert inputs == set(CASES)
    assert len(inputs) >= 40


def test_every_code_is_met_and_none_more_than_twice() -> None:
    met = Counter(
        code for case in CASES for code in re.findall(r"\[([EW]\d{3})\]$", (HERE / f"{case}.txt").read_text(), re.M)
    )
    known = {code for path in READERS for code in re.findall(r'"([EW]\d{3})"', path.read_text())}
    assert set(met) == known
    assert max(met.values()) <= 2
