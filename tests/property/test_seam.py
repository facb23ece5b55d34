"""Law 1: where a fast path speaks, it says what the reference path says, byte for byte, and counts the same."""

from __future__ import annotations

from ipaddress import ip_address
from random import Random

import dns.edns
import dns.flags
import dns.message
import dns.name
import pytest

from edgedns.engine import answer, fastpath, seen
from edgedns.engine.snapshot import Snapshot
from edgedns.engine.tally import Tally
from tests.conftest import NOW, SECRETS, Example

COUNT = 6000
TYPES = ("A", "AAAA", "A", "AAAA", "MX", "TXT", "NS", "SOA", "CNAME", "DS", "ANY", "HTTPS", "TYPE65280", "CAA", "SRV")
ODD_OPTIONS = (8, 10, 11, 12, 65001)


def clients(example: Example, dice: Random) -> bytes:
    """A packed address: mapped, unmapped, of a rule's prefix, a public resolver's, IPv6, IPv4 written as IPv6."""
    kind = dice.randrange(8)
    if kind < 3:
        row = dice.randrange(len(example.table.start4))
        return dice.randint(int(example.table.start4[row]), int(example.table.end4[row])).to_bytes(4, "big")
    if kind == 3:
        return dice.choice((bytes((198, 51, 100, 9)), bytes((203, 0, 113, 130)), bytes((192, 0, 2, 3)), bytes((8, 8, 8, 8))))
    if kind == 4:
        row = dice.randrange(len(example.table.start6_hi))
        return (int(example.table.start6_hi[row]) << 64 | dice.getrandbits(60)).to_bytes(16, "big")
    if kind == 5:
        head = dice.choice((bytes(10) + b"\xff\xff", b"\x00\x64\xff\x9b" + bytes(8)))
        return head + dice.randbytes(4)
    if kind == 6:
        return b"\x20\x02" + dice.randbytes(4) + bytes(10)
    return dice.randbytes(dice.choice((4, 16)))


def names(example: Example) -> list[str]:
    zone = example.loaded.rules.zones["cdn.example.net"]
    owners = [record.name for record in zone.records]
    owners += [rr.owner for rr in example.loaded.statics["cdn.example.net"]]
    return sorted({dns.name.from_wire(owner, 0)[0].to_text() for owner in owners})


def query(example: Example, dice: Random, known: list[str]) -> bytes:
    """A well-formed packet; now and then one that is a little unusual."""
    name = dice.choice(known)
    if dice.random() < 0.3:
        name = dice.choice(("x.", "a.b.", "no-such.", "*.", "deep.x.")) + name
    if dice.random() < 0.1:
        name = dice.choice(("example.org.", ".", "net.", "cdn.example.net.", "xcdn.example.net."))
    name = name.replace("*", dice.choice(("*", "w", "Ww")))
    name = "".join(dice.choice((c.upper(), c)) for c in name) if dice.random() < 0.3 else name
    if len(name) > 250:
        name = "www.cdn.example.net."
    message = dns.message.make_query(name, dice.choice(TYPES), use_edns=False)
    message.id = dice.getrandbits(16)
    message.flags = dice.choice((0, dns.flags.RD, dns.flags.RD | dns.flags.CD, dns.flags.AD))
    if dice.random() < 0.8:
        payload = dice.choice((0, 512, 1232, 4096))
        message.use_edns(0, dice.choice((0, dns.flags.DO)), payload, options=list(options(example, dice)))
    return message.to_wire()


def options(example: Example, dice: Random) -> list[dns.edns.Option]:
    found: list[dns.edns.Option] = []
    if dice.random() < 0.7:
        address = clients(example, dice)
        lengths = (0, 8, 20, 24, 24, 25, 32) if len(address) == 4 else (0, 16, 32, 48, 56, 96, 112, 128)
        found.append(dns.edns.ECSOption(str(ip_address(address)), dice.choice(lengths)))
    if dice.random() < 0.3:
        found.append(dns.edns.GenericOption(dns.edns.OptionType.COOKIE, dice.randbytes(dice.choice((8, 24)))))
    if dice.random() < 0.2:
        found.append(dns.edns.GenericOption(dns.edns.OptionType.NSID, b""))
    if dice.random() < 0.05:
        code = dns.edns.OptionType.make(dice.choice(ODD_OPTIONS))
        found.append(dns.edns.GenericOption(code, dice.randbytes(dice.randrange(9))))
    dice.shuffle(found)
    return found


