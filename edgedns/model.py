"""The frozen words every room shares: providers, rules, samples, reasons.

Standard library only: serving processes import this module.
Addresses are packed bytes (4 or 16), names are folded wire form, times are Unix seconds.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from ipaddress import ip_address
from typing import Literal, NamedTuple, get_args

Family = Literal[4, 6]
State = Literal["up", "drain", "down"]
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")  # of a vantage or a provider, as samples carry it
# What was timed: an exchange of ours, a web page's exchanges with every provider, or the connection that a user had anyway.
Kind = Literal["probe", "beacon", "passive"]
RTT_LEAST_MS = 0.2  # what is quicker was answered on the way, what is slower is lost
RTT_MOST_MS = 10_000.0
# How an agent can ask.
Method = Literal["udp", "tcp", "dns", "icmp", "http", "https"]
METHODS: tuple[Method, ...] = get_args(Method)


class Where(NamedTuple):
    """A place in a file, counted from 1."""

    file: str
    line: int
    column: int


NOWHERE = Where("", 0, 0)


class Reason(IntEnum):
    """Why a client was given the target it was given."""

    PINNED = 0
    WEIGHTED = 1
    ORDERED = 2
    MEASURED = 3
    HELD = 4
    SPILLED = 5
    FAILED_OVER = 6
    GUARDED = 7
    HOLDOUT = 8
    NOMINAL = 9
    ALL_DOWN = 10


class Prefix(NamedTuple):
    """An address prefix; `address` is packed with its host bits zero, `length` counts bits."""

    family: Family
    address: bytes
    length: int


@dataclass(frozen=True, slots=True)
class Capacity:
    """A soft cap: `value` in bits per second, or a share of all traffic (0 to 1]."""

    value: float
    unit: Literal["bps", "share"]


@dataclass(frozen=True, slots=True)
class Check:
    """An active health check of a provider's addresses; seconds. `{ip}` in url is each address."""

    kind: Literal["http", "tcp"]
    url: str = ""
    port: int = 0
    every: float = 5.0
    timeout: float = 2.0
    down_after: int = 3
    up_after: int = 2


@dataclass(frozen=True, slots=True)
class Provider:
    """One transit and the anycast addresses announced through it alone."""

    name: str
    v4: tuple[bytes, ...]
    v6: tuple[bytes, ...]
    capacity: Capacity | None = None
    check: Check | None = None
    state: State = "up"
    where: Where = NOWHERE

    def addresses(self, family: Family) -> tuple[bytes, ...]:
        return self.v4 if family == 4 else self.v6


@dataclass(frozen=True, slots=True)
class NamedNetwork:
    """A name for match lists: the union of what its keys say."""

    name: str
    asns: frozenset[int] = frozenset()
    prefixes: tuple[Prefix, ...] = ()
    countries: frozenset[str] = frozenset()
    continents: frozenset[str] = frozenset()
    where: Where = NOWHERE


@dataclass(frozen=True, slots=True)
class Match:
    """Which clients a rule is for. Fields are ANDed, the values in one are ORed; empty = not asked."""

    asns: frozenset[int] = frozenset()
    prefixes: tuple[Prefix, ...] = ()
    countries: frozenset[str] = frozenset()
    continents: frozenset[str] = frozenset()
    networks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Pin:
    provider: str


@dataclass(frozen=True, slots=True)
class Weighted:
    """Shares by provider, sticky by hash unit (the client's /24 or /48)."""

    shares: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class Failover:
    order: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Wan:
    """Steer by the WAN table among `among`; `nominal` is the order given when nothing fresh is known."""

    among: tuple[str, ...]
    nominal: tuple[str, ...]
    margin_ms: float = 0.0
    margin_percent: float = 5.0
    min_samples: float = 5.0
    holdout: float = 0.0


Action = Pin | Weighted | Failover | Wan


def providers_of(action: Action) -> tuple[str, ...]:
    """The providers that a rule with this action can answer with."""
    if isinstance(action, Pin):
        return (action.provider,)
    if isinstance(action, Weighted):
        return tuple(name for name, _ in action.shares)
    return action.order if isinstance(action, Failover) else action.among


@dataclass(frozen=True, slots=True)
class AllDown:
    """What to answer when no provider of a rule is up."""

    policy: Literal["fail-open", "nodata", "servfail", "use"] = "fail-open"
    use: str = ""


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of a record's policy; `until` ends it (Unix seconds)."""

    name: str
    match: Match | None
    action: Action
    owner: str = ""
    why: str = ""
    until: float | None = None
    where: Where = NOWHERE


