"""What plain Python remembers of questions and askers: bounded whatever strangers ask, and kept for as long as it is true."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from random import Random

import dns.edns
import dns.message
import pytest

from edgedns.engine import fastpath
from edgedns.engine.snapshot import Snapshot
from tests.conftest import NOW, SECRETS, Example

FLOOD = 30_000
OWNER = "www.cdn.example.net."


def asked(name: str, subnet: str = "", identity: int = 0) -> bytes:
    message = dns.message.make_query(name, "A", use_edns=False)
    message.use_edns(0, 0, 1232, options=[dns.edns.ECSOption(subnet, 24)] if subnet else [])
    message.id = identity
    return message.to_wire()


def cases(dice: Random, template: bytes = asked(OWNER)) -> tuple[bytes, bytes]:
    """The name in letters of random size."""
    packet = bytearray(template)
    for at in range(12, 12 + len(OWNER)):
        if chr(packet[at]).isalpha() and dice.random() < 0.5:
            packet[at] ^= 0x20
    return bytes(packet), bytes((192, 0, 2, 1))


def subnets(dice: Random, template: bytes = asked(OWNER, "203.0.113.0")) -> tuple[bytes, bytes]:
    return template[:-3] + dice.randbytes(3), bytes((192, 0, 2, 1))


def askers(dice: Random, template: bytes = asked(OWNER)) -> tuple[bytes, bytes]:
    return template, dice.randbytes(dice.choice((4, 16)))


def made_up(dice: Random, template: bytes = asked("x" * 16 + "." + OWNER)) -> tuple[bytes, bytes]:
    return template[:13] + dice.randbytes(8).hex().encode() + template[29:], bytes((192, 0, 2, 1))


@pytest.mark.parametrize("kind", [cases, subnets, askers, made_up])
def test_floods_take_little_memory(example: Example, kind: Callable[[Random], tuple[bytes, bytes]]) -> None:
    dice, tally = Random(1), example.tally()
    snapshot = Snapshot(example.steered.root, example.steered.files)
    pool = [kind(dice) for _ in range(100)]
    for packet, client in pool * 2:
        fastpath.reply(snapshot, packet, client, "udp", NOW, SECRETS, tally)
    tracemalloc.start()
    for _ in range(FLOOD):
        assert fastpath.reply(snapshot, *kind(dice), "udp", NOW, SECRETS, tally)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 2_000_000


def test_a_new_ranking_leaves_what_is_known_of_questions(example: Example) -> None:
    """Two roots of one base: the second answers by its own rankings, and with what the first one learnt."""
    first = Snapshot(example.nominal.root, example.nominal.files)
    second = Snapshot(example.steered.root, example.steered.files, first.base)
    tally = example.tally()
    dice = Random(2)
    packets = [subnets(dice)[0] for _ in range(2000)]
    before, after, anew = (
        [fastpath.reply(each, packet, bytes(4), "udp", NOW, SECRETS, tally) for packet in packets]
        for each in (first, second, Snapshot(example.steered.root, example.steered.files))
    )
    assert first.at(NOW).known is second.at(NOW).known
    assert first.at(NOW).choices is not second.at(NOW).choices
    assert before != after
    assert after == anew


def test_a_name_is_remembered_once_but_for_its_spellings(example: Example) -> None:
    snapshot, tally = Snapshot(example.steered.root, example.steered.files), example.tally()
    view, question = snapshot.at(NOW), b"\3ns1\3cdn\7example\3net\0\0\1\0\1"
    small = asked("ns1.cdn.example.net.")
    assert fastpath.reply(snapshot, asked(OWNER), bytes(4), "udp", NOW, SECRETS, tally), "the form of its OPT record is known"
    wanted = fastpath.reply(snapshot, small, bytes(4), "udp", NOW, SECRETS, tally)
    assert small[2:] in view.known
    assert question not in view.entries
    assert fastpath.reply(snapshot, small, bytes(4), "udp", NOW, SECRETS, tally) == wanted
    large = asked("NS1.cdn.example.net.")
    assert fastpath.reply(snapshot, large, bytes(4), "udp", NOW, SECRETS, tally)
    assert question in view.entries