def compare(snapshot: Snapshot, packet: bytes, client: bytes, transport: str, quick: Tally, slow: Tally) -> bool:
    """Both paths agree on the bytes; each counts in its own tally. True where the fast one answered."""
    fast = fastpath.reply(snapshot, packet, client, transport, NOW, SECRETS, quick)
    if fast is None:
        return False
    reference = answer.respond(snapshot, packet, client, transport, NOW, SECRETS, slow)
    assert (fast or None) == reference, (packet.hex(), client.hex(), transport)
    return True


@pytest.mark.parametrize("which", ["nominal", "steered"])
@pytest.mark.parametrize("seed", [1, 2])
def test_fast_path_equals_the_reference(example: Example, which: str, seed: int) -> None:
    dice, known, snapshot = Random(seed), names(example), getattr(example, which)
    quick, slow = example.tally(), example.tally()
    answered = 0
    for _ in range(COUNT):
        transport = dice.choice(("udp", "udp", "tcp"))
        answered += compare(snapshot, query(example, dice, known), clients(example, dice), transport, quick, slow)
    assert answered > 0.8 * COUNT
    assert bytes(quick.cells) == bytes(slow.cells)
    assert quick.networks is not None
    assert slow.networks is not None
    assert bytes(quick.networks) == bytes(slow.networks)


def test_mangled_packets_change_nothing(example: Example) -> None:
    """Octets flipped, cut and added: the two paths still agree, and neither raises."""
    dice, known = Random(3), names(example)
    quick, slow = example.tally(), example.tally()
    for _ in range(COUNT):
        packet = bytearray(query(example, dice, known))
        for _ in range(dice.randrange(1, 4)):
            packet[dice.randrange(len(packet))] = dice.randrange(256)
        cut = bytes(packet[: dice.randrange(len(packet) + 1)]) if dice.random() < 0.2 else bytes(packet)
        cut += dice.randbytes(3) if dice.random() < 0.1 else b""
        if not compare(example.steered, cut, clients(example, dice), "udp", quick, slow):
            answer.respond(example.steered, cut, bytes(4), "udp", NOW, SECRETS, example_tally(slow))
    assert bytes(quick.cells) == bytes(slow.cells)


def example_tally(slow: Tally) -> Tally:
    """Cells of the same size that nobody compares."""
    return Tally(memoryview(bytearray(slow.cells.nbytes)).cast("Q"))


def test_batches_are_answered_as_their_packets_alone(example: Example) -> None:
    """The same octets, counts and samples, whatever came together; what is left to `reply` is counted by that alone."""
    dice, quick, slow = Random(6), example.tally(), example.tally()
    assert quick.ring is not None
    assert slow.ring is not None
    quick.ring.dice[2] = slow.ring.dice[2] = 1  # every query is in the sample
    known, at_once, unseen = names(example), 0, example_tally(slow)
    pool = [query(example, dice, known) for _ in range(150)]
    for _ in range(150):
        size = dice.choice((4, 16))
        askers = [asker for asker in (clients(example, dice) for _ in range(12)) if len(asker) == size]
        received = [
            (dice.randbytes(2) + dice.choice(pool)[2:], dice.choice(askers)) for _ in range(dice.randrange(33)) if askers
        ]
        found = fastpath.replies(example.steered, received, NOW, quick)
        assert len(found) == len(received)
        at_once += len(found) - found.count(None)
        for reply, (packet, client) in zip(found, received, strict=True):
            if reply is None:
                fastpath.reply(example.steered, packet, client, "udp", NOW, SECRETS, quick)
            alone = fastpath.reply(example.steered, packet, client, "udp", NOW, SECRETS, slow)
            if reply is not None:
                assert reply == alone == answer.respond(example.steered, packet, client, "udp", NOW, SECRETS, unseen)
    assert at_once > 500
    assert bytes(quick.cells) == bytes(slow.cells)
    assert quick.networks == slow.networks
    assert quick.ring.dice == slow.ring.dice
    fastpath.replies(example.steered, [], NOW, quick)  # nothing came for a while: none waits any longer
    noted, singly = (seen.parse(ring.octets.tobytes()) for ring in (quick.ring, slow.ring))
    assert sorted(noted) == sorted(singly)
    assert len(noted) > 500


