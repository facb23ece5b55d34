"""The words of the rules language: each function reads one scalar's text or raises Wrong.

Nothing guesses: a number with a leading zero, a prefix with host bits and `1:30` are refused with what to write instead.
"""

from __future__ import annotations

import difflib
import ipaddress
import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime

from edgedns.model import Capacity, Family, Prefix

CONTINENTS = ("AF", "AN", "AS", "EU", "NA", "OC", "SA")
MAX_TTL = 2**31 - 1  # RFC 2181 section 8

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|[smhdw])", re.ASCII)
_RATES = {"bps": 1.0, "kbps": 1e3, "mbps": 1e6, "gbps": 1e9, "tbps": 1e12}
_DATE = re.compile(r"\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d{1,6})?)?(?:Z|[+-]\d\d:\d\d)?)?", re.ASCII)
_LABEL = re.compile(r"[A-Za-z0-9_/-]{1,63}", re.ASCII)
# Clients in these are looked up as the IPv4 address inside, so a rule for them would never match.
_EMBEDDING = tuple(ipaddress.IPv6Network(net) for net in ("::ffff:0:0/96", "2002::/16", "64:ff9b::/96"))


class Wrong(ValueError):
    """A word that can't be read: a stable code and a sentence."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`, did you mean 'x'?` where something known is near, else nothing."""
    by_fold = {name.lower(): name for name in known}
    near = difflib.get_close_matches(word.lower()[:80], by_fold, 1, 0.6)
    return f", did you mean '{by_fold[near[0]]}'?" if near else ""


def short(text: str) -> str:
    """A word as shown in a message: one line of bounded length."""
    line = " ".join(text.split())
    return line if len(line) <= 60 else line[:57] + "..."


def _number(text: str, code: str, what: str) -> float:
    if re.fullmatch(r"0\d+(\.\d+)?", text, re.ASCII):
        raise Wrong("E110", f"'{short(text)}' has a leading zero (octal in YAML 1.1): write {short(text.lstrip('0') or '0')}")
    if not re.fullmatch(r"\d{1,18}(\.\d{1,18})?", text, re.ASCII):
        raise Wrong(code, f"'{short(text)}' is not {what}")
    return float(text)


def whole(low: int, high: int) -> Callable[[str], int]:
    """A whole number from `low` to `high`."""

    def read(text: str) -> int:
        value = _number(text, "E211", f"a whole number from {low} to {high}")
        if value != int(value) or not low <= value <= high or "." in text:
            raise Wrong("E211", f"'{short(text)}' is not a whole number from {low} to {high}")
        return int(text)

    return read


def number(low: float, high: float) -> Callable[[str], float]:
    """A plain decimal number from `low` to `high`."""

    def read(text: str) -> float:
        value = _number(text, "E211", f"a number from {low:g} to {high:g}")
        if not low <= value <= high:
            raise Wrong("E211", f"{short(text)} is not a number from {low:g} to {high:g}")
        return value

    return read


def share(text: str) -> float:
    """A share of all: `40%` or `0.4`, 0 to 1."""
    value = _number(text[:-1].rstrip() if text.endswith("%") else text, "E211", "a share such as 40% or 0.4")
    value = value / 100 if text.endswith("%") else value
    if value > 1:
        raise Wrong("E211", f"{short(text)} is more than the whole: write a share such as 40% or 0.4")
    return value


def duration(low: float, high: float) -> Callable[[str], float]:
    """Seconds: `30s`, `5m`, `1h30m`, `250ms`, or a plain number of seconds."""

    def read(text: str) -> float:
        value = _seconds(text)
        if not low <= value <= high:
            raise Wrong("E208", f"{short(text)} is not between {low:g} and {high:g} seconds")
        return value

    return read


