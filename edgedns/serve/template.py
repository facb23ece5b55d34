"""The process that workers are forked from: `python -m edgedns.serve.template`, started by the control process.

It has imported what a worker needs, so that one more takes milliseconds to start and shares most of its memory with the
others. It ends when the control process closes its end of the socket between them; the workers live on.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import signal
import socket
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Protocol

from edgedns.serve.handover import MOST

MESSAGE = 1 << 16
NAME = "edgedns-worker"  # in ps and top


class WorkerMain(Protocol):
    def __call__(self, argv: Sequence[str]) -> int: ...


def serve(sock: socket.socket, main: WorkerMain) -> None:
    """Fork a worker for each message, until the other side is closed."""
    signal.signal(signal.SIGCHLD, lambda *_: _tell_ended(sock))
    while True:
        message, descriptors, _, _ = socket.recv_fds(sock, MESSAGE, MOST)
        if not message:
            return
        arguments = json.loads(message)
        pid = os.fork()
        if not pid:
            _be_worker(sock, main, [*arguments, f"--sockets={','.join(map(str, descriptors))}"])
        for descriptor in descriptors:
            os.close(descriptor)
        sock.send(json.dumps(["born", pid, 0]).encode())


def _tell_ended(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):  # no more children, or nobody listens
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            sock.send(json.dumps(["ended", pid, os.waitstatus_to_exitcode(status)]).encode(), socket.MSG_DONTWAIT)


def _be_worker(sock: socket.socket, main: WorkerMain, arguments: Sequence[str]) -> None:
    """The child's life; it never returns."""
    code = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        sock.close()
        os.setsid()
        with contextlib.suppress(OSError):
            Path("/proc/self/comm").write_text(NAME)
        code = main(arguments)
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    finally:
        # Daemon threads may be within a system call; nothing is left to tidy up.
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    given = dict(argument.lstrip("-").split("=", 1) for argument in sys.argv[1:])
    from edgedns.serve import worker

    import_module(given["import"])
    worker.parse(["--slot=0", "--listen=127.0.0.1:0", "--state=."])  # what that imports and keeps is shared, too
    gc.collect()
    gc.freeze()  # shared as it is: the collector of a worker doesn't write there
    serve(socket.socket(fileno=int(given["socket"])), worker.main)
