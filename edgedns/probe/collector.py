"""Samples in: newline-delimited JSON -> RttSample, each bad line named and skipped.

Pure: the admin side reads the body and checks the token; what an address's network is and which providers
exist are callables, and time is an argument. A line:

    {"at": 1764000000.25, "vantage": "fra1", "provider": "alder", "address": "203.0.113.7", "rtt_ms": 23.4}

with `"lost": true` instead of `rtt_ms`, `asn` (and `family`, 4 if not given) instead of `address`, and
`name` (a zone) if wanted; `kind` where it was no probe (model.Kind). Fields that are not known here are left alone: an
agent may be newer than its collector.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from socket import AF_INET, AF_INET6, inet_pton
from typing import Any, NoReturn

from edgedns.model import Family, Kind, NetworkKey, RttSample

BODY_LIMIT = 16 * 1024 * 1024
LINE_LIMIT = 4096
LINES_LIMIT = 100_000
NAMED_LIMIT = 100
RTT_LEAST_MS = 0.2
RTT_MOST_MS = 10_000.0
MAX_AGE = 600.0
MAX_AHEAD = 5.0
VANTAGES_LIMIT = 1024
ASN_MOST = 2**32 - 1

NetworkOf = Callable[[bytes], NetworkKey | None]
NetworkOfAsn = Callable[[int, Family], NetworkKey | None]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_ZONE = re.compile(r"[A-Za-z0-9_*-][A-Za-z0-9._*-]{0,253}")
_MAPPED = bytes(10) + b"\xff\xff"

# Every line that is seen ends as exactly one of these.
REASONS = (
    "accepted",
    "line_too_long",
    "too_many_lines",
    "not_utf8",
    "not_json",
    "bad_field",
    "bad_rtt",
    "bad_time",
    "wrong_vantage",
    "unknown_provider",
    "unknown_zone",
    "unknown_network",
    "over_rate",
)


class _Refused(Exception):
    """One line can't be used: the counter it belongs to, and the sentence for its sender."""

    def __init__(self, reason: str, error: str) -> None:
        super().__init__(error)
        self.reason = reason
        self.error = error


@dataclass(slots=True)
class Outcome:
    """What became of one body. `rejected` holds (line counted from 1, error), the first NAMED_LIMIT of them."""

    accepted: list[RttSample] = field(default_factory=list)
    rejected: list[tuple[int, str]] = field(default_factory=list)
    rejected_total: int = 0

    def refuse(self, line: int, error: str) -> None:
        self.rejected_total += 1
        if len(self.rejected) < NAMED_LIMIT:
            self.rejected.append((line, error))

    def reply(self) -> dict[str, Any]:
        """The JSON body of the answer to POST /v1/samples; `rejected_more` counts those not named."""
        reply: dict[str, Any] = {
            "accepted": len(self.accepted),
            "rejected": [{"line": line, "error": error} for line, error in self.rejected],
        }
        if self.rejected_total > len(self.rejected):
            reply["rejected_more"] = self.rejected_total - len(self.rejected)
        return reply


@dataclass(slots=True)
class _Bucket:
    level: float
    filled_at: float


