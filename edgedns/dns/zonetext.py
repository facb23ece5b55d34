"""Zone-file text (RFC 1035 section 5) -> records, each with the line it came from.

Entries are cut apart here, so that one bad record hides no other and a parenthesis knows its line; dnspython reads
each record's data. Files are opened by the `opener` that the caller gives: nothing here touches a disk.
"""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import dns.exception
import dns.name
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.ttl

from edgedns.dns.name import is_subdomain
from edgedns.errors import Problem, problem
from edgedns.model import Where

MAX_INCLUDE_DEPTH = 8
MAX_INCLUDES = 1_000
MAX_RECORDS = 1_000_000
MAX_RDATA = 0xFFFF

# What only a signer may write, and what only stands in messages (RFC 6895 section 3.1).
SIGNER = frozenset({dns.rdatatype.RRSIG, dns.rdatatype.NSEC, dns.rdatatype.NSEC3, dns.rdatatype.NSEC3PARAM})
# RFC 3597 section 5: any class may be written as "CLASS" and its number.
_CLASS = re.compile(r"IN|CH|HS|CS|CLASS[0-9]{1,5}")
_INTERNET = frozenset({"IN", "CLASS1"})
_SPECIAL = re.compile(r'[\\";()]')
_TOKEN = re.compile(r"(?:\\.|[^\s\\\"])+")


class StaticRR(NamedTuple):
    """A plain record: folded owner, rdata in uncompressed wire form, class IN, and where it was written."""

    owner: bytes
    type: int
    ttl: int
    rdata: bytes
    where: Where


class Line(NamedTuple):
    """One line of text and where its first character stands."""

    where: Where
    text: str


# Gives the lines of a file named at a place, or None after adding the reason to the problems.
Opener = Callable[[str, Where, "list[Problem]"], "list[Line] | None"]


@dataclass(frozen=True)
class Entry:
    """One record or directive, comments and parentheses taken out; `starts` places its parts."""

    text: str
    starts: tuple[tuple[int, Where], ...]

    def at(self, position: int) -> Where:
        """Where the character at `position` of the text stands."""
        start, where = self.starts[0] if len(self.starts) == 1 else max(each for each in self.starts if each[0] <= position)
        return where._replace(column=where.column + position - start)


@dataclass
class _Context:
    """What carries over from entry to entry (RFC 1035 section 5.1): origin, default TTL, last owner."""

    origin: dns.name.Name
    ttl: int
    owner: dns.name.Name | None = None
    files: tuple[str, ...] = ()


