"""`edgedns data status`, as a process of its own."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, date, datetime
from pathlib import Path

from edgedns.cli.data import age, report
from edgedns.steer import asn


def status(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edgedns", "data", "status", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


def test_the_embedded_table_says_what_it_is() -> None:
    done = status()
    assert done.returncode == 0
    for words in ("@ip-location-db/asn 2.3.2026061719", "2026-06-17", "411,961 IPv4, 103,197 IPv6", "91,065", "contains bugs"):
        assert words in done.stdout
    days = (datetime.now(UTC).date() - date(2026, 6, 17)).days
    assert f"{days} days" in done.stdout
    assert ("more than 30" in done.stderr) == (days > 30)


def test_a_table_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "table"
    path.write_text("192.0.2.0/24\t64496\n")
    done = status("--asn", str(path))
    assert (done.returncode, done.stderr) == (0, "")
    assert "pyasn .dat" in done.stdout
    assert "1 IPv4, 0 IPv6" in done.stdout
    assert "contains bugs" not in done.stdout


def test_a_broken_table_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "table"
    path.write_text("192.0.2.0/24\t644")
    done = status("--asn", str(path))
    assert done.returncode == 2
    assert done.stderr == f"error: {path}: its last line has no line end: the file was cut off, get it again\n"


def test_age_counts_days_and_never_runs_backwards() -> None:
    table = asn.embedded()
    assert age(table, date(2026, 7, 17)) == 30
    assert age(table, date(2026, 6, 1)) == 0
    assert "age:     30 days" in report(table, None, date(2026, 7, 17))