class Collector:
    """Judges bodies of samples; keeps only counters and one rate bucket per vantage.

    `network_of` and `network_of_asn` give None for what they don't know; `rate` and `burst` are samples per
    second and samples, per vantage. Not safe for several threads at once.
    """

    def __init__(
        self,
        network_of: NetworkOf,
        network_of_asn: NetworkOfAsn,
        knows_provider: Callable[[str], bool],
        knows_zone: Callable[[str], bool] = lambda zone: True,
        rate: float = 10_000.0,
        burst: float = 100_000.0,
    ) -> None:
        self.network_of = network_of
        self.network_of_asn = network_of_asn
        self.knows_provider = knows_provider
        self.knows_zone = knows_zone
        self.rate = rate
        self.burst = burst
        self.seen = 0
        self.counts: dict[str, int] = dict.fromkeys(REASONS, 0)
        self._buckets: dict[str, _Bucket] = {}

    def accept(self, body: bytes, now: float, vantage: str | None = None) -> Outcome:
        """Read one body at Unix time `now`; `vantage` is the only one its token may speak for (None: any).

        Never raises for what is in the body. Empty lines are not lines.
        """
        outcome = Outcome()
        for number, line in enumerate(body.split(b"\n", LINES_LIMIT), 1):
            if not line or line.isspace():
                continue
            self.seen += 1
            try:
                if number > LINES_LIMIT:  # all that is left, as one
                    raise _Refused("too_many_lines", f"more than {LINES_LIMIT} lines in one body, the rest is not read")
                outcome.accepted.append(self._sample(line, now, vantage))
                self.counts["accepted"] += 1
            except _Refused as refused:
                self.counts[refused.reason] += 1
                outcome.refuse(number, refused.error)
        return outcome

    def _sample(self, line: bytes, now: float, vantage: str | None) -> RttSample:
        fields = _fields(line)
        speaker = _named(fields, "vantage")
        if vantage is not None and speaker != vantage:
            raise _Refused("wrong_vantage", f"this token speaks for vantage {vantage!r}, not {speaker!r}")
        at = _at(fields, now)
        rtt, kind = _rtt(fields), _kind(fields)
        provider = _named(fields, "provider")
        if not self.knows_provider(provider):
            raise _Refused("unknown_provider", f"unknown provider {provider!r}")
        zone = self._zone(fields)
        network, family, address = self._network(fields)
        if not self._within_rate(speaker, now):
            raise _Refused("over_rate", f"vantage {speaker!r} sends more than {self.rate:g} samples a second")
        return RttSample(at, speaker, provider, network, family, rtt, address, zone, kind)

    def _zone(self, fields: dict[str, Any]) -> str:
        zone = fields.get("name")
        if zone is None:
            return ""
        if not isinstance(zone, str) or not _ZONE.fullmatch(zone):
            raise _Refused("bad_field", f"name is not the name of a zone: {_shown(zone)}")
        zone = zone.lower().rstrip(".")
        if not self.knows_zone(zone):
            raise _Refused("unknown_zone", f"unknown zone {zone!r}")
        return zone

    def _network(self, fields: dict[str, Any]) -> tuple[NetworkKey, Family, str]:
        address, asn = fields.get("address"), fields.get("asn")
        if (address is None) == (asn is None):
            raise _Refused("bad_field", "give exactly one of address and asn")
        family = _family(fields)
        if address is None:
            return self._network_of_asn(asn, family or 4)
        packed = _packed(address)
        own: Family = 4 if len(packed) == 4 else 6
        if family is not None and family != own:
            raise _Refused("bad_field", f"family is {family}, but the address is IPv{own}")
        network = self.network_of(packed)
        if network is None:
            raise _Refused("unknown_network", f"no known network holds {address}")
        # 6to4 and the like are looked up as the IPv4 space they stand for.
        return network, 4 if network.family == 4 else own, address

    def _network_of_asn(self, asn: Any, family: Family) -> tuple[NetworkKey, Family, str]:
        if type(asn) is not int or not 0 < asn <= ASN_MOST:
            raise _Refused("bad_field", f"asn is not an AS number: {_shown(asn)}")
        network = self.network_of_asn(asn, family)
        if network is None:
            raise _Refused("unknown_network", f"AS{asn} is in no table")
        return network, family, ""

    def _within_rate(self, vantage: str, now: float) -> bool:
        bucket = self._buckets.get(vantage)
        if bucket is None:
            if len(self._buckets) >= VANTAGES_LIMIT:
                self._forget_idle(now)
            if len(self._buckets) >= VANTAGES_LIMIT:
                return False
            bucket = self._buckets[vantage] = _Bucket(self.burst, now)
        elif now > bucket.filled_at:
            bucket.level = min(self.burst, bucket.level + (now - bucket.filled_at) * self.rate)
            bucket.filled_at = now
        if bucket.level < 1.0:
            return False
        bucket.level -= 1.0
        return True

    def _forget_idle(self, now: float) -> None:
        """Drop the buckets that would be full by now: a new one is the same."""
        full_after = self.burst / self.rate
        self._buckets = {name: b for name, b in self._buckets.items() if now - b.filled_at < full_after}


