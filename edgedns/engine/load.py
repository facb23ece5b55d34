"""A rules directory -> what it says: RuleSet, plain records, and every mistake with its place.

The only place where steering rules and zone text meet before they are compiled, and the only module of the engine
that reads files (those of the directory it is given).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from edgedns.dns import types, zonecheck
from edgedns.dns.zonetext import Line, Reader, StaticRR
from edgedns.errors import Problem, RuleErrors, SourceError, problem
from edgedns.model import RuleSet, StaticText, Where, ZoneRules
from edgedns.steer.rules import yamltree
from edgedns.steer.rules.reading import RulesFile, read, without
from edgedns.steer.rules.review import used_networks, used_providers
from edgedns.steer.space.asn import continent

SUFFIXES = (".yaml", ".yml")
SHARED_STEM = "providers"
MAX_SOURCE = 160

Statics = Mapping[str, tuple[StaticRR, ...]]
T = TypeVar("T")


@dataclass(frozen=True)
class Loaded:
    """A directory as loaded. Zones with errors are left out of `rules` and `statics` and named in `failed_zones`.

    `statics` has each zone's plain records, one SOA (serial 0 where `soa:` gives none: see with_serial) and the NS
    under `ns:` included; equal records once, one TTL a set. `problems`: the warnings, and the errors of zones left out.
    """

    rules: RuleSet
    statics: Statics
    problems: list[Problem]
    failed_zones: frozenset[str]
    failed_files: frozenset[str] = frozenset()

    @property
    def errors(self) -> list[Problem]:
        return [each for each in self.problems if each.is_error]

    def refuse_errors(self) -> None:
        """RuleErrors where anything in it is wrong, though other zones could be used."""
        if self.errors:
            raise RuleErrors(self.errors)


def load_rules(directory: str | Path, now: float | None = None) -> Loaded:
    """Read every *.yaml and *.yml of `directory`. With `now` (Unix seconds) expired rules are warned of.

    RuleErrors where nothing can be used: providers.yaml has errors, or there is no zone file. SourceError where the
    directory can't be read. A zone file with errors holds back its zone only.
    """
    texts = _Texts(Path(directory))
    files, unreadable = _files(texts)
    reading = read(files, continent, now)
    records = {name: _records(zone, texts) for name, zone in reading.rules.zones.items()}
    own = [*unreadable, *reading.problems]
    problems = sorted({with_source(each, texts.lines) for each in (*own, *_all_problems(records))})
    zone_of = {**{each.file: Path(each.file).stem for each in unreadable}, **reading.zone_of}
    wrong = {each.file for each in own if each.is_error}
    if any(file not in zone_of or Path(file).stem == SHARED_STEM for file in wrong):
        raise RuleErrors(problems)
    failed = {zone_of[file] for file in wrong} | {name for name, of_zone in records.items() if of_zone.failed}
    wrong |= {file for file, zone in zone_of.items() if zone in failed}
    return Loaded(
        without(reading.rules, frozenset(failed), frozenset(wrong)),
        {name: of_zone.records for name, of_zone in records.items() if name not in failed},
        problems,
        frozenset(failed),
        frozenset(wrong),
    )


def with_last_good(loaded: Loaded, last: Loaded) -> Loaded:
    """`loaded` with each failed zone as it was in `last`, and the providers and networks that it needs.

    A zone is known by its name, or by its file where the name can no longer be read.
    """
    kept = {
        name: zone
        for name, zone in last.rules.zones.items()
        if name in loaded.failed_zones or (zone.where.file in loaded.failed_files and name not in loaded.rules.zones)
    }
    if not kept:
        return loaded
    return replace(
        loaded,
        rules=replace(
            loaded.rules,
            providers=_joined(loaded.rules.providers, last.rules.providers, used_providers(kept.values())),
            networks=_joined(loaded.rules.networks, last.rules.networks, used_networks(kept.values())),
            zones={**loaded.rules.zones, **kept},
        ),
        statics={**loaded.statics, **{name: last.statics[name] for name in kept}},
    )


def _joined(new: Mapping[str, T], old: Mapping[str, T], used: set[str]) -> dict[str, T]:
    return {**new, **{name: each for name, each in old.items() if name in used and name not in new}}


def with_serial(records: Iterable[StaticRR], serial: int) -> tuple[StaticRR, ...]:
    """The records with the SOA's serial replaced (RFC 1035 section 3.3.13: the last five numbers, 32 bits each)."""
    return tuple(
        rr._replace(rdata=rr.rdata[:-20] + serial.to_bytes(4) + rr.rdata[-16:]) if rr.type == types.SOA else rr
        for rr in records
    )


