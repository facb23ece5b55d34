"""Why an answer is what it is: the reference answer(), and the evidence it was decided from (law 3)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from math import isfinite
from typing import Any

from edgedns.dns import name as names
from edgedns.dns import types
from edgedns.dns.edns import ClientSubnet, Edns
from edgedns.dns.message import RR, Query
from edgedns.engine.answer import UDP_PAYLOAD, Steered, answer
from edgedns.engine.snapshot import Snapshot
from edgedns.model import (
    Choice,
    Estimate,
    Family,
    NetworkKey,
    Prefix,
    Provider,
    Reason,
    State,
    Wan,
    providers_of,
)
from edgedns.steer.deciding.decisions import Column, Decisions
from edgedns.steer.deciding.losing import is_off
from edgedns.steer.failure.health import Health
from edgedns.steer.table.rtt import Cells
from edgedns.steer.table.wan import WanTable
from edgedns.steer.trust.crowd import Connections, connections


@dataclass(frozen=True)
class Evidence:
    """What a snapshot was decided from. `names` are those of ASNs; `columns` in the order of the base file.

    `failing` are the (provider, family) whose check fails; `users` the histograms of users' own connections.
    """

    providers: Mapping[str, Provider]
    states: Mapping[str, State]
    columns: tuple[Column, ...]
    table: WanTable
    health: Health
    names: Mapping[int, str]
    failing: Collection[tuple[str, Family]] = ()
    decisions: Decisions | None = None
    users: Cells | None = None

    def is_off(self, column: Column, network: NetworkKey) -> bool:
        """Steering lost for this network, and is switched off."""
        decided = self.decisions.columns.get(column) if self.decisions else None
        return decided is not None and is_off(decided, network)


@dataclass(frozen=True, slots=True)
class Question:
    """Who asks what: `client` is packed; `subnet` what a query would carry as its client subnet."""

    name: bytes
    qtype: int
    client: bytes
    subnet: Prefix | None = None


def explain(snapshot: Snapshot, question: Question, evidence: Evidence, now: float) -> dict[str, Any]:
    """The answer to a question and every candidate's case, as JSON (its form: edgedns/web/openapi.json)."""
    query = query_of(question)
    given, choice = answer(snapshot, query, question.client, now)
    told: dict[str, Any] = {
        "serial": snapshot.serial,
        "name": names.to_text(query.folded),
        "type": types.type_name(question.qtype),
        "client": str(ip_address(question.client)),
        "subnet": prefix_text(question.subnet) if question.subnet else None,
        "zone": choice.zone,
        "rcode": types.rcode_name(given.response.rcode),
        "answer": [_record_text(rr) for rr in given.response.answer],
        "scope": given.scope if question.subnet else None,
        "ttl": min((rr.ttl for rr in given.response.answer), default=None),
        "steered": given.steered is not None,
    }
    if given.steered is not None:
        told |= _steering(choice, given.steered, evidence, now)
    return told


def query_of(question: Question) -> Query:
    """The query that asks it."""
    subnet = None
    if question.subnet is not None:
        family = 1 if question.subnet.family == 4 else 2
        subnet = ClientSubnet(family, question.subnet.length, 0, question.subnet.address)
    edns = Edns(UDP_PAYLOAD, 0, False, subnet)
    folded = names.fold(question.name)
    return Query(0, types.QUERY, False, False, question.name, folded, question.qtype, types.IN, edns, b"")


def _steering(choice: Choice, steered: Steered, evidence: Evidence, now: float) -> dict[str, Any]:
    column = evidence.columns[steered.column]
    network = choice.network or NetworkKey(0)
    return {
        "rule": choice.rule,
        "kind": steered.rule.kind,
        "reason": choice.reason.name if choice.reason is not None else None,
        "provider": choice.provider or None,
        "prefix": prefix_text(choice.prefix) if choice.prefix else None,
        "network": {
            "text": network.text,
            "asn": network.asn or None,
            "country": network.country or None,
            "as_name": evidence.names.get(network.asn),
        },
        "unit": choice.unit,
        "candidates": _candidates(choice, network, column, evidence, now),
    }


