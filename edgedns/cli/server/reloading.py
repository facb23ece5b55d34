"""What `edgedns reload` and SIGHUP do in the control process: read everything again, or begin anew from what is on disk.

Rules and the ASN table are read in place. For other settings or another build the control process starts anew under the
same process id, after a rehearsal in a process of its own has shown that this can work; workers answer all the while.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any

from edgedns.cli.build import build_of
from edgedns.cli.server.turns import Turns
from edgedns.config import Settings
from edgedns.control import Control
from edgedns.errors import EdgednsError
from edgedns.serve import systemd

REHEARSAL = 90.0  # seconds that it may take
REHEARSE = "--rehearse"
SAID = 2000  # characters of what a rehearsal said
SECRET = ("token",)


@dataclass
class Reloaded:
    """What came of it: what changed, what stays as it was and why, and whether the control process starts anew."""

    changed: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    restarts: bool = False


class Reloading:
    """One control process' way to itself. `reread` loads the settings as they are now on disk."""

    def __init__(self, settings: Settings, reread: Callable[[], Settings], build: str, say: Callable[[str], None]) -> None:
        self._settings = settings
        self._reread = reread
        self._build = build
        self._say = say
        self._one = asyncio.Lock()

    async def reload(self, control: Control, turns: Turns, passed: Callable[[], tuple[str, list[int]]]) -> Reloaded:
        """Read all again. With `restarts` the caller is to end, and its successor to begin."""
        async with self._one:
            systemd.notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
            found = Reloaded()
            await self._settings_again(found, passed)
            if not found.restarts:
                await _rules_again(control, turns, found)
                systemd.notify("READY=1")
            for line in found.changed or ([] if found.kept else ["nothing changed"]):
                self._say(f"reload: {line}")
            for line in found.kept:
                self._say(f"reload: stays as it was: {line}")
            return found

    async def _settings_again(self, found: Reloaded, passed: Callable[[], tuple[str, list[int]]]) -> None:
        try:
            settings = self._reread()
        except EdgednsError as error:
            found.kept.append(f"settings: {error}")
            return
        changed = differences(self._settings, settings)
        if settings.state != self._settings.state:
            found.kept.append("settings: the state directory is another; that takes a stop and a start")
            return
        if await asyncio.to_thread(build_of) != self._build:
            changed.append("the installed edgedns is another build")
        if not changed:
            return
        refused = await rehearse(*passed())
        if refused:
            found.kept += [*(f"{line} (not done)" for line in changed), refused]
        else:
            found.changed, found.restarts = changed, True


def differences(old: Settings, new: Settings) -> list[str]:
    """One line for each setting that is another; secrets are not shown."""
    lines = []
    for one in fields(Settings):
        before, after = getattr(old, one.name), getattr(new, one.name)
        if before != after:
            secret = one.name in SECRET
            lines.append(f"{one.name.replace('_', '-')}: " + ("another" if secret else f"{_text(before)} -> {_text(after)}"))
    return lines


def _text(value: object) -> str:
    if isinstance(value, tuple) and not hasattr(value, "_fields"):
        return ", ".join(map(str, value))
    return "none" if value is None or value == "" else str(value)


async def rehearse(variable: str, descriptors: list[int]) -> str:
    """Why a new control process could not serve; empty if it could. It is our own command line, from what is on disk."""
    command = [sys.executable, *sys.orig_argv[1:], REHEARSE]
    environ = {**os.environ, systemd.VARIABLE: variable}
    environ.pop("NOTIFY_SOCKET", None)
    pipe = asyncio.subprocess.PIPE
    child = await asyncio.create_subprocess_exec(*command, pass_fds=descriptors, env=environ, stdout=pipe, stderr=pipe)
    try:
        async with asyncio.timeout(REHEARSAL):
            _, said = await child.communicate()
    except TimeoutError:
        return f"its successor was not ready within {REHEARSAL:.0f} s"
    finally:
        if child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
            await child.wait()
    code = child.returncode
    if not code:
        return ""
    text = said.decode("utf-8", "replace").strip()[-SAID:].removeprefix("Error: ")
    how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit {code}"
    return text or f"its successor ended with {how}"


async def _rules_again(control: Control, turns: Turns, found: Reloaded) -> None:
    """Rules and ASN table, in place."""
    for what, make, take in (
        ("ASN table", control.worlds.read_table, control.take_table),
        ("rules", control.worlds.read_rules, control.take_rules),
    ):
        before, at = control.world, control.serial
        async with turns.changing:
            world: Any = await turns.beside(make, time.time())
            taken = await turns.call(take, world, time.time())
        if not taken:
            found.kept.append(f"{what}: can't be used, the log says why")
        elif control.world.base_name != before.base_name or control.world.table.digest != before.table.digest:
            found.changed.append(f"{what}: serial {at} -> {control.serial}")
    found.kept += [str(problem) for problem in control.worlds.problems if problem.is_error]