MADE_BY_DNAME = ("no-such.moved.cdn.example.net.", "no-such.far.cdn.example.net.")
ORDINARY = ("A", "AAAA", "MX", "TXT", "NS", "SOA", "CNAME", "DS", "HTTPS", "CAA", "SRV", "SVCB", "PTR")


@pytest.mark.parametrize("edns", [None, (), ("ecs4",), ("ecs6",), ("cookie",), ("ecs4", "cookie"), ("nsid", "ecs6", "cookie")])
def test_ordinary_queries_are_never_handed_back(example: Example, edns: tuple[str, ...] | None) -> None:
    """Every name of the example zone and a name below each, all types, with and without EDNS, ECS and cookies.

    Only names that a DNAME makes up are left to the reference path.
    """
    made = {
        "ecs4": dns.edns.ECSOption("203.0.113.0", 24),
        "ecs6": dns.edns.ECSOption("2001:db8:1::", 48),
        "cookie": dns.edns.GenericOption(dns.edns.OptionType.COOKIE, bytes(8)),
        "nsid": dns.edns.GenericOption(dns.edns.OptionType.NSID, b""),
    }
    tally, asked, handed_back = example.tally(), 0, []
    for name in names(example):
        below = f"no-such.{name}"
        for owner in (name, below) if len(below) < 255 else (name,):
            for rtype in () if owner in MADE_BY_DNAME else ORDINARY:
                message = dns.message.make_query(owner, rtype, use_edns=False)
                if edns is not None:
                    message.use_edns(0, 0, 1232, options=[made[part] for part in edns])
                asked += 1
                packet = message.to_wire()
                if fastpath.reply(example.steered, packet, bytes((192, 0, 2, 1)), "udp", NOW, SECRETS, tally) is None:
                    handed_back.append(f"{owner} {rtype}")
    assert asked > 1000
    assert handed_back == []
    assert sum(tally.cells[example.places.blocks["requests", ("cdn.example.net",)] :][:64]) == asked


def test_what_is_remembered_is_said_again(example: Example, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same questions from the same askers again and again, more of them than are kept: the same octets, all counted."""
    monkeypatch.setattr(fastpath, "KNOWN_MOST", 100)
    monkeypatch.setattr(fastpath, "CHOICES_MOST", 20)
    dice, quick, slow = Random(5), example.tally(), example.tally()
    known = names(example)
    pool = [query(example, dice, known) for _ in range(150)]
    askers = [clients(example, dice) for _ in range(3)]
    for _ in range(4000):
        packet = dice.randbytes(2) + dice.choice(pool)[2:]
        compare(example.steered, packet, dice.choice(askers), dice.choice(("udp", "udp", "tcp")), quick, slow)
    view = example.steered.at(NOW)
    assert 0 < len(view.known) <= 100
    assert 0 < len(view.choices) <= 20
    assert bytes(quick.cells) == bytes(slow.cells)
    assert quick.networks == slow.networks
    assert quick.ring is not None
    assert slow.ring is not None
    assert bytes(quick.ring.octets) == bytes(slow.ring.octets)


KNOWN_SUBNETS = (("203.0.113.0", 24), ("203.0.0.0", 20), ("0.0.0.0", 0), ("2001:db8:1::", 48), ("::ffff:203.0.113.0", 120))


@pytest.mark.parametrize("name", ["www.cdn.example.net.", "no-such.cdn.example.net.", "example.org."])
def test_what_is_known_again_is_looked_at_still(example: Example, name: str) -> None:
    """A usual OPT record is known by its octets: then come all that differ from it in one octet, or in length."""
    dice, quick, slow, client = Random(4), example.tally(), example.tally(), bytes((192, 0, 2, 1))

    def ask(packet: bytes) -> bool:
        return compare(example.steered, packet, client, "udp", quick, slow)

    for subnet in (None, *KNOWN_SUBNETS):
        message = dns.message.make_query(name, "A", use_edns=False)
        plain = message.to_wire()
        message.use_edns(0, 0, 1232, options=[dns.edns.ECSOption(*subnet)] if subnet else [])
        good = message.to_wire()
        for packet in (plain, good, plain, good):
            assert ask(packet)
        for at in range(len(plain), len(good)):
            ask(good[:at] + bytes((good[at] ^ 1 << dice.randrange(8),)) + good[at + 1 :])
        for other in (good[:-1], good + b"\0", plain + b"\0"):
            ask(other)
            ask(other[:11] + bytes((other[11] ^ 1,)) + other[12:])
    assert bytes(quick.cells) == bytes(slow.cells)
