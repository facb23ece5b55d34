"""The demo's processes: started together, told apart when one ends by itself, and all gone at the end."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from edgedns.errors import EdgednsError

PR_SET_PDEATHSIG = 1  # linux/prctl.h
LINES_KEPT = 12
LINE_LIMIT = 1 << 20
PATIENCE = 5.0

Take = Callable[[str], None]


class ChildEnded(EdgednsError):
    """A process of the demo ended by itself; the text says which and why."""


@dataclass(slots=True)
class Child:
    """One process; `said` are its last lines on standard error, all of which go to `log`."""

    name: str
    process: asyncio.subprocess.Process
    log: IO[str]
    said: deque[str] = field(default_factory=lambda: deque(maxlen=LINES_KEPT))
    readers: list[asyncio.Task[None]] = field(default_factory=list)

    def hear(self, line: str) -> None:
        self.said.append(line)
        print(line, file=self.log, flush=True)

    def epitaph(self) -> str:
        code = self.process.returncode or 0
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        errors = [line for line in self.said if "error" in line.lower()] or list(self.said)[-3:]
        return f"{self.name} {how}{': ' if errors else ''}" + "\n".join(line.removeprefix("Error: ") for line in errors[-3:])


class Crew:
    """`edgedns` commands as child processes of this one; what they say is kept in COMMAND.log in a directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._children: list[Child] = []

    async def start(self, command: str, arguments: Sequence[str], take: Take | None = None) -> None:
        """Start `edgedns COMMAND ARGUMENTS`; `take` gets each line of its standard output."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "edgedns", command, *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE if take else asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            limit=LINE_LIMIT,
            start_new_session=True,  # Ctrl-C reaches this process alone, which then ends the others in order
            preexec_fn=_end_with_parent,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )  # fmt: skip
        log = (self._directory / f"{command}.log").open("w", encoding="utf-8")
        child = Child(f"edgedns {command}", process, log)
        child.readers.append(asyncio.create_task(_read(process.stderr, child.hear)))
        if take is not None:
            child.readers.append(asyncio.create_task(_read(process.stdout, take)))
        self._children.append(child)

    async def watch(self) -> None:
        """Until a child ends by itself, which raises ChildEnded."""
        while True:
            for child in self._children:
                if child.process.returncode is not None:
                    await asyncio.wait(child.readers, timeout=1.0)
                    raise ChildEnded(child.epitaph())
            await asyncio.sleep(0.1)

    async def stop(self) -> None:
        """End all of them: asked first, killed when that doesn't help."""
        for child in self._children:
            _send(child, signal.SIGTERM)
        endings = [asyncio.create_task(child.process.wait()) for child in self._children]
        if endings:
            _, late = await asyncio.wait(endings, timeout=PATIENCE)
            if late:
                for child in self._children:
                    _send(child, signal.SIGKILL)
                await asyncio.wait(late)
        for child in self._children:
            for reader in child.readers:
                reader.cancel()
            await asyncio.gather(*child.readers, return_exceptions=True)
            child.log.close()


def _send(child: Child, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        child.process.send_signal(number)


async def _read(stream: asyncio.StreamReader | None, take: Take) -> None:
    while stream is not None and (line := await stream.readline()):
        take(line.decode("utf-8", "replace").rstrip("\n"))


def _end_with_parent() -> None:
    """In the child: the kernel sends SIGTERM when the demo is gone, however it went (prctl(2))."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
