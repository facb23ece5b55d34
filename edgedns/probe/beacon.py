"""Beacons in: one web page's report -> lines for POST /v1/samples, one for each provider.

    {"rtt_ms": {"alder": 23.4, "birch": 31.0, "cedar": null}}

Anybody may send one. A report counts whole: with a provider that was not reached (null) it is counted and left, or those
that are slow to the point of failing would be compared by their better days. Pure: time and the client are arguments; a
client leaves as its /24 or /48.
"""

from __future__ import annotations

import json
import math
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Literal, get_args

from edgedns.errors import EdgednsError
from edgedns.model import RTT_LEAST_MS, RTT_MOST_MS
from edgedns.probe.bucket import Bucket
from edgedns.probe.nginx import unit_address

UNITS_KEPT = 65_536
UNIT_RATE = 0.2  # reports a second of one /24 or /48, and at once
UNIT_BURST = 10.0

Verdict = Literal["taken", "incomplete", "bad_report", "client_over_rate", "over_rate"]


class ReportError(EdgednsError):
    """A report that can't be read; one sentence."""


class OverRate(EdgednsError):
    """Too many reports; `wait` in seconds."""

    def __init__(self, sentence: str, wait: int) -> None:
        super().__init__(sentence)
        self.wait = wait


class Beacons:
    """Judges reports; `counts` partitions them. `rate` is reports a second in all."""

    def __init__(self, vantage: str, providers: Sequence[str], rate: float) -> None:
        self.counts: dict[Verdict, int] = dict.fromkeys(get_args(Verdict), 0)
        self._vantage = vantage
        self._providers = frozenset(providers)
        self._all = Bucket(rate, 10 * rate, 10 * rate, 0.0)
        self._units: OrderedDict[str, Bucket] = OrderedDict()

    def take(self, body: bytes, client: bytes, now: float) -> list[bytes]:
        """The lines that a report gives, none for an incomplete one. `client` is packed. Raises ReportError or OverRate."""
        unit = unit_address(client)
        self._refuse_too_many(unit, now)
        try:
            rtts = self._rtts(body)
        except ReportError:
            self.counts["bad_report"] += 1
            raise
        if None in rtts.values():
            self.counts["incomplete"] += 1
            return []
        self.counts["taken"] += 1
        shared = {"at": round(now, 3), "vantage": self._vantage, "kind": "beacon", "address": unit}
        lines = (shared | {"provider": name, "rtt_ms": rtt} for name, rtt in rtts.items())
        return [json.dumps(line, separators=(",", ":")).encode() for line in lines]

    def _refuse_too_many(self, unit: str, now: float) -> None:
        """First by client, so that one who floods uses up nobody else's share."""
        bucket = self._units.pop(unit, None) or Bucket(UNIT_RATE, UNIT_BURST, UNIT_BURST, now)
        self._units[unit] = bucket
        if len(self._units) > UNITS_KEPT:
            self._units.popitem(last=False)
        if not bucket.take(now):
            self.counts["client_over_rate"] += 1
            raise OverRate("too many reports from your network", math.ceil(1 / UNIT_RATE))
        if not self._all.take(now):
            self.counts["over_rate"] += 1
            raise OverRate("too many reports", 1)

    def _rtts(self, body: bytes) -> dict[str, float | None]:
        rtts = _report(body).get("rtt_ms")
        if not isinstance(rtts, dict) or rtts.keys() != self._providers:
            raise ReportError("'rtt_ms' must have exactly the providers that this page was given")
        return {name: _rtt(value) for name, value in rtts.items()}


def _report(body: bytes) -> dict[str, Any]:
    try:
        report = json.loads(body)
    except (ValueError, RecursionError):
        raise ReportError("the report is not JSON") from None
    if not isinstance(report, dict) or report.keys() != {"rtt_ms"}:
        raise ReportError("the report is not an object with 'rtt_ms' alone")
    return report


def _rtt(value: Any) -> float | None:
    """In ms; None for a provider that was not reached."""
    if value is None:
        return None
    if type(value) not in (int, float) or not RTT_LEAST_MS <= value <= RTT_MOST_MS:
        raise ReportError(f"an RTT is null or a number of ms from {RTT_LEAST_MS:g} to {RTT_MOST_MS:g}")
    return round(float(value), 3)
