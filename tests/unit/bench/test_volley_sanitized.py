"""The native loop under AddressSanitizer and UBSan, against a server that sends anything."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SOURCE = ROOT / "edgedns" / "bench" / "_volley.c"
# MODULE: fire at a socket of this process whose thread mangles what comes. Prints the cells that count replies.
SCRIPT = """
import importlib.util, socket, sys, threading, time
from array import array
from random import Random
spec = importlib.util.spec_from_file_location("_volley", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
server, dice = socket.socket(socket.AF_INET, socket.SOCK_DGRAM), Random(4)
server.bind(("127.0.0.1", 0))
def mangled(packet):
    reply = bytearray(packet[:2] + b"\\x84" + packet[3:])
    kind = dice.randrange(6)
    if kind == 1:
        del reply[dice.randrange(len(reply)):]
    elif kind == 2:
        for _ in range(dice.randrange(1, 8)):
            reply[dice.randrange(len(reply))] = dice.randrange(256)
    elif kind == 3:
        reply += dice.randbytes(dice.randrange(5000))
    elif kind == 4:
        reply = dice.randbytes(dice.randrange(40))
    return reply
def serve():
    while True:
        packet, peer = server.recvfrom(4096)
        if packet == b"stop":
            return
        for _ in range(dice.randrange(3)):
            server.sendto(mangled(packet), peer)
thread = threading.Thread(target=serve)
thread.start()
socks = []
for _ in range(3):
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.connect(server.getsockname())
    socks.append(sock)
question = bytes(4) + b"\\0\\1" + bytes(6) + b"\\1a\\7example\\0\\0\\1\\0\\1"
rows = array("I", (0, len(question), len(question), len(question), len(question), 12))
for interval, slots in ((0.0, 256), (50_000.0, 2)):
    cells = array("Q", bytes(8 * 2269))
    start = time.monotonic_ns()
    fds = tuple(sock.fileno() for sock in socks)
    volley = module.Volley(fds, question * 2, rows, cells, slots, interval, 20, 3, 20_000_000, start)
    volley.fire(start + 800_000_000, True)
    volley.fire(time.monotonic_ns() + 10**9, False)
    assert cells[0] == cells[1] + cells[2], list(cells[:13])
    assert sum(cells[29:]) == sum(cells[13:29]) == cells[1]
    print(*cells[:7])
while thread.is_alive():  # a full queue would lose it
    socks[0].send(b"stop")
    thread.join(0.1)
"""


def library(name: str) -> str:
    found = subprocess.run(["gcc", f"-print-file-name={name}"], capture_output=True, text=True, check=True).stdout.strip()
    return found if os.path.isabs(found) else ""


def test_whatever_a_server_sends_stays_within_bounds(tmp_path: Path) -> None:
    if shutil.which("gcc") is None or not library("libasan.so") or not Path(sysconfig.get_path("include"), "Python.h").exists():
        pytest.skip("needs gcc, libasan and Python.h")
    made = tmp_path / "_volley.abi3.so"
    flags = ["-O1", "-g", "-std=c11", "-Wall", "-Wextra", "-Wconversion", "-Werror", "-shared", "-fPIC"]
    flags += ["-DPy_LIMITED_API=0x030B0000", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    subprocess.run(["gcc", *flags, f"-I{sysconfig.get_path('include')}", str(SOURCE), "-o", str(made)], check=True, timeout=120)
    environ = {**os.environ, "LD_PRELOAD": f"{library('libasan.so')} {library('libubsan.so')}", "PYTHONMALLOC": "malloc"}
    done = subprocess.run(
        [sys.executable, "-S", "-c", SCRIPT, str(made)],
        env={**environ, "ASAN_OPTIONS": "detect_leaks=0"}, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    rounds = [[int(word) for word in line.split()] for line in done.stdout.splitlines()]
    assert len(rounds) == 2
    assert all(min(each[:3]) > 0 for each in rounds)
    assert rounds[0][4] > 0
    assert rounds[0][5] > 0
