"""What systemd is told, keeps and passes: a stand-in for its notify socket, its own systemd-socket-activate, its units."""

from __future__ import annotations

import array
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgedns.config import Address
from edgedns.serve import sockets, systemd
from tests.conformance.peers import free_port
from tests.small import ADDRESS, write_rules, write_table
from tests.system.serving import SLACK, TOKEN, UNLIMITED, Server, kill, wait_until

# What systemd does between fork and exec: descriptors from 3 on, and whose they are.
LAUNCHER = """
import fcntl, os, sys
numbers = [int(word) for word in sys.argv[1].split(",")]
high = [fcntl.fcntl(number, fcntl.F_DUPFD, 100) for number in numbers]
for place, number in enumerate(high):
    os.dup2(number, 3 + place)
    os.close(number)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(numbers)), LISTEN_FDNAMES=sys.argv[2])
os.execv(sys.argv[3], sys.argv[3:])
"""
QUERY = bytes.fromhex("1234 0100 0001 0000 0000 0000 05706c61696e 076578616d706c65 036e6574 00 0001 0001")


class Systemd:
    """Its side of the notify socket: what came, and which descriptors it keeps."""

    def __init__(self, top: Path) -> None:
        self.path = str(top / "notify")
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.bind(self.path)
        self.sock.setblocking(False)
        self.told: list[str] = []
        self.kept: list[int] = []

    def listen(self) -> list[str]:
        while True:
            try:
                text, ancillary, _, _ = self.sock.recvmsg(4096, socket.CMSG_SPACE(253 * 4))
            except BlockingIOError:
                return self.told
            descriptors = array.array("i")
            for _, _, content in ancillary:
                descriptors.frombytes(content)
            lines = text.decode().split("\n")
            if "FDSTOREREMOVE=1" in lines:
                self.forget()
            self.kept += descriptors
            self.told += lines

    def forget(self) -> None:
        for descriptor in self.kept:
            os.close(descriptor)
        self.kept = []

    def close(self) -> None:
        self.forget()
        self.sock.close()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Systemd]:
    made = Systemd(tmp_path)
    yield made
    made.listen()
    made.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path, write_rules(tmp_path / "rules"), write_table(tmp_path / "table.tsv"), 2)
    yield made
    made.clean_up()


def test_it_is_told_and_keeps_the_sockets_over_a_restart(server: Server, manager: Systemd) -> None:
    environ = {"NOTIFY_SOCKET": manager.path, "WATCHDOG_USEC": "600000"}
    server.start(environ=environ)
    wait_until(lambda: manager.listen().count("WATCHDOG=1") >= 3 and len(manager.kept) == 4, 3 * SLACK)
    assert "READY=1" in manager.told
    assert any(line.startswith("STATUS=serving with 2 workers") for line in manager.told)
    assert "FDNAME=edgedns-own" in manager.told
    manager.told.clear()
    assert server.process is not None
    server.process.send_signal(signal.SIGHUP)
    wait_until(lambda: "READY=1" in manager.listen(), 3 * SLACK)
    assert manager.told.index("RELOADING=1") < manager.told.index("READY=1")
    assert any(line.startswith("MONOTONIC_USEC=") for line in manager.told)
    assert server.end() == 0
    assert "STOPPING=1" in manager.listen()
    assert server.worker_pids() == []
    stream = socket.create_connection(("127.0.0.1", server.port), timeout=30)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock, stream:
        sock.settimeout(30)
        for _ in range(50):
            sock.sendto(QUERY, ("127.0.0.1", server.port))  # nobody is there: they wait
        stream.sendall(len(QUERY).to_bytes(2, "big") + QUERY)
        start_with(server, manager.kept, "edgedns-own", environ)
        for _ in range(50):
            assert sock.recv(512)[:2] == QUERY[:2]
        assert stream.recv(512)[2:4] == QUERY[:2]


def start_with(server: Server, descriptors: list[int], name: str, environ: dict[str, str]) -> None:
    """As systemd starts it, with sockets."""
    server.mark()
    serve = [sys.executable, "-m", "edgedns", "serve", "--rules", server.rules, "--asn", server.table, "--state", server.state]
    serve += ["--listen", f"127.0.0.1:{server.port}", "--admin", "127.0.0.1:0", "--workers", "2", "--rate-limit", UNLIMITED]
    numbers, names = ",".join(map(str, descriptors)), ":".join([name] * len(descriptors))
    command = [sys.executable, "-c", LAUNCHER, numbers, names, *map(str, serve)]
    everything = {**os.environ, "EDGEDNS_TOKEN": TOKEN, **environ}
    with server.log.open("ab") as log:
        server.process = subprocess.Popen(command, stderr=log, pass_fds=descriptors, env=everything)
    server.admin = server.wait_for(r"admin side: (http://\S+?)/\s")[1]
    server.wait_for(r"serving 127\.0\.0\.1")
    server._remember_workers()


