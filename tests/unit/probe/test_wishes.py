"""What a collector wants, read as what it is: bytes from a network."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgedns.probe.wishes import ENTRIES_MOST, GAP_LEAST, GAP_MOST, PROBES_MOST, NotWishes, Wish, Wishes, parse

GOOD: dict[str, Any] = {"addresses": ["203.0.113.7"], "provider": "alder", "probes": 4, "gap": 0.2}


def read(*entries: Any, **more: Any) -> Wishes:
    return parse(json.dumps({"wanted": list(entries), **more}).encode())


def test_what_is_wanted() -> None:
    question = {"addresses": ["2001:DB8::7"], "provider": "birch", "id": "a-1", "method": "tcp", "newer": [1]}
    found = read(GOOD, {"asn": 64496, "family": 6, "provider": "cedar"}, question, together=3, later="?")
    assert found.entries == (
        Wish(("203.0.113.7",), "alder", 4, 0.2),
        Wish(("AS64496/6",), "cedar", 1, 1.0),
        Wish(("2001:db8::7",), "birch", 1, 1.0, "a-1", "tcp"),
    )
    assert (found.unread, found.together) == (0, 3)


@pytest.mark.parametrize(
    "change",
    [
        {"addresses": []}, {"addresses": "203.0.113.7"}, {"addresses": ["fe80::1%eth0"]}, {"addresses": [7]},
        {"provider": ""}, {"provider": 7}, {"provider": "x" * 65}, {"probes": 0}, {"probes": PROBES_MOST + 1}, {"probes": True},
        {"gap": "1"}, {"gap": float("nan")}, {"id": 7}, {"method": None},
    ],
)  # fmt: skip
def test_an_entry_that_can_not_be_read_is_left_and_counted(change: dict[str, Any]) -> None:
    found = read(GOOD | change, GOOD, 7, None)
    assert ([wish.provider for wish in found.entries], found.unread) == (["alder"], 3)


def test_nobody_is_told_to_send_faster_or_more() -> None:
    found = read(GOOD | {"gap": 0.0}, GOOD | {"gap": 1e6}, *[GOOD] * 2 * ENTRIES_MOST)
    assert [wish.gap for wish in found.entries[:2]] == [GAP_LEAST, GAP_MOST]
    assert len(found.entries) == ENTRIES_MOST


@pytest.mark.parametrize("text", [b"", b"[]", b"{}", b'{"wanted": {}}', b"\xff", b'{"wanted": ' + b"[" * 10_000])
def test_what_is_no_reply_is_said(text: bytes) -> None:
    with pytest.raises(NotWishes):
        parse(text)


LEAF = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4)
PLAIN = st.recursive(LEAF, lambda each: st.lists(each, max_size=2), max_leaves=4)
ENTRY = st.dictionaries(st.sampled_from([*GOOD, "asn", "family", "id", "method"]), PLAIN)


@settings(max_examples=60, deadline=None)
@given(st.lists(ENTRY | PLAIN, max_size=3), PLAIN)
def test_whatever_comes_is_read_or_left(entries: list[Any], together: Any) -> None:
    found = read(*entries, together=together)
    assert len(found.entries) + found.unread == len(entries)
    assert all(1 <= wish.probes <= PROBES_MOST and GAP_LEAST <= wish.gap <= GAP_MOST for wish in found.entries)
    assert 0 <= found.together <= 10_000
