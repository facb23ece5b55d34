"""One zone file's fields -> ZoneRules, against what the directory declares."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from edgedns.errors import Problem, problem
from edgedns.model import (
    Action,
    AllDown,
    Failover,
    InlineTest,
    Match,
    NamedNetwork,
    Pin,
    Prefix,
    Provider,
    Record,
    Rule,
    Soa,
    StaticText,
    Wan,
    Weighted,
    Where,
    ZoneRules,
)
from edgedns.steer.rules.kinds import Fields, Spot
from edgedns.steer.rules.names import below, host, in_zone, relative, wire
from edgedns.steer.rules.words import Wrong, did_you_mean, domain
from edgedns.steer.rules.yamltree import Scalar

ACTIONS = ("pin", "weighted", "failover", "wan")
RCODE_WORDS = ("NODATA", "NXDOMAIN")


@dataclass(frozen=True)
class Scope:
    """What one file may refer to, and where its mistakes are gathered."""

    file: str
    shared: str
    providers: Mapping[str, Provider]
    networks: Mapping[str, NamedNetwork]
    found: list[Problem]
    continent: Callable[[str], str]

    def report(self, where: Where, code: str, message: str) -> None:
        self.found.append(problem(where, code, message))

    def sees(self, where: Where) -> bool:
        return where.file in (self.file, self.shared, "")

    def provider(self, spot: Spot[str]) -> str:
        self._refer(spot, "provider", self.providers)
        return spot.value

    def network(self, spot: Spot[str]) -> str:
        self._refer(spot, "network", self.networks)
        return spot.value

    def _refer(self, spot: Spot[str], what: str, known: Mapping[str, Provider] | Mapping[str, NamedNetwork]) -> None:
        declared = known.get(spot.value)
        if declared is None:
            names = [name for name, each in known.items() if self.sees(each.where)]
            self.report(spot.where, "E301", f"unknown {what} '{spot.value}'{did_you_mean(spot.value, names)}")
        elif not self.sees(declared.where):
            place = f"{declared.where.file}:{declared.where.line}"
            self.report(
                spot.where, "E304", f"{what} '{spot.value}' belongs to {place}: declare it in providers.yaml to share it"
            )

    def every_provider(self) -> tuple[str, ...]:
        return tuple(name for name, each in self.providers.items() if self.sees(each.where))

    def all_down(self, fields: Fields, fallback: AllDown) -> AllDown:
        value = fields.get("all_down")
        if isinstance(value, Fields):
            return AllDown("use", self.provider(value.spots["use"])) if "use" in value.spots else fallback
        return AllDown(value) if value else fallback


def read_zone(fields: Fields, stem: str, scope: Scope, defaults: tuple[int, AllDown]) -> ZoneRules:
    """The zone that a file describes; what is wrong goes to the scope's problems."""
    name = _zone_name(fields, stem, scope)
    records = _records(fields, name, scope, defaults)
    soa = _soa(fields.get("soa"), name, scope)
    return ZoneRules(
        name=name,
        apex=wire(name),
        soa=soa,
        ns=tuple(host(spot.value, name) for spot in fields.get("ns", ())),
        ttl=defaults[0],
        records=tuple(records.values()),
        static=tuple(_static(spot) for spot in fields.get("static", ())),
        transfer_allow=_allowed(fields.get("transfer")),
        explain_allow=_allowed(fields.get("explain")),
        tests=tuple(_test(spot.value, name, scope) for spot in fields.get("tests", ())),
        where=fields.at("zone"),
        ns_where=tuple(spot.where for spot in fields.get("ns", ())),
    )


def _zone_name(fields: Fields, stem: str, scope: Scope) -> str:
    """The zone's name; where it can't be read the file's stem stands in, so that the rest can be checked."""
    name: str = fields.get("zone", "").removesuffix(".")
    if name == "@" or name.startswith("*"):
        scope.report(fields.at("zone"), "E201", f"'{name}' can't be a zone's name: write it in full")
    elif name and _wire(name, fields.at("zone"), scope):
        return name
    try:
        return domain(stem.lower()).strip("@*.") or "invalid"
    except Wrong:
        return "invalid"


def _wire(name: str, where: Where, scope: Scope) -> bytes | None:
    try:
        return wire(name)
    except Wrong as wrong:
        scope.report(where, wrong.code, str(wrong))
        return None


def _soa(fields: Fields | None, zone: str, scope: Scope) -> Soa | None:
    if fields is None:
        return None
    numbers = {
        key: fields.get(key) for key in ("serial", "refresh", "retry", "expire", "minimum", "ttl") if key in fields.spots
    }
    return Soa(host(fields.get("mname", "@"), zone), host(fields.get("rname", "@"), zone), **numbers, where=fields.where)


