"""The example zone in rules/ has every type and corner that the other tests are about: a list of them, looked up."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import dns.name
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import pytest

from edgedns.dns import types
from edgedns.dns.name import ancestors, from_text, is_subdomain, labels
from edgedns.dns.zonetext import StaticRR
from edgedns.engine.load import load_rules
from edgedns.model import Rule

APEX = from_text("cdn.example.net")
LOADED = load_rules(Path(__file__).parents[2] / "rules")
STATIC = LOADED.statics["cdn.example.net"]
RECORDS = {record.name: record for record in LOADED.rules.zones["cdn.example.net"].records}
NAMES = {rr.owner for rr in STATIC} | set(RECORDS)
TYPES = "A AAAA CAA CNAME DNAME DS HINFO HTTPS LOC MX NAPTR NS OPENPGPKEY PTR RP SMIMEA SOA SRV SSHFP SVCB TLSA TXT URI"


def of(rtype: int) -> list[StaticRR]:
    return [rr for rr in STATIC if rr.type == rtype]


def size(rtype: int, least: int) -> bool:
    """Whether a set of the type has at least so many octets of data."""
    total: dict[bytes, int] = {}
    for rr in of(rtype):
        total[rr.owner] = total.get(rr.owner, 0) + 12 + len(rr.rdata)
    return max(total.values()) >= least


def ends(alias: bytes) -> bytes:
    """Where a chain of aliases leads; the alias itself for a circle."""
    targets = {rr.owner: rr.rdata.lower() for rr in of(types.CNAME)}
    name = targets[alias]
    for _ in targets:
        if name not in targets or name == alias:
            break
        name = targets[name]
    return name


def aliases(true: Callable[[bytes], bool]) -> bool:
    return any(true(ends(rr.owner)) for rr in of(types.CNAME))


def glue(inside: bool) -> Iterable[bytes]:
    """Hosts named by a delegation that have addresses here, below that delegation or not."""
    for rr in of(types.NS):
        if rr.owner != APEX and rr.rdata.lower() in NAMES and is_subdomain(rr.rdata.lower(), rr.owner) == inside:
            yield rr.rdata


def rules() -> Iterable[Rule]:
    return (rule for record in RECORDS.values() for rule in record.rules)



CORNERS: Mapping[str, Callable[[], object]] = {
    "an empty non-terminal": lambda: {name for owner in NAMES for name in ancestors(owner, APEX)} - NAMES,
    "a wildcard": lambda: [rr for rr in of(types.TXT) if rr.owner.startswith(b"\1*")],
    "a wildcard alias": lambda: [rr for rr in of(types.CNAME) if rr.owner.startswith(b"\1*")],
    "a steered wildcard": lambda: [name for name in RECORDS if name.startswith(b"\1*")],
    "a steered apex": lambda: APEX in RECORDS,
    "a name beside a wildcard": lambda: [n for n in NAMES if b"\1*" + n[1 + n[0] :] in NAMES and not n.startswith(b"\1*")],
    "an alias of a plain name": lambda: aliases(lambda end: end in NAMES and end not in RECORDS),
    "an alias of a steered name": lambda: aliases(lambda end: end in RECORDS),
    "an alias out of the zone": lambda: aliases(lambda end: not is_subdomain(end, APEX)),
    "an alias of nothing": lambda: aliases(lambda end: end == from_text("nowhere.cdn.example.net")),
    "a chain of aliases": lambda: [rr for rr in of(types.CNAME) if ends(rr.owner) not in (rr.rdata.lower(), rr.owner)],
    "a circle of aliases": lambda: [rr for rr in of(types.CNAME) if ends(rr.owner) == rr.owner],
    "a DNAME that makes names too long": lambda: [rr for rr in of(types.DNAME) if len(rr.rdata) > 200],
    "glue": lambda: list(glue(inside=True)),
    "sibling glue": lambda: list(glue(inside=False)),
    "servers elsewhere": lambda: [rr for rr in of(types.NS) if not is_subdomain(rr.rdata, APEX)],
    "glue beyond 512 octets": lambda: any(sum(o.owner.endswith(rr.owner) for o in of(types.AAAA)) > 7 for rr in of(types.NS)),
    "a signed delegation": lambda: {rr.owner for rr in of(types.DS)} & {rr.owner for rr in of(types.NS)},
    "a set beyond 1,232 octets": lambda: size(types.TXT, 1232),
    "many addresses": lambda: size(types.A, 3 * 16),
    "TTL 0": lambda: [rr for rr in STATIC if rr.ttl == 0],
    "any octet in a label": lambda: [n for n in NAMES if any(set(label) & {0, 0x2E, 0xC3} for label in labels(n))],
    "a name of 255 octets": lambda: [name for name in NAMES if len(name) == 255],
    "a label of 63 octets": lambda: [name for name in NAMES if any(len(label) == 63 for label in labels(name))],
    "a service elsewhere in AliasMode": lambda: [rr for rr in of(types.HTTPS) if rr.rdata[:2] == b"\0\0" and rr.rdata[2]],
    "a service that does not exist": lambda: [rr for rr in of(types.HTTPS) if rr.rdata[:3] == b"\0\0\0"],
    "a service at its owner's name": lambda: [rr for rr in of(types.HTTPS) if rr.rdata[:3] == b"\0\1\0"],
    "SRV that says no": lambda: [rr for rr in of(types.SRV) if rr.rdata.endswith(b"\0") and len(rr.rdata) == 7],
    "a type without a name": lambda: [rr for rr in STATIC if rr.type >= 65280],
    "a wildcard's target": lambda: [rr for rr in of(types.HTTPS) if from_text("any.wild.cdn.example.net") in rr.rdata],
    "a /24 that holds a differing /25": lambda: 25 in {p.length for n in LOADED.rules.networks.values() for p in n.prefixes},
    "a provider without IPv6": lambda: [p for p in LOADED.rules.providers.values() if not p.v6],
    "a provider with two addresses": lambda: [p for p in LOADED.rules.providers.values() if len(p.v4) > 1],
    "every kind of rule": lambda: len({type(rule.action) for rule in rules()}) == 4,
    "a rule that ends": lambda: [rule for rule in rules() if rule.until is not None],
}


@pytest.mark.parametrize("rtype", TYPES.split())
def test_every_type(rtype: str) -> None:
    number = dns.rdatatype.from_text(rtype)
    (first, *_) = of(number)
    dns.rdata.from_wire(dns.rdataclass.IN, number, first.rdata, 0, len(first.rdata))


@pytest.mark.parametrize("corner", CORNERS)
def test_every_corner(corner: str) -> None:
    assert CORNERS[corner]()
