"""A server under measurement: how it is configured, started, watched and ended. Each has a module of its own beside this."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

from edgedns.bench import owners
from edgedns.bench.questions import Mix, packet, question
from tests.bench.peers.served import ZONE, World

PATH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
CORE = min(os.sched_getaffinity(0))  # all servers share it with the one who asks, so that batches are alike for all
NICE = -10 if os.geteuid() == 0 else 0  # as root they go before other work of the machine, which would cost queries
PATIENCE = 300.0  # until the first answer


class Peer(ABC):
    """One server; subclasses say the rest."""

    name: ClassVar[str]
    title: ClassVar[str]
    program: ClassVar[str]  # what must be on the PATH
    steers: ClassVar[str] = ""  # by "subnet", by "source" only, or not at all
    answers: ClassVar[bool] = True  # else it sends back what came
    rate: ClassVar[int] = 10_000  # queries a second that it carries on a busy machine
    note: ClassVar[str] = ""

    def __init__(self, world: World, folder: Path, port: int) -> None:
        self.world, self.folder, self.port = world, folder, port
        self.process: subprocess.Popen[bytes] | None = None
        self.first_answer = 0.0
        self.log = folder / f"{self.name}.log"

    @abstractmethod
    def configure(self) -> list[str]:
        """Write what it reads; the command that starts it in the foreground."""

    def environ(self) -> dict[str, str]:
        """More of the environment."""
        return {}

    @classmethod
    def missing(cls) -> bool:
        return shutil.which(cls.program, path=PATH) is None

    def start(self) -> None:
        """Start it, and wait for the first answer."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.launch(self.configure())

    def launch(self, command: list[str], first: bool = True) -> None:
        """Start it on the common core, where waking up interrupts nobody; before other work, unless not `first`."""
        before = ["nice", "-n", str(NICE)] if first and NICE else []
        begun = time.monotonic()
        with self.log.open("ab") as log:
            environ = {**os.environ, "PATH": PATH, **self.environ()}
            command = ["taskset", "-c", str(CORE), "chrt", "--batch", "0", *before, *command]
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=environ, start_new_session=True)
        self._wait()
        self.first_answer = time.monotonic() - begun

    def _wait(self) -> None:
        assert self.process is not None
        asked = packet(question([f"n1.{ZONE}", "A"]), None, Mix())
        until = time.monotonic() + PATIENCE
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(0.005)
            sock.connect(("127.0.0.1", self.port))
            while time.monotonic() < until:
                with contextlib.suppress(OSError):
                    sock.send(asked)
                    if sock.recv(4096)[6:8] != b"\0\0" or not self.answers:
                        return
                if self.process.poll() is not None:
                    break
                time.sleep(0.005)
        raise RuntimeError(f"{self.title} does not answer:\n{self.said()}")

    def said(self) -> str:
        """The end of what it told."""
        return self.log.read_text(errors="replace")[-3000:] if self.log.exists() else ""

    def pids(self) -> list[int]:
        """It and all below it."""
        assert self.process is not None
        found = [self.process.pid]
        for pid in found:
            for task in Path(f"/proc/{pid}/task").glob("*/children"):
                with contextlib.suppress(OSError):
                    found += map(int, task.read_text().split())
        return found

    def answering(self) -> list[int]:
        """Those of its processes whose CPU counts."""
        return self.pids()

    def cpu(self) -> float:
        """Seconds of CPU used so far by those that answer."""
        used = owners.cpu_seconds(self.answering())
        assert used is not None, f"{self.title} lost a process"
        return used

    def memory(self) -> int:
        """Octets resident; what processes share is counted once."""
        found = 0
        for pid in self.pids():
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            found += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
        return found

    def stop(self) -> None:
        if self.process is not None:
            pids = self.pids()[1:]
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(20)
            self.process.kill()
            for pid in pids:  # ours by descent; gone by now, but for a server that dies badly
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, 15)
            self.process.wait()
            self.process = None

    @property
    def version(self) -> str:
        return ""


def said(*command: str) -> str:
    """What a program prints, both streams."""
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PATH": PATH}, check=False)
    return done.stdout + done.stderr
