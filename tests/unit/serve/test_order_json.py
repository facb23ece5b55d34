"""Overrides as JSON: what is taken, and one sentence for each thing that is not."""

from __future__ import annotations

import pytest

from edgedns.model import Match, Override, Prefix
from edgedns.serve.orders import OrderError, override_json, parse_override

DRAIN = {"kind": "drain", "provider": "alder", "owner": "noc", "reason": "maintenance"}
PIN = {**DRAIN, "kind": "pin", "name": "www.cdn.example.net"}


def test_a_drain() -> None:
    assert parse_override(DRAIN) == Override("", "drain", "alder", "noc", "maintenance", None)


def test_a_pin_with_everything() -> None:
    match = {
        "asn": [64500, "AS64501"],
        "prefix": "198.51.100.0/24",
        "country": ["NO"],
        "continent": "EU",
        "network": ["office"],
    }
    order = parse_override({**PIN, "until": "2036-12-05", "match": match})
    assert order.until == 2112048000.0
    assert order.name == "www.cdn.example.net"
    assert order.match == Match(
        frozenset({64500, 64501}),
        (Prefix(4, bytes([198, 51, 100, 0]), 24),),
        frozenset({"NO"}),
        frozenset({"EU"}),
        ("office",),
    )


@pytest.mark.parametrize(
    ("until", "expected"),
    [(2112048000, 2112048000.0), (2112048000.5, 2112048000.5), ("2036-12-05T01:00+01:00", 2112048000.0), (None, None)],
)
def test_until(until: object, expected: float | None) -> None:
    assert parse_override({**DRAIN, "until": until}).until == expected


def test_what_is_shown_can_be_ordered_again() -> None:
    order = parse_override({**PIN, "match": {"prefix": ["2001:db8::/32"], "asn": 64500}})
    shown = override_json(order)
    again = {key: value for key, value in shown.items() if key not in ("id", "created")}
    assert parse_override(again) == order


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ([], "the body must be a JSON object"),
        ({**DRAIN, "kind": "stop"}, "'kind' must be 'pin' or 'drain'"),
        ({**DRAIN, "kind": ["pin"]}, "'kind' must be 'pin' or 'drain'"),
        ({**DRAIN, "ownr": "noc"}, "unknown field 'ownr', did you mean 'owner'?"),
        ({**DRAIN, "zzz": 1}, "unknown field 'zzz'; known are kind,"),
        ({"kind": "drain"}, "'provider' is missing"),
        ({**DRAIN, "owner": " "}, "'owner' must be text that is not empty"),
        ({**DRAIN, "owner": 5}, "'owner' must be text that is not empty"),
        ({**DRAIN, "reason": "a\nb"}, "'reason' must be one line"),
        ({**DRAIN, "reason": "x" * 501}, "'reason' must be one line of at most 500"),
        ({**DRAIN, "name": "www"}, "a drain takes its provider out everywhere"),
        ({**DRAIN, "kind": "pin"}, "'name' is missing"),
        ({**DRAIN, "until": "soon"}, "'until' must be Unix seconds"),
        ({**DRAIN, "until": True}, "'until' must be Unix seconds"),
        ({**DRAIN, "until": float("inf")}, "'until' must be Unix seconds"),
        ({**DRAIN, "until": 10**400}, "'until' must be Unix seconds"),
        ({**DRAIN, "until": "0001-01-01T00:00+23:00"}, "'until' must be Unix seconds"),
        ({**PIN, "match": []}, "'match' must be an object"),
        ({**PIN, "match": {}}, "'match' is empty"),
        ({**PIN, "match": {"ans": 1}}, "unknown field 'match.ans', did you mean 'asn'?"),
        ({**PIN, "match": {"asn": []}}, "'match.asn' must hold 1 to 1000 values"),
        ({**PIN, "match": {"asn": 0}}, "'match.asn': 0 is not an AS number"),
        ({**PIN, "match": {"asn": True}}, "'match.asn': True is not an AS number"),
        ({**PIN, "match": {"asn": 1 << 32}}, "is not an AS number"),
        ({**PIN, "match": {"prefix": "198.51.100.9/24"}}, "'198.51.100.9/24' is not a prefix"),
        ({**PIN, "match": {"prefix": 7}}, "7 is not a prefix"),
        ({**PIN, "match": {"country": "no"}}, "'no' is not a country code"),
        ({**PIN, "match": {"continent": "XX"}}, "'XX' is none of AF,"),
        ({**PIN, "match": {"network": ""}}, "is not a network's name"),
    ],
)
def test_wrong_orders(body: object, message: str) -> None:
    with pytest.raises(OrderError) as caught:
        parse_override(body)
    assert message in str(caught.value)
