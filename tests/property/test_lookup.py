"""Look-ups through the published arrays give what pyasn and maxminddb give on the same file: 0 differences."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any, NamedTuple

import maxminddb
import pytest
from mmdb_writer import MMDBWriter
from netaddr import IPSet

from edgedns.engine.lookup import client_key, walk
from edgedns.steer.space import asn, atoms
from edgedns.steer.space.leaves import CANONICAL, TEREDO, span
from edgedns.steer.space.ranges import Ranges

ADDRESSES = 100_000
Found = tuple[int, str]


class Range(NamedTuple):
    width: int
    first: int
    last: int
    asn: int
    country: str

    def prefixes(self) -> Iterator[tuple[int, int]]:
        """(address, length) of the fewest prefixes that make it up."""
        first = self.first
        while first <= self.last:
            fits = (self.last - first + 1).bit_length() - 1
            bits = min(fits, (first & -first).bit_length() - 1) if first else fits
            yield first, self.width - bits
            first += 1 << bits


def text_of(width: int, address: int) -> str:
    return str(ip_address(address.to_bytes(width // 8)))


def ranges_of(side: Ranges, width: int, every: int) -> list[Range]:
    """Every n-th range of the embedded table, outside the space that is never looked up as it stands."""
    rows = range(0, len(side.asn), every)
    found = [
        Range(width, side.start.number(i), side.end.number(i), int(side.asn[i]), side.country[i].decode()) for i in rows
    ]
    special = [span(prefix) for prefix in (*CANONICAL, TEREDO)]
    return [row for row in found if width == 32 or not any(first <= row.first <= last for first, last in special)]


def real_ranges(every: int) -> list[Range]:
    table = asn.embedded()
    return ranges_of(table.v4, 32, every) + ranges_of(table.v6, 128, every)


def nested(ranges: list[Range], dice: random.Random) -> list[str]:
    """`.dat` lines of the ranges in any order, with smaller prefixes of other ASNs inside some (pyasn itself refuses ASN 0)."""
    lines = {}
    for row in ranges:
        for address, length in row.prefixes():
            lines[row.width, address, length] = row.asn
            if length < row.width and dice.random() < 0.3:
                longer = dice.randint(length + 1, min(row.width, length + 12))
                inside = address | dice.getrandbits(longer - length) << row.width - longer
                lines.setdefault((row.width, inside, longer), dice.choice([64496, 64497, 65534]))
    shuffled = [f"{text_of(width, address)}/{length}\t{number}" for (width, address, length), number in lines.items()]
    dice.shuffle(shuffled)
    return shuffled


def asked(ranges: list[Range], dice: random.Random) -> Iterator[tuple[int, int]]:
    """(width, address): edges of ranges and what lies just outside them, addresses within, and anything at all."""
    sides = {width: [row for row in ranges if row.width == width] for width in (32, 128)}
    for number in range(ADDRESSES):
        width = 128 if number % 2 else 32
        row = dice.choice(sides[width])
        kinds = (row.first, row.last, row.first - 1, row.last + 1, dice.randint(row.first, row.last), dice.getrandbits(width))
        address = dice.choice(kinds) % (1 << width)
        if client_key(address.to_bytes(width // 8), True)[::2] == (4 if width == 32 else 6, 0):
            yield width, address


def published(table: asn.AsnTable) -> Callable[[int, int], Found]:
    """The look-up that a worker does: plain reads of flat little-endian arrays."""
    sections = atoms.build(table).sections()
    index4, index6, network, net_asn = (
        memoryview(sections[name].tobytes()).cast("I") for name in ("index4", "index6", "network", "net_asn")
    )
    countries = sections["net_country"].tobytes()

    def find(width: int, address: int) -> Found:
        own = network[walk(index4, index6, 4 if width == 32 else 6, address)]
        return net_asn[own], countries[2 * own : 2 * own + 2].rstrip(b"\0").decode()

    return find


def differences(path: Path, ranges: list[Range], reference: Callable[[str], Found], dice: random.Random) -> list[str]:
    find = published(asn.load(path))
    addresses = list(asked(ranges, dice))
    assert len(addresses) > 0.99 * ADDRESSES
    texts = [text_of(width, address) for width, address in addresses]
    return [text for text, (width, address) in zip(texts, addresses, strict=True) if find(width, address) != reference(text)]


def agrees_with_pyasn(folder: Path, every: int) -> None:
    if os.environ.get("CI"):
        import pyasn
    else:
        pyasn = pytest.importorskip("pyasn")
    dice = random.Random(every)
    ranges = real_ranges(every)
    path = folder / "table"
    path.write_text("; made\n" + "\n".join(nested(ranges, dice)) + "\n")
    reference = pyasn.pyasn(str(path))
    assert differences(path, ranges, lambda text: (reference.lookup(text)[0] or 0, ""), dice) == []


def agrees_with_maxminddb(folder: Path, every: int) -> None:
    dice = random.Random(every)
    ranges = real_ranges(every)
    writer = MMDBWriter(ip_version=6, ipv4_compatible=True, database_type="Test-ASN")
    for row in ranges:
        prefixes = [f"{text_of(row.width, address)}/{length}" for address, length in row.prefixes()]
        writer.insert_network(IPSet(prefixes), {"autonomous_system_number": row.asn, "country_code": row.country})
    path = folder / "table"
    writer.to_db_file(str(path))

    def reference(text: str) -> Found:
        record: Any = reader.get(text) or {}
        return record.get("autonomous_system_number", 0), record.get("country_code", "")

    with maxminddb.open_database(path) as reader:
        assert differences(path, ranges, reference, dice) == []


def test_every_eighth_range_as_pyasn_finds_it(tmp_path: Path) -> None:
    agrees_with_pyasn(tmp_path, 8)


def test_every_thirtieth_range_as_maxminddb_finds_it(tmp_path: Path) -> None:
    agrees_with_maxminddb(tmp_path, 30)


@pytest.mark.long
@pytest.mark.timeout(600)
def test_the_whole_table_as_pyasn_finds_it(tmp_path: Path) -> None:
    agrees_with_pyasn(tmp_path, 1)


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_the_whole_table_as_maxminddb_finds_it(tmp_path: Path) -> None:
    agrees_with_maxminddb(tmp_path, 1)
