"""One line of samples -> RttSample or LandedReply, or the reason why it is none and a sentence for its sender.

A line:

    {"at": 1764000000.25, "vantage": "fra1", "provider": "alder", "address": "203.0.113.7", "rtt_ms": 23.4}

with `"lost": true` instead of `rtt_ms`, `asn` (and `family`, 4 if not given) instead of `address`, and
`name` (a zone) if wanted. Where a reply to another vantage's probe landed, neither but who had sent that:

    {"at": 1764000000.25, "vantage": "ams1", "provider": "alder", "address": "203.0.113.7", "sent_by": "fra1"}

`kind` where it was no probe (model.Kind). Fields that are not known here are left alone: an
agent may be newer than its collector.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from socket import AF_INET, AF_INET6, inet_pton
from typing import Any, NoReturn

from edgedns.model import NAME, RTT_LEAST_MS, RTT_MOST_MS, Family, Kind, LandedReply, NetworkKey, RttSample

LINE_LIMIT = 4096
MAX_AGE = 600.0
MAX_AHEAD = 5.0
MAX_SKEW = 5.0
ASN_MOST = 2**32 - 1

NetworkOf = Callable[[bytes], NetworkKey | None]
NetworkOfAsn = Callable[[int, Family], NetworkKey | None]

_ZONE = re.compile(r"[A-Za-z0-9_*-][A-Za-z0-9._*-]{0,253}")
_MAPPED = bytes(10) + b"\xff\xff"


class Refused(Exception):
    """One line can't be used: the counter it belongs to, and the sentence for its sender."""

    def __init__(self, reason: str, error: str) -> None:
        super().__init__(error)
        self.reason = reason
        self.error = error


@dataclass(frozen=True, slots=True)
class World:
    """What samples may name; the networks are None where nothing is known."""

    network_of: NetworkOf
    network_of_asn: NetworkOfAsn
    knows_provider: Callable[[str], bool]
    knows_zone: Callable[[str], bool]


def read_line(line: bytes, world: World, now: float, vantage: str | None) -> RttSample | LandedReply:
    """What one line tells at Unix time `now`; `vantage` is the only one its sender may speak for (None: any). Refused."""
    fields = _fields(line)
    speaker = _named(fields, "vantage")
    if vantage is not None and speaker != vantage:
        raise Refused("wrong_vantage", f"this token speaks for vantage {vantage!r}, not {speaker!r}")
    at = _at(fields, now)
    sent_by = _sent_by(fields, speaker)
    rtt, kind = (None, "probe") if sent_by else (_rtt(fields), _kind(fields))
    provider = _named(fields, "provider")
    if not world.knows_provider(provider):
        raise Refused("unknown_provider", f"unknown provider {provider!r}")
    zone = read_zone(fields.get("name"), world)
    network, family, address = _network(fields, world)
    if sent_by:
        return LandedReply(at, speaker, provider, network, family, sent_by)
    return RttSample(at, speaker, provider, network, family, rtt, address, zone, kind)


def _sent_by(fields: dict[str, Any], speaker: str) -> str:
    """Who had sent the probe whose reply landed here; empty for a sample."""
    if "sent_by" not in fields or "rtt_ms" in fields or "lost" in fields:
        return ""
    sent_by = _named(fields, "sent_by")
    if sent_by == speaker:
        raise Refused("bad_field", "sent_by is the vantage itself: that is no reply which landed elsewhere")
    return sent_by


def read_zone(zone: Any, world: World) -> str:
    """The name of a zone that is known, folded; empty where none is given."""
    if zone is None:
        return ""
    if not isinstance(zone, str) or not _ZONE.fullmatch(zone):
        raise Refused("bad_field", f"name is not the name of a zone: {_shown(zone)}")
    folded: str = zone.lower().rstrip(".")
    if not world.knows_zone(folded):
        raise Refused("unknown_zone", f"unknown zone {folded!r}")
    return folded


def place(address: Any, world: World) -> tuple[NetworkKey, Family]:
    """The network that holds an address in text, and the family its sample is of."""
    packed = _packed(address)
    network = world.network_of(packed)
    if network is None:
        raise Refused("unknown_network", f"no known network holds {address}")
    # 6to4 and the like are looked up as the IPv4 space they stand for.
    return network, 4 if network.family == 4 or len(packed) == 4 else 6


def is_name(value: Any) -> bool:
    """Whether a value can be the name of a vantage or a provider."""
    return isinstance(value, str) and NAME.fullmatch(value) is not None


def _network(fields: dict[str, Any], world: World) -> tuple[NetworkKey, Family, str]:
    address, asn = fields.get("address"), fields.get("asn")
    if (address is None) == (asn is None):
        raise Refused("bad_field", "give exactly one of address and asn")
    family = _family(fields)
    if address is None:
        return _network_of_asn(asn, family or 4, world)
    own = 4 if len(_packed(address)) == 4 else 6
    if family is not None and family != own:
        raise Refused("bad_field", f"family is {family}, but the address is IPv{own}")
    return *place(address, world), address


