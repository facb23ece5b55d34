"""Snapshot: all that one query may touch, read from flat buffers (docs/snapshot-format.md).

A Snapshot is one published root with the files it names. `at(now)` gives the View that holds at that moment: which
phase of each policy (rules end at their `until`) and which overlay (drains expire, and past `fresh_until` the nominal
ranking holds). Views never change, so a query that took one sees one world (law 5). No numpy, no clock, no files here.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from edgedns.dns.name import label_count, suffixes
from edgedns.dns.zone import Node, RRset
from edgedns.engine.flat import Sections
from edgedns.model import Family, NetworkKey, Prefix

FOREVER = float("inf")
NONE = 0xFFFFFFFF
STEERED = 0x80000000
SPLIT_SLOTS = 4096
UNIT_BITS = {4: 24, 6: 48}
WILDCARD = 0x80000000
EXPLAIN = b"\x08_explain"
NODE, RRSET, TAIL, SLOT, RANKING = 8, 4, 13, 4, 12
MASK64 = 0xFFFFFFFFFFFFFFFF
NO_REASONS: Mapping[int, int] = {}


def unit_slot(salt: int, unit: int) -> int:
    """The place of a hash unit (the top 24 or 48 bits of an address) in a split table.

    The 64-bit finaliser of MurmurHash3, keyed by the snapshot's salt; the table was filled by rendezvous.
    """
    h = (unit ^ salt) & MASK64
    h = ((h ^ (h >> 33)) * 0xFF51AFD7ED558CCD) & MASK64
    h = ((h ^ (h >> 33)) * 0xC4CEB9FE1A85EC53) & MASK64
    return (h ^ (h >> 33)) & (SPLIT_SLOTS - 1)


class Zone(NamedTuple):
    """One zone as published; `requests` and `responses` are bases in the counter cells, `depth` its longest name's labels.

    `explain`: the prefixes, as (packed address, length), that may ask for decisions (engine.explain_name);
    `transfer`: those that may have all of it (engine.transfer).
    """

    name: str
    apex: bytes
    number: int
    requests: int
    responses: int
    depth: int
    explain: tuple[tuple[bytes, int], ...] = ()
    transfer: tuple[tuple[bytes, int], ...] = ()


class Rule(NamedTuple):
    name: str
    kind: str
    columns: tuple[int, int]
    unit: bool
    answers: tuple[int, ...]


class Ranking(NamedTuple):
    """Targets by provider index, best first. `split` is 0, or 1 + the number of a split table.

    `reasons` has those targets of a split that are given for another reason than `reason`.
    """

    targets: tuple[int, ...]
    reason: int
    down: int
    split: int
    reasons: Mapping[int, int]


class Slot(NamedTuple):
    """A steered (name, family): which policy decides and which prebuilt records it gives."""

    policy: int
    ttl: int
    ttl_index: int
    family: int
    name: bytes


class Tail(NamedTuple):
    """A prebuilt answer without its question and OPT, as encoded for a question name of `length` octets.

    `pointers` are the places of compression pointers that move with that length. With `slot` the answer is a CNAME chain that
    a steered name ends: `owner` is the pointer to that name, `first` the tail of the first link alone. `cuts` are the
    (octets, additional records) at which `content` may end before its end, ascending.
    """

    content: bytes
    counts: tuple[int, int, int]
    rcode: int
    aa: bool
    pointers: tuple[int, ...]
    slot: int | None
    owner: int
    first: int
    length: int
    cuts: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Files:
    """The mapped sections of one root: the atoms, the base and every overlay of the schedule."""

    atoms: Sections
    base: Sections
    overlays: tuple[Sections, ...]


def _prefixes(pairs: list[tuple[str, int]]) -> tuple[tuple[bytes, int], ...]:
    return tuple((bytes.fromhex(address), length) for address, length in pairs)


class Memory:
    """What engine.fastpath remembers of questions: it holds for a base and its rows, whatever the rankings."""

    def __init__(self) -> None:
        self.entries: dict[bytes | tuple[object, ...], Any] = {}
        self.forms: dict[bytes, Any] = {}
        self.known: dict[bytes, Any] = {}
        self.alike: dict[Any, Any] = {}


class Base:
    """Names, zones and policies of one base file: everything but the rankings."""

    def __init__(self, sections: Sections) -> None:
        self.hash = sections["hash"]
        self.hash_mask = len(self.hash) - 1
        self.node = sections["node"]
        self.rrset = sections["rrset"]
        self.rdata = sections["rdata"]
        self.outcome = sections["outcome"]
        self.tail = sections["tail"]
        self.pointer = sections["pointer"]
        self.cut = sections["cut"]
        self.blob = sections["blob"]
        self.cells = sections["cells"]
        self.record = sections["record"]
        self.slot = sections["slot"]
        self.flat: dict[str, Any] | None = None  # what engine.native laid out
        self._memory: tuple[tuple[int, ...], Memory] | None = None
        self.meta: dict[str, Any] = json.loads(bytes(sections["meta"]))
        self.salt = int(self.meta["salt"])
        self.providers: tuple[str, ...] = tuple(self.meta["providers"])
        self.addresses: tuple[tuple[tuple[bytes, ...], tuple[bytes, ...]], ...] = tuple(
            (tuple(map(bytes.fromhex, v4)), tuple(map(bytes.fromhex, v6))) for v4, v6 in self.meta["addresses"]
        )
        self.zones = tuple(
            Zone(
                *(z["name"], bytes.fromhex(z["apex"]), i, z["requests"], z["responses"], z["depth"]),
                *(_prefixes(z["explain"]), _prefixes(z.get("transfer", []))),
            )
            for i, z in enumerate(self.meta["zones"])
        )
        # Nodes that only lead to the reference path: who may not ask there is to see a zone without them.
        only = (zone.number for zone, z in zip(self.zones, self.meta["zones"], strict=True) if z.get("explain_only"))
        self.leading = {(number, EXPLAIN + self.zones[number].apex) for number in only}
        # Who may have some zone: what they ask for of it is the reference path's.
        self.secondaries = tuple(dict.fromkeys(prefix for zone in self.zones for prefix in zone.transfer))
        self.apexes = {zone.apex: zone for zone in self.zones}
        self.apex_depth = max((label_count(apex) for apex in self.apexes), default=0)
        requests, responses = self.meta["elsewhere"]
        self.elsewhere = Zone("", b"", -1, requests, responses, 0)
        self.policies = tuple(
            tuple(Rule(r["name"], r["kind"], tuple(r["columns"]), r["unit"], tuple(r["answers"])) for r in rules)
            for rules in self.meta["policies"]
        )
        self.phases: tuple[tuple[tuple[float, int], ...], ...] = tuple(
            tuple((start, row) for start, row in phases) for phases in self.meta["phases"]
        )

    def memory_for(self, rows: tuple[int, ...]) -> Memory:
        """What was remembered while these rows held, if they are the last ones that it was asked for."""
        if self._memory is None or self._memory[0] != rows:
            self._memory = (rows, Memory())
        return self._memory[1]

    def zone_of(self, qname: bytes, parent_side: bool = False) -> Zone | None:
        """The deepest zone that holds folded `qname`; for DS at an apex the zone above it (RFC 4035 section 3.1.4.1)."""
        for name in suffixes(qname, self.apex_depth):
            zone = self.apexes.get(name)
            if zone is not None and not (parent_side and name == qname):
                return zone
        return self.apexes.get(qname) if parent_side else None

    def node_index(self, zone: int, name: bytes) -> int:
        """The node called `name` in a zone, or -1."""
        at = zlib.crc32(name, zone) & self.hash_mask
        node = self.node
        while entry := self.hash[at]:
            row = (entry - 1) * NODE
            start = node[row]
            if node[row + 1] == len(name) | zone << 16 and self.blob[start : start + len(name)] == name:
                return entry - 1
            at = at + 1 & self.hash_mask
        return -1

    def find(self, zone: int, name: bytes) -> Node | None:
        """The node as dns.zone.lookup wants it; read anew each time, by the reference path only."""
        index = self.node_index(zone, name)
        if index < 0 or (zone, name) in self.leading:
            return None
        first, count = self.node[index * NODE + 2 : index * NODE + 4]
        rrsets: dict[int, RRset] = {}
        dynamic: dict[int, int] = {}
        for row in range(first, first + count):
            rtype, ttl, at, size = self.rrset[row * RRSET : row * RRSET + RRSET]
            if rtype & STEERED:
                dynamic[rtype & ~STEERED] = at
            else:
                rrsets[rtype] = RRset(rtype, ttl, tuple(self.rdata_at(i) for i in range(at, at + size)))
        return Node(name, rrsets, dynamic)

    def rdata_at(self, index: int) -> bytes:
        start, size = self.rdata[index * 2 : index * 2 + 2]
        return bytes(self.blob[start : start + size])

    def outcome_of(self, index: int, qtype: int) -> int:
        """What the fast path answers for a node and type: a tail's number, STEERED | slot, or NONE (ask the reference)."""
        row = index * NODE
        first, count = self.node[row + 4], self.node[row + 5]
        for at in range(first * 2, (first + count) * 2, 2):
            if self.outcome[at] == qtype:
                return self.outcome[at + 1]
        return self.node[row + 7]

    def tail_at(self, index: int) -> Tail:
        row = self.tail[index * TAIL : index * TAIL + TAIL]
        start, size, an_ns, ar, rcode_aa, pointer, pointers, slot, owner, first, length, cut, cuts = row
        return Tail(
            bytes(self.blob[start : start + size]),
            (an_ns & 0xFFFF, an_ns >> 16, ar),
            rcode_aa & 0xFF,
            bool(rcode_aa >> 8),
            tuple(self.pointer[pointer : pointer + pointers]),
            None if slot == NONE else slot,
            owner,
            first,
            length,
            tuple(zip(self.cut[cut * 2 : (cut + cuts) * 2 : 2], self.cut[cut * 2 + 1 : (cut + cuts) * 2 : 2], strict=True)),
        )

    def slot_at(self, index: int) -> Slot:
        policy, ttl_family, start, size = self.slot[index * SLOT : index * SLOT + SLOT]
        ttl_index, family = ttl_family >> 1, 6 if ttl_family & 1 else 4
        return Slot(policy, self.meta["ttls"][ttl_index], ttl_index, family, bytes(self.blob[start : start + size]))

    def records(self, ttl_index: int, family: int, provider: int) -> tuple[bytes, int]:
        """A provider's prebuilt records, each owned by the question's name (0xC00C), and how many they are."""
        row = ((ttl_index * 2 + (family == 6)) * len(self.providers) + provider) * 3
        start, size, count = self.record[row : row + 3]
        return bytes(self.blob[start : start + size]), count


