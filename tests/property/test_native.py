"""Law 1 over every twin of the fast path, for whatever a stranger sends: nothing that he can provoke at will is handed back."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random

import pytest

from edgedns.engine import answer, fastpath, inline, limit, native, seen
from edgedns.engine.cells import Space
from edgedns.engine.compile import atoms_file, compile_base, snapshot_of
from edgedns.engine.load import load_rules
from edgedns.engine.overlay import Spreader, compile_overlay
from edgedns.engine.snapshot import Snapshot
from edgedns.engine.tally import Tally
from edgedns.steer.deciding.policy import decide
from edgedns.steer.failure.health import Health
from edgedns.steer.space import asn
from edgedns.steer.table.rtt import RttStore
from edgedns.steer.table.wan import estimate
from tests.conftest import NOW, SALT, SECRETS, Example, Places, new_ring
from tests.property import strangers, test_seam

Reply = Callable[..., bytes | None]
LIMITS = (
    *("5,surplus=0", "3,slip=0", "4,slip=1", "surplus=300", "surplus=200,slip=1"),
    "2,slip=3,exempt=192.0.2.0/25,exempt=2001:db8::/33,exempt=198.51.100.7/32",
)
COUNT = 3000
SECONDARY, STRANGER = bytes((127, 0, 0, 1)), bytes((127, 0, 0, 2))  # as rules/ has it

PROVIDERS = """\
version: 1
providers:
  alder: {v4: [192.0.2.10, 192.0.2.11], v6: ["2001:db8:a1::10"]}
  birch: {v4: [198.51.100.10], state: down}
networks:
  near: {prefix: [192.0.2.0/24, "2001:db8:5::/48"]}
"""
# Sets of every size around the limits; names at every length; each way in which all can be down.
LARGE = """\
version: 1
zone: big.example
soa: {mname: ns1, rname: noc@example.net, minimum: 60s}
ns: [ns1]
defaults: {ttl: 30s}
records:
  www: {rules: [{name: near, match: {network: near}, pin: birch}, {name: rest, weighted: {alder: 3, birch: 1}}]}
  closed: {all_down: nodata, rules: [{name: open, match: {network: near}, pin: alder}, {name: closed, pin: birch}]}
  failed: {all_down: servfail, rules: [{name: failed, pin: birch}]}
  fixed: {rules: [{name: fixed, pin: alder}]}
static:
  - "ns1 A 192.0.2.53"
  - "to-closed CNAME closed"
  - "to-failed CNAME failed"
  - "to-www CNAME to-www2"
  - "to-www2 CNAME www"
  - "sub NS ns.elsewhere.example."
