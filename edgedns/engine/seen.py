"""Who asked what and what they were told: a sample of the queries, in a ring that other processes read at any time.

A worker has one ring, found beside its counters. Whoever answers counts down to the next query of the sample; the step
is drawn anew each time by a generator whose state never leaves the process, so that nobody can aim at being in it. An entry
holds its number and a checksum of its octets, up to the end of its name: it is written as it is, without a lock, and a reader
passes over what was being written meanwhile. Addresses are what packets said: only those of `proven` entries are not forged.
"""

from __future__ import annotations

import zlib
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from pathlib import Path
from struct import Struct
from typing import NamedTuple

from edgedns import metrics

PLACES = 4096
STEP = 32  # one query in so many, on the average
HEAD = metrics.RING_HEAD
CHECK = 4
# cell of the answer, number, time, client, subnet; type, rcode, flags, families of both, the subnet's length, the name's
BODY = Struct("<IQd16s16sHBBBBBB")
NAME = CHECK + BODY.size
SIZE = NAME + 256
OCTETS = HEAD + PLACES * SIZE
WRITTEN = 1  # the head's word that holds the last number
NOT_STEERED = 0xFFFFFFFF
PROVEN, TCP = 1, 2
WORD = 0xFFFFFFFFFFFFFFFF
FAMILY = {0: 0, 4: 4, 16: 6}
WIDTH = {0: 0, 4: 4, 6: 16}


class Seen(NamedTuple):
    """One query of the sample, and its reply.

    `at` is Unix seconds, to a tenth of one. Addresses are packed; `subnet` is empty where none was forwarded, else padded with
    zeros, and `source` its length in bits. `name` is folded wire format, empty (and `qtype` 0) where the packet's form
    alone settled the reply. `answered` is the counter's cell of a steered answer, which `chosen` reads, else NOT_STEERED.
    `proven`: the client gave a good cookie or came over TCP.
    """

    at: float
    client: bytes
    subnet: bytes
    source: int
    name: bytes
    qtype: int
    rcode: int
    answered: int
    proven: bool
    tcp: bool


class Chosen(NamedTuple):
    """What a steered answer was: names as in the rules and of model.Reason, `provider` tally.NO_PROVIDER for none."""

    zone: str
    rule: str
    provider: str
    reason: str


# Of the sample, and not written yet: packet, client, reply, cell of a steered answer or -1, now
Waiting = tuple[bytes, bytes, bytes, int, float]


class Ring:
    """The writing side: OCTETS of shared memory, and [queries until the next one, the generator's state, the mean step].

    `waiting` is plain Python's: writing many entries in a row costs a tenth of writing each when it comes, between two batches
    of answers (45 us each, at 10,000 queries a second).
    """

    __slots__ = ("dice", "octets", "places", "waiting", "words")

    def __init__(self, octets: memoryview, seed: int, step: int = STEP) -> None:
        self.octets = octets
        self.words = octets[:HEAD].cast("Q")
        self.places = (len(octets) - HEAD) // SIZE
        self.dice = array("Q", (1, seed & WORD | 1, step))
        self.waiting: list[Waiting] = []


def due(ring: Ring) -> bool:
    """Count one query: is it in the sample?"""
    dice = ring.dice
    if dice[0] > 1:
        dice[0] -= 1
        return False
    dice[0] = _step(dice)
    return True


def drawn(ring: Ring, count: int) -> list[int]:
    """Count so many queries: the places of those in the sample."""
    places, at = [], max(ring.dice[0], 1) - 1  # 0 where two threads counted at once
    while at < count:
        places.append(at)
        at += _step(ring.dice)
    ring.dice[0] = at - count + 1
    return places


def _step(dice: array[int]) -> int:
    """How far it is to the next query of the sample."""
    state = dice[1]
    state ^= state << 13 & WORD
    state ^= state >> 7
    state ^= state << 17 & WORD
    dice[1] = state
    return 1 + state % (2 * dice[2] - 1)


def note(ring: Ring, seen: Seen) -> None:
    """Write one entry over the oldest."""
    words = ring.words
    number = words[WRITTEN] = words[WRITTEN] + 1
    families = FAMILY[len(seen.client)], FAMILY[len(seen.subnet)]
    body = BODY.pack(
        *(seen.answered, number, seen.at, seen.client, seen.subnet, seen.qtype, seen.rcode),
        *(PROVEN * seen.proven | TCP * seen.tcp, *families, seen.source, len(seen.name)),
    )
    start, used = HEAD + number % ring.places * SIZE, body + seen.name
    ring.octets[start : start + CHECK + len(used)] = zlib.adler32(used).to_bytes(CHECK, "little") + used


def parse(content: bytes, since: float = 0.0, until: float = float("inf")) -> list[Seen]:
    """The whole entries of a ring from `since` to before `until`, oldest first; whatever else is there is passed over."""
    found = []
    for start in range(HEAD, len(content) - SIZE + 1, SIZE):
        fields = BODY.unpack_from(content, start + CHECK)
        if not since <= fields[2] < until:
            continue
        answered, number, at, client, subnet, qtype, rcode, flags, family, subnet_family, source, size = fields
        check, used = int.from_bytes(content[start : start + CHECK], "little"), content[start + CHECK : start + NAME + size]
        if check == zlib.adler32(used):
            addresses = client[: WIDTH.get(family, 0)], subnet[: WIDTH.get(subnet_family, 0)]
            proven, tcp = bool(flags & PROVEN), bool(flags & TCP)
            found.append((number, Seen(at, *addresses, source, used[BODY.size :], qtype, rcode, answered, proven, tcp)))
    return [seen for _, seen in sorted(found) if seen.client]


def read(run: Path, since: float = 0.0, until: float = float("inf")) -> list[Seen]:
    """The samples of all workers, oldest first, from `since` to before `until`; each stands for STEP queries.

    A ring keeps the last PLACES of its worker: at 10,000 queries a second those of 13 s.
    """
    found = [seen for content in metrics.read_rings(run) for seen in parse(content, since, until)]
    return sorted(found, key=lambda seen: seen.at)


def chosen(blocks: Sequence[metrics.Block], found: Iterable[Seen]) -> list[Chosen | None]:
    """For each sample what was chosen, by the blocks of the Registry; None where nothing was, or nobody can tell any more."""
    answers = [block for block in blocks if block.kind == "answers"]
    bases = [block.base for block in answers]
    return [_chosen(answers, bases, seen.answered) for seen in found]


def _chosen(answers: Sequence[metrics.Block], bases: Sequence[int], cell: int) -> Chosen | None:
    place = bisect_right(bases, cell) - 1
    if place < 0 or cell >= bases[place] + answers[place].size:
        return None
    zone, rule, provider = answers[place].labels
    return Chosen(zone, rule, provider, metrics.REASONS[cell - bases[place]])
