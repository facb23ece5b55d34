"""Rules files -> RuleSet, or every mistake at once with its place.

Pure: files come as bytes, the moment and the countries as arguments; engine/load.py reads the directory. Reading has
three steps: each file's tree by the shapes of shape.py, the declarations that all files share, then each zone
against them (zone.py); review.py looks for what is pointless.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from collections.abc import Sequence as Seq
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from edgedns.errors import Problem, problem
from edgedns.model import AllDown, Check, NamedNetwork, Provider, RuleSet, ZoneRules
from edgedns.steer.rules import yamltree
from edgedns.steer.rules.kinds import Fields, Spot
from edgedns.steer.rules.review import review
from edgedns.steer.rules.shape import PROVIDERS, ZONE
from edgedns.steer.rules.zone import Scope, read_zone

# Resolvers that answer for the whole Internet: Google, Cloudflare, Quad9, OpenDNS, AdGuard, NextDNS, UltraDNS.
PUBLIC_RESOLVERS = "public-resolvers"
PUBLIC_RESOLVER_ASNS = frozenset({15169, 13335, 19281, 36692, 212772, 34939, 12008})

DEFAULT_TTL = 30

D = TypeVar("D", Provider, NamedNetwork)


@dataclass(frozen=True, slots=True)
class RulesFile:
    """A file of the rules directory: `path` as people see it, `shared` for providers.yaml."""

    path: str
    stem: str
    shared: bool
    content: bytes


@dataclass(frozen=True)
class Reading:
    """What the files say, wrong zones included: whoever uses it leaves out those that have errors.

    `zone_of` gives each zone file's zone (its stem where the zone's name can't be read), so that a Problem leads to
    the zone it holds back; errors in files that aren't there are about all zones.
    """

    rules: RuleSet
    problems: list[Problem]
    zone_of: Mapping[str, str]


@dataclass(frozen=True)
class _Page:
    file: RulesFile
    fields: Fields


def read(files: Seq[RulesFile], continent: Callable[[str], str], now: float | None = None) -> Reading:
    """Read all files of a directory.

    `continent` gives a country's continent, "" for an unknown one; with `now` (Unix seconds) expired rules are warned of.
    """
    found: list[Problem] = []
    pages = [page for page in (_page(file, found) for file in files) if page]
    shared = next((page for page in pages if page.file.shared), None)
    providers = _declared(pages, "providers", _provider, found)
    networks = _declared(pages, "networks", _network, found)
    networks.setdefault(PUBLIC_RESOLVERS, NamedNetwork(PUBLIC_RESOLVERS, PUBLIC_RESOLVER_ASNS))
    scope = Scope("", shared.file.path if shared else "", providers, networks, found, continent)
    defaults = _defaults(shared.fields if shared else None, (DEFAULT_TTL, AllDown()), replace(scope, file=scope.shared))
    zones, zone_of = _zones([page for page in pages if not page.file.shared], scope, defaults)
    zone_of.update({file.path: file.stem for file in files if not file.shared and file.path not in zone_of})
    rules = _rule_set(shared.fields if shared else None, providers, networks, zones)
    complete = not any(each.is_error for each in found)
    found.extend(review(rules, now, continent, complete))
    return Reading(rules, found, zone_of)


def _page(file: RulesFile, found: list[Problem]) -> _Page | None:
    node = yamltree.parse(file.content, file.path, found)
    if node is None:
        return None
    spot = (PROVIDERS if file.shared else ZONE).read(node, found)
    return _Page(file, spot.value) if spot else None


def _declared(
    pages: Iterable[_Page], key: str, make: Callable[[Spot[str], Fields, list[Problem]], D], found: list[Problem]
) -> dict[str, D]:
    """What all files declare under `key`, by name; a name is declared once in a directory."""
    declared: dict[str, D] = {}
    for page in sorted(pages, key=lambda each: not each.file.shared):
        for name, value in page.fields.get(key, ()):
            if first := declared.get(name.value):
                place = f"{first.where.file}:{first.where.line}"
                found.append(problem(name.where, "E303", f"'{name.value}' is declared already, in {place}"))
            else:
                fields = value.value if value else Fields(name.where, {}, {})
                declared[name.value] = make(name, fields, found if value else [])
    return declared


def _values(fields: Fields, key: str) -> list[Any]:
    return [spot.value for spot in fields.get(key, ())]


def _provider(name: Spot[str], fields: Fields, found: list[Problem]) -> Provider:
    if name.value == "all":
        found.append(problem(name.where, "E201", "'all' can't name a provider: it stands for every one"))
    if not {"v4", "v6"} & fields.given.keys():
        found.append(problem(name.where, "E313", f"provider '{name.value}' has no address: give it v4, v6 or both"))
    v4, v6 = tuple(_values(fields, "v4")), tuple(_values(fields, "v6"))
    check = _check(fields.get("check"), found)
    return Provider(name.value, v4, v6, fields.get("capacity"), check, fields.get("state", "up"), name.where)


def _check(fields: Fields | None, found: list[Problem]) -> Check | None:
    if fields is None:
        return None
    if len({"http", "tcp"} & fields.given.keys()) != 1:
        found.append(problem(fields.where, "E305", "a check has exactly one of http and tcp"))
    numbers = {key: fields.get(key) for key in ("every", "timeout", "down_after", "up_after") if key in fields.spots}
    if "http" in fields.given:
        return Check("http", url=fields.get("http", ""), **numbers)
    return Check("tcp", port=fields.get("tcp", 0), **numbers)


def _network(name: Spot[str], fields: Fields, found: list[Problem]) -> NamedNetwork:
    asns = frozenset(_values(fields, "asn"))
    if "extend" in fields.given and name.value != PUBLIC_RESOLVERS:
        found.append(problem(fields.given["extend"], "E103", f"key 'extend' is for {PUBLIC_RESOLVERS} only"))
    if fields.get("extend") == "true":
        asns |= PUBLIC_RESOLVER_ASNS
    if not fields.given:
        found.append(problem(name.where, "E313", f"network '{name.value}' is empty: give it asn, prefix, country or continent"))
    countries, continents = frozenset(_values(fields, "country")), frozenset(_values(fields, "continent"))
    return NamedNetwork(name.value, asns, tuple(_values(fields, "prefix")), countries, continents, name.where)


def _defaults(fields: Fields | None, fallback: tuple[int, AllDown], scope: Scope) -> tuple[int, AllDown]:
    given: Fields | None = fields.get("defaults") if fields else None
    if given is None:
        return fallback
    return given.get("ttl", fallback[0]), scope.all_down(given, fallback[1])


def _zones(
    pages: Iterable[_Page], scope: Scope, defaults: tuple[int, AllDown]
) -> tuple[dict[str, ZoneRules], dict[str, str]]:
    zones: dict[str, ZoneRules] = {}
    zone_of: dict[str, str] = {}
    for page in pages:
        own = replace(scope, file=page.file.path)
        zone = read_zone(page.fields, page.file.stem, own, _defaults(page.fields, defaults, own))
        readable = "zone" in page.fields.spots
        zone_of[page.file.path] = zone.name if readable else page.file.stem
        if not readable:
            continue
        if first := zones.get(zone.name):
            place = first.where.file
            own.found.append(problem(page.fields.at("zone"), "E302", f"zone '{zone.name}' is already in {place}"))
        else:
            zones[zone.name] = zone
    return zones, zone_of


def _rule_set(
    fields: Fields | None, providers: dict[str, Provider], networks: dict[str, NamedNetwork], zones: dict[str, ZoneRules]
) -> RuleSet:
    keys = ("round", "fresh_for", "max_moved_share", "salt")
    settings = {key: fields.get(key) for key in keys if key in fields.spots} if fields else {}
    return RuleSet(providers, networks, zones, **settings)


def without(rules: RuleSet, zones: frozenset[str], files: frozenset[str]) -> RuleSet:
    """The rule set less the zones named and less what the files given declare."""
    return replace(
        rules,
        providers={name: each for name, each in rules.providers.items() if each.where.file not in files},
        networks={name: each for name, each in rules.networks.items() if each.where.file not in files},
        zones={name: each for name, each in rules.zones.items() if name not in zones},
    )