def _allowed(fields: Fields | None) -> tuple[Prefix, ...]:
    return tuple(spot.value for spot in fields.get("allow", ())) if fields else ()


def _static(spot: Spot[Scalar | Fields]) -> StaticText:
    if isinstance(spot.value, Scalar):
        # A block's text begins in the line below its `|`.
        where = Where(spot.where.file, spot.where.line + 1, 1) if spot.value.block else spot.where
        return StaticText(text=spot.value.text, where=where)
    return StaticText(file=spot.value.get("file", ""), where=spot.value.at("file"))


# records


def _records(fields: Fields, zone: str, scope: Scope, defaults: tuple[int, AllDown]) -> dict[str, Record]:
    """Steered records by full name, `like:` resolved."""
    pairs: dict[str, tuple[Spot[str], Fields]] = {}
    for key, value in fields.get("records", ()):
        name = _record_name(key, zone, scope)
        if name is not None and name in pairs:
            first = pairs[name][0].where.line
            scope.report(key.where, "E104", f"key '{key.value}' is given twice, first in line {first}")
        elif name is not None:
            pairs[name] = (key, value.value if value else Fields(key.where, {}, {"rules": key.where}))
    own = {name: _record(name, pair, zone, scope, defaults) for name, pair in pairs.items()}
    return {name: _like(name, pairs, own, zone, scope) for name in own}


def _record_name(key: Spot[str], zone: str, scope: Scope) -> str | None:
    name = in_zone(key.value, zone)
    if not below(name, zone):
        scope.report(key.where, "E308", f"'{key.value}' is not in zone '{zone}'")
        return None
    return name if _wire(name, key.where, scope) else None


def _record(
    name: str, pair: tuple[Spot[str], Fields], zone: str, scope: Scope, defaults: tuple[int, AllDown]
) -> Record:
    key, fields = pair
    if len({"rules", "like"} & fields.given.keys()) != 1:
        both = {"rules", "like"} <= fields.given.keys()
        said = "has both 'rules' and 'like': keep one" if both else "has neither 'rules' nor 'like'"
        scope.report(key.where, "E309", f"record '{key.value}' {said}")
    rules = tuple(rule for rule in (_rule(spot.value, scope) for spot in fields.get("rules", ())) if rule)
    _check_rules(fields, rules, scope)
    ttl, all_down = fields.get("ttl", defaults[0]), scope.all_down(fields, defaults[1])
    return Record(wire(name), relative(name, zone), rules, ttl, all_down, key.where)


def _check_rules(fields: Fields, rules: tuple[Rule, ...], scope: Scope) -> None:
    """The last rule is for everybody, for ever; names are unique within a record."""
    rows: list[Spot[Fields]] = fields.get("rules", [])
    if not rows and "rules" in fields.spots:
        scope.report(fields.at("rules"), "E106", "expected a list of rules, found an empty list")
    if rows and "match" in rows[-1].value.given:
        last = rows[-1].value
        scope.report(last.given["match"], "E307", "the last rule of a record is for everybody else: it has no 'match'")
    if rows and "until" in rows[-1].value.given:
        last = rows[-1].value
        scope.report(last.given["until"], "E307", "the last rule of a record is for everybody else: it can't end")
    seen: set[str] = set()
    for row in rows:
        name = row.value.get("name")
        if name in seen:
            scope.report(row.value.at("name"), "E310", f"rule '{name}' is there already: names are unique in a record")
        if name:
            seen.add(name)


def _like(
    name: str,
    pairs: Mapping[str, tuple[Spot[str], Fields]],
    own: Mapping[str, Record],
    zone: str,
    scope: Scope,
) -> Record:
    """The record, with what it doesn't say itself taken from the one it is like, and so on."""
    record, given = own[name], dict(pairs[name][1].given)
    chain = [name]
    while "like" in pairs[chain[-1]][1].spots:
        spot = pairs[chain[-1]][1].spots["like"]
        target = in_zone(spot.value, zone)
        if target not in own or target in chain:
            _report_like(spot, target, chain, own, zone, scope)
            break
        other = own[target]
        record = replace(
            record,
            rules=record.rules or other.rules,
            ttl=record.ttl if "ttl" in given else other.ttl,
            all_down=record.all_down if "all_down" in given else other.all_down,
        )
        given.update(pairs[target][1].given)
        chain.append(target)
    return record


def _report_like(
    spot: Spot[str], target: str, chain: list[str], own: Mapping[str, Record], zone: str, scope: Scope
) -> None:
    """Once for each mistake: an unknown record by the one that names it, a circle by its first record in the file."""
    if target not in own and len(chain) == 1:
        known = [record.label for record in own.values()]
        scope.report(spot.where, "E301", f"unknown record '{spot.value}'{did_you_mean(spot.value, known)}")
    elif target == chain[0] == min(chain, key=list(own).index):
        circle = " -> ".join(relative(name, zone) for name in [*chain, target])
        scope.report(spot.where, "E311", f"records are like each other in a circle: {circle}")


