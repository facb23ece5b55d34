"""The collector's two ways to read a line agree: what is read together equals what is read one by one, whatever comes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgedns.model import NetworkKey
from edgedns.probe import collector as module
from edgedns.probe.collector import Collector, Outcome

NOW = 1_764_000_000.0
ODD: list[Any] = [
    None,
    True,
    False,
    0,
    -1,
    1e9,
    10**400,
    1e400,
    "",
    "alder",
    "23.4",
    [],
    {},
    [1],
    {"a": 1},
    "\ud800",
    "x" * 5000,
]
FIELDS: dict[str, list[Any]] = {
    "at": [NOW, NOW - 1.5, int(NOW), NOW + 5, NOW + 5.1, NOW - 600, NOW - 601],
    "vantage": ["fra1", "ams2", "a b"],
    "provider": ["alder", "birch", "dune"],
    "address": ["203.0.113.7", "203.0.113.8", "2001:db8::7", "::ffff:203.0.113.7", "192.0.2.1", "203.0.113"],
    "rtt_ms": [0.2, 23.4, 10_000, 10_000.1, 0.1, -5],
    "lost": [True, False],
    "asn": [64496, 64511],
    "family": [4, 6, 5],
    "name": ["cdn.example.net", "CDN.example.net.", "other.example"],
    "kind": ["probe", "beacon", "passive"],
    "sent_by": ["fra1", "ams1", "a b"],
    "unknown": [1],
}
USUAL = {"at": NOW - 1, "vantage": "fra1", "provider": "alder", "address": "203.0.113.7", "rtt_ms": 23.4}


def network_of(packed: bytes) -> NetworkKey | None:
    if packed[:3] == bytes([203, 0, 113]):
        return NetworkKey(64496 if packed[3] == 7 else 0, "DE", 4, 203 << 8)
    return NetworkKey(64496, "DE", 6, 0x20010DB8) if packed[:4] == bytes.fromhex("20010db8") else None


def make() -> Collector:
    return Collector(
        network_of,
        lambda asn, family: NetworkKey(asn) if asn == 64496 else None,
        {"alder", "birch"}.__contains__,
        {"cdn.example.net"}.__contains__,
        rate=10.0,
        burst=20.0,
    )


@st.composite
def lines(draw: st.DrawFn) -> bytes:
    """Mostly good lines, each with a few fields changed; some of them torn, joined or no JSON at all."""
    fields: dict[str, Any] = dict(USUAL)
    for name in draw(st.lists(st.sampled_from([*FIELDS]), max_size=3)):
        fields[name] = draw(st.sampled_from([*FIELDS[name], *ODD]))
    for name in draw(st.lists(st.sampled_from([*USUAL]), max_size=1)):
        fields.pop(name, None)
    text = json.dumps(fields, separators=draw(st.sampled_from([(",", ":"), (", ", ": "), (" ,\t", " :")])))
    line = text.encode()
    match draw(st.integers(0, 30)):
        case 0:
            return line[: draw(st.integers(0, len(line)))]
        case 1:
            return line + b"," + line
        case 2:
            return line[:-1] + b',"at":1}'
        case 3:
            return draw(st.binary(max_size=40)).replace(b"\n", b"")
        case 4:
            return draw(st.sampled_from([b"", b"  \r", b"\x1c", b'{"a":"', b'"}', b'{"x":[[1', b"2]]}", b"[1", b"{}],[{}"]))
    return line + draw(st.sampled_from([b"", b"", b"\r", b" "]))


def as_told(outcome: Outcome) -> tuple[Any, ...]:
    batch = outcome.probes()
    samples = sorted(
        (batch.providers[p], batch.vantages[v], tuple(batch.rows[r]), f, str(rtt), at)
        for p, v, r, f, rtt, at in zip(
            batch.provider, batch.vantage, batch.row, batch.family, batch.rtt.tolist(), batch.at, strict=True
        )
    )
    return outcome.accepted, outcome.landed, outcome.rejected, outcome.reply(), samples, outcome.others, outcome.taken


@settings(max_examples=200, deadline=None)
@given(st.lists(lines(), max_size=12), st.sampled_from([None, "fra1"]))
def test_read_together_or_alone_a_body_gives_the_same(body: list[bytes], vantage: str | None) -> None:
    together, alone = make(), make()
    quick = together.accept(b"\n".join(body), NOW, vantage)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "read", lambda *_: None)
        slow = alone.accept(b"\n".join(body), NOW, vantage)
    assert slow.columns is None
    assert as_told(quick) == as_told(slow)
    assert (together.counts, together.seen) == (alone.counts, alone.seen)
    assert sum(together.counts.values()) == together.seen


def test_usual_lines_are_read_together_whatever_stands_beside_them() -> None:
    """Else the seam above would compare a thing with itself."""
    usual = json.dumps(USUAL).encode()
    outcome = make().accept(b"\n".join([usual, b"junk", usual, usual[:-1] + b',"kind":"beacon"}', usual]), NOW)
    assert outcome.columns is not None
    assert outcome.columns.line.tolist() == [1, 3, 5]
    assert [number for number, _ in outcome.single] == [4]


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_garbage_is_named_counted_and_harmless(body: bytes) -> None:
    collector = make()
    outcome = collector.accept(body, NOW)
    assert outcome.taken == 0
    assert sum(collector.counts.values()) == collector.seen == outcome.rejected_total
    json.dumps(outcome.reply(), allow_nan=False)


def test_another_table_places_addresses_anew() -> None:
    tables = iter([1, 1, 2])
    network = [NetworkKey(64496, "DE", 4, 1)]
    collector = Collector(lambda _: network[0], lambda *_: None, lambda _: True, table=lambda: next(tables))
    usual = json.dumps(USUAL).encode()
    first = collector.accept(usual, NOW).accepted[0].network
    network[0] = NetworkKey(64497, "DE", 4, 2)
    assert collector.accept(usual, NOW).accepted[0].network == first
    assert collector.accept(usual, NOW).accepted[0].network == network[0]
