"""Tables in: address -> (ASN, country). Reads our own embedded table, pyasn .dat, MMDB and iptoasn TSV, told by content.

The only importer of maxminddb. Every reader ends in `ranges.disjoint`: unsorted rows, overlaps (the later start wins) and
ASN 0 (unmapped) are dealt with there; private ASNs are kept.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property, lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import maxminddb
import numpy as np
from numpy.typing import NDArray

from edgedns.errors import SourceError
from edgedns.steer.space import asnfiles, asnpack, wide
from edgedns.steer.space.asnfiles import TextTable
from edgedns.steer.space.ranges import Asns, Countries, Ranges, disjoint, ranges, with_countries
from edgedns.steer.space.wide import U64, Wide

EXPANDED_LIMIT = 1 << 30  # a gzip file that grows past this is no ASN table
NETWORK_LIMIT = 20_000_000  # a hostile MMDB's tree can fold onto itself and never end

_GZIP = b"\x1f\x8b"
_MMDB_MARK = b"\xab\xcd\xefMaxMind.com"
_MMDB_TAIL = 128 * 1024
Fields = tuple[int, str, bytes]  # ASN, name, country
_WANTED = "wanted a pyasn .dat, an MMDB with ASNs, or an iptoasn TSV"


@dataclass(frozen=True)
class AsnTable:
    """Sorted, disjoint ranges, both ends inclusive, and where they came from.

    Neighbours with the same ASN and country are one range and a change of country cuts one, so the source's own row
    counts are kept apart in `rows4` and `rows6`. Countries are two letters or empty; `date` is ISO (YYYY-MM-DD).
    """

    start4: NDArray[np.uint32]
    end4: NDArray[np.uint32]
    asn4: Asns
    country4: Countries
    start6_hi: U64
    start6_lo: U64
    end6_hi: U64
    end6_lo: U64
    asn6: Asns
    country6: Countries
    names: Mapping[int, str]
    source: str
    date: str
    digest: str
    rows4: int
    rows6: int

    @cached_property
    def v4(self) -> Ranges:
        return Ranges(wide.from_low(self.start4), wide.from_low(self.end4), self.asn4, self.country4)

    @cached_property
    def v6(self) -> Ranges:
        start, end = Wide(self.start6_hi, self.start6_lo), Wide(self.end6_hi, self.end6_lo)
        return Ranges(start, end, self.asn6, self.country6)

    def lookup(self, address: bytes) -> tuple[int, str]:
        """(ASN, country) of a packed address as it stands; (0, "") where it is unmapped."""
        side = self.v4 if len(address) == 4 else self.v6
        number = int.from_bytes(address)
        row = wide.rows_up_to(side.start, number) - 1
        if row < 0 or number > side.end.number(row):
            return 0, ""
        return int(side.asn[row]), side.country[row].decode()

    def first_address(self, asn: int) -> bytes | None:
        """The ASN's lowest v4 address, packed; its lowest v6 address if it has no v4; None if it has neither."""
        for side, size in ((self.v4, 4), (self.v6, 16)):
            rows = np.flatnonzero(side.asn == asn) if 0 < asn < 1 << 32 else np.empty(0, np.intp)
            if len(rows):
                return side.start.number(int(rows[0])).to_bytes(size)
        return None

    def asn_count(self) -> int:
        return len(np.union1d(self.asn4, self.asn6))


def load(path: str | Path) -> AsnTable:
    """The table in this file, whatever it is called. SourceError says what is wrong with it and what to do."""
    place = Path(path)
    try:
        content = place.read_bytes()
        date = datetime.fromtimestamp(place.stat().st_mtime, UTC).date().isoformat()
    except OSError as error:
        raise SourceError(f"{place}: {error.strerror or error}") from None
    try:
        return _read(content, place, date)
    except SourceError as error:
        raise SourceError(f"{place}: {error}") from None


def from_rows(rows: TextTable, source: str, date: str, digest: str) -> AsnTable:
    """A table of rows as any source has them: unsorted, overlapping, with ASN 0. SourceError if nothing is mapped."""
    v4, v6 = (disjoint(ranges(side)) for side in (rows.v4, rows.v6))
    if not len(v4.asn) + len(v6.asn):
        raise SourceError(f"no address in it belongs to an ASN; {_WANTED}")
    return _table(v4, v6, rows.names, source, date, digest, len(rows.v4), len(rows.v6))


def load_countries(path: str | Path) -> tuple[Ranges, Ranges]:
    """The countries in an MMDB, v4 and v6, as disjoint ranges of a made-up ASN 1; SourceError as for `load`."""
    try:
        with maxminddb.open_database(str(path)) as reader:
            rows = _mmdb_rows(reader, lambda record: (1, "", country) if (country := _mmdb_country(record)) else None)
    except (maxminddb.InvalidDatabaseError, ValueError, OverflowError, RecursionError, OSError) as error:
        raise SourceError(f"{path}: a broken MMDB ({error}): get it again") from None
    if not rows.v4 and not rows.v6:
        raise SourceError(f"{path}: an MMDB without countries in its records")
    return disjoint(ranges(rows.v4)), disjoint(ranges(rows.v6))


def joined(table: AsnTable, countries: tuple[Ranges, Ranges]) -> AsnTable:
    """The same ASNs with the countries of another source (disjoint ranges, v4 and v6) in place of its own."""
    v4, v6 = (with_countries(side, other) for side, other in zip((table.v4, table.v6), countries, strict=True))
    return _table(v4, v6, table.names, table.source, table.date, table.digest, table.rows4, table.rows6)


