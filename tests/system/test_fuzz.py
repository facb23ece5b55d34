"""Any octets: silence or a well-formed reply with the same id, nothing raised, canaries right, memory flat.

Seeds differ in the packets; `EDGEDNS_SEED` adds to them. The coverage-guided form is tests/fuzz/reply.py.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from random import Random

import dns.message
import pytest

from edgedns.engine.load import load_rules
from tests.property import strangers
from tests.system import wellformed
from tests.system.serving import Server

ROOT = Path(__file__).parents[2]
SEED = int(os.environ.get("EDGEDNS_SEED", "0"))
BURST = 24
# Octets of resident memory that a worker may gain over all seeds: plain Python remembers up to 10,240 of what it was asked.
GROWTH = 16 << 20
LOOPBACK = bytes((127, 0, 0, 1))
pytestmark = [pytest.mark.xdist_group("fuzz"), pytest.mark.timeout(300)]


class Fuzzed:
    """A server being fuzzed over one UDP socket and one TCP connection."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self.udp.settimeout(5)
        self.udp.connect(("127.0.0.1", server.port))
        self.tcp = socket.create_connection(("127.0.0.1", server.port), 5)
        self.stream = self.tcp.makefile("rb")
        self.canary = dns.message.make_query("www.cdn.example.net", "A", use_edns=0, payload=1232, id=0xCA4A).to_wire()
        self.truth = self.burst_udp([])
        self.before = 0  # octets of resident memory before the first seed

    def burst_udp(self, packets: list[bytes]) -> bytes:
        """Send these and a canary; check each reply against its packet, found by its id; give the canary's."""
        for packet in [*packets, self.canary]:
            self.udp.send(packet)
        waiting = {packet[:2]: packet for packet in [*packets, self.canary] if not wellformed.expects_silence(packet)}
        replies = {}
        while waiting:
            reply = self.udp.recv(65535)
            asked = waiting.pop(reply[:2], None)
            assert asked is not None, f"a second reply, or one to nothing: {reply.hex()}"
            self._check(asked, reply, limit=1232)
            replies[reply[:2]] = reply
        return replies[self.canary[:2]]

    def burst_tcp(self, packets: list[bytes]) -> bytes:
        self.tcp.sendall(b"".join(len(packet).to_bytes(2, "big") + packet for packet in [*packets, self.canary]))
        for packet in packets:
            if not wellformed.expects_silence(packet):
                self._check(packet, self._framed(), limit=65535)
        return self._framed()

    def _framed(self) -> bytes:
        return self.stream.read(int.from_bytes(self.stream.read(2), "big"))

    @staticmethod
    def _check(packet: bytes, reply: bytes, limit: int) -> None:
        try:
            wellformed.check(packet, reply, limit)
            if limit < 65535:
                wellformed.check_size(packet, reply)
        except (AssertionError, IndexError) as error:
            raise AssertionError(f"{error}: {packet.hex()} was answered {reply.hex()}") from error

    def resident(self) -> int:
        """Octets of memory of the worker."""
        (pid,) = self.server.worker_pids()
        found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
        assert found
        return int(found[1]) << 10

    def run(self, seed: int, count: int) -> None:
        dice = Random(seed)
        for _ in range(0, count, BURST):
            packets = [number.to_bytes(2, "big") + self.packet(dice)[2:] for number in range(BURST)]
            assert self.burst_udp(packets) == self.truth
            assert self.burst_tcp(packets) == self.truth

    def packet(self, dice: Random) -> bytes:
        made = strangers.packet(dice, NAMES, lambda: address(dice), LOOPBACK)
        for _ in range(dice.choice((0, 0, 1, 2))):
            made = strangers.mangled(dice, made) if made else made
        return made


def address(dice: Random) -> bytes:
    return dice.choice((dice.randbytes(4), dice.randbytes(16), ip_address("198.51.100.9").packed))


NAMES = sorted({rr.owner for rr in load_rules(ROOT / "rules").statics["cdn.example.net"]} | {b"\3www\3cdn\7example\3net\0"})


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fuzzed]:
    folder = tmp_path_factory.mktemp("fuzz")
    server = Server(folder, ROOT / "rules")
    try:
        made = Fuzzed(server.start())
        with made.udp, made.tcp, made.stream:
            made.run(-1, 2000)  # what is remembered of names and askers is so by now
            made.before = made.resident()
            yield made
    finally:
        server.clean_up()


def fuzz(fuzzed: Fuzzed, seed: int, count: int) -> None:
    workers = fuzzed.server.worker_pids()
    fuzzed.run(SEED + seed, count)
    print(f"seed {SEED + seed}: {fuzzed.resident() - fuzzed.before >> 10:+} kB")
    assert fuzzed.resident() - fuzzed.before < GROWTH
    assert fuzzed.server.worker_pids() == workers
    assert "answering" not in fuzzed.server.said()


def test_one_seed(fuzzed: Fuzzed) -> None:
    fuzz(fuzzed, 0, 4000)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(1, 21))
def test_twenty_seeds(fuzzed: Fuzzed, seed: int) -> None:
    fuzz(fuzzed, seed, 20_000)
