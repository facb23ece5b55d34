"""CPU per query over kept TCP connections: one query at a time on each, or several at once (pipelined)."""

from __future__ import annotations

import socket
import statistics
from collections.abc import Sequence
from contextlib import ExitStack
from itertools import cycle, islice
from random import Random

from edgedns.bench.volley import Magazine
from tests.bench.peers.contest import Load, beside_them, tell
from tests.bench.peers.peer import Peer

CONNECTIONS, QUERIES = 16, 4000
WAYS = {"one at a time": 1, "16 at once": 16}
AGAINST = "knot"
PATIENCE = 20.0

# server -> (mix, way) -> microseconds of CPU per query, one a round
Costs = dict[str, dict[tuple[str, str], list[float]]]


def contest(peers: Sequence[Peer], mixes: Sequence[Load], rounds: int) -> Costs:
    """Every server in turn, in another order each round."""
    costs: Costs = {peer.name: {} for peer in peers}
    order = list(peers)
    with beside_them():
        for number in range(rounds + 1):
            tell(f"TCP, round {number} of {rounds}" if number else "TCP, warming up")
            Random(number).shuffle(order)
            for load in mixes:
                for way, pipelined in WAYS.items():
                    for peer in order:
                        used = cost(peer, load.magazine, pipelined, QUERIES if number else QUERIES // 10)
                        if number:
                            costs[peer.name].setdefault((load.title, way), []).append(used)
    return costs


def markdown(peers: Sequence[Peer], costs: Costs) -> str:
    """Median (least to most), and beside it the ratio to Knot's in the same round, median."""
    columns = list(costs[peers[0].name])
    lines = [
        f"Over {CONNECTIONS} kept TCP connections, the same; x: of Knot's.",
        "",
        "| server | " + " | ".join(f"{mix}, {way}" for mix, way in columns) + " |",
        "|---|" + "---|" * len(columns),
    ]
    base = costs.get(AGAINST)
    for peer in peers:
        cells = [_cell(costs[peer.name][column], base[column] if base else None) for column in columns]
        lines.append(f"| {peer.title} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, ""])


def _cell(costs: Sequence[float], base: Sequence[float] | None) -> str:
    ratio = f"{statistics.median(map(float.__truediv__, costs, base)):.2f}x, " if base else ""
    return f"**{statistics.median(costs):.1f}** ({ratio}{min(costs):.1f} to {max(costs):.1f})"


def cost(peer: Peer, magazine: Magazine, pipelined: int, queries: int) -> float:
    """Microseconds of CPU per query. Each connection has `pipelined` queries on their way, sent at once; all in turn."""
    framed = cycle(_framed(magazine))
    with ExitStack() as stack:
        socks = [stack.enter_context(_connected(peer.port)) for _ in range(CONNECTIONS)]
        _exchange(socks, [b"".join(islice(framed, pipelined)) for _ in socks], pipelined)
        before = peer.cpu()
        rounds = max(1, queries // (pipelined * CONNECTIONS))
        for _ in range(rounds):
            _exchange(socks, [b"".join(islice(framed, pipelined)) for _ in socks], pipelined)
        return (peer.cpu() - before) / (rounds * pipelined * CONNECTIONS) * 1e6


def _framed(magazine: Magazine) -> list[bytes]:
    """The packets, each behind its length."""
    rows = zip(magazine.rows[::3], magazine.rows[1::3], strict=True)
    return [size.to_bytes(2, "big") + magazine.packets[at : at + size] for at, size in rows]


def _connected(port: int) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port), PATIENCE)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def _exchange(socks: Sequence[socket.socket], requests: Sequence[bytes], replies: int) -> None:
    """Ask on all connections, then hear all replies."""
    for sock, request in zip(socks, requests, strict=True):
        sock.sendall(request)
    for sock in socks:
        octets = b""
        while not _holds(octets, replies):
            more = sock.recv(1 << 16)
            assert more, "the connection is kept"
            octets += more


def _holds(octets: bytes, replies: int) -> bool:
    """Whether so many whole messages are there."""
    at = count = 0
    while at + 2 <= len(octets):
        at += 2 + int.from_bytes(octets[at : at + 2], "big")
        count += at <= len(octets)
    assert count <= replies, "no more replies than queries"
    return count == replies
