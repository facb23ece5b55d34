"""Who holds a UDP address on this machine, and what CPU it uses."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from edgedns.bench.owners import cpu_seconds, is_local, owners


@pytest.mark.parametrize(
    ("bound", "asked", "ours"),
    [
        ("127.0.0.1", "127.0.0.1", True),
        ("0.0.0.0", "127.0.0.9", True),
        ("::", "127.0.0.1", True),  # takes IPv4 too
        ("::", "::1", True),
        ("::ffff:127.0.0.1", "127.0.0.1", True),
        ("127.0.0.2", "127.0.0.1", False),
        ("0.0.0.0", "::1", False),
    ],
)
def test_a_socket_is_found_by_what_it_takes(bound: str, asked: str, ours: bool) -> None:
    family = socket.AF_INET6 if ":" in bound else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind((bound, 0))
        assert owners(asked, sock.getsockname()[1]) == ([os.getpid()] if ours else [])


def test_a_client_is_no_owner() -> None:
    """A connected socket takes only what comes from its peer."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        server.bind(("127.0.0.1", 0))
        client.connect(server.getsockname())
        assert owners("127.0.0.1", client.getsockname()[1]) == []


def test_cpu_counts_threads_that_have_ended() -> None:
    code = "import threading, time; t = threading.Thread(target=lambda: sum(range(3 * 10**6))); input(); t.start(); t.join(); "
    code += "print(time.process_time(), time.thread_time(), flush=True); input()"
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as child:
        assert child.stdin
        assert child.stdout
        child.stdin.write("go\n")
        whole, main = map(float, child.stdout.readline().split())
        used = cpu_seconds([child.pid, os.getpid()])
        alone = cpu_seconds([child.pid])
        child.stdin.write("end\n")
        child.wait()
    assert alone is not None
    assert used is not None
    assert main < whole <= alone < used
    assert cpu_seconds([child.pid]) is None


def test_addresses_of_this_machine() -> None:
    assert is_local("127.0.0.1")
    assert not is_local("192.0.2.1")