def _seconds(text: str) -> float:
    if len(text) <= 40 and re.fullmatch(f"(?:{_DURATION.pattern})+", text, re.ASCII):
        return sum(_number(count, "E208", "a duration") * _UNITS[unit] for count, unit in _DURATION.findall(text))
    if sexagesimal := re.fullmatch(r"(\d{1,4}):([0-5]\d)", text, re.ASCII):
        minutes, seconds = sexagesimal.groups()
        raise Wrong("E208", f"'{text}' is not a duration: write {minutes}m{seconds}s or {minutes}h{seconds}m")
    return _number(text, "E208", "a duration such as 30s, 5m or 1h")


def ttl(text: str) -> int:
    """A TTL in whole seconds (RFC 2181 section 8: 0 to 2^31 - 1)."""
    value = duration(0, MAX_TTL)(text)
    if value != int(value):
        raise Wrong("E208", f"{short(text)} is not a whole number of seconds")
    return int(value)


def capacity(text: str) -> Capacity:
    """`400Gbps`, or a share of all traffic: `40%`, `0.4`."""
    if rate := re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?bps)", text, re.ASCII | re.IGNORECASE):
        value = _number(rate[1], "E209", "a rate") * _RATES[rate[2].lower()]
        if value <= 0:
            raise Wrong("E209", "a capacity must be more than 0 (to take a provider out, set state: drain)")
        return Capacity(value, "bps")
    if not re.fullmatch(r"[\d.]+%?", text, re.ASCII):
        raise Wrong("E209", f"'{short(text)}' is not a capacity such as 400Gbps, 10Tbps or 40%")
    try:
        value = share(text)
    except Wrong as wrong:
        raise Wrong("E209", f"'{short(text)}' is not a capacity: write a unit (400Gbps) or a share (40%)") from wrong
    if value <= 0:
        raise Wrong("E209", "a capacity must be more than 0 (to take a provider out, set state: drain)")
    return Capacity(value, "share")


def date(text: str) -> float:
    """Unix seconds of `2036-12-05` (00:00 UTC that day) or an ISO timestamp; without an offset it is UTC."""
    if not _DATE.fullmatch(text):
        raise Wrong("E210", f"'{short(text)}' is not a date such as 2036-12-05 or 2036-12-05T18:00:00Z")
    try:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        raise Wrong("E210", f"there is no date '{short(text)}'") from None


def asn(text: str) -> int:
    """An AS number: `3320` or `AS3320`."""
    digits = re.sub("^AS", "", text, count=1, flags=re.IGNORECASE)
    value = _number(digits, "E205", "an AS number such as 3320 or AS3320")
    if not 1 <= value <= 2**32 - 1 or "." in digits:
        raise Wrong("E205", f"'{short(text)}' is not an AS number: they go from 1 to 4294967295")
    return int(digits)


def country(text: str) -> str:
    """An ISO 3166 alpha-2 code; `NO` is Norway."""
    if not re.fullmatch("[A-Za-z]{2}", text, re.ASCII):
        raise Wrong("E206", f"'{short(text)}' is not a country: write its two letters (ISO 3166), such as DE or NO")
    return text.upper()


def continent(text: str) -> str:
    if text.upper() not in CONTINENTS:
        raise Wrong("E207", f"'{short(text)}' is not a continent: one of {', '.join(CONTINENTS)}")
    return text.upper()


def address(family: Family | None) -> Callable[[str], bytes]:
    """A packed address, of one family or of either."""
    what = {4: "an IPv4 address", 6: "an IPv6 address", None: "an IP address"}[family]

    def read(text: str) -> bytes:
        value = _address(text, what)
        if family is not None and value.version != family:
            raise Wrong("E214", f"{short(text)} is an IPv{value.version} address: it belongs under v{value.version}")
        return value.packed

    return read


def target(family: Family) -> Callable[[str], bytes]:
    """An address that can be given out as an answer."""
    any_address = address(family)

    def read(text: str) -> bytes:
        packed = any_address(text)
        value = ipaddress.ip_address(packed)
        if value.is_multicast or value.is_unspecified or getattr(value, "ipv4_mapped", None):
            raise Wrong("E202", f"{short(text)} can't be a provider's address")
        return packed

    return read


