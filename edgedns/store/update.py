"""One update of the ASN table: download, judge it beside the one in use, and take it, or leave everything as it was."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from importlib.resources import files
from ipaddress import ip_address
from pathlib import Path

from edgedns.errors import SourceError
from edgedns.steer.space import asn
from edgedns.steer.space.asn import AsnTable
from edgedns.steer.space.asndiff import Difference, differences
from edgedns.steer.space.ranges import Ranges
from edgedns.store.download import Fetched, Missing, Refused, Terms, fetch, fetch_checksum, shown, unpacked
from edgedns.store.sources import Part, Source
from edgedns.store.tables import Index, Installed, Tables

ROWS_KEPT = 0.9  # of the stretches of addresses with one ASN, and of addresses with a country
KNOWN_RIGHT = 0.9  # of the addresses whose ASNs everybody knows
# Nine days moved 0.14 % of the IPv4 addresses and 0.10 % of the IPv6 ones; fourteen months 5.6 % and 35 %.
MOVED = 0.05
MOVED_A_DAY = 0.001


@dataclass(frozen=True, slots=True)
class Limits:
    """What an operator lets through: `moved` (0 to 1) replaces the usual limit on addresses whose ASN changes."""

    moved: float | None = None
    loss: bool = False
    older: bool = False


@dataclass(frozen=True, slots=True)
class Update:
    """What to do; `limits.older` lets an older table in, `only_judge` installs nothing."""

    source: Source
    terms: Terms = field(default_factory=Terms)
    limits: Limits = Limits()
    only_judge: bool = False


@dataclass(frozen=True, slots=True)
class Result:
    """What came of it: whether another table is in use now (or would be), and a line for people."""

    changed: bool
    said: str


def update(tables: Tables, wanted: Update, now: float, say: Callable[[str], None]) -> Result:
    """Download and judge; `now` is Unix seconds. Refused, or SourceError where it could not run: nothing changed."""
    with tables.locked():
        tables.clear_asides()
        try:
            result = _updated(tables, wanted, now, say)
        except SourceError as error:
            tables.note(now, f"{'refused' if isinstance(error, Refused) else 'could not run'}: {error}")
            raise
        finally:
            tables.clear_asides()
        tables.note(now, result.said)
        return result


def rollback(tables: Tables, now: float) -> Result:
    """Take the previous table into use again, which may be the embedded one. Refused where there is none."""
    with tables.locked():
        index = tables.index()
        if index.current is None and index.previous is None:
            raise Refused("there is nothing to go back to: the embedded table is in use, and no other was")
        table = tables.load(index.previous)
        tables.swap(index.swapped())
        said = f"in use again: {table.source}, dated {table.date}"
        tables.note(now, said)
        return Result(True, said)


def _updated(tables: Tables, wanted: Update, now: float, say: Callable[[str], None]) -> Result:
    index = _repaired(tables, wanted, say)
    before = tables.load(index.current)
    known = [one for one in (index.current, index.barred) if one]
    download = tables.aside("download")
    url, fetched = _first_there(wanted.source.asns, download, wanted, known, now)
    if fetched is None:
        return Result(False, "nothing new: the server has no other table than before")
    if index.current and fetched.sha256 == index.current.sha256:
        return Result(False, "nothing new: the table is the one in use")
    if index.barred and fetched.sha256 == index.barred.sha256:
        return Result(False, "nothing new: the table is the one that was rolled back; `edgedns data rollback` brings it back")
    _check_sum(wanted.source.asns, fetched, tables, wanted)
    after = _table(download, fetched, tables, wanted, now)
    if after.date < before.date and not wanted.limits.older:
        return Result(False, f"nothing new: it is dated {after.date}, the table in use {before.date}; --allow-older takes it")
    both = differences(before, after)
    for line in _told(both):
        say(line)
    if reasons := [*_too_new(after, now), *_objections(after, both, wanted.limits, _days(before, after))]:
        raise Refused("\n".join([*reasons, "nothing was changed"]))
    if wanted.only_judge:
        return Result(True, f"it would be taken: {after.source}, dated {after.date}")
    entry = _entry(wanted.source, url, fetched, after, now)
    tables.install(asn.packed(after), entry, index)
    return Result(True, f"in use now: {after.source}, dated {after.date}")


def _repaired(tables: Tables, wanted: Update, say: Callable[[str], None]) -> Index:
    """The index; where the table in use is damaged, what stands in for it comes into use."""
    index, sound = tables.index(), tables.sound()
    if sound != index:
        say("the table in use is damaged, the one before it (or the embedded one) stands in")
        if not wanted.only_judge:
            tables.swap(sound)
    return sound


def _entry(source: Source, url: str, fetched: Fetched, table: AsnTable, now: float) -> Installed:
    return Installed(
        "", source.name, shown(url), fetched.etag, fetched.modified, fetched.sha256, table.rows4, table.rows6, table.date, now
    )


def _first_there(part: Part, into: Path, wanted: Update, known: list[Installed], now: float) -> tuple[str, Fetched | None]:
    """The first of the part's URLs at which there is a file, and what came."""
    *earlier, last = part.urls(now)
    for url in earlier:
        try:
            return url, fetch(url, into, wanted.terms, _etags(url, known))
        except Missing:
            continue
    return last, fetch(last, into, wanted.terms, _etags(last, known))


