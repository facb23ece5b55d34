"""`edgedns check` and `edgedns schema` as commands."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GOOD = "zone: example.net\nsoa: {mname: ns.example.org, rname: noc}\nns: [ns.example.org]\n"


def edgedns(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "edgedns", *arguments], cwd=cwd, capture_output=True, text=True, timeout=60
    )


def rules(tmp_path: Path, text: str) -> str:
    (tmp_path / "zone.yaml").write_text(text)
    return str(tmp_path)


def test_the_example_passes_with_its_tests() -> None:
    done = edgedns("check", "rules")
    assert (done.returncode, done.stderr) == (0, "")
    assert "[W605]" in done.stdout
    assert " 11 tests: 0 errors, " in done.stdout.splitlines()[-1]


def test_errors_exit_1_and_are_all_told(tmp_path: Path) -> None:
    done = edgedns("check", rules(tmp_path, GOOD + "rekords: {}\ndefaults: {ttl: 010}\nstatic: ['a A x']\n"))
    assert done.returncode == 1
    assert [code for code in ("E103", "E110", "E401") if f"[{code}]" in done.stdout] == ["E103", "E110", "E401"]
    assert f"{tmp_path}/zone.yaml:4:1: error: unknown key 'rekords', did you mean 'records'? [E103]\n" in done.stdout
    assert "    rekords: {}\n    ^\n" in done.stdout
    assert "3 errors" in done.stdout.splitlines()[-1]
    assert done.stdout.endswith("held back: example.net\n")


def test_a_failed_inline_test_exits_1(tmp_path: Path) -> None:
    text = GOOD + "tests:\n  - {name: www, from: 192.0.2.1, expect: NODATA}\n"
    done = edgedns("check", rules(tmp_path, text))
    assert done.returncode == 1
    assert "zone.yaml:5:5: error: test failed: www.example.net. A gives NXDOMAIN, expected NODATA [E190]" in done.stdout
    assert "      - {name: www, from: 192.0.2.1" in done.stdout


@pytest.mark.parametrize("wrong", ["gone", "file", "asn"])
def test_what_could_not_run_exits_2(tmp_path: Path, wrong: str) -> None:
    folder = rules(tmp_path, GOOD)
    arguments = {
        "gone": [f"{folder}/gone"],
        "file": [f"{folder}/zone.yaml"],
        "asn": [folder, "--asn", f"{folder}/no.dat"],
    }
    done = edgedns("check", *arguments[wrong])
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1


def test_json(tmp_path: Path) -> None:
    done = edgedns("check", "--format", "json", rules(tmp_path, GOOD + "rekords: {}\n"))
    report = json.loads(done.stdout)
    assert done.returncode == 1
    errors = [each for each in report["problems"] if each["severity"] == "error"]
    assert errors == [
        {
            "file": f"{tmp_path}/zone.yaml",
            "line": 4,
            "column": 1,
            "code": "E103",
            "message": "unknown key 'rekords', did you mean 'records'?",
            "severity": "error",
            "source": "rekords: {}",
        }
    ]
    assert (report["errors"], report["failed_zones"], report["zones"]) == (1, ["example.net"], [])


def test_github(tmp_path: Path) -> None:
    (tmp_path / "a,b").mkdir()
    rules(tmp_path / "a,b", GOOD + "static: ['a TXT 100%', 'b A 100%']\n")
    done = edgedns("check", "--format", "github", "a,b", cwd=tmp_path)
    assert done.returncode == 1
    place = "file=a%2Cb/zone.yaml,line=4,col=29,title=E401"
    assert f"::error {place}::'100%25' is not the data of type A\n" in done.stdout


def test_schema_is_the_committed_one() -> None:
    done = edgedns("schema")
    assert done.returncode == 0
    assert done.stdout == (ROOT / "schema/edgedns.v1.json").read_text()
