"""The units of `deploy/`: each gives away as little of the machine as it can."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.system.units import DEPLOY, SERVICES, unit

analysed = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")


@analysed
@pytest.mark.parametrize("name", SERVICES)
def test_it_is_hardened(name: str) -> None:
    command = ["systemd-analyze", "security", "--offline=true", "--threshold=20", str(DEPLOY / name)]
    done = subprocess.run(command, capture_output=True, text=True)
    if "unrecognized option" in done.stderr:
        pytest.skip("this systemd-analyze can't look at unit files")
    assert done.returncode == 0, done.stdout


@analysed
def test_units_of_the_server_are_understood(tmp_path: Path) -> None:
    for name in ("edgedns.service", "edgedns.socket"):
        text = (DEPLOY / name).read_text().replace("/opt/edgedns/bin/edgedns", "/bin/true")
        (tmp_path / name).write_text(text.replace("file:///usr/src/edgedns/docs/deploying.md", "https://example.net/"))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *map(str, tmp_path.iterdir())], capture_output=True, text=True
    )
    said = [line for line in done.stderr.splitlines() if str(tmp_path) in line or "edgedns" in line]
    assert said == []


def test_probes_have_one_capability() -> None:
    service = unit("edgedns-probe.service")["Service"]
    assert service["AmbientCapabilities"] == service["CapabilityBoundingSet"] == "CAP_NET_RAW"


def test_the_timers_unit_runs_as_the_server_does() -> None:
    """The same user and state directory, and a command that exists."""
    server, updates, timer = (unit(f"edgedns{suffix}") for suffix in (".service", "-data.service", "-data.timer"))
    for setting in ("User", "Group", "StateDirectory", "StateDirectoryMode", "ProtectSystem"):
        assert updates["Service"][setting] == server["Service"][setting]
    program, *words = updates["Service"]["ExecStart"].split()
    assert program == server["Service"]["ExecStart"].split()[0]
    assert words == ["data", "update"]
    assert timer["Timer"]["OnCalendar"] == "daily"
