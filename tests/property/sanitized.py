"""Run by test_sanitized: answers and serves with a module built under sanitizers. Imports nothing that they would slow down.

sanitized.py MODULE FILE: the pickled (sections, [(packet, client, transport)], now).
"""

from __future__ import annotations

import contextlib
import importlib.util
import pickle
import select
import socket
import sys
import threading
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

PLACES = 1 << 10
BELL = array("Q", (0,))


def main(module: str, file: str) -> None:
    spec = importlib.util.spec_from_file_location("_fastpath", module)
    assert spec is not None
    assert spec.loader is not None
    fastpath = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fastpath)
    sections, asked, now = pickle.loads(Path(file).read_bytes())
    for name in ("counters", "networks", "ring", "dice"):
        sections[name] = bytearray(sections[name]) or b""
    made = fastpath.Native(sections)
    parts = [array(code, bytes(size * PLACES)) for code, size in (("d", 8), ("I", 4))]
    limiter = fastpath.Limiter(2, 1000, 2, False, *parts, b"\4\x18\xc0\0\2" + bytes(13))
    replies = 0
    for packet, client, transport in asked:
        # A copy of its own, so that what lies behind its end is out of bounds.
        reply = made.reply(bytearray(packet), client, transport, now)
        replies += bool(reply)
        if reply:
            limiter.limit(packet, reply, client, now, sections["cookies"])
    print(replies, loop(fastpath, made, limiter, asked, now), stream(fastpath, made, asked, now))


def loop(fastpath: Any, made: Any, limiter: Any, asked: list[tuple[bytes, bytes, str]], now: float) -> int:
    """The same through sockets; how many packets were handed back."""
    handed: list[bytes] = []

    def respond(packet: bytes, client: bytes) -> bytes | None:
        handed.append(packet)
        return packet[:512] if len(packet) > 12 else None

    for host, limited in (("127.0.0.1", None), ("0.0.0.0", limiter), ("::", None)):
        serve_once(fastpath, host, lambda: (made, now), respond, limited, [packet for packet, _, _ in asked])
    return len(handed)


def stream(fastpath: Any, made: Any, asked: list[tuple[bytes, bytes, str]], now: float) -> int:
    """The same over one TCP connection; how many rounds answered something."""
    with socket.create_server(("127.0.0.1", 0)) as listener, select.epoll() as epoll:
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
        epoll.register(server.fileno(), select.EPOLLIN)
        clients, rounds = bytearray(17 * (server.fileno() + 1)), 0
        clients[-17:] = b"\4\x7f\0\0\1" + bytes(12)
        for packet, _, _ in asked:
            client.sendall(len(packet).to_bytes(2, "big") + packet)
            served, _ = fastpath.streams(epoll.fileno(), 20, clients, made, now, BELL, 0)
            rounds += len(served)
            with contextlib.suppress(BlockingIOError):
                client.recv(1 << 20, socket.MSG_DONTWAIT)
        fastpath.streams(epoll.fileno(), 0, clients[:-1], made, now, BELL, 0)
        client.close()
        fastpath.streams(epoll.fileno(), 20, clients, made, now, BELL, 0)
        server.close()
    return rounds


def serve_once(fastpath: Any, host: str, look: Callable[[], Any], respond: Any, limiter: Any, packets: list[bytes]) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    server, client = socket.socket(family, socket.SOCK_DGRAM), socket.socket(family, socket.SOCK_DGRAM)
    if host == "0.0.0.0":
        server.setsockopt(socket.IPPROTO_IP, 8, 1)
    elif host == "::":
        server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
    server.bind((host, 0))
    thread = threading.Thread(target=fastpath.serve, args=(server.fileno(), host != "127.0.0.1", look, respond, limiter, BELL))
    thread.start()
    client.connect(("::1" if ":" in host else "127.0.0.1", server.getsockname()[1]))
    for packet in packets:
        client.send(packet)
    for packet in (b"", bytes(60_000), b"\xff" * 5000):
        client.send(packet)
    server.connect(server.getsockname())
    with contextlib.suppress(OSError):
        server.shutdown(socket.SHUT_RD)
    thread.join(20)
    assert not thread.is_alive()


if __name__ == "__main__":
    main(*sys.argv[1:])
