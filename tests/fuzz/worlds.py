"""What the C fuzzers answer from, and what they begin with: the sections of a small world, and packets of strangers.

`python -m tests.fuzz.worlds DIRECTORY` makes the world's file and both corpora, to fuzz by hand (docs/architecture.md).
"""

from __future__ import annotations

import struct
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

from edgedns.engine import inline, native
from edgedns.engine.cells import Space
from edgedns.engine.compile import atoms_file, compile_base, snapshot_of
from edgedns.engine.load import load_rules
from edgedns.engine.overlay import Spreader, compile_overlay
from edgedns.engine.seen import HEAD, SIZE, Ring
from edgedns.engine.snapshot import Snapshot
from edgedns.engine.tally import Tally
from edgedns.steer.space import asn
from tests.conftest import NOW, SALT, SECRETS, Places, made_decisions
from tests.property import strangers
from tests.property.test_native import PROVIDERS, write_large

NAME, LIE = struct.Struct("<24sQ"), struct.Struct("<BBIIB")
# As in _fastpath.c
SECTIONS = (
    *("index4", "index6", "network", "hash", "node", "outcome", "tail", "pointer", "cut", "blob", "cells", "record", "slot"),
    *("column", "ranking_of", "ranking", "split", "apex_hash", "zone", "policy", "rule", "type_place", "secondary", "number"),
    *("nsid", "node_text", "version_text", "cookies", "counters", "networks", "ring", "dice"),
)
ONE, COLUMN, CUT = 0x00, 0x40, 0x80  # a lie is one number, or a column of them by rows, or the section is cut there
# Which columns lead where: section, numbers a row, column, section it leads to, numbers a row there
REFERENCES = (
    *(("hash", 1, 0, "node", 8), ("apex_hash", 1, 0, "zone", 5), ("index4", 1, 0, "network", 1), ("cells", 1, 0, "rule", 6)),
    *(("node", 8, 0, "blob", 1), ("node", 8, 1, "blob", 1), ("node", 8, 4, "outcome", 2), ("node", 8, 5, "outcome", 2)),
    *(("node", 8, 6, "node", 8), ("node", 8, 7, "tail", 13), ("outcome", 2, 1, "tail", 13), ("outcome", 2, 1, "slot", 4)),
    *(("tail", 13, 0, "blob", 1), ("tail", 13, 1, "blob", 1), ("tail", 13, 5, "pointer", 1), ("tail", 13, 6, "pointer", 1)),
    *(("tail", 13, 7, "slot", 4), ("tail", 13, 9, "tail", 13), ("tail", 13, 11, "cut", 2), ("tail", 13, 12, "cut", 2)),
    *(("slot", 4, 0, "policy", 3), ("slot", 4, 1, "record", 9), ("record", 3, 0, "blob", 1), ("record", 3, 1, "blob", 1)),
    *(("policy", 3, 0, "rule", 6), ("policy", 3, 1, "rule", 6), ("policy", 3, 2, "cells", 1), ("rule", 6, 0, "column", 2)),
    *(("rule", 6, 2, "counters", 1), ("zone", 5, 0, "blob", 1), ("zone", 5, 2, "counters", 1), ("zone", 5, 3, "counters", 1)),
    *(("column", 2, 0, "ranking", 12), ("column", 2, 1, "ranking_of", 1), ("ranking_of", 1, 0, "ranking", 12)),
    *(("ranking", 12, 3, "split", 4096), ("ranking", 12, 4, "record", 9), ("network", 1, 0, "networks", 1)),
)
STEERED = """\
version: 1
zone: steered.example
soa: {mname: ns1, rname: noc@example.net, minimum: 60s}
ns: [ns1]
defaults: {ttl: 30s}
records:
  www:
    rules:
      - {name: near, match: {network: near}, pin: cedar}
      - {name: rest, wan: {among: all, nominal: [alder, cedar, birch]}}
  "*.wild": {rules: [{name: halves, weighted: {alder: 3, cedar: 1}}]}
static:
  - "ns1 A 192.0.2.53"
  - "ns1 AAAA 2001:db8::53"
  - "alias CNAME www"
  - "*.text TXT \\"wild\\""
  - "moved DNAME www"
  - "sub NS ns.sub"
  - "ns.sub A 192.0.2.54"
"""
STEERED_NAMES = tuple(
    label + b"\7steered\7example\0" for label in (b"\3www", b"\1x\4wild", b"\5alias", b"\1x\4text", b"\2no", b"\1x\3sub")
)
CEDAR = '  cedar: {v4: [203.0.113.10], v6: ["2001:db8:c1::10"]}\nnetworks:'
TABLE = """\
192.0.2.0\t192.0.2.255\t64500\tDE\tExample
198.51.100.0\t198.51.100.127\t64501\tUS\tExample
203.0.113.0\t203.0.113.255\t64501\tJP\tExample
8.8.8.0\t8.8.8.255\t15169\tUS\tPublic
2001:db8::\t2001:db8:5:ffff:ffff:ffff:ffff:ffff\t64502\tDE\tExample
2001:db8:6::\t2001:db8:7:ffff:ffff:ffff:ffff:ffff\t64503\tUS\tExample
"""