def packed(table: AsnTable) -> bytes:
    """The table in our own file form, which `load` reads."""
    names = {asn: " ".join(name.split()) for asn, name in table.names.items()}
    about = {"source": table.source, "date": table.date, "rows4": table.rows4, "rows6": table.rows6}
    return asnpack.pack(table.v4, table.v6, names, about)


@lru_cache(maxsize=1)
def embedded() -> AsnTable:
    """The table that ships with the package."""
    return _own((files("edgedns") / "data" / "asn.xz").read_bytes())


def continent(country: str) -> str:
    """The continent (AF AN AS EU NA OC SA) of an ISO 3166 country; "" if unknown."""
    return _continents().get(country, "")


@lru_cache(maxsize=1)
def _continents() -> Mapping[str, str]:
    text = (files("edgedns") / "data" / "continents.tsv").read_text("utf-8")
    return {line[:2]: line[3:] for line in text.splitlines() if not line.startswith("#")}


def _read(content: bytes, place: Path, date: str) -> AsnTable:
    if not content:
        raise SourceError(f"the file is empty; {_WANTED}")
    digest = hashlib.sha256(content).hexdigest()
    if content.startswith(asnpack.MAGIC):
        return _own(content)
    zipped = content.startswith(_GZIP)
    if zipped:
        content = _gunzipped(content)
    if _MMDB_MARK in content[-_MMDB_TAIL:]:
        return _mmdb(io.BytesIO(content) if zipped else str(place), digest)
    return _text(content, date, digest)


def _gunzipped(content: bytes) -> bytes:
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(content)) as stream:
            expanded = stream.read(EXPANDED_LIMIT + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise SourceError(f"a broken gzip file ({error}): get it again") from None
    if len(expanded) > EXPANDED_LIMIT:
        raise SourceError(f"a gzip file that expands past {EXPANDED_LIMIT >> 20} MiB is no ASN table")
    return expanded


def _own(content: bytes) -> AsnTable:
    packed = asnpack.unpack(content)
    about = (packed.names, packed.source, packed.date, packed.digest, packed.rows4, packed.rows6)
    return _table(packed.v4, packed.v6, *about)


def _text(content: bytes, date: str, digest: str) -> AsnTable:
    if b"\0" in content:
        raise SourceError(f"binary, and no MMDB (or the end of one is missing); {_WANTED}")
    text = content.decode("utf-8", "replace")
    reader = asnfiles.kind_of(text)
    if reader is None:
        raise SourceError(f"its first line is of no form known here; {_WANTED}")
    if not text.endswith("\n"):  # "64496" cut to "644" would be a fine line otherwise
        raise SourceError("its last line has no line end: the file was cut off, get it again")
    source = "pyasn .dat" if reader is asnfiles.read_dat else "iptoasn TSV"
    return from_rows(reader(text), source, date, digest)


def _mmdb(database: str | io.BytesIO, digest: str) -> AsnTable:
    mode = maxminddb.MODE_AUTO if isinstance(database, str) else maxminddb.MODE_FD
    try:
        with maxminddb.open_database(database, mode) as reader:
            about = reader.metadata()
            date = datetime.fromtimestamp(about.build_epoch, UTC).date().isoformat()
            rows = _mmdb_rows(reader, _mmdb_fields)
    except (maxminddb.InvalidDatabaseError, ValueError, OverflowError, RecursionError, OSError) as error:
        raise SourceError(f"a broken MMDB ({error}): get it again") from None
    if not rows.v4 and not rows.v6:
        raise SourceError("an MMDB without ASNs in its records (a country or city database?); get one of ASNs")
    return from_rows(rows, f"MMDB {about.database_type}", date, digest)


def _mmdb_rows(reader: Any, fields: Callable[[Any], Fields | None]) -> TextTable:
    table, seen = TextTable(), 0
    for network, record in reader:
        seen += 1
        if seen > NETWORK_LIMIT:
            raise SourceError(f"an MMDB of more than {NETWORK_LIMIT} networks is no table of addresses")
        if (found := fields(record)) is None:
            continue
        asn, name, country = found
        span = int(network.network_address), int(network.broadcast_address)
        table.add(network.version, (*span, asn, country))
        if asn and name:
            table.names[asn] = name
    return table


def _mmdb_fields(record: Any) -> Fields | None:
    """(ASN, name, country) by the keys that MaxMind, DB-IP, ip-location-db and IPinfo write; None: no ASN here."""
    if not isinstance(record, Mapping):
        return None
    asn = record.get("autonomous_system_number", record.get("asn"))
    if isinstance(asn, str):
        asn = int(digits) if (digits := asn.upper().removeprefix("AS")).isdecimal() else None
    if not isinstance(asn, int) or not 0 <= asn < 1 << 32:
        return None
    name = record.get("autonomous_system_organization", record.get("as_name", record.get("name", "")))
    return asn, name if isinstance(name, str) else "", _mmdb_country(record)


def _mmdb_country(record: Any) -> bytes:
    if not isinstance(record, Mapping):
        return b""
    country = record.get("country_code", record.get("country", ""))
    return asnfiles.country_code(country.get("iso_code") if isinstance(country, Mapping) else country)


def _table(v4: Ranges, v6: Ranges, *about: Any) -> AsnTable:
    low = (v4.start.lo.astype(np.uint32), v4.end.lo.astype(np.uint32), v4.asn, v4.country)
    return AsnTable(*low, *v6.start, *v6.end, v6.asn, v6.country, *about)
