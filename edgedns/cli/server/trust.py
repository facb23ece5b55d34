"""Who is trusted to measure: what the admin side shows of it and is ordered, and what /metrics counts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from edgedns.control import Control
from edgedns.errors import EdgednsError
from edgedns.metrics import Family
from edgedns.serve.vantages import Order


class TrustError(EdgednsError):
    """An order about a vantage that can't be followed."""


def told(control: Control, now: float) -> dict[str, Any]:
    """As `GET /v1/vantages` gives it."""
    return {**control.measured.vantages.told(now), "repeated_bodies": control.intake.repeats.count}


def ordered(control: Control, order: Order, now: float) -> dict[str, Any]:
    """Follow an order at once; the vantages as they are then."""
    vantages = control.measured.vantages
    try:
        if order.quarantine:
            vantages.order_out(order.name, order.owner, order.reason, now)
        else:
            vantages.order_back(order.name, order.owner, now)
    except ValueError as error:
        raise TrustError(str(error)) from None
    control.measured.health.leave_out(vantages.quarantined)
    control.store.save_arrays("vantages", vantages.to_sections())
    for line in control.measured.news(control.log):
        control.note("vantage", line, now)
    return told(control, now)


def families(control: Control) -> Iterable[Family]:
    """At /metrics: a gauge or two a vantage, and samples that were taken and didn't count."""
    vantages = control.measured.vantages
    by_name = sorted(vantages.standings.items())
    out = [((name,), float(each.out)) for name, each in by_name]
    yield Family("edgedns_vantage_quarantined", "1 while none of a vantage's samples count.", "gauge", ("vantage",), out)
    for what, help_text in (
        ("agreement", "Share of the networks it shares with two others where it was not outvoted."),
        ("loss", "Share of the last round's samples that were lost."),
        ("offset", "By how many seconds its clock is ahead."),
    ):
        values = [((name,), float(value)) for name, each in by_name if (value := getattr(each, what)) is not None]
        label = "clock_offset_seconds" if what == "offset" else what
        yield Family(f"edgedns_vantage_{label}", help_text, "gauge", ("vantage",), values)
    left = {"outvoted": vantages.outvoted, "over_share": vantages.capped, "quarantined": vantages.kept_out}
    counted = [((why,), float(count)) for why, count in left.items()]
    yield Family("edgedns_samples_left_out", "Samples accepted that count nowhere, by reason.", "counter", ("reason",), counted)
    repeated = [((), float(control.intake.repeats.count))]
    yield Family("edgedns_sample_bodies_repeated", "Bodies that came a second time and counted once.", "counter", (), repeated)
