"""A flood in somebody's name gets at most 1.5 octets out for each octet in, whatever it asks, over real sockets.

The flooded are networks of 127/8, which this machine lets anybody speak for.
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import dns.edns
import dns.message
import pytest

from edgedns.engine import native
from tests.conftest import RULES
from tests.small import write_table
from tests.system.serving import Server

pytestmark = pytest.mark.xdist_group("flood")
COUNT = 3000
MOST = 1.5
SURPLUS = 1000  # a hundredth of the default, so that a flood can be short
APEX = "cdn.example.net"
DICE = Random(7)


def wire(name: str, rtype: str, options: tuple[dns.edns.Option, ...] = (), payload: int = 4096) -> bytes:
    query = dns.message.make_query(f"{name}.{APEX}" if not name.endswith(".") else name, rtype, use_edns=False)
    query.use_edns(0, 0, payload, options=list(options))
    return query.to_wire()


def word() -> str:
    return f"x{DICE.randrange(1 << 40):x}"


NSID = dns.edns.GenericOption(dns.edns.OptionType.NSID, b"")
COOKIE = dns.edns.GenericOption(dns.edns.OptionType.COOKIE, b"12345678")
KINDS = {
    "any": [wire(APEX + ".", "ANY")],
    "a large answer": [wire("twenty.corners.example.", "AAAA")],
    "too large": [wire("large", "TXT"), dns.message.make_query(f"large.{APEX}", "TXT", use_edns=False).to_wire()],
    "no such name": [wire(word(), "A") for _ in range(COUNT)],
    "no such type": [wire("www", "MX")],
    "any name, by a wildcard": [wire(f"{word()}.wild", "TXT") for _ in range(COUNT)],
    "referral": [wire(f"{word()}.child", "A") for _ in range(COUNT)],
    "refused": [wire("www.example.com.", "A", (NSID, COOKIE))],
    "broken": [wire("large", "TXT") + b"\0"],
    "steered": [wire("www", "A", (dns.edns.ECSOption(f"10.{n}.{n}.0", 24),)) for n in range(200)],
    "a client's cookie": [wire("large", "TXT", (COOKIE, NSID))],
}
KINDS["all of it"] = [packet for packets in KINDS.values() for packet in packets[:50]]


@pytest.fixture(scope="module", params=["native", "python"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    if request.param == "native" and not native.LOOPS:
        pytest.skip("the native engine was not built")
    top = tmp_path_factory.mktemp(request.param)
    shutil.copytree(RULES, top / "rules")
    zone = top / "rules" / f"{APEX}.yaml"
    zone.write_text(zone.read_text().split("\ntests:\n")[0])  # they are about the real table
    shutil.copy(Path(__file__).parents[1] / "conformance" / "corners.yaml", top / "rules")
    made = Server(top, top / "rules", write_table(top / "table.tsv"))
    try:
        yield made.start("--rate-limit", f"surplus={SURPLUS}", environ={"EDGEDNS_ENGINE": request.param})
    finally:
        made.clean_up()


@contextlib.contextmanager
def speaking_for(address: str, port: int) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        sock.bind((address, 0))
        sock.connect(("127.0.0.1", port))
        sock.settimeout(5)
        yield sock


def drained(sock: socket.socket) -> int:
    """Octets that have come."""
    octets = 0
    sock.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            octets += len(sock.recv(65535))
    sock.settimeout(5)
    return octets


def asked(address: str, port: int, packet: bytes) -> dns.message.Message:
    with speaking_for(address, port) as sock:
        sock.send(packet)
        return dns.message.from_wire(sock.recv(65535))


def received(server: Server) -> float:
    return server.counters()["edgedns_udp_received_total"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_flood_gets_no_more_than_half_as_much_again(server: Server, kind: str) -> None:
    """Beyond that there is only the surplus that the network had when it began, and what it gets each second."""
    packets, network = KINDS[kind], f"127.66.{list(KINDS).index(kind)}"
    sent = back = 0
    before, began = received(server), time.monotonic()
    with contextlib.ExitStack() as held:
        victims = [held.enter_context(speaking_for(f"{network}.{n}", server.port)) for n in range(1, 9)]
        for number in range(COUNT):
            packet = packets[number % len(packets)]
            sent += victims[number % 8].send(packet)
            if number % 64 == 63:  # nothing is to be lost in buffers: what was sent is to be what came
                time.sleep(0.002)
                back += sum(map(drained, victims))
        time.sleep(0.3)
        back += sum(map(drained, victims))
    came = (received(server) - before) / COUNT
    assert came > 0.95
    assert back <= MOST * sent * came + SURPLUS * (1 + time.monotonic() - began)
    sys.stderr.write(f"{kind}: {back / sent:.2f} octets out for each in\n")
    assert back > 0


def test_others_and_who_holds_a_cookie_get_all_they_ask(server: Server) -> None:
    """In the midst of it: another network, and in the flooded one a client that showed its address by a cookie."""
    flooded, large = "127.67.0", wire("twenty.corners.example.", "AAAA")
    first = asked(f"{flooded}.9", server.port, wire("zero", "A", (COOKIE,)))
    (cookie,) = (option for option in first.options if option.otype == 10)
    good = wire("twenty.corners.example.", "AAAA", (cookie,))
    with speaking_for(f"{flooded}.1", server.port) as victim:
        for number in range(2000):
            victim.send(large)
            if number % 64 == 63:
                time.sleep(0.002)
                drained(victim)
            if number % 200 == 199:
                assert asked(f"{flooded}.9", server.port, good).answer
                assert asked("127.68.0.9", server.port, wire("www", "A")).answer
                assert asked(f"{flooded}.7", server.port, wire("www", "A")).answer
        assert asked("127.68.0.9", server.port, large).answer
        drained(victim)
        for _ in range(4):
            victim.send(large)
        assert not dns.message.from_wire(victim.recv(65535)).answer
    counters = server.counters()
    assert counters["edgedns_rate_dropped_total"] > 100
    assert counters["edgedns_rate_slipped_total"] > 100
