"""Text tables of others, read line by line: pyasn's .dat and iptoasn's TSV. Any broken line refuses the whole file."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from ipaddress import AddressValueError, IPv6Address

from edgedns.errors import SourceError

Row = tuple[int, int, int, bytes]  # first address, last address, ASN, country ("" or two letters)

_OCTET = {str(octet): octet for octet in range(256)}
_COUNTRY = re.compile(r"[A-Z]{2}\Z")


class TextTable:
    """Rows of both families and the names that came with them."""

    def __init__(self) -> None:
        self.v4: list[Row] = []
        self.v6: list[Row] = []
        self.names: dict[int, str] = {}

    def add(self, family: int, row: Row) -> None:
        (self.v4 if family == 4 else self.v6).append(row)


def kind_of(text: str) -> Callable[[str], TextTable] | None:
    """The reader for this text, told by its first line that is no comment; None if it is neither form."""
    first = next((line for _, line in _lines(text)), "")
    columns = first.split("\t")
    if len(columns) >= 4:
        return read_tsv
    if len(first.split()) == 2 and "/" in first:
        return read_dat
    return None


def read_dat(text: str) -> TextTable:
    """pyasn's .dat: `prefix/length<TAB>asn` lines, `;` starts a comment. No countries, no names."""
    table = TextTable()
    for number, line in _lines(text):
        try:
            prefix, asn = line.split()
            address, length = prefix.split("/")
            family, first = _address(address)
            table.add(family, (*_span(family, first, _decimal(length)), _below_2_32(asn), b""))
        except ValueError as error:
            raise _broken(number, line, "prefix/length and an ASN", error) from None
    return table


def read_tsv(text: str) -> TextTable:
    """iptoasn's TSV: first address, last address (dotted or decimal), ASN, country, name. ASN 0 is unrouted space."""
    table = TextTable()
    for number, line in _lines(text):
        try:
            start, end, asn_text, country, *rest = line.split("\t")
            (family, first), (end_family, last) = _address(start), _address(end)
            asn = _below_2_32(asn_text)
            if family != end_family or first > last:
                raise ValueError("the range's end is not after its start")
        except ValueError as error:
            raise _broken(number, line, "first address, last address, ASN, country, name, tabs between", error) from None
        table.add(family, (first, last, asn, country_code(country)))
        if asn and rest and rest[0]:
            table.names[asn] = rest[0]
    return table


def country_code(text: object) -> bytes:
    """ISO 3166 letters as they are; anything else (None, Unknown, ZZ) is no country."""
    return text.encode() if isinstance(text, str) and _COUNTRY.match(text) and text != "ZZ" else b""


def _lines(text: str) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(text.split("\n"), 1):
        bare = line.rstrip("\r")
        if bare.strip() and not bare.startswith((";", "#")):
            yield number, bare


def _address(text: str) -> tuple[int, int]:
    try:
        if ":" in text:
            return 6, int(IPv6Address(text))
        if "." in text:
            a, b, c, d = text.split(".")  # a million of these come in one file
            return 4, _OCTET[a] << 24 | _OCTET[b] << 16 | _OCTET[c] << 8 | _OCTET[d]
    except (AddressValueError, KeyError, ValueError):
        raise ValueError(f"{text!r} is no address") from None
    return 4, _below_2_32(text)


def _span(family: int, first: int, length: int) -> tuple[int, int]:
    width = 32 if family == 4 else 128
    if length > width:
        raise ValueError(f"/{length} is too long a prefix")
    host = (1 << (width - length)) - 1
    return first & ~host, first | host


def _decimal(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 10):
        raise ValueError(f"{text!r} is no number")
    return int(text)


def _below_2_32(text: str) -> int:
    number = _decimal(text)
    if number >= 1 << 32:
        raise ValueError(f"{text} is 2**32 or more")
    return number


def _broken(number: int, line: str, wanted: str, error: ValueError) -> SourceError:
    shown = line if len(line) <= 80 else line[:77] + "..."
    return SourceError(f"line {number} is not {wanted} ({error}): {shown!r}; the file may be cut off, get it again")
