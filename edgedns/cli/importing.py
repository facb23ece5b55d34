"""`edgedns import`: a zone file, or a zone as another server transfers it, as a rules file of plain records."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from ipaddress import ip_address
from pathlib import Path

import click
import dns.exception
import dns.name
import dns.query
import dns.rdatatype
import dns.zone

from edgedns.config import Address, SettingsError, parse_address
from edgedns.dns import name as names
from edgedns.dns import types, zonecheck
from edgedns.dns.zonetext import SIGNER, Line, Reader, StaticRR, rdata_text
from edgedns.errors import EdgednsError, Problem, problem
from edgedns.model import Where
from edgedns.steer.rules.yamltree import MAX_BYTES

SIZE_LIMIT = 64 << 20
PATIENCE = 30.0
DEFAULT_TTL = 3600
SIGNED = SIGNER | {dns.rdatatype.DNSKEY, dns.rdatatype.CDNSKEY, dns.rdatatype.CDS}


class ImportProblem(EdgednsError):
    """The zone can't be read, and why."""


@click.command("import")
@click.argument("zone")
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option("--from", "server", metavar="ADDR[:PORT]", help="Ask this server for a transfer (AXFR) instead of reading FILE.")
def import_(zone: str, file: Path | None, server: str | None) -> None:
    """Print ZONE as a rules file of plain records: from the zone file FILE (RFC 1035), or from another server."""
    if (file is None) == (server is None):
        raise click.UsageError("give a zone FILE, or --from ADDR to transfer the zone from")
    try:
        apex = names.fold(names.from_text(zone))
        lines = _file(file) if file else _transfer(zone, _server(server or ""))
        reader = Reader(apex, DEFAULT_TTL, _Folder(file.parent if file else Path()).lines, skip=SIGNED)
        reader.read(lines)
        records, changed = zonecheck.tidy(reader.records)
        _tell([*reader.found, *changed, *zonecheck.check(apex, records, ())], reader.skipped)
        click.echo(_bounded("\n".join(_rules(apex, records, str(file or server)))))
    except (EdgednsError, ValueError) as error:
        raise click.ClickException(str(error)) from None


def _tell(problems: Sequence[Problem], skipped: Counter[str]) -> None:
    """Say everything that is wrong; ImportProblem where something can't be imported."""
    for each in sorted(problems):
        click.echo(str(each), err=True)
    if skipped:
        left = ", ".join(f"{count} {kind}" for kind, count in sorted(skipped.items()))
        click.echo(f"left out, since they are a signer's and edgedns signs nothing: {left}", err=True)
    errors = sum(each.is_error for each in problems)
    if errors:
        raise ImportProblem(f"{errors} {'error' if errors == 1 else 'errors'}: nothing was imported")


class _Folder:
    """The files that a zone file includes, from its own folder."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def lines(self, name: str, where: Where, found: list[Problem]) -> list[Line] | None:
        try:
            return _file(self._directory / name)
        except ImportProblem as error:
            found.append(problem(where, "E404", str(error)))
            return None


def _file(path: Path) -> list[Line]:
    try:
        with path.open("rb") as opened:
            content = opened.read(SIZE_LIMIT + 1)
        if len(content) > SIZE_LIMIT:
            raise ImportProblem(f"{path} is larger than {SIZE_LIMIT >> 20} MiB")
        text = content.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ImportProblem(f"can't read {path}: {error}") from None
    return [Line(Where(str(path), number, 1), line.rstrip("\r")) for number, line in enumerate(text.split("\n"), 1)]


def _server(text: str) -> Address:
    try:
        bare = ip_address(text.strip("[]"))
    except ValueError:
        try:
            return parse_address(text)
        except SettingsError as error:
            raise click.BadParameter(str(error), param_hint="--from") from None
    return Address(str(bare), 53)


def _transfer(zone: str, server: Address) -> list[Line]:
    """The zone by AXFR (RFC 5936), as text."""
    made = dns.zone.Zone(dns.name.from_text(zone), relativize=False)
    try:
        dns.query.inbound_xfr(server.host, made, port=server.port, timeout=PATIENCE, lifetime=4 * PATIENCE)
    except (dns.exception.DNSException, OSError, EOFError) as error:
        raise ImportProblem(f"{server} doesn't transfer {zone}: {str(error) or type(error).__name__}") from None
    text = made.to_text(relativize=False)
    return [Line(Where(str(server), number, 1), line) for number, line in enumerate(text.split("\n"), 1)]


def _rules(apex: bytes, records: Sequence[StaticRR], source: str) -> Iterator[str]:
    """A rules file, line by line: the SOA first, then each name's records in the order they were met."""
    usual = Counter(rr.ttl for rr in records).most_common(1)
    ttl = usual[0][0] if usual else DEFAULT_TTL
    yield f"# {len(records)} records from {source}."
    yield "# Raise the SOA's serial with each change, or write `soa:` without a serial in its place."
    yield "# yaml-language-server: $schema=../schema/edgedns.v1.json"
    yield "version: 1"
    yield f"zone: {json.dumps(names.to_text(apex).rstrip('.'))}"
    yield f"defaults: {{ttl: {ttl}s}}"
    yield "static:"
    order: dict[bytes, list[StaticRR]] = {apex: []}
    for rr in sorted(records, key=lambda rr: rr.type != types.SOA):
        order.setdefault(rr.owner, []).append(rr)
    for rr in (each for of_owner in order.values() for each in of_owner):
        age = "" if rr.ttl == ttl else f" {rr.ttl}"
        entry = f"{_relative(rr.owner, apex)}{age} {types.type_name(rr.type)} {rdata_text(rr.type, rr.rdata)}"
        yield f"  - {json.dumps(entry)}"


def _bounded(text: str) -> str:
    if len(text) >= MAX_BYTES:
        raise ImportProblem("the zone is larger than a rules file may be: keep it, and name it by `static: {file: NAME}`")
    return text


def _relative(owner: bytes, apex: bytes) -> str:
    if owner == apex:
        return "@"
    text, end = names.to_text(owner), "." + names.to_text(apex)
    return text.removesuffix(end) if len(apex) > 1 else text