@pytest.mark.skipif(shutil.which("systemd-socket-activate") is None, reason="needs systemd-socket-activate")
def test_the_query_that_activates_it_is_answered(server: Server) -> None:
    """Both kinds, from the address of the socket unit; `--listen` is not given."""
    address = f"127.0.0.1:{free_port()}"
    server.port = int(address.rpartition(":")[2])
    command = ["systemd-socket-activate", "-l", address, "systemd-socket-activate", "-d", "-l", address, sys.executable, "-m"]
    command += ["edgedns", "serve", "--rules", str(server.rules), "--asn", str(server.table), "--state", str(server.state)]
    command += ["--admin", "off", "--workers", "2", "--rate-limit", UNLIMITED]
    with server.log.open("ab") as log:
        keys = ("PATH", "HOME", "EDGEDNS_ENGINE", "PYTHONPATH")
        passed = [f"--setenv={key}" for key in keys if key in os.environ]
        command[1:1], command[command.index("-d") : command.index("-d")] = passed, passed
        server.process = subprocess.Popen(command, stderr=log)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        server.wait_for(rf"Listening on {address} as 3")
        socket.create_connection(("127.0.0.1", server.port)).close()
        server.wait_for(rf"(?s)Listening on {address} as 3.*Listening on {address} as 4")
        sock.settimeout(40)
        sock.sendto(QUERY, ("127.0.0.1", server.port))
        assert sock.recv(512)[:2] == QUERY[:2]
    server.wait_for(rf"serving {address} with 2 workers")
    server._remember_workers()
    for tcp in (False, True):
        assert server.query("www.example.net", of=7, tcp=tcp).answer[0][0].address == ADDRESS["alder"]
    victim = server.worker_pids()[0]
    kill(victim)
    for _ in range(20):  # the other one reads the same socket
        assert server.query("www.example.net", of=7).answer
    assert server.end() == 0


def test_what_is_passed_is_looked_at() -> None:
    place = sockets.Place(Address("127.0.0.1", 0), socket.SOCK_DGRAM)
    with sockets.opened(place).sock as good, socket.socket(socket.AF_UNIX) as odd, socket.socket() as unbound:
        for one, wrong in ((odd, "neither a UDP nor a TCP socket"), (unbound, "does not listen")):
            with pytest.raises(sockets.SocketError, match=wrong):
                systemd.take_passed({systemd.VARIABLE: f"{os.dup(one.fileno())}=x"})
        environ = {systemd.VARIABLE: f"{os.dup(good.fileno())}=edgedns-own,{os.dup(good.fileno())}=again"}
        environ |= {"LISTEN_PID": "1", "LISTEN_FDS": "9"}  # meant for another process
        passed = systemd.take_passed(environ)
        assert environ == {}
        assert [(one.place.address.port, one.shared) for one in passed.sockets] == [(good.getsockname()[1], False)]
        sockets.close(passed.sockets)


def test_sockets_are_allotted_so_that_each_is_read_and_each_worker_has_all() -> None:
    place = sockets.Place(Address("127.0.0.1", 0), socket.SOCK_DGRAM)
    made = [sockets.opened(place) for _ in range(3)]
    listen = sockets.Place(Address("127.0.0.1", 53), socket.SOCK_DGRAM)
    own, shared = ([sockets.Held(one.sock, listen, each) for one in made] for each in (False, True))
    try:
        cases: list[tuple[list[sockets.Berth], list[sockets.Held], int, list[list[int]], list[int]]] = [
            ([], shared, 2, [[0, 2], [1]], []),
            ([], shared[:1], 2, [[0], [0]], []),
            ([], own, 2, [[0], [1]], [2]),
            ([[own[0]], [own[1]]], [own[2]], 1, [[0]], [1, 2]),
            ([[own[0]]], [own[1]], 3, [[0], [1], []], []),
        ]
        for berths, spare, count, given, left in cases:
            found, over = sockets.allot([listen], berths, spare, count)
            number = {one.number: i for i, one in enumerate(own)}
            assert [[number[one.number] for one in berth] for berth in found] == given
            assert [number[one.number] for one in over] == left
        found, over = sockets.allot([], [own], [], 1)
        assert (found, over) == ([[]], own)
    finally:
        sockets.close(made)


def test_without_a_manager_nothing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    systemd.notify("READY=1")
    monkeypatch.setenv("NOTIFY_SOCKET", "/nowhere/at/all")
    systemd.notify("READY=1")  # gone: no error
    name = f"edgedns-test-{os.getpid()}-{time.monotonic_ns()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(f"\0{name}")
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}")
        systemd.notify("READY=1", "STATUS=here")
        assert sock.recv(100) == b"READY=1\nSTATUS=here"
    monkeypatch.setenv("WATCHDOG_USEC", "30000000")
    monkeypatch.setenv("WATCHDOG_PID", "1")
    assert systemd.watchdog_seconds() == 0.0
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    assert systemd.watchdog_seconds() == 30.0