def _candidates(choice: Choice, network: NetworkKey, column: Column, evidence: Evidence, now: float) -> list[dict[str, Any]]:
    """Every provider the rule could give: the ranking's first, then those that are out, each with why it lost."""
    named = providers_of(column.action)
    ordered = [name for name in choice.ranking if name in named or name == choice.provider]
    ordered += [name for name in named if name not in ordered]
    estimates = _estimates(network, column, evidence)
    users = connections(evidence.users, network, column.family) if evidence.users is not None else {}
    return [
        _candidate(name, choice, estimates, column, network, evidence, now) | _users(users.get(name), now) for name in ordered
    ]


def _users(found: Connections | None, now: float) -> dict[str, Any]:
    """What users' own connections through a provider had: evidence, which decides nothing."""
    if found is None:
        return {}
    told = {"rtt_ms": found.rtt_ms, "connections": found.samples, "age": now - found.seen}
    return {"users": {key: _rounded(value) for key, value in told.items()}}


def _estimates(network: NetworkKey, column: Column, evidence: Evidence) -> dict[str, Estimate]:
    """What was measured, at the level that decides for the network; nothing for unmapped space and fixed rules."""
    if not isinstance(column.action, Wan) or not network.asn:
        return {}
    found = evidence.table.lookup(network, column.family, column.action.min_samples)
    return {estimate.provider: estimate for estimate in found}


def _candidate(
    name: str,
    choice: Choice,
    estimates: Mapping[str, Estimate],
    column: Column,
    network: NetworkKey,
    evidence: Evidence,
    now: float,
) -> dict[str, Any]:
    estimate = estimates.get(name)
    health = evidence.health.state(network, name, column.family)
    told: dict[str, Any] = {
        "provider": name,
        "state": evidence.states.get(name, "up"),
        "health": health,
        "lost_because": "" if name == choice.provider else _loss(name, choice, network, estimates, column, health, evidence),
    }
    if estimate is not None:
        told |= {
            "wan": _rounded(estimate.wan),
            "w50": _rounded(estimate.w50),
            "low": _rounded(estimate.low),
            "high": _rounded(estimate.high),
            "score": _rounded(estimate.score),
            "rtt_ms": _rounded(estimate.rtt_ms),
            "samples": _rounded(estimate.samples),
            "age": _rounded(now - evidence.table.at + estimate.age),
            "level": estimate.level,
        }
    return told


def _loss(
    name: str,
    choice: Choice,
    network: NetworkKey,
    estimates: Mapping[str, Estimate],
    column: Column,
    health: str,
    evidence: Evidence,
) -> str:
    """Why this one was not given."""
    state = evidence.states.get(name, "up")
    if not evidence.providers[name].addresses(column.family):
        return f"it has no IPv{column.family} address"
    if state != "up":
        return "drained" if state == "drain" else "declared down"
    if (name, column.family) in evidence.failing:
        return f"its check fails over IPv{column.family}"
    if health == "down":
        return "its probes of this network are lost"
    mine, best = estimates.get(name), estimates.get(choice.provider)
    if mine is not None and best is not None and choice.reason in (Reason.MEASURED, Reason.HELD, Reason.GUARDED):
        if mine.score <= best.score:
            return f"score {mine.score:+.2f} is not above {best.score:+.2f}"
        if evidence.is_off(column, network):
            return f"score {mine.score:+.2f} is above {best.score:+.2f}, but this network was slower by what steering chose"
        return f"score {mine.score:+.2f} is above {best.score:+.2f}, not by enough or not for long enough to move"
    if choice.reason is Reason.SPILLED and mine is not None and best is not None and mine.score > best.score:
        return f"score {mine.score:+.2f} is above {best.score:+.2f}, but others need its capacity more"
    if choice.reason is Reason.HOLDOUT:
        return "this hash unit is held out: it keeps the nominal answer, to compare with"
    if choice.unit is not None:
        return "this hash unit falls to another share"
    return "it stands later in the order"


def _rounded(value: float) -> float | None:
    return round(float(value), 3) if isfinite(value) else None


def _record_text(rr: RR) -> str:
    """An address as text, anything else as its type and the octets of its data (RFC 3597 section 5)."""
    if rr.type in (types.A, types.AAAA):
        return str(ip_address(rr.rdata))
    if rr.type == types.CNAME:
        return f"CNAME {names.to_text(rr.rdata)}"
    return f"{types.type_name(rr.type)} \\# {len(rr.rdata)} {rr.rdata.hex()}"


def prefix_text(prefix: Prefix) -> str:
    return f"{ip_address(prefix.address)}/{prefix.length}"
