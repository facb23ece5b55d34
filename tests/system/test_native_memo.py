"""What the native loop gives again equals what it would say anew, is counted and sampled alike, and ends with its world."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from edgedns import metrics
from edgedns.dns import cookie
from edgedns.engine import answer, inline, native, seen
from edgedns.engine.load import load_rules
from edgedns.engine.tally import Tally
from edgedns.serve.clock import STEP, Clock
from edgedns.steer.space import asn
from tests.conftest import NOW, SECRETS, Example
from tests.property import strangers
from tests.system import test_native_loop
from tests.system.test_native_loop import Served, query

pytestmark = pytest.mark.skipif(not native.LOOPS, reason="the native engine was not built")
LOCAL = bytes((127, 0, 0, 1))
CLIENTS = [bytes((127, 0, 0, last)) for last in (1, 2, 77)]
CELLS = 1 << 12
BY_SOURCE = """\
version: 1
zone: steered.example
soa: {mname: ns1, rname: noc@example.net}
ns: [ns1.example.net.]
providers:
  alder: {v4: [192.0.2.10]}
  birch: {v4: [198.51.100.10]}
networks:
  other: {prefix: [127.0.0.2/32]}
records:
  www: {rules: [{name: other, match: {network: other}, pin: birch}, {name: rest, pin: alder}]}
"""
TIMES = 4  # a reply is kept from the second time on


@pytest.fixture
def served(example: Example) -> Iterator[Served]:
    made = Served(example)
    yield made
    if made.thread.is_alive():
        made.stop()


def client(served: Served, address: bytes) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.settimeout(3)
    sock.bind((socket.inet_ntoa(address), 0))
    sock.connect(("127.0.0.1", served.port))
    return sock


def renumbered(dice: Random, packet: bytes) -> bytes:
    return dice.randbytes(2) + packet[2:]


def test_strangers_who_ask_again(served: Served, example: Example) -> None:
    """Each packet several times and from several addresses, among others; replies, counters and the sample's size."""
    dice, tally = Random(11), example.tally()
    names = sorted({rr.owner for static in example.loaded.statics.values() for rr in static})[:200]
    socks = {address: client(served, address) for address in CLIENTS}
    for _ in range(40):
        each = [strangers.packet(dice, names, strangers.always(LOCAL), LOCAL) for _ in range(8)]
        asked = [(packet, address) for packet in each for address in CLIENTS] * TIMES
        dice.shuffle(asked)
        for packet, address in asked:
            packet = renumbered(dice, packet) if len(packet) >= 2 else packet
            wanted = answer.respond(example.steered, packet, address, "udp", NOW, SECRETS, tally)
            socks[address].send(packet)
            assert wanted is None or socks[address].recv(65535) == wanted, (packet.hex(), address)
    for sock in socks.values():
        sock.close()
    served.stop()
    received = served.counted()
    assert received[0] == 40 * 8 * len(CLIENTS) * TIMES == received[1] + received[2]
    assert bytes(served.tally.cells[metrics.FIXED :]) == bytes(tally.cells[metrics.FIXED :])
    assert served.tally.networks == tally.networks


def test_the_sample_knows_all_of_them(served: Served) -> None:
    """What is noted of a reply that was given again is what would be noted of a new one."""
    with client(served, LOCAL) as sock:
        for _ in range(400):
            sock.send(query(subnet="203.0.113.0"))
            assert sock.recv(1232)
    served.stop()
    assert served.tally.ring is not None
    noted = seen.parse(served.tally.ring.octets.tobytes())
    assert 80 < len(noted) < 250
    assert len({one._replace(at=0.0) for one in noted}) == 1
    assert noted[0].name == b"\3www\3cdn\7example\3net\0"
    assert (noted[0].subnet, noted[0].source) == (bytes((203, 0, 113, 0)), 24)
    assert noted[0].answered != seen.NOT_STEERED


def test_whoever_asks_gets_his_own(example: Example, tmp_path: Path) -> None:
    (tmp_path / "steered.example.yaml").write_text(BY_SOURCE, encoding="utf-8")
    (tmp_path / "table.tsv").write_text("198.51.100.0\t198.51.100.255\t64500\tDE\tExample\n", encoding="utf-8")
    loaded = load_rules(tmp_path)
    served = Served(example, start=False)
    served.snapshot = inline.nominal_snapshot(loaded, inline.build_atoms(loaded.rules, asn.load(tmp_path / "table.tsv")))
    served.tally = Tally(memoryview(bytearray(8 * CELLS)).cast("Q"))
    served.thread.start()
    try:
        with client(served, CLIENTS[0]) as one, client(served, CLIENTS[1]) as other:
            for _ in range(TIMES):
                for sock, provider in ((one, b"\xc0\0\2\x0a"), (other, b"\xc6\x33\x64\x0a")):
                    sock.send(query("www.steered.example."))
                    assert provider in sock.recv(1232)
    finally:
        served.stop()


def test_another_world_begins_anew(served: Served, example: Example) -> None:
    worlds, tally = (example.steered, example.nominal), example.tally()
    packet, (was, will) = next(
        (packet, replies)
        for packet in (query(subnet=f"{first}.0.0.0") for first in range(1, 200))
        if len(replies := {answer.respond(world, packet, LOCAL, "udp", NOW, SECRETS, tally): None for world in worlds}) == 2
    )
    for world, wanted in ((example.steered, was), (example.nominal, will), (example.steered, was)):
        served.snapshot = world
        served.bell[0] += 1
        assert [served.ask(packet) for _ in range(TIMES)] == [wanted] * TIMES


def test_cookies_tell_the_time_as_it_is(example: Example, monkeypatch: pytest.MonkeyPatch) -> None:
    now = NOW
    monkeypatch.setattr(test_native_loop, "Standing", lambda: Clock(wall=lambda: now, monotonic=time.monotonic))
    served = Served(example)
    packet = query()[:-2] + b"\0\x0c\0\x0a\0\x08" + bytes(range(8))
    try:
        for at in (NOW, NOW + 20, NOW + 40):
            now = at
            time.sleep(2 * STEP)  # sooner the clock does not look at it
            served.bell[0] += 1
            for _ in range(TIMES):
                given = served.ask(packet)[-cookie.CLIENT - cookie.SERVER :]
                assert int.from_bytes(given[12:16], "big") == int(at)
    finally:
        served.stop()