# records


@dataclass(frozen=True)
class _Records:
    records: tuple[StaticRR, ...]
    problems: list[Problem]

    @property
    def failed(self) -> bool:
        return any(each.is_error for each in self.problems)


def _all_problems(records: Mapping[str, _Records]) -> Iterator[Problem]:
    return (each for of_zone in records.values() for each in of_zone.problems)


def _records(zone: ZoneRules, texts: _Texts) -> _Records:
    """A zone's plain records: those of `static:`, then the SOA and NS that `soa:` and `ns:` stand for."""
    reader = Reader(zone.apex, zone.ttl, texts.included)
    for entry in zone.static:
        if entry.file:
            reader.include(entry.file, entry.where)
        else:
            reader.read(texts.placed(entry))
    written = {rr.type: rr for rr in reversed(reader.records) if rr.owner == zone.apex}
    _soa(zone, reader, written.get(types.SOA))
    _servers(zone, reader, written.get(types.NS))
    reader.found.extend(_test_types(zone))
    records, changed = zonecheck.tidy(reader.records)
    steered = {record.name for record in zone.records}
    return _Records(tuple(records), [*reader.found, *changed, *zonecheck.check(zone.apex, records, steered)])


def _test_types(zone: ZoneRules) -> Iterator[Problem]:
    for test in zone.tests:
        try:
            types.type_number(test.type)
        except ValueError as error:
            yield problem(test.where, "E410", str(error))


def _soa(zone: ZoneRules, reader: Reader, written: StaticRR | None) -> None:
    """The zone's one SOA, from `soa:` or as written."""
    soas = [rr for rr in reader.records if rr.type == types.SOA and rr.owner == zone.apex]
    if len(soas) > 1:
        reader.found.append(problem(soas[1].where, "E408", f"a second SOA: the first is in line {soas[0].where.line}"))
    if zone.soa is None or written is not None:
        if zone.soa is not None and written is not None:
            reader.found.append(problem(written.where, "E408", "the SOA is given by soa: as well: keep one of them"))
        elif written is None:
            reader.found.append(problem(zone.where, "E407", f"zone '{zone.name}' has no SOA: give soa: or write one"))
        return
    soa = zone.soa
    numbers = f"{soa.serial or 0} {soa.refresh} {soa.retry} {soa.expire} {soa.minimum}"
    line = f"{zone.name}. {soa.ttl} IN SOA {soa.mname}. {soa.rname}. {numbers}"
    reader.read([Line(soa.where, line)])


def _servers(zone: ZoneRules, reader: Reader, written: StaticRR | None) -> None:
    """The zone's NS, from `ns:` (with the SOA's TTL) or as written."""
    if zone.ns and written is not None:
        reader.found.append(problem(written.where, "E409", "the zone's NS are given by ns: as well: keep one of them"))
        return
    if not zone.ns and written is None:
        reader.found.append(problem(zone.where, "E409", f"zone '{zone.name}' has no NS: give ns: or write them"))
    soas = [rr.ttl for rr in reader.records if rr.type == types.SOA and rr.owner == zone.apex]
    ttl = soas[0] if soas else zone.ttl
    for server, where in zip(zone.ns, zone.ns_where, strict=True):
        reader.read([Line(where, f"{zone.name}. {ttl} IN NS {server}.")])


# files


