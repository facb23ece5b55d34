"""The zone of a rules directory as a plain zone file, for servers that don't steer: `python static_zone.py [DIR]`.

Each steered name has the addresses of one provider, the first that its last rule names.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import dns.name
import dns.rdata
import dns.rdataclass
import dns.rdatatype

from edgedns.dns import types
from edgedns.engine.load import load_rules
from edgedns.model import Failover, Pin, Record, Rule, RuleSet, Wan

RULES = Path(__file__).parents[2] / "rules"


def first_provider(rule: Rule) -> str:
    action = rule.action
    if isinstance(action, Pin):
        return action.provider
    if isinstance(action, Failover):
        return action.order[0]
    return action.nominal[0] if isinstance(action, Wan) else action.shares[0][0]


def lines(rules: Path = RULES) -> Iterator[str]:
    loaded = load_rules(rules)
    for zone, statics in loaded.statics.items():
        for rr in statics:
            yield line(rr.owner, rr.ttl, rr.type, rr.rdata)
        for record in loaded.rules.zones[zone].records:
            yield from steered(loaded.rules, record)


def steered(rules: RuleSet, record: Record) -> Iterator[str]:
    provider = rules.providers[first_provider(record.rules[-1])]
    for rtype, addresses in ((types.A, provider.v4), (types.AAAA, provider.v6)):
        for address in addresses:
            yield line(record.name, record.ttl, rtype, address)


def line(owner: bytes, ttl: int, rtype: int, rdata: bytes) -> str:
    name, _ = dns.name.from_wire(owner, 0)
    kind = dns.rdatatype.RdataType.make(rtype)
    given = dns.rdata.from_wire(dns.rdataclass.IN, kind, rdata, 0, len(rdata))
    return f"{name} {ttl} IN {dns.rdatatype.to_text(kind)} {given.to_text()}"


if __name__ == "__main__":
    print("\n".join(lines(*map(Path, sys.argv[1:]))))
