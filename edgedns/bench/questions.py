"""What is asked: names and types, from a file or made by dice, client subnets and cookies, as packets in a magazine."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from struct import pack
from typing import NamedTuple, TypeVar

from edgedns import lines
from edgedns.bench.subnets import Subnet
from edgedns.bench.volley import Magazine
from edgedns.dns import edns, name, types

HEADER = 12
MOST = 1_000_000  # packets of one magazine
T = TypeVar("T")


class Question(NamedTuple):
    """A name (wire form) and a type."""

    name: bytes
    type: int


@dataclass(frozen=True)
class Mix:
    """How questions become packets: a share of them under made-up names, a subnet for each, EDNS of a size (0: none).

    `cookie`: the option's whole content, or empty.
    """

    nxdomain: float = 0.0
    subnets: Sequence[Subnet] = ()
    payload: int = edns.PAYLOAD
    cookie: bytes = b""


def parse(text: Iterable[str], source: str) -> list[Question]:
    """Lines `name type`, as dnsperf has them; `;` and `#` begin comments. SourceError that names bad lines (five of them)."""
    return lines.parse(text, source, _of_line, "questions; a line is a name and a type: www.example.net A")


def _of_line(line: str) -> Question | None:
    words = line.split()
    return question(words) if words and words[0][0] not in ";#" else None


def question(words: Sequence[str]) -> Question:
    """From a name and, if given, a type (else A). ValueError."""
    if len(words) > 2:
        raise ValueError(f"a name and a type are wanted, not {' '.join(words)!r}")
    return Question(name.from_text(words[0]), types.type_number(words[1]) if len(words) == 2 else types.A)


def read(path: Path) -> list[Question]:
    """The questions of a file; SourceError."""
    return lines.read(path, parse)


def random_names(zone: bytes, count: int, rtype: int, dice: Random) -> list[Question]:
    """Different names below a zone, made by dice. ValueError where there is no room for a label."""
    return [Question(name.join([label, *name.labels(zone)]), rtype) for label in _labels(count, dice)]


def _labels(count: int, dice: Random) -> Iterator[bytes]:
    for number in range(count):
        yield b"r%x-%08x" % (number, dice.getrandbits(32))


def load(questions: Sequence[Question], mix: Mix, dice: Random, most: int = MOST) -> Magazine:
    """Packets for each question and each subnet at least once, in pairs and in an order made by dice."""
    count = min(most, max(len(questions), len(mix.subnets), 1000 if mix.nxdomain else 1))
    asked = _spread(questions, count, dice)
    subnets: Sequence[Subnet | None] = _spread(mix.subnets, count, dice) if mix.subnets else [None] * count
    for at in dice.sample(range(count), round(mix.nxdomain * count)):
        asked[at] = _made_up(asked[at], dice)
    packets, rows = [], array("I")
    offset = 0
    for one, subnet in zip(asked, subnets, strict=True):
        made = packet(one, subnet, mix)
        rows.extend((offset, len(made), HEADER + len(one.name) + 4))
        packets.append(made)
        offset += len(made)
    return Magazine(b"".join(packets), rows)


def _spread(things: Sequence[T], count: int, dice: Random) -> list[T]:
    """Each of the things equally often, shuffled."""
    found = [things[at % len(things)] for at in range(count)]
    dice.shuffle(found)
    return found


def _made_up(asked: Question, dice: Random) -> Question:
    """Beside the name asked: one that hardly exists."""
    made = b"\x13nx-%016x" % dice.getrandbits(64) + name.parent(asked.name)
    return Question(made, asked.type) if len(made) <= name.MAX_NAME else asked


def packet(asked: Question, subnet: Subnet | None, mix: Mix) -> bytes:
    """A query with ID 0, RD off."""
    options = b""
    if subnet:
        octets = subnet.address[: (subnet.length + 7) >> 3]
        options += pack("!HHHBB", edns.SUBNET, 4 + len(octets), subnet.family, subnet.length, 0) + octets
    if mix.cookie:
        options += pack("!HH", edns.COOKIE, len(mix.cookie)) + mix.cookie
    opt = pack("!BHHIH", 0, types.OPT, mix.payload, 0, len(options)) + options if mix.payload else b""
    return pack("!6H", 0, 0, 1, 0, 0, bool(opt)) + asked.name + pack("!HH", asked.type, types.IN) + opt