@dataclass(frozen=True)
class World:
    """A small address space, and names of every kind."""

    snapshot: Snapshot
    names: list[bytes]
    places: Places
    networks: int
    sizes: dict[str, int]  # of sections, in numbers

    def tally(self) -> Tally:
        cells = memoryview(bytearray(8 * self.places.used)).cast("Q")
        ring = Ring(memoryview(bytearray(HEAD + 8 * SIZE)), 1, 1)
        return Tally(cells, memoryview(bytearray(4 * self.networks)).cast("I"), ring)


def make(directory: Path) -> World:
    rules = write_large(directory / "rules")
    (rules / "providers.yaml").write_text(PROVIDERS.replace("networks:", CEDAR), encoding="utf-8")
    (rules / "steered.example.yaml").write_text(STEERED, encoding="utf-8")
    (directory / "table.tsv").write_text(TABLE, encoding="utf-8")
    loaded, places = load_rules(rules), Places()
    atoms = inline.build_atoms(loaded.rules, asn.load(directory / "table.tsv"))
    space = Space(atoms, loaded.rules.networks, asn.continent)
    compiled = compile_base(inline.sources(loaded), loaded.rules.providers, space, (), places.block, SALT)
    decisions = made_decisions(inline.nominal_decisions(loaded.rules, compiled), atoms)
    overlay = compile_overlay(compiled.columns, decisions, list(loaded.rules.providers), Spreader.of(atoms), SALT)
    owners = {record.name for zone in loaded.rules.zones.values() for record in zone.records}
    owners |= {rr.owner for records in loaded.statics.values() for rr in records}
    snapshot = snapshot_of(atoms_file(atoms), compiled.content, overlay, serial=9)
    world = World(snapshot, sorted(owners), places, len(atoms.net_asn), {})
    sections = native.sections(snapshot.at(NOW), SECRETS, world.tally())
    return replace(world, sizes={name: len(memoryview(part)) for name, part in sections.items()})


def read_input(octets: bytes) -> tuple[str, bytes, float, bytes] | None:
    """(transport, client, now, packet) of an input of packets.c, as exchange.h reads it."""
    flags, size = (octets[0], 16 if octets[0] & 2 else 4) if octets else (0, 4)
    if len(octets) < 1 + size:
        return None
    now = NOW + (0 if flags & 4 else (flags >> 3) * 0.25)
    return "tcp" if flags & 1 else "udp", octets[1 : 1 + size], now, octets[1 + size :]


