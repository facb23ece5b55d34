"""nginx's access log as samples: the round trips of users' own connections, as their kernel measured them.

Lines are written with this format:

    log_format edgedns escape=json '{"at":$msec,"client":"$remote_addr","peer":"$realip_remote_addr",'
                                   '"server":"$server_addr","rtt_us":"$tcpinfo_rtt","via":"$http_x_forwarded_for"}';

The address that was connected to tells the provider. What came through a proxy is left out: the round trip is the proxy's.
Pure: time is an argument. A client leaves as its /24 or /48, which is all that its network needs.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping
from socket import AF_INET, AF_INET6, inet_ntop, inet_pton
from typing import Any, Literal, get_args

from edgedns.model import RTT_LEAST_MS, RTT_MOST_MS
from edgedns.probe.bucket import Bucket

OLD = 60.0  # seconds
AHEAD = 5.0
SEEN_KEPT = 65_536
_MAPPED = bytes(10) + b"\xff\xff"

Verdict = Literal[
    "sampled", "not_json", "bad_field", "other_server", "proxied", "no_rtt", "implausible", "untimely", "repeated", "too_many"
]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)


class _Unfit(Exception):
    """A line that gives no sample, and why."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(verdict)
        self.verdict = verdict


class AccessLog:
    """Judges log lines; `counts` partitions them. One sample a second of each client and provider, `ceiling` in all."""

    def __init__(self, vantage: str, providers: Mapping[str, str], ceiling: float) -> None:
        """`providers`: our address, in text -> the provider that announces it. ValueError where one is no address."""
        self.counts: dict[Verdict, int] = dict.fromkeys(VERDICTS, 0)
        self._vantage = vantage
        self._providers = {packed(address): provider for address, provider in providers.items()}
        self._all = Bucket(ceiling, ceiling, ceiling, 0.0)
        self._seen: OrderedDict[tuple[bytes, str, int], None] = OrderedDict()

    def sample(self, line: bytes, now: float) -> bytes | None:
        """The line for POST /v1/samples that a log line gives, if it does. Never raises for what is in it."""
        try:
            found = self._sample(line, now)
        except _Unfit as unfit:
            self.counts[unfit.verdict] += 1
            return None
        self.counts["sampled"] += 1
        return found

    def _sample(self, line: bytes, now: float) -> bytes:
        fields = _fields(line)
        provider = self._providers.get(_address(fields, "server"))
        if provider is None:
            raise _Unfit("other_server")
        client = _address(fields, "client")
        if _address(fields, "peer") != client or fields.get("via", "") != "":
            raise _Unfit("proxied")
        rtt, at = _rtt(fields), _at(fields, now)
        self._refuse_repeated((client, provider, int(at)))
        if not self._all.take(now):
            raise _Unfit("too_many")
        told = {"at": at, "vantage": self._vantage, "kind": "passive", "provider": provider}
        told |= {"address": unit_address(client), "rtt_ms": rtt / 1000}
        return json.dumps(told, separators=(",", ":")).encode()

    def _refuse_repeated(self, key: tuple[bytes, str, int]) -> None:
        if key in self._seen:
            raise _Unfit("repeated")
        self._seen[key] = None
        if len(self._seen) > SEEN_KEPT:
            self._seen.popitem(last=False)


def packed(address: str) -> bytes:
    """4 or 16 bytes; an IPv4-mapped address is the IPv4 address it stands for. ValueError where it is none."""
    try:
        found = inet_pton(AF_INET6 if ":" in address else AF_INET, address)
    except OSError:
        raise ValueError(f"{address!r} is not an IP address") from None
    return found[12:] if found.startswith(_MAPPED) and len(found) == 16 else found


def unit_address(address: bytes) -> str:
    """The /24 or /48 that holds it, as its first address."""
    if len(address) == 4:
        return inet_ntop(AF_INET, address[:3] + bytes(1))
    return inet_ntop(AF_INET6, address[:6] + bytes(10))


def _fields(line: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError):
        raise _Unfit("not_json") from None
    if not isinstance(fields, dict):
        raise _Unfit("not_json")
    return fields


def _address(fields: dict[str, Any], key: str) -> bytes:
    """A unix socket, or a proxy that names no address, is no address of anybody's."""
    text = fields.get(key)
    if not isinstance(text, str):
        raise _Unfit("bad_field")
    if text.startswith("unix:"):
        raise _Unfit("proxied" if key != "server" else "other_server")
    try:
        return packed(text)
    except ValueError:
        raise _Unfit("bad_field") from None


def _rtt(fields: dict[str, Any]) -> int:
    text = fields.get("rtt_us")
    if text in ("", "-", "0"):  # QUIC, or a kernel that doesn't say
        raise _Unfit("no_rtt")
    if not isinstance(text, str) or not (text.isascii() and text.isdigit() and len(text) <= 12):
        raise _Unfit("bad_field")
    if not RTT_LEAST_MS <= int(text) / 1000 <= RTT_MOST_MS:
        raise _Unfit("implausible")
    return int(text)


def _at(fields: dict[str, Any], now: float) -> float:
    at = fields.get("at")
    if type(at) is not float and type(at) is not int:
        raise _Unfit("bad_field")
    if not now - OLD <= at <= now + AHEAD:
        raise _Unfit("untimely")
    return float(at)
