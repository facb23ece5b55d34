"""`edgedns reload`: what it says and how it exits; and what counts as another setting, and as another build."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from edgedns.cli import main, reload
from edgedns.cli.build import PACKAGE, WORKER, build_of
from edgedns.cli.server.reloading import differences
from edgedns.config import Address, Settings


class Remote:
    """Stands in for a server: `started` is what its status says at each look, None where it does not answer."""

    def __init__(self, reply: dict[str, Any], started: list[float | None]) -> None:
        self.reply, self.started = reply, started

    def get(self, path: str) -> dict[str, float]:
        assert path == "/v1/status"
        at = self.started.pop(0) if len(self.started) > 1 else self.started[0]
        if at is None:
            raise click.ClickException("no answer")
        return {"started": at}

    def post(self, path: str, body: object) -> dict[str, Any]:
        assert path == "/v1/reload"
        return self.reply


def run(
    monkeypatch: pytest.MonkeyPatch, changed: list[str], kept: list[str], restarts: bool, *started: float | None
) -> Result:
    remote = Remote({"changed": changed, "kept": kept, "restarts": restarts}, list(started))
    monkeypatch.setattr(reload, "Remote", lambda *_: remote)
    monkeypatch.setattr(reload, "LOOK", 0.001)
    return CliRunner().invoke(main, ["reload"])


def test_nothing_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    done = run(monkeypatch, [], [], False, 5.0)
    assert (done.exit_code, done.output) == (0, "nothing changed\n")


def test_what_changed_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    done = run(monkeypatch, ["rules: serial 4 -> 5"], [], False, 5.0)
    assert (done.exit_code, done.output) == (0, "rules: serial 4 -> 5\n")


def test_what_stays_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    done = run(monkeypatch, [], ["settings: no"], False, 5.0)
    assert (done.exit_code, done.output) == (1, "stays as it was: settings: no\n")


def test_a_new_beginning_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    done = run(monkeypatch, ["workers: 1 -> 2"], [], True, 5.0, 5.0, None, 0.0, 9.0)
    assert (done.exit_code, done.output) == (0, "workers: 1 -> 2\n")


@pytest.mark.parametrize(("last", "why"), [(5.0, "it has not begun"), (None, "no answer")])
def test_one_that_never_comes_fails(monkeypatch: pytest.MonkeyPatch, last: float | None, why: str) -> None:
    monkeypatch.setattr(reload, "PATIENCE", 0.05)
    done = run(monkeypatch, ["workers: 1 -> 2"], [], True, 5.0, last)
    assert done.exit_code == 1
    assert f"the control process has not come back ({why}); workers go on" in done.output


def test_an_admin_side_that_moved_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    done = run(monkeypatch, ["admin: 127.0.0.1:8053 -> 127.0.0.1:8054"], [], True, 5.0, None)
    assert done.exit_code == 0


def test_settings_that_differ_are_named_and_secrets_are_not_shown() -> None:
    old = Settings(token="sesame", workers=1, listen=(Address("127.0.0.1", 53),))
    new = replace(old, token="mellon", workers=2, listen=(Address("127.0.0.1", 53), Address("::1", 53)), admin=None)
    assert differences(old, old) == []
    assert differences(old, new) == [
        "listen: 127.0.0.1:53 -> 127.0.0.1:53, [::1]:53",
        "admin: 127.0.0.1:8053 -> none",
        "workers: 1 -> 2",
        "token: another",
    ]


def test_a_build_is_another_when_what_is_loaded_is(tmp_path: Path) -> None:
    (tmp_path / "room").mkdir()
    (tmp_path / "room" / "one.py").write_text("1\n")
    builds = {build_of(tmp_path)}
    (tmp_path / "room" / "one.pyc").write_text("compiled")
    (tmp_path / "room" / "one.c").write_text("source")
    os.utime(tmp_path / "room" / "one.py", (1, 1))
    assert build_of(tmp_path) in builds
    (tmp_path / "room" / "one.py").write_text("2\n")
    builds.add(build_of(tmp_path))
    (tmp_path / "room" / "two.so").write_bytes(b"")
    builds.add(build_of(tmp_path))
    assert len(builds) == 3
    of_a_part = build_of(tmp_path, ["room"])
    (tmp_path / "three.py").write_text("")
    assert build_of(tmp_path, ["room"]) == of_a_part
    assert build_of(tmp_path) not in builds


def test_a_worker_loads_nothing_beyond_its_build() -> None:
    """But for packages' own files, which hold nothing."""
    modules = "edgedns.serve.template, edgedns.serve.worker, edgedns.serve.current"
    code = f"import {modules}, sys; print(*(m.__file__ for n, m in sys.modules.items() if n.startswith('edgedns')))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout.split()
    loaded = {str(Path(file).relative_to(PACKAGE)) for file in out}
    assert {file for file in loaded if not file.startswith(WORKER)} <= {"steer/__init__.py", "steer/space/__init__.py"}