"""


def write_large(directory: Path) -> Path:
    lines = [f'  - "a{count} A 192.0.2.{number}"' for count in (20, 28, 29, 30, 31, 70, 76) for number in range(count)]
    lines += [f'  - "mx{count} MX {number} host{number}"' for count in (5, 12, 30) for number in range(count)]
    lines += [f'  - "host{number} {kind}"' for number in range(30) for kind in ("A 192.0.2.9", "AAAA 2001:db8::9")]
    lines += [f'  - "glued NS ns{number}.glued"' for number in range(13)]
    lines += [f'  - "ns{number}.glued {kind}"' for number in range(13) for kind in ("A 192.0.2.9", "AAAA 2001:db8::9")]
    lines += [f'  - "*.text TXT \\"{"x" * 250}\\" \\"{number}\\""' for number in range(60)]
    directory.mkdir(exist_ok=True)
    (directory / "providers.yaml").write_text(PROVIDERS, encoding="utf-8")
    (directory / "big.example.yaml").write_text(LARGE + "\n".join(lines) + "\n", encoding="utf-8")
    return directory


@dataclass(frozen=True)
class Large:
    """A small address space, large sets."""

    snapshot: Snapshot
    names: list[bytes]
    tally: Callable[[], Tally]


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Large:
    directory = tmp_path_factory.mktemp("large")
    loaded, places = load_rules(write_large(directory / "rules")), Places()
    (directory / "table.tsv").write_text("198.51.100.0\t198.51.100.255\t64500\tDE\tExample\n", encoding="utf-8")
    atoms = inline.build_atoms(loaded.rules, asn.load(directory / "table.tsv"))
    space = Space(atoms, loaded.rules.networks, asn.continent)
    compiled = compile_base(inline.sources(loaded), loaded.rules.providers, space, (), places.block, SALT)
    decisions = decide(compiled.columns, loaded.rules.providers, {}, estimate(RttStore()), Health(), None, NOW, 0.0)
    overlay = compile_overlay(compiled.columns, decisions, list(loaded.rules.providers), Spreader.of(atoms), SALT)
    snapshot = snapshot_of(atoms_file(atoms), compiled.content, overlay, serial=9)
    zone = loaded.rules.zones["big.example"]
    owners = {record.name for record in zone.records} | {rr.owner for rr in loaded.statics["big.example"]}

    def tally() -> Tally:
        cells = memoryview(bytearray(8 * places.used)).cast("Q")
        return Tally(cells, memoryview(bytearray(4 * len(atoms.net_asn))).cast("I"), new_ring())

    return Large(snapshot, sorted(owners), tally)


@pytest.fixture(params=["python", "native"])
def twin(request: pytest.FixtureRequest) -> Reply:
    if request.param == "python":
        return fastpath.reply
    if not native.AVAILABLE:
        pytest.skip("_fastpath was not built: no compiler, or no Python.h")
    return native.reply


@dataclass
class Seam:
    """Both paths, each with its own counters, and how many packets the fast one handed back."""

    reply: Reply
    snapshot: Snapshot
    quick: Tally
    slow: Tally
    handed_back: int = 0

    def ask(self, packet: bytes, client: bytes, transport: str) -> bytes | None:
        fast = self.reply(self.snapshot, packet, client, transport, NOW, SECRETS, self.quick)
        if fast is None:
            self.handed_back += 1
            return None
        reference = answer.respond(self.snapshot, packet, client, transport, NOW, SECRETS, self.slow)
        assert (fast or None) == reference, (packet.hex(), client.hex(), transport)
        return fast

    def assert_counted_alike(self) -> None:
        assert self.quick.networks is not None
        assert self.slow.networks is not None
        assert bytes(self.quick.cells) == bytes(self.slow.cells)
        assert bytes(self.quick.networks) == bytes(self.slow.networks)
        assert self.quick.ring is not None
        assert self.slow.ring is not None
        assert seen.parse(self.quick.ring.octets.tobytes()) == seen.parse(self.slow.ring.octets.tobytes())
        assert self.quick.ring.octets == self.slow.ring.octets
        assert self.quick.ring.dice == self.slow.ring.dice


def ask_strangers(seam: Seam, dice: Random, names: list[bytes], clients: Callable[[], bytes], count: int) -> None:
    for _ in range(count):
        client = clients()
        packet = strangers.packet(dice, names, clients, client)
        seam.ask(packet, client, dice.choice(("udp", "udp", "tcp")))
    seam.assert_counted_alike()


class TestTwin:
    """Each twin against the reference path."""

    @pytest.mark.parametrize("which", ["nominal", "steered"])
    def test_strangers(self, twin: Reply, example: Example, which: str) -> None:
        dice = Random(which)
        seam = Seam(twin, getattr(example, which), example.tally(), example.tally())
        zone = example.loaded.rules.zones["cdn.example.net"]
        names = sorted({record.name for record in zone.records} | {rr.owner for rr in example.loaded.statics[zone.name]})
        ask_strangers(seam, dice, names, partial(test_seam.clients, example, dice), COUNT)
        # What a DNAME makes up, and chains whose end has nothing to give.
        assert seam.handed_back < COUNT * 0.01

    def test_answers_of_every_size(self, twin: Reply, large: Large) -> None:
        dice = Random(5)
        seam = Seam(twin, large.snapshot, large.tally(), large.tally())

        def client() -> bytes:
            head = dice.choice((b"\xc0\0\2", b"\xc6\x33\x64", b"\x08\x08\x08", b"\x20\x01\x0d\xb8\0\5" + bytes(9)))
            return head + dice.randbytes(1)

        ask_strangers(seam, dice, large.names, client, COUNT)
        assert seam.handed_back < COUNT * 0.02

    def test_truncation_to_the_octet(self, twin: Reply, large: Large) -> None:
        seam, truncated, cut = Seam(twin, large.snapshot, large.tally(), large.tally()), 0, 0
        for name in large.names:
            for rtype in (1, 2, 15, 16, 255):
                for payload in (None, 512, 700, 900, 1232):
                    opt = b"" if payload is None else b"\0\0\x29" + payload.to_bytes(2, "big") + bytes(6)
                    head = b"\0\7\1\0\0\1\0\0\0\0\0" + bytes((payload is not None,))
                    packet = head + name + rtype.to_bytes(2, "big") + b"\0\1" + opt
                    reply = seam.ask(packet, b"\xc6\x33\x64\1", "udp")
                    truncated += bool(reply and reply[2] & 2)
                    cut += bool(reply and rtype == 15 and not reply[2] & 2 and reply[7] > 1 and reply[11] < 20)
        assert truncated > 50
        assert cut > 10
        seam.assert_counted_alike()

    def test_transfers_are_the_reference_path_s_to_who_may_have_one(self, twin: Reply, example: Example) -> None:
        """And to nobody else, whatever was remembered of the same question before."""
        seam = Seam(twin, example.steered, example.tally(), example.tally())
        head, opt = b"\0\7\0\0\0\1\0\0\0\0\0", b"\0\0\x29\x04\xd0" + bytes(6)
        for name in (b"\3cdn\7example\3net\0", b"\3www\3cdn\7example\3net\0"):
            for question in (name + b"\0\xfb\0\1", name + b"\0\xfc\0\1"):
                for packet in (head + b"\0" + question, head + b"\1" + question + opt):
                    for client in (STRANGER, SECONDARY, STRANGER, SECONDARY, STRANGER):
                        left = seam.ask(packet, client, "udp") is None
                        assert left == (client == SECONDARY and name.startswith(b"\3cdn"))
        seam.assert_counted_alike()


@pytest.mark.parametrize("text", LIMITS)
def test_limiting_is_alike(large: Large, text: str) -> None:
    """Verdicts and tables of both twins of limit.limit, over replies to strangers, good cookies among them."""
    if not native.AVAILABLE:
        pytest.skip("_fastpath was not built")
    dice, terms, now = Random(text), limit.parse_terms(text), NOW
    states = limit.State(), limit.State()
    limiter = native.limiter_of(terms, states[1])
    tally, verdicts = large.tally(), set()
    for _ in range(COUNT):
        client = dice.choice((b"\xc0\0\2", b"\xc6\x33\x64", b"\x20\x01\x0d\xb8" + bytes(11))) + dice.randbytes(1)
        packet = strangers.packet(dice, large.names[:3], strangers.always(client), client)
        reply = fastpath.reply(large.snapshot, packet, client, "udp", NOW, SECRETS, tally)
        if reply:
            now += dice.choice((0.0, 0.0, 0.001, 0.05))
            verdict = limit.limit(terms, states[0], packet, reply, client, now, SECRETS.cookies)
            assert limiter.limit(packet, reply, client, now, b"".join(SECRETS.cookies)) == verdict
            verdicts.add(verdict)
    assert len(verdicts) == (2 if terms.slip < 2 else 3)
    assert all(getattr(states[0], part) == getattr(states[1], part) for part in ("due", "over"))


def test_a_module_of_other_sections_is_refused(large: Large) -> None:
    if not native.AVAILABLE:
        pytest.skip("_fastpath was not built")
    from edgedns.engine._fastpath import Native

    view, tally = large.snapshot.at(NOW), large.tally()
    good = native.sections(view, SECRETS, tally)
    for name, wrong in (("hash", bytes(12)), ("number", bytes(8)), ("cookies", b""), ("tail", bytes(3)), ("nsid", bytes(9999))):
        with pytest.raises(ValueError, match=r"."):
            Native({**good, name: wrong})
    with pytest.raises(KeyError):
        Native({name: part for name, part in good.items() if name != "cells"})


def test_sections_that_lie_are_handed_back(large: Large) -> None:
    """Whatever numbers a file holds, nothing is read beyond it: the answer is given to the reference path, or is garbage."""
    if not native.AVAILABLE:
        pytest.skip("_fastpath was not built")
    from edgedns.engine._fastpath import Native

    dice, view, tally = Random(8), large.snapshot.at(NOW), large.tally()
    good = native.sections(view, SECRETS, tally)
    for _ in range(300):
        name = dice.choice((*native.ATOMS, *native.BASE, *native.OVERLAY, "zone", "policy", "rule", "apex_hash"))
        lying = bytearray(memoryview(good[name]).cast("B"))
        for _ in range(dice.choice((1, 20, 400)) if lying else 0):
            lying[dice.randrange(len(lying))] = dice.choice((0xFF, 0x7F, dice.randrange(256)))
        made = Native({**good, name: lying})
        for _ in range(30):
            client = dice.randbytes(dice.choice((4, 16)))
            packet = strangers.packet(dice, large.names, strangers.always(client), client)
            reply = made.reply(packet, client, dice.choice(("udp", "tcp")), NOW)
            assert reply is None or len(reply) <= 65535


def test_ci_has_the_native_engine() -> None:
    """`optional` in setup.py hides a build that fails; here it shows."""
    assert native.LOOPS or os.environ.get("CI") != "true"