def _network_of_asn(asn: Any, family: Family, world: World) -> tuple[NetworkKey, Family, str]:
    if type(asn) is not int or not 0 < asn <= ASN_MOST:
        raise Refused("bad_field", f"asn is not an AS number: {_shown(asn)}")
    network = world.network_of_asn(asn, family)
    if network is None:
        raise Refused("unknown_network", f"AS{asn} is in no table")
    return network, family, ""


def _fields(line: bytes) -> dict[str, Any]:
    if len(line) > LINE_LIMIT:
        raise Refused("line_too_long", f"line is {len(line)} bytes long, at most {LINE_LIMIT} are read")
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Refused("not_utf8", f"not UTF-8 at byte {error.start + 1}") from None
    try:
        fields = DECODER.decode(text)
    except RecursionError:
        raise Refused("not_json", "not JSON: nested too deep") from None
    except ValueError as error:
        raise Refused("not_json", f"not JSON: {error}"[:200]) from None
    if not isinstance(fields, dict):
        raise Refused("not_json", "not a JSON object")
    return fields


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise Refused("bad_field", f"{_shown(twice)} is given twice")
    return fields


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a JSON number")


DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant)
"""JSON as it is read here: what is no JSON number is a ValueError, a key given twice is Refused."""


def _named(fields: dict[str, Any], key: str) -> str:
    value = fields.get(key)
    if value is None:
        raise Refused("bad_field", f"{key} is missing")
    if not is_name(value):
        raise Refused("bad_field", f"{key} is not a name: {_shown(value)}")
    return str(value)


def _at(fields: dict[str, Any], now: float) -> float:
    at = fields.get("at")
    if at is None:
        raise Refused("bad_field", "at is missing")
    if not _is_number(at):
        raise Refused("bad_time", f"at is not a Unix time: {_shown(at)}")
    if at > now + MAX_AHEAD:
        raise Refused("bad_time", f"at is more than {MAX_AHEAD:g} s in the future")
    if at < now - MAX_AGE:
        raise Refused("bad_time", f"at is more than {MAX_AGE:g} s ago")
    return float(at)


def _rtt(fields: dict[str, Any]) -> float | None:
    rtt: Any = fields.get("rtt_ms")
    lost = fields.get("lost", False)
    if type(lost) is not bool:
        raise Refused("bad_field", f"lost is not true or false: {_shown(lost)}")
    if lost == (rtt is not None):
        raise Refused("bad_field", 'give exactly one of rtt_ms and "lost": true')
    if lost:
        return None
    if not _is_number(rtt):
        raise Refused("bad_rtt", f"rtt_ms is not a number of milliseconds: {_shown(rtt)}")
    if not RTT_LEAST_MS <= rtt <= RTT_MOST_MS:
        raise Refused("bad_rtt", f"rtt_ms {_shown(rtt)} is not within {RTT_LEAST_MS:g} to {RTT_MOST_MS:g}")
    return float(rtt)


def _kind(fields: dict[str, Any]) -> Kind:
    kind: Any = fields.get("kind", "probe")
    if kind == "probe":
        return "probe"
    if kind not in ("beacon", "passive"):
        raise Refused("bad_field", f"kind is none of probe, beacon and passive: {_shown(kind)}")
    if fields.get("lost") or fields.get("address") is None:
        raise Refused("bad_field", f"a {kind} sample has an address and is never lost: only probes know what they sent")
    return "beacon" if kind == "beacon" else "passive"


def _family(fields: dict[str, Any]) -> Family | None:
    match fields.get("family"):
        case None:
            return None
        case int(value) if type(value) is int and value in (4, 6):
            return 4 if value == 4 else 6
        case other:
            raise Refused("bad_field", f"family is not 4 or 6: {_shown(other)}")


def _packed(address: Any) -> bytes:
    """4 or 16 bytes; an IPv4-mapped address is the IPv4 address it stands for (RFC 4291 section 2.5.5.2)."""
    try:
        packed = inet_pton(AF_INET6 if ":" in address else AF_INET, address)
    except (OSError, TypeError, ValueError):
        raise Refused("bad_field", f"address is not an IP address: {_shown(address)}") from None
    return packed[12:] if packed.startswith(_MAPPED) and len(packed) == 16 else packed


def _is_number(value: Any) -> bool:
    """A finite JSON number; true and false, which Python counts among the integers, are none."""
    return type(value) is int or (type(value) is float and math.isfinite(value))


def _shown(value: Any) -> str:
    """A value from outside, short and printable, for an error message."""
    text = ascii(value)
    return text if len(text) <= 40 else text[:37] + "..."
