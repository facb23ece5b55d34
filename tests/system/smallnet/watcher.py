"""Asks as clients of networks do, twice a second: watcher.py SERVER NETWORKS SECONDS OUT FAMILY ...

Each network's client has an address of its own and asks without a client subnet. NETWORKS are numbers with commas between; `{}`
in SERVER is the network's. A line an answer: Unix time, network, family, addresses (with `+` between them; nothing where none
came, or not in time). The first line says when it began.
"""

from __future__ import annotations

import selectors
import socket
import struct
import sys
import time
from ipaddress import ip_address

NAME = b"\3www\3cdn\7example\3net\0"
EVERY, PATIENCE = 0.5, 3.0
TYPES = {4: 1, 6: 28}


def addresses(reply: bytes) -> list[str]:
    """Of the answer section; ours points each owner at the question."""
    count, at, found = struct.unpack_from("!H", reply, 6)[0], 12 + len(NAME) + 4, []
    for _ in range(count):
        size = struct.unpack_from("!H", reply, at + 10)[0]
        found.append(str(ip_address(reply[at + 12 : at + 12 + size])))
        at += 12 + size
    return found


def client(number: int, server: str) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((f"198.18.{number}.99", 0))
    sock.connect((server.format(number), 53))
    sock.setblocking(False)
    return sock


def main(server: str, networks: list[int], seconds: float, out: str, families: list[int]) -> None:
    chosen = selectors.DefaultSelector()
    clients = {number: client(number, server) for number in networks}
    for number, sock in clients.items():
        chosen.register(sock, selectors.EVENT_READ, number)
    asked: dict[tuple[int, int], float] = {}  # (network, id) -> when
    start, turn, asks = time.time(), 0, len(networks) * len(families)
    with open(out, "w") as file:
        file.write(f"{start:.4f},,,\n")
        file.flush()
        while (now := time.time()) < start + seconds + PATIENCE:
            while start + EVERY * turn / asks <= min(now, start + seconds):
                number, family = networks[turn % asks // len(families)], families[turn % len(families)]
                identity = turn & 0xFFFE | (family == 6)
                packet = struct.pack("!6H", identity, 0x0100, 1, 0, 0, 0) + NAME + struct.pack("!2H", TYPES[family], 1)
                asked[number, identity] = now
                clients[number].send(packet)
                turn += 1
            ready = chosen.select(EVERY / asks)
            for key, _ in ready:
                try:
                    reply = clients[key.data].recv(4096)
                except ConnectionRefusedError:  # nobody listens there yet
                    continue
                identity = struct.unpack_from("!H", reply)[0]
                if asked.pop((key.data, identity), None) is not None:
                    file.write(f"{time.time():.4f},{key.data},{6 if identity & 1 else 4},{'+'.join(addresses(reply))}\n")
            for (number, identity), at in [] if ready else list(asked.items())[:8]:  # what waits to be read is not late
                if now - at > PATIENCE:
                    del asked[number, identity]
                    file.write(f"{now:.4f},{number},{6 if identity & 1 else 4},\n")


if __name__ == "__main__":
    numbers = [int(word) for word in sys.argv[2].split(",")]
    main(sys.argv[1], numbers, float(sys.argv[3]), sys.argv[4], [int(word) for word in sys.argv[5:]])
