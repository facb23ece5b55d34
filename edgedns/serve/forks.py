"""The control process' side of the process that workers are forked from (serve/template.py)."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from edgedns.serve.template import MESSAGE

PATIENCE = 20.0
PROMPT = 0.5  # seconds until the end of a child is told of


class Forks:
    """The control process' side. OSError where it can't be started, or ended by itself."""

    def __init__(self, python: str, state: Path, responder: str, log: IO[bytes] | None) -> None:
        """`log` gets what it and the workers say."""
        self._sock, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._sock.settimeout(PATIENCE)
        self._born: set[int] = set()
        self._ended: dict[int, int] = {}
        module = responder.partition(":")[0]
        command = [python, "-P", "-m", "edgedns.serve.template", f"--socket={theirs.fileno()}", f"--import={module}"]
        try:
            with theirs:
                self._process = subprocess.Popen(
                    [*command, f"--state={state}"],  # the template needs none: ps tells by it whose it is
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,  # Ctrl-C is for the control process only
                    # One allocator arena: threads take turns anyway, and each arena costs memory.
                    env={"MALLOC_ARENA_MAX": "1", **os.environ},
                )
        except OSError:
            self._sock.close()
            raise

    def fork(self, arguments: Sequence[str], sockets: Sequence[int]) -> int:
        """The process id of a new worker; its sockets are passed under numbers of their own."""
        socket.send_fds(self._sock, [json.dumps(list(arguments)).encode()], sockets)
        while True:
            kind, pid, code = self._receive()
            if kind == "born":
                self._born.add(pid)
                return pid
            self._ended[pid] = code

    def code_of(self, pid: int) -> int | None:
        """How one that is gone ended, negative for a signal; None where nobody tells, as of those that others forked."""
        if pid not in self._born:
            return None
        self._born.discard(pid)
        self._sock.settimeout(PROMPT)
        with contextlib.suppress(OSError):
            while pid not in self._ended:
                _, other, code = self._receive()
                self._ended[other] = code
        self._sock.settimeout(PATIENCE)
        return self._ended.pop(pid, None)

    def _receive(self) -> tuple[str, int, int]:
        message = self._sock.recv(MESSAGE)
        if not message:
            raise ConnectionResetError("the process that workers are forked from ended")
        kind, pid, code = json.loads(message)
        return kind, pid, code

    def close(self) -> None:
        """End it, and nobody else."""
        self._sock.close()
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