@dataclass
class _Texts:
    """The files of a rules directory, read once each, so that a Problem can show its line."""

    directory: Path
    lines: dict[str, list[str]] = field(default_factory=dict)

    def shown(self, name: str) -> str:
        return str(self.directory / name)

    def content(self, name: str) -> bytes:
        """A file's octets; OSError when it can't be read or is no plain file."""
        content = _read(self.directory / name)
        self.lines[self.shown(name)] = yamltree.lines(content.decode("utf-8", "replace"))
        return content

    def included(self, name: str, where: Where, found: list[Problem]) -> list[Line] | None:
        """The lines of a file that a zone includes; None, and the reason among the problems, when it can't be."""
        reason = self._outside(name)
        if reason:
            found.append(problem(where, "E403", f"'{name[:80]}' {reason}: a zone includes from its rules directory only"))
            return None
        try:
            content = self.content(name)
        except (OSError, ValueError) as error:
            found.append(problem(where, "E404", f"can't read '{name[:80]}': {_reason(error)}"))
            return None
        text = yamltree.decode(content, self.shown(name), found)
        if text is None:
            return None
        return [Line(Where(self.shown(name), number, 1), line) for number, line in enumerate(text.split("\n"), 1)]

    def _outside(self, name: str) -> str:
        if os.path.isabs(name):
            return "is an absolute path"
        try:
            root, real = self.directory.resolve(), (self.directory / name).resolve()
        except (OSError, ValueError, RuntimeError):
            return ""
        return "" if real.is_relative_to(root) else "leads out of the rules directory"

    def placed(self, entry: StaticText) -> list[Line]:
        """The lines of zone text inside YAML, each where it stands in the file."""
        source = self.lines[entry.where.file]
        return [
            Line(_found_at(source, piece, entry.where, offset), piece) for offset, piece in enumerate(entry.text.split("\n"))
        ]


def with_source(each: Problem, lines: Mapping[str, list[str]] | None = None) -> Problem:
    """The Problem with the line it is about, from `lines` by file, else read again from the file."""
    source = (_lines_of(each.file) if lines is None else lines.get(each.file)) or []
    line = source[each.line - 1].replace("\t", " ").rstrip() if each.line <= len(source) else ""
    if each.column > MAX_SOURCE or not line.isprintable():
        return each
    return replace(each, source=line if len(line) <= MAX_SOURCE else line[: MAX_SOURCE - 3] + "...")


def _lines_of(file: str) -> list[str]:
    try:
        return yamltree.lines(_read(Path(file)).decode("utf-8", "replace"))
    except (OSError, ValueError):
        return []


def _found_at(source: list[str], piece: str, first: Where, offset: int) -> Where:
    """Where a line of a scalar stands: found again in its file where it was written plainly, else the scalar's start."""
    number = first.line + offset
    start = first.column - 1 if offset == 0 else 0
    column = source[number - 1].find(piece, start) if number <= len(source) else -1
    return Where(first.file, number, column + 1) if column >= 0 else first


def _files(texts: _Texts) -> tuple[list[RulesFile], list[Problem]]:
    """The rules files by name, and a Problem for each that can't be read; hidden files and folders are passed over."""
    try:
        names = sorted(entry.name for entry in os.scandir(texts.directory) if _is_rules_file(entry))
    except OSError as error:
        raise SourceError(f"can't read the rules directory {texts.directory}: {_reason(error)}") from error
    if not any(Path(name).stem != SHARED_STEM for name in names):
        said = f"no zone file (*.yaml) in {texts.directory}"
        raise RuleErrors([problem((str(texts.directory), 1, 1), "E100", said)])
    files: list[RulesFile] = []
    unreadable: list[Problem] = []
    for name in names:
        path, stem = texts.shown(name), Path(name).stem
        try:
            files.append(RulesFile(path, stem, stem == SHARED_STEM, texts.content(name)))
        except (OSError, ValueError) as error:
            unreadable.append(problem((path, 1, 1), "E100", f"can't read the file: {_reason(error)}"))
    shared = [file.path for file in files if file.shared]
    if len(shared) > 1:
        unreadable.append(problem((shared[1], 1, 1), "E302", f"{shared[0]} is there as well: keep one of them"))
    return files, unreadable


def _is_rules_file(entry: os.DirEntry[str]) -> bool:
    return entry.name.endswith(SUFFIXES) and not entry.name.startswith(".") and not entry.is_dir()


def _read(path: Path) -> bytes:
    """A plain file's octets, one more than may be; a pipe or device is refused without waiting for it."""
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as opened:
        if not stat.S_ISREG(os.fstat(opened.fileno()).st_mode):
            raise ValueError("not a plain file")
        return opened.read(yamltree.MAX_BYTES + 1)


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
