"""The floors: what comes is sent back, by C in batches and by plain Python."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.bench.peers.peer import Peer

SOURCE = Path(__file__).parents[1] / "echo.c"
PYTHON = """
import socket, sys
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
sock.bind(("127.0.0.1", int(sys.argv[1])))
receive, send = sock.recvfrom, sock.sendto
while True:
    packet, peer = receive(4096)
    send(packet[:2] + b"\\x80" + packet[3:], peer)
"""


class CEcho(Peer):
    name, title, program, answers = "echo-c", "echo in C", "gcc", False
    note = "recvmmsg, sendmmsg: the kernel's floor"

    def configure(self) -> list[str]:
        made = self.folder / "echo"
        subprocess.run(["gcc", "-O2", str(SOURCE), "-o", str(made)], check=True)
        return [str(made), "127.0.0.1", str(self.port)]


class PythonEcho(Peer):
    name, title, program, answers = "echo-python", "echo in Python", sys.executable, False
    note = "a socket a packet: Python's floor"

    def configure(self) -> list[str]:
        return [sys.executable, "-c", PYTHON, str(self.port)]