@dataclass(frozen=True, slots=True)
class Record:
    """A steered name: its A and AAAA follow `rules`, the first that matches."""

    name: bytes
    label: str
    rules: tuple[Rule, ...]
    ttl: int
    all_down: AllDown
    where: Where = NOWHERE


@dataclass(frozen=True, slots=True)
class StaticText:
    """Zone-file text of a `static:` entry, or the file it names (`file` relative to the rules directory)."""

    text: str = ""
    file: str = ""
    where: Where = NOWHERE


@dataclass(frozen=True, slots=True)
class Soa:
    mname: str
    rname: str
    serial: int | None = None
    refresh: int = 3600
    retry: int = 900
    expire: int = 1209600
    minimum: int = 60
    ttl: int = 3600
    where: Where = NOWHERE


@dataclass(frozen=True, slots=True)
class InlineTest:
    """A test of the rules: who asks (`client`, or the first address of `asn`), when, and what is expected."""

    name: bytes
    type: str
    client: Prefix | None
    subnet: Prefix | None
    asn: int | None
    at: float | None
    expect: tuple[str, ...]
    where: Where = NOWHERE


@dataclass(frozen=True, slots=True)
class ZoneRules:
    """One zone file as read: `apex` is folded wire form, `name` its text without the final dot."""

    name: str
    apex: bytes
    soa: Soa | None
    ns: tuple[str, ...]
    ttl: int
    records: tuple[Record, ...]
    static: tuple[StaticText, ...]
    transfer_allow: tuple[Prefix, ...] = ()
    explain_allow: tuple[Prefix, ...] = ()
    tests: tuple[InlineTest, ...] = ()
    where: Where = NOWHERE
    ns_where: tuple[Where, ...] = ()


@dataclass(frozen=True, slots=True)
class RuleSet:
    """All that a rules directory says. Zones by name; providers in the order they are declared."""

    providers: Mapping[str, Provider]
    networks: Mapping[str, NamedNetwork]
    zones: Mapping[str, ZoneRules]
    round: float = 10.0
    fresh_for: float = 600.0
    max_moved_share: float = 0.5
    salt: str = ""


class NetworkKey(NamedTuple):
    """A steering key or a level above it.

    Full: (asn, country, family, block), block the top 16 (v4) or 32 (v6) bits of its addresses.
    A level above drops what it doesn't say: block -1, country "", asn -1.
    """

    asn: int = -1
    country: str = ""
    family: int = 0
    block: int = -1

    @property
    def text(self) -> str:
        """As people read it: AS64500/DE/198.51.0.0/16, or the level above that it names."""
        parts = [f"AS{self.asn}" if self.asn >= 0 else "", self.country]
        if self.block >= 0:
            size, length = (16, 32) if self.family == 6 else (4, 16)
            parts.append(f"{ip_address((self.block << 8 * size - length).to_bytes(size, 'big'))}/{length}")
        return "unmapped" if self == NetworkKey(0) else "/".join(part for part in parts if part) or "everyone"


@dataclass(frozen=True, slots=True)
class RttSample:
    """One probe's result: `rtt_ms` (RTT_LEAST_MS to RTT_MOST_MS), or None when it was lost."""

    at: float
    vantage: str
    provider: str
    network: NetworkKey
    family: Family
    rtt_ms: float | None
    address: str = ""
    zone: str = ""
    kind: Kind = "probe"


@dataclass(frozen=True, slots=True)
class LandedReply:
    """A reply to a probe that `sent_by` sent landed at another vantage: `network` is in that one's catchment, by anycast."""

    at: float
    vantage: str
    provider: str
    network: NetworkKey
    family: Family
    sent_by: str


@dataclass(frozen=True, slots=True)
class Override:
    """What an operator ordered beside the rules: a pin of a name, or the drain of a provider."""

    id: str
    kind: Literal["pin", "drain"]
    provider: str
    owner: str
    reason: str
    until: float | None
    name: str = ""
    match: Match | None = None
    created: float = 0.0


@dataclass(frozen=True, slots=True)
class Estimate:
    """What is believed of one provider for one network row."""

    provider: str
    wan: float
    w50: float
    low: float
    high: float
    score: float
    rtt_ms: float
    samples: float
    age: float
    health: str
    level: str
    lost_because: str = ""


@dataclass(frozen=True, slots=True)
class Choice:
    """Why an answer is what it is; made by the reference path beside the answer."""

    zone: str = ""
    name: bytes = b""
    rule: str = ""
    provider: str = ""
    reason: Reason | None = None
    network: NetworkKey | None = None
    prefix: Prefix | None = None
    ranking: tuple[str, ...] = field(default=())
    unit: int | None = None
    serial: int = 0
