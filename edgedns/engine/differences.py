"""What differs between two readings of rules, as people wrote them: providers, networks, zones, names, rules, plain records."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from datetime import UTC, datetime
from ipaddress import ip_address
from typing import Any, Literal, NamedTuple

from edgedns.dns import name as names
from edgedns.dns import types
from edgedns.dns.zonetext import StaticRR, rdata_text
from edgedns.engine.explain import prefix_text
from edgedns.engine.load import Loaded
from edgedns.model import Prefix, Record, RuleSet

Kind = Literal["added", "removed", "changed"]
LONGEST = 120
A_TIME = 1e9  # Unix seconds; durations and shares are less
# Places in files, and what is compared by itself.
NOT_COMPARED = frozenset({"where", "ns_where", "records", "static", "tests", "rules"})


class Change(NamedTuple):
    """One thing that differs; `fields` say how in a changed one. `zone` is empty for what all zones share."""

    zone: str
    kind: Kind
    what: str
    fields: tuple[str, ...] = ()

    def told(self) -> dict[str, Any]:
        """As JSON."""
        return {"zone": self.zone, "change": self.kind, "what": self.what, "fields": list(self.fields)}


def differences(old: Loaded, new: Loaded) -> list[Change]:
    """All of it, shared things first. Tests and places in files don't count."""
    changes = [
        *_parts("", "provider", old.rules.providers, new.rules.providers),
        *_parts("", "network", old.rules.networks, new.rules.networks),
        *_settings(old.rules, new.rules),
    ]
    for zone in sorted({*old.rules.zones, *new.rules.zones}):
        changes += _of_zone(zone, old, new)
    return changes


def _settings(old: RuleSet, new: RuleSet) -> Iterator[Change]:
    own = _differing(old, new, NOT_COMPARED | {"providers", "networks", "zones"})
    if own:
        yield Change("", "changed", "settings", own)


def _of_zone(zone: str, old: Loaded, new: Loaded) -> Iterator[Change]:
    was, will = old.rules.zones.get(zone), new.rules.zones.get(zone)
    if was is None or will is None:
        yield Change(zone, "added" if was is None else "removed", "the zone")
    else:
        own = _differing(was, will, NOT_COMPARED)
        if own:
            yield Change(zone, "changed", "the zone", own)
    yield from _of_records(zone, _by_label(was.records if was else ()), _by_label(will.records if will else ()))
    yield from _plain(zone, old.statics.get(zone, ()), new.statics.get(zone, ()))


def _by_label(records: Iterable[Record]) -> dict[str, Record]:
    return {record.label: record for record in records}


def _of_records(zone: str, old: Mapping[str, Record], new: Mapping[str, Record]) -> Iterator[Change]:
    yield from _parts(zone, "name", old, new)
    for label in (label for label in old if label in new):
        was, will = ({rule.name: rule for rule in each[label].rules} for each in (old, new))
        yield from _parts(zone, f"{label}: rule", was, will)
        if [name for name in was if name in will] != [name for name in will if name in was]:
            yield Change(zone, "changed", f"{label}: the order of its rules")


def _parts(zone: str, what: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Change]:
    """Named things that came, went, or differ in something but their place."""
    for name in dict.fromkeys([*old, *new]):
        if name not in new or name not in old:
            yield Change(zone, "removed" if name in old else "added", f"{what} {name}")
        elif own := _differing(old[name], new[name], NOT_COMPARED):
            yield Change(zone, "changed", f"{what} {name}", own)


def _differing(old: Any, new: Any, without: frozenset[str]) -> tuple[str, ...]:
    """The fields in which two of the same dataclass differ."""
    pairs = [(one.name, getattr(old, one.name), getattr(new, one.name)) for one in fields(old) if one.name not in without]
    said = ((name, _plainly(was), _plainly(will)) for name, was, will in pairs if was != will)
    return tuple(f"{name}: {_short(was)} -> {_short(will)}" for name, was, will in said if was != will)


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."


def _plainly(value: Any) -> str:
    """A value of the rules in a few words."""
    if isinstance(value, bytes):
        return str(ip_address(value)) if len(value) in (4, 16) else names.to_text(value)
    if hasattr(value, "__dataclass_fields__"):
        parts = [(one.name, getattr(value, one.name)) for one in fields(value) if one.name not in NOT_COMPARED]
        said = ", ".join(f"{name} {_plainly(each)}" for name, each in parts if each not in (None, "", (), frozenset()))
        return f"{type(value).__name__.lower()} ({said})"
    if isinstance(value, Prefix):
        return prefix_text(value)
    if isinstance(value, tuple) and len(value) == 2 and isinstance(value[1], float):
        return f"{value[0]} {value[1]:g}"  # a share
    if isinstance(value, (tuple, frozenset)):
        return ", ".join(map(_plainly, value if isinstance(value, tuple) else sorted(value))) or "none"
    if isinstance(value, float):
        return f"{value:g}" if value < A_TIME else datetime.fromtimestamp(value, UTC).isoformat()
    return "none" if value is None else str(value)


def _plain(zone: str, old: Sequence[StaticRR], new: Sequence[StaticRR]) -> Iterator[Change]:
    """Plain records that came or went; the SOA's serial is not looked at, it follows the others."""
    was, will = ({_record(rr): None for rr in each} for each in (old, new))
    yield from (Change(zone, "removed", text) for text in was if text not in will)
    yield from (Change(zone, "added", text) for text in will if text not in was)


def _record(rr: StaticRR) -> str:
    rdata = rr.rdata[:-20] + bytes(4) + rr.rdata[-16:] if rr.type == types.SOA else rr.rdata
    return f"{names.to_text(rr.owner)} {rr.ttl} {types.type_name(rr.type)} {rdata_text(rr.type, rdata)}"