def _address(text: str, what: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    try:
        if "%" in text:
            raise ValueError
        return ipaddress.ip_address(text)
    except ValueError:
        raise Wrong("E202", f"'{short(text)}' is not {what}") from None


def prefix(text: str) -> Prefix:
    """An address prefix with its host bits zero; an address alone is its /32 or /128."""
    base, slash, length = text.partition("/")
    try:
        value = _address(base, "an address prefix")
    except Wrong:
        raise Wrong("E203", f"'{short(text)}' is not an address prefix such as 198.51.100.0/24") from None
    if slash and not (length.isascii() and length.isdigit() and len(length) < 4 and int(length) <= value.max_prefixlen):
        raise Wrong("E203", f"'{short(text)}' is not an address prefix: the length goes from 0 to {value.max_prefixlen}")
    net = ipaddress.ip_network((value, int(length) if slash else value.max_prefixlen), strict=False)
    if net.network_address != value:
        raise Wrong("E204", f"{text} has host bits set: write {net} (or {value} alone for the one address)")
    if isinstance(net, ipaddress.IPv6Network) and any(net.subnet_of(block) for block in _EMBEDDING):
        raise Wrong("E203", f"{text} lies where addresses embed IPv4: such clients are matched as the IPv4 address inside")
    return Prefix(4 if net.version == 4 else 6, net.network_address.packed, net.prefixlen)


def identifier(what: str) -> Callable[[str], str]:
    """A name for labels and diffs: letters, digits, `_`, `.` and `-`, at most 63."""

    def read(text: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}", text, re.ASCII):
            raise Wrong("E201", f"'{short(text)}' can't name {what}: use letters, digits, '_', '.' and '-', at most 63")
        return text

    return read


def one_of(*words: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in words:
            raise Wrong("E212", f"'{short(text)}' is none of {', '.join(words)}{did_you_mean(text, words)}")
        return text

    return read


def domain(text: str) -> str:
    """A domain name as written, lower-cased: `*` as its first label, `@` alone and a final dot are allowed."""
    if text == "@":
        return text
    labels = text.removesuffix(".").split(".")
    if labels[0] == "*":
        labels = labels[1:] or [""] if text != "*" else []
    for label in labels:
        if not label.isascii():
            raise Wrong("E201", f"'{short(text)}' is not ASCII: write the label's xn-- form")
        if not _LABEL.fullmatch(label):
            raise Wrong("E201", f"'{short(text)}' is not a domain name: a label is 1 to 63 letters, digits, '-' or '_'")
    return text.lower()


def url(text: str) -> str:
    """A check's URL: http or https, with `{ip}` where each address goes."""
    found = re.fullmatch(r"https?://\{ip\}(?::(\d{1,5}))?(/[!-~]*)?", text, re.ASCII)
    if not found or not 0 < int(found[1] or 80) < 1 << 16:
        raise Wrong("E213", f"'{short(text)}' is not a URL for a check, such as http://{{ip}}/healthz")
    return text


def mailbox(text: str) -> str:
    """An SOA's mailbox, `noc@example.net` or `noc.example.net`, as zone-file text (RFC 1035 section 8)."""
    local, at, host = text.partition("@")
    if not at:
        return domain(text)
    if not re.fullmatch(r"[A-Za-z0-9._+-]{1,63}", local, re.ASCII):
        raise Wrong("E201", f"'{short(text)}' is not a mailbox such as noc@example.net")
    return local.replace(".", "\\.") + "." + domain(host)


def record_type(text: str) -> str:
    """A record type's mnemonic, upper-cased."""
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9-]{0,15}", text, re.ASCII):
        raise Wrong("E212", f"'{short(text)}' is not a record type such as A or AAAA")
    return text.upper()