@dataclass
class Reader:
    """Reads the texts of one zone in turn; `records` and `found` (the mistakes) fill up.

    Records of the types in `skip` are passed over and counted in `skipped`.
    """

    apex: bytes
    ttl: int
    opener: Opener
    skip: Collection[dns.rdatatype.RdataType] = ()
    skipped: Counter[str] = field(default_factory=Counter)
    records: list[StaticRR] = field(default_factory=list)
    found: list[Problem] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._includes = 0
        self._context = _Context(dns.name.from_wire(self.apex, 0)[0], self.ttl)

    def read(self, lines: Sequence[Line]) -> None:
        """Text written in place: what $ORIGIN, $TTL and an owner say goes on to the next call."""
        self._read(lines, self._context)

    def include(self, name: str, where: Where) -> None:
        """A file; what it sets ends with it."""
        self._include(name, where, replace(self._context, owner=None))

    def _read(self, lines: Sequence[Line], context: _Context) -> None:
        for entry in entries(lines, self.found):
            if len(self.records) >= MAX_RECORDS:
                self._error(entry.at(0), "E108", f"more than {MAX_RECORDS} records in a zone")
                return
            tokens = list(_TOKEN.finditer(entry.text))
            if tokens and tokens[0][0].startswith("$"):
                self._directive(entry, tokens, context)
            elif entry.text.strip():
                self._record(entry, tokens, context)

    def _error(self, where: Where, code: str, message: str) -> None:
        self.found.append(problem(where, code, message))

    # directives

    def _directive(self, entry: Entry, tokens: list[re.Match[str]], context: _Context) -> None:
        word, arguments = tokens[0][0].upper(), [token[0] for token in tokens[1:]]
        where = entry.at(tokens[0].start())
        wanted = {"$TTL": (1,), "$ORIGIN": (1,), "$INCLUDE": (1, 2)}.get(word)
        if wanted is None:
            near = _near(word, ("$TTL", "$ORIGIN", "$INCLUDE"))
            self._error(where, "E414", f"unknown directive '{tokens[0][0][:40]}'{near}")
        elif len(arguments) not in wanted:
            self._error(where, "E414", f"{word} takes {' or '.join(map(str, wanted))} words, found {len(arguments)}")
        elif word == "$TTL":
            context.ttl = self._ttl(arguments[0], entry.at(tokens[1].start()), context.ttl)
        elif word == "$ORIGIN":
            context.origin = self._name(arguments[0], entry.at(tokens[1].start()), context.origin) or context.origin
        else:
            self._include_directive(entry, tokens, context)

    def _include_directive(self, entry: Entry, tokens: list[re.Match[str]], context: _Context) -> None:
        """RFC 1035 section 5.1: an $INCLUDE's origin is the included file's; the including file's stays."""
        inner = replace(context, owner=None)
        if len(tokens) > 2:
            inner.origin = self._name(tokens[2][0], entry.at(tokens[2].start()), context.origin) or context.origin
        self._include(tokens[1][0], entry.at(tokens[1].start()), inner)

    def _include(self, name: str, where: Where, context: _Context) -> None:
        self._includes += 1
        if name in context.files:
            self._error(where, "E404", f"'{name[:60]}' includes itself")
        elif len(context.files) >= MAX_INCLUDE_DEPTH:
            self._error(where, "E108", f"files are included more than {MAX_INCLUDE_DEPTH} deep")
        elif self._includes == MAX_INCLUDES:
            self._error(where, "E108", f"more than {MAX_INCLUDES} files are included")
        elif self._includes < MAX_INCLUDES:
            lines = self.opener(name, where, self.found)
            self._read(lines or [], replace(context, files=(*context.files, name)))

    # records

    def _record(self, entry: Entry, tokens: list[re.Match[str]], context: _Context) -> None:
        """`[owner] [ttl] [class] type rdata`, ttl and class in either order (RFC 1035 section 5.1)."""
        if not tokens or tokens[0].start() > len(entry.text) - len(entry.text.lstrip()):
            self._error(entry.at(len(entry.text) - len(entry.text.lstrip())), "E401", "a record begins with its name, unquoted")
            return
        owner, rest = self._owner(entry, tokens, context)
        if owner is None:
            return
        ttl, rest = self._ttl_and_class(entry, rest, context)
        if not rest:
            self._error(entry.at(len(entry.text.rstrip()) - 1), "E401", "a record needs a type and its data")
            return
        rdtype = self._type(rest[0][0], entry.at(rest[0].start()))
        if rdtype is None:
            return
        rdata = self._rdata(rdtype, entry, rest[0].end(), context.origin)
        if rdata is not None and self._in_zone(owner, entry):
            where = entry.at(tokens[0].start())
            self.records.append(StaticRR(owner.to_digestable(), int(rdtype), ttl, rdata, where))

    def _owner(
        self, entry: Entry, tokens: list[re.Match[str]], context: _Context
    ) -> tuple[dns.name.Name | None, list[re.Match[str]]]:
        if not entry.text[:1].isspace():
            context.owner = self._name(tokens[0][0], entry.at(tokens[0].start()), context.origin)
            return context.owner, tokens[1:]
        if context.owner is None:
            self._error(entry.at(tokens[0].start()), "E401", "a record begins with its name: there is none above to go on from")
        return context.owner, tokens

    def _ttl_and_class(
        self, entry: Entry, tokens: list[re.Match[str]], context: _Context
    ) -> tuple[int, list[re.Match[str]]]:
        ttl = context.ttl
        for count, token in enumerate(tokens[:2]):
            word = token[0].upper()
            if word[0].isdigit():
                ttl = self._ttl(token[0], entry.at(token.start()), ttl)
            elif not _CLASS.fullmatch(word):
                return ttl, tokens[count:]
            elif word not in _INTERNET and count + 1 < len(tokens):
                self._error(entry.at(token.start()), "E413", f"class {word}: a zone is of class IN")
        return ttl, tokens[2:]

    def _ttl(self, text: str, where: Where, fallback: int) -> int:
        try:
            value = dns.ttl.from_text(text)
        except dns.exception.DNSException:
            value = -1
        if not 0 <= value < 2**31:
            self._error(where, "E208", f"'{text[:40]}' is not a TTL such as 300, 5m or 1h30m")
            return fallback
        return value

    def _name(self, text: str, where: Where, origin: dns.name.Name) -> dns.name.Name | None:
        try:
            return dns.name.from_text(text, origin)
        except (dns.exception.DNSException, UnicodeError) as error:
            self._error(where, "E401", f"'{text[:60]}' is not a domain name{_said(error)}")
            return None

    def _type(self, text: str, where: Where) -> dns.rdatatype.RdataType | None:
        try:
            rdtype = dns.rdatatype.from_text(text)
        except (dns.exception.DNSException, ValueError):
            near = _near(text.upper(), [each.name for each in dns.rdatatype.RdataType])
            self._error(where, "E410", f"unknown record type '{text[:40]}'{near} (an entry is: name [ttl] type data)")
            return None
        if rdtype in self.skip:
            self.skipped[rdtype.name] += 1
        elif rdtype in SIGNER:
            self._error(where, "E413", f"{text.upper()} records are the signer's, they can't be written here")
        elif rdtype == 0 or dns.rdatatype.is_metatype(rdtype):
            self._error(where, "E413", f"type {text.upper()} stands in messages only, never in a zone")
        else:
            return rdtype
        return None

    def _rdata(
        self, rdtype: dns.rdatatype.RdataType, entry: Entry, position: int, origin: dns.name.Name
    ) -> bytes | None:
        text = entry.text[position:]
        where = entry.at(position + len(text) - len(text.lstrip()) if text.strip() else position - 1)
        name = dns.rdatatype.to_text(rdtype)
        try:
            wire = dns.rdata.from_text(dns.rdataclass.IN, rdtype, text, origin, relativize=False).to_wire() or b""
        except (dns.exception.DNSException, ValueError, OverflowError) as error:
            self._error(where, "E401", f"'{text.strip()[:60]}' is not the data of type {name}{_said(error)}")
            return None
        if len(wire) > MAX_RDATA:
            self._error(where, "E415", f"this {name} has {len(wire)} octets of data, the most is {MAX_RDATA}")
            return None
        return wire

    def _in_zone(self, owner: dns.name.Name, entry: Entry) -> bool:
        inside = is_subdomain(owner.to_digestable(), self.apex)
        if not inside:
            apex = dns.name.from_wire(self.apex, 0)[0]
            start = len(entry.text) - len(entry.text.lstrip())
            self._error(entry.at(start), "E402", f"'{owner}' is not in zone '{apex.to_text(omit_final_dot=True)}'")
        return inside