def _rule(fields: Fields, scope: Scope) -> Rule | None:
    name = fields.get("name", "")
    actions = [key for key in ACTIONS if key in fields.given]
    if len(actions) != 1:
        got = " and ".join(actions) or "none"
        scope.report(fields.at("name"), "E306", f"a rule has exactly one of wan, weighted, failover and pin, this one {got}")
    match = _match(fields.get("match"), scope)
    action = _action(actions[0], fields, scope) if actions else None
    if action is None:
        return None
    return Rule(name, match, action, fields.get("owner", ""), fields.get("why", ""), fields.get("until"), fields.at("name"))


def _match(fields: Fields | None, scope: Scope) -> Match | None:
    if fields is None:
        return None
    if not fields.given:
        scope.report(fields.where, "E313", "an empty match: leave it out to mean everybody")
    for spot in fields.get("country", ()):
        if not scope.continent(spot.value):
            scope.report(spot.where, "W606", f"'{spot.value}' is not a country's code in ISO 3166: no client is there")
    values: dict[str, list[Any]] = {key: [spot.value for spot in fields.get(key, ())] for key in fields.spots}
    return Match(
        asns=frozenset(values.get("asn", ())),
        prefixes=tuple(values.get("prefix", ())),
        countries=frozenset(values.get("country", ())),
        continents=frozenset(values.get("continent", ())),
        networks=tuple(scope.network(spot) for spot in fields.get("network", ())),
    )


def _action(kind: str, fields: Fields, scope: Scope) -> Action | None:
    spot = fields.spots.get(kind)
    if spot is None:
        return None
    if kind == "pin":
        return Pin(scope.provider(spot))
    if kind == "failover":
        return Failover(tuple(scope.provider(each) for each in spot.value))
    if kind == "weighted":
        return _weighted(spot, scope)
    return _wan(spot.value, scope)


def _weighted(spot: Spot[list[tuple[Spot[str], Spot[float] | None]]], scope: Scope) -> Weighted:
    shares = tuple((scope.provider(name), weight.value if weight else 1.0) for name, weight in spot.value)
    if not any(weight for _, weight in shares):
        scope.report(spot.where, "E312", "the weights add up to 0: at least one must be more")
    return Weighted(tuple((name, weight) for name, weight in shares if weight))


def _wan(fields: Fields, scope: Scope) -> Wan:
    among = _among(fields, scope)
    nominal = []
    for spot in fields.get("nominal", ()):
        nominal.append(scope.provider(spot))
        if among and spot.value in scope.providers and spot.value not in among:
            scope.report(spot.where, "E314", f"'{spot.value}' is not one of the providers under 'among'")
    margin: Fields = fields.get("margin") or Fields(fields.where, {}, {})
    nominal += [name for name in among if name not in nominal]
    return Wan(
        among=among,
        nominal=tuple(nominal),
        margin_ms=margin.get("ms", 0.0),
        margin_percent=margin.get("percent", 5.0),
        min_samples=fields.get("min_samples", 5.0),
        holdout=fields.get("holdout", 0.0),
    )


def _among(fields: Fields, scope: Scope) -> tuple[str, ...]:
    spots: list[Spot[str]] = fields.get("among", [])
    if not spots or [spot.value for spot in spots] == ["all"]:
        return scope.every_provider()
    return tuple(scope.provider(spot) for spot in spots)


# tests


def _test(fields: Fields, zone: str, scope: Scope) -> InlineTest:
    name = in_zone(fields.get("name", "@"), zone)
    qtype, expect = fields.get("type", "A"), fields.get("expect", [])
    client: bytes | None = fields.get("from")
    if {"from", "asn"} <= fields.given.keys() or not {"from", "asn", "subnet"} & fields.given.keys():
        scope.report(fields.where, "E315", "a test says who asks: from or asn (not both), subnet, or from and subnet")
    for spot in expect:
        if spot.value not in RCODE_WORDS:
            scope.provider(spot)
            if qtype not in ("A", "AAAA"):
                scope.report(fields.at("type"), "E315", f"a provider can be expected of A and AAAA only, not of {qtype}")
    return InlineTest(
        name=_wire(name, fields.at("name"), scope) or b"\0",
        type=qtype,
        client=Prefix(4 if len(client) == 4 else 6, client, 8 * len(client)) if client else None,
        subnet=fields.get("subnet"),
        asn=fields.get("asn"),
        at=fields.get("at"),
        expect=tuple(spot.value for spot in expect),
        where=fields.where,
    )