class View:
    """What holds from one moment until `until`: one base, one phase of each policy, one overlay."""

    def __init__(self, snapshot: Snapshot, base: Base, overlay: Sections, now: float, until: float) -> None:
        atoms = snapshot.files.atoms
        self.serial = snapshot.serial
        self.node, self.nsid = snapshot.node, snapshot.nsid
        self.until = until
        self.base = base
        self.index4, self.index6 = atoms["index4"], atoms["index6"]
        self.network = atoms["network"]
        self.atoms = atoms
        self.public_atoms = snapshot.public_atoms
        self.atom_count = len(self.network)
        self.column = overlay["column"]
        self.ranking_of = overlay["ranking_of"]
        self.ranking = overlay["ranking"]
        self.split = overlay["split"]
        self.rows = tuple(next(row for start, row in reversed(phases) if start <= now) for phases in base.phases)
        memory = base.memory_for(self.rows)
        self.entries, self.forms, self.known, self.alike = memory.entries, memory.forms, memory.known, memory.alike
        # Choices of engine.fastpath by asker, and what of them many share.
        self.choices: dict[bytes, tuple[tuple[int, int, int], int]] = {}
        self.outcomes: dict[tuple[int, int, int], tuple[int, int, int]] = {}
        self.native: Any = None  # what engine.native made of this View
        self._rankings: dict[int, Ranking] = {}

    def cell(self, policy: int, atom: int) -> tuple[int, int]:
        """(which rule of the policy, the scope its answer holds for) for an atom."""
        cell = self.base.cells[self.rows[policy] * self.atom_count + atom]
        return cell >> 8, cell & 0xFF

    def ranking_at(self, column: int, network: int) -> Ranking:
        fixed, offset = self.column[column * 2], self.column[column * 2 + 1]
        number = self.ranking_of[offset + network] if fixed == NONE else fixed
        known = self._rankings.get(number)
        if known is None:
            row = self.ranking[number * RANKING : number * RANKING + RANKING]
            down, reason, count, split = row[:4]
            targets = tuple(row[4 : 4 + count])
            if split:
                reasons = {each & 0xFF: (each >> 8) - 1 for each in targets if each >> 8}
                known = Ranking(tuple(each & 0xFF for each in targets), reason, down, split, reasons)
            else:
                known = Ranking(targets, reason, down, 0, NO_REASONS)
            self._rankings[number] = known
        return known

    def network_key(self, network: int) -> NetworkKey:
        """The steering key of a network id; of unmapped space only the ASN 0 is known."""
        if not network:
            return NetworkKey(0)
        country = self.atoms["net_country"][network].to_bytes(2, "little").rstrip(b"\0").decode()
        columns = (self.atoms[name][network] for name in ("net_asn", "net_family", "net_block"))
        asn, family, block = columns
        return NetworkKey(asn, country, family, block)

    def leaf(self, atom: int) -> Prefix:
        """The prefix that an atom covers."""
        family: Family = 4 if self.atoms["family"][atom] == 4 else 6
        number = self.atoms["start_hi"][atom] << 64 | self.atoms["start_lo"][atom]
        return Prefix(family, number.to_bytes(4 if family == 4 else 16, "big"), self.atoms["length"][atom])

    def pick(self, ranking: Ranking, unit: int) -> int:
        """The provider index a client gets from a ranking, or NONE; `unit` matters where the ranking is split."""
        if ranking.split:
            return self.pick_split(ranking.split, unit)
        return ranking.targets[0] if ranking.targets else NONE

    def pick_split(self, split: int, unit: int) -> int:
        """The provider index that a split table, by Ranking.split, gives a hash unit."""
        return self.split[(split - 1) * SPLIT_SLOTS + unit_slot(self.base.salt, unit)]


class Snapshot:
    """One published root and its mapped files; `base` where it was read already (files.base is the same as before)."""

    def __init__(self, root: Mapping[str, Any], files: Files, base: Base | None = None) -> None:
        self.root = root
        self.files = files
        self.serial = int(root["serial"])
        # A node without a name tells nothing of itself.
        self.node = str(root["node"])
        self.nsid = f"{self.node}:{self.serial}".encode() if self.node else b""
        self.public_atoms = files.atoms["public"][0]
        self.base = base or Base(files.base)
        self._starts = [float(step["from"]) for step in root["schedule"]]
        self._view: View | None = None

    def at(self, now: float) -> View:
        """The View for `now` (Unix seconds, never backwards); kept until it ends."""
        view = self._view
        if view is None or now >= view.until:
            view = self._view = self._make_view(now)
        return view

    def _make_view(self, now: float) -> View:
        step = max((i for i, start in enumerate(self._starts) if start <= now), default=0)
        changes = self._starts + [start for phases in self.base.phases for start, _ in phases]
        until = min((start for start in changes if start > now), default=FOREVER)
        return View(self, self.base, self.files.overlays[step], now, until)