def _said(error: Exception) -> str:
    """dnspython's sentence behind a colon, without its own file and line; nothing where it says nothing."""
    said = re.sub(r"^<string>:\d+: ", "", " ".join(str(error).split())).rstrip(".")
    return "" if said in ("", "Text input is malformed") else f": {said[:120]}"


def _near(word: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(word[:20], list(known), 1, 0.6)
    return f", did you mean '{near[0]}'?" if near else ""


def entries(lines: Sequence[Line], found: list[Problem]) -> Iterator[Entry]:
    """Cut text into entries: a line each, or several where parentheses hold them together.

    Comments go; a parenthesis becomes a space, so that places in the text stay places in its line.
    """
    text, starts, depth = "", [], 0
    opened = Where("", 0, 0)
    for line in lines:
        starts.append((len(text), line.where))
        cleaned, opens, closed_quote = _clean(line.text)
        if not closed_quote:
            found.append(problem(line.where, "E401", "a quote (\") is not closed in its line"))
            text, starts, depth = "", [], 0
            continue
        text += cleaned
        if depth == 0 and opens > 0:
            opened = line.where
        depth += opens
        if depth < 0:
            found.append(problem(line.where, "E401", "a parenthesis is closed that was not opened"))
            text, starts, depth = "", [], 0
        elif depth == 0:
            yield Entry(text, tuple(starts))
            text, starts = "", []
        else:
            text += " "
    if depth > 0:
        found.append(problem(opened, "E401", "a parenthesis '(' is not closed"))


def _clean(text: str) -> tuple[str, int, bool]:
    """The line without comment, parentheses as spaces; how many more open than close; whether its quotes do."""
    if not _SPECIAL.search(text):
        return text, 0, True
    out: list[str] = []
    depth, quoted, escaped = 0, False, False
    for character in text:
        if escaped or character == "\\":
            escaped = not escaped
        elif character == '"':
            quoted = not quoted
        elif not quoted and character == ";":
            break
        elif not quoted and character in "()":
            depth += 1 if character == "(" else -1
            character = " "
        out.append(character)
    return "".join(out), depth, not quoted


def rdata_text(rtype: int, rdata: bytes) -> str:
    """Rdata as a zone file has it (RFC 1035 section 5.1); its octets where that can't be told (RFC 3597 section 5)."""
    try:
        made = dns.rdata.from_wire(dns.rdataclass.IN, dns.rdatatype.RdataType.make(rtype), rdata, 0, len(rdata))
    except (dns.exception.DNSException, ValueError):
        return f"\\# {len(rdata)} {rdata.hex()}".rstrip()
    return made.to_text()