def write_sections(snapshot: Snapshot, tally: Tally, path: Path) -> Path:
    """The file that world.h reads."""
    found = native.sections(snapshot.at(NOW), SECRETS, tally)
    parts = [(name, memoryview(part)) for name, part in found.items()]
    path.write_bytes(b"".join(NAME.pack(name.encode(), part.nbytes) + part.tobytes() for name, part in parts))
    return path


def address(dice: Random) -> bytes:
    four = dice.choice((b"\xc0\0\2", b"\xc6\x33\x64", b"\xcb\0\x71", b"\x08\x08\x08", dice.randbytes(3))) + dice.randbytes(1)
    wide = b"\x20\x01\x0d\xb8\0" + bytes((dice.randrange(9),)) + dice.randbytes(10)
    return dice.choice((four, four, wide, bytes(10) + b"\xff\xff" + four, b"\x20\x02" + four + bytes(10)))


def question(dice: Random, world: World) -> bytes:
    """Flags, the client's address and a packet: an input of packets.c."""
    client, names = address(dice), (dice.choice(world.names), *STEERED_NAMES[:2])
    packet = strangers.packet(dice, names, lambda: address(dice), client)
    return bytes((dice.randrange(64) << 2 | (len(client) == 16) << 1 | (dice.random() < 0.3),)) + client + packet


def good_question(dice: Random, world: World) -> bytes:
    """The same with nothing odd about it, so that it is read to its end; most are steered."""
    client, subnet = address(dice), bytes((0, 1, 24, 0)) + address(dice)[:3]
    name = dice.choice((*STEERED_NAMES, *STEERED_NAMES, dice.choice(world.names)))
    rtype = dice.choice((1, 1, 28, 15, 16, 255))
    option = b"\0\x08\0\7" + subnet if dice.random() < 0.7 else b""
    opt = b"\0\0\x29\x04\xd0\0\0\0\0" + len(option).to_bytes(2, "big") + option
    packet = dice.randbytes(2) + b"\0\0\0\1\0\0\0\0\0\1" + name + bytes((0, rtype, 0, 1)) + opt
    return bytes(((len(client) == 16) << 1 | 4,)) + client + packet


def lie(dice: Random, world: World) -> bytes:
    """Above all numbers around the end of what they lead to, where a check that is off by little would let them through."""
    section, row, column, target, width = dice.choice(REFERENCES)
    end = world.sizes[target] // width - dice.randrange(-1, 40 if width == 1 else 3)
    number = dice.choice((end, end, end, max(end, 0) | 1 << 31, (1 << 32) - 1, dice.getrandbits(32)))
    way, place = COLUMN | row - 1, column
    kind = dice.randrange(8)
    if kind == 0:
        way, place = ONE, dice.randrange(world.sizes[section])
    elif kind < 3:
        section = dice.choice(SECTIONS)
        way, place = CUT, dice.choice((dice.randrange(40), dice.randrange(400), dice.randrange(world.sizes[section] + 1)))
    return LIE.pack(SECTIONS.index(section), way, place, number & (1 << 32) - 1, dice.randrange(2))


def lies(dice: Random, world: World) -> bytes:
    """An input of lies.c."""
    count = dice.choice((1, 1, 2, 3))
    said = [lie(dice, world) for _ in range(count)]
    asked = question if dice.random() < 0.2 else good_question
    return bytes((count,)) + b"".join(said) + asked(dice, world)


def write_corpora(world: World, directory: Path, count: int) -> None:
    for name, make_input, share in (("packets", question, 1), ("lies", lies, 4)):
        dice = Random(name)
        (directory / name).mkdir(exist_ok=True)
        for number in range(share * count):
            (directory / name / f"seed-{number:05}").write_bytes(make_input(dice, world))


def main(directory: Path) -> None:
    directory.mkdir(exist_ok=True)
    world = make(directory)
    write_sections(world.snapshot, world.tally(), directory / "world")
    write_corpora(world, directory, 2500)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
