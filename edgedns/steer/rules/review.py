"""What is allowed but pointless in a rule set: warnings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime

from edgedns.errors import Problem, problem
from edgedns.model import Provider, Record, RuleSet, ZoneRules, providers_of
from edgedns.steer.rules.reach import Hiders


def review(rules: RuleSet, now: float | None, continent: Callable[[str], str], complete: bool) -> list[Problem]:
    """The warnings of a rule set. What is unused or without addresses is told only of one without errors (`complete`)."""
    found = {
        warning
        for zone in rules.zones.values()
        for record in zone.records
        for warning in _of_record(record, rules, now, continent)
    }
    found.update(_twice(rules.providers.values()))
    if complete:
        found.update(_unused(rules))
        found.update(_one_family(rules))
    return sorted(found)


def _of_record(record: Record, rules: RuleSet, now: float | None, continent: Callable[[str], str]) -> Iterator[Problem]:
    hiders = Hiders(rules.networks, continent)
    for rule in record.rules:
        if rule.until is not None and now is not None and rule.until <= now:
            ended = datetime.fromtimestamp(rule.until, UTC).strftime("%Y-%m-%d %H:%M UTC")
            yield problem(rule.where, "W601", f"rule '{rule.name}' ended {ended}: take it out")
        if hider := hiders.of(rule):
            taker = f"rule '{hider.name}' in line {hider.where.line} takes its clients"
            yield problem(rule.where, "W602", f"nothing can reach rule '{rule.name}': {taker}")
        hiders.add(rule)


def _one_family(rules: RuleSet) -> Iterator[Problem]:
    """A rule whose providers have no address of one family: that family's question is NODATA."""
    for rule in (rule for zone in rules.zones.values() for record in zone.records for rule in record.rules):
        used = [rules.providers[name] for name in providers_of(rule.action)]
        names = ", ".join(provider.name for provider in used)
        for family, question in (("v4", "A"), ("v6", "AAAA")):
            if not any(getattr(provider, family) for provider in used):
                yield problem(rule.where, "W605", f"rule '{rule.name}': {names} has no {family}, so {question} is NODATA")


def _twice(providers: Iterable[Provider]) -> Iterator[Problem]:
    first: dict[bytes, str] = {}
    for provider in providers:
        for address in (*provider.v4, *provider.v6):
            if first.setdefault(address, provider.name) != provider.name:
                said = f"provider '{provider.name}' shares an address with '{first[address]}': they can't be told apart"
                yield problem(provider.where, "W607", said)


def used_providers(zones: Iterable[ZoneRules]) -> set[str]:
    """The providers that a zone's rules and all_down policies name."""
    records = [record for zone in zones for record in zone.records]
    used = {name for record in records for rule in record.rules for name in providers_of(rule.action)}
    return used | {record.all_down.use for record in records if record.all_down.use}


def used_networks(zones: Iterable[ZoneRules]) -> set[str]:
    """The networks that the zones' rules match on."""
    rules = [rule for zone in zones for record in zone.records for rule in record.rules]
    return {name for rule in rules if rule.match for name in rule.match.networks}


def _unused(rules: RuleSet) -> Iterator[Problem]:
    providers, networks = used_providers(rules.zones.values()), used_networks(rules.zones.values())
    for provider in rules.providers.values():
        if provider.name not in providers:
            yield problem(provider.where, "W604", f"provider '{provider.name}' is not used by any rule")
    for network in rules.networks.values():
        if network.name not in networks and network.name != "public-resolvers":
            yield problem(network.where, "W603", f"network '{network.name}' is not used by any rule")