def _etags(url: str, known: list[Installed]) -> list[str]:
    return [one.etag for one in known if one.etag and one.url == shown(url)]


def _check_sum(part: Part, fetched: Fetched, tables: Tables, wanted: Update) -> None:
    if part.checksum and fetch_checksum(part.checksum, tables.aside("checksum"), wanted.terms) != fetched.sha256:
        raise Refused(
            f"{shown(part.url)}: its SHA-256 is {fetched.sha256}, and {shown(part.checksum)} says another: "
            "one of them may just have been replaced, try again in a while"
        )


def _table(download: Path, fetched: Fetched, tables: Tables, wanted: Update, now: float) -> AsnTable:
    """What was downloaded, with the source's countries. Refused where it can't be read."""
    path = unpacked(download, wanted.terms.expanded_limit)
    made = now if fetched.modified is None else min(fetched.modified, now)
    os.utime(path, (made, made))  # text tables have no other date
    try:
        table = replace(asn.load(path), source=wanted.source.name)
    except SourceError as error:
        raise Refused(_of(wanted.source.asns, path, error)) from None
    if wanted.source.countries is None:
        return table
    return asn.joined(table, _countries(wanted.source.countries, tables, wanted, now))


def _countries(part: Part, tables: Tables, wanted: Update, now: float) -> tuple[Ranges, Ranges]:
    download = tables.aside("countries")
    _, fetched = _first_there(part, download, wanted, [], now)
    assert fetched is not None  # no ETag was sent
    _check_sum(part, fetched, tables, wanted)
    path = unpacked(download, wanted.terms.expanded_limit)
    try:
        return asn.load_countries(path)
    except SourceError as error:
        raise Refused(_of(part, path, error)) from None


def _of(part: Part, path: Path, error: SourceError) -> str:
    """The reader's words, of the URL in place of the file that nobody will find."""
    return str(error).replace(str(path), shown(part.url))


# -- judging


def _told(both: tuple[Difference, Difference]) -> Iterator[str]:
    for one in both:
        yield (
            f"IPv{one.family}: {one.runs_after:,} ranges of one ASN ({one.runs_before:,} before), "
            f"{one.moved:.2%} of the addresses have another ASN"
        )


def _objections(table: AsnTable, both: tuple[Difference, Difference], limits: Limits, days: int) -> Iterator[str]:
    """Why the table is implausible; nothing where it isn't."""
    yield from _unknown(table)
    moved = MOVED + MOVED_A_DAY * days if limits.moved is None else limits.moved
    for one in both:
        if not limits.loss and one.runs_after < ROWS_KEPT * one.runs_before:
            kept = one.runs_after / one.runs_before
            yield f"IPv{one.family}: {kept:.0%} of the ranges in use: something is missing; --allow-loss takes it all the same"
        if not limits.loss and one.unnamed > 1 - ROWS_KEPT:
            yield (
                f"IPv{one.family}: {one.unnamed:.0%} of the addresses would lose their country, and rules that match countries "
                "their clients; --country-url URL names an MMDB of countries, --allow-loss takes it all the same"
            )
        if one.moved > moved:
            yield (
                f"IPv{one.family}: {one.moved:.1%} of the addresses have another ASN, and {moved:.1%} may: look into it, "
                f"then --max-moved {one.moved * 100 + 0.1:.1f}% takes it"
            )


def _too_new(table: AsnTable, now: float) -> Iterator[str]:
    """Beside a table of next year's no other one would ever be newer."""
    tomorrow = (datetime.fromtimestamp(now, UTC) + timedelta(days=1)).date().isoformat()
    if table.date > tomorrow:
        yield f"it is dated {table.date}, in the future: look at this machine's clock"


def _unknown(table: AsnTable) -> Iterator[str]:
    wrong = [f"{address} in AS{found} in place of AS{right}" for address, right, found in _known_wrong(table)]
    if len(wrong) > (1 - KNOWN_RIGHT) * len(known()):
        count, some = f"{len(wrong)} of {len(known())}", ", ".join(wrong[:3])
        yield f"{count} well-known addresses lie elsewhere ({some}, ...): this is not the Internet's table, look at the URL"


def _known_wrong(table: AsnTable) -> Iterator[tuple[str, int, int]]:
    for address, right in known():
        found, _ = table.lookup(ip_address(address).packed)
        if found != right:
            yield address, right, found


@lru_cache(maxsize=1)
def known() -> tuple[tuple[str, int], ...]:
    """Addresses and ASNs that hold in every table of the Internet: data/known.tsv."""
    lines = (files("edgedns") / "data" / "known.tsv").read_text("utf-8").splitlines()
    rows = (line.split("\t") for line in lines if not line.startswith("#"))
    return tuple((row[0], int(row[1])) for row in rows)


def _days(before: AsnTable, after: AsnTable) -> int:
    return max(0, (date.fromisoformat(after.date) - date.fromisoformat(before.date)).days)