def _fields(line: bytes) -> dict[str, Any]:
    if len(line) > LINE_LIMIT:
        raise _Refused("line_too_long", f"line is {len(line)} bytes long, at most {LINE_LIMIT} are read")
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _Refused("not_utf8", f"not UTF-8 at byte {error.start + 1}") from None
    try:
        fields = _DECODER.decode(text)
    except RecursionError:
        raise _Refused("not_json", "not JSON: nested too deep") from None
    except ValueError as error:
        raise _Refused("not_json", f"not JSON: {error}"[:200]) from None
    if not isinstance(fields, dict):
        raise _Refused("not_json", "not a JSON object")
    return fields


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise _Refused("bad_field", f"{_shown(twice)} is given twice")
    return fields


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a JSON number")


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant)


def _named(fields: dict[str, Any], key: str) -> str:
    value = fields.get(key)
    if value is None:
        raise _Refused("bad_field", f"{key} is missing")
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise _Refused("bad_field", f"{key} is not a name: {_shown(value)}")
    return value


def _at(fields: dict[str, Any], now: float) -> float:
    at = fields.get("at")
    if at is None:
        raise _Refused("bad_field", "at is missing")
    if not _is_number(at):
        raise _Refused("bad_time", f"at is not a Unix time: {_shown(at)}")
    if at > now + MAX_AHEAD:
        raise _Refused("bad_time", f"at is more than {MAX_AHEAD:g} s in the future")
    if at < now - MAX_AGE:
        raise _Refused("bad_time", f"at is more than {MAX_AGE:g} s ago")
    return float(at)


def _rtt(fields: dict[str, Any]) -> float | None:
    rtt: Any = fields.get("rtt_ms")
    lost = fields.get("lost", False)
    if type(lost) is not bool:
        raise _Refused("bad_field", f"lost is not true or false: {_shown(lost)}")
    if lost == (rtt is not None):
        raise _Refused("bad_field", 'give exactly one of rtt_ms and "lost": true')
    if lost:
        return None
    if not _is_number(rtt):
        raise _Refused("bad_rtt", f"rtt_ms is not a number of milliseconds: {_shown(rtt)}")
    if not RTT_LEAST_MS <= rtt <= RTT_MOST_MS:
        raise _Refused("bad_rtt", f"rtt_ms {_shown(rtt)} is not within {RTT_LEAST_MS:g} to {RTT_MOST_MS:g}")
    return float(rtt)


def _kind(fields: dict[str, Any]) -> Kind:
    kind: Any = fields.get("kind", "probe")
    if kind == "probe":
        return "probe"
    if kind not in ("beacon", "passive"):
        raise _Refused("bad_field", f"kind is none of probe, beacon and passive: {_shown(kind)}")
    if fields.get("lost") or fields.get("address") is None:
        raise _Refused("bad_field", f"a {kind} sample has an address and is never lost: only probes know what they sent")
    return "beacon" if kind == "beacon" else "passive"


def _family(fields: dict[str, Any]) -> Family | None:
    match fields.get("family"):
        case None:
            return None
        case int(value) if type(value) is int and value in (4, 6):
            return 4 if value == 4 else 6
        case other:
            raise _Refused("bad_field", f"family is not 4 or 6: {_shown(other)}")


def _packed(address: Any) -> bytes:
    """4 or 16 bytes; an IPv4-mapped address is the IPv4 address it stands for (RFC 4291 section 2.5.5.2)."""
    try:
        packed = inet_pton(AF_INET6 if ":" in address else AF_INET, address)
    except (OSError, TypeError, ValueError):
        raise _Refused("bad_field", f"address is not an IP address: {_shown(address)}") from None
    return packed[12:] if packed.startswith(_MAPPED) and len(packed) == 16 else packed


def _is_number(value: Any) -> bool:
    """A finite JSON number; true and false, which Python counts among the integers, are none."""
    return type(value) is int or (type(value) is float and math.isfinite(value))


def _shown(value: Any) -> str:
    """A value from outside, short and printable, for an error message."""
    text = ascii(value)
    return text if len(text) <= 40 else text[:37] + "..."
