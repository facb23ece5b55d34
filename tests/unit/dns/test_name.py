"""Names: wire and text, folding, walking; dnspython is the independent reference."""

from __future__ import annotations

import dns.name
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgedns.dns import name
from edgedns.dns.name import BadName, from_text, is_subdomain, scan, to_text

LABEL = st.binary(min_size=1, max_size=63)
NAMES = (
    st.lists(LABEL, max_size=8)
    .filter(lambda parts: sum(len(part) + 1 for part in parts) < 255)
    .map(lambda parts: b"".join(bytes((len(part),)) + part for part in parts) + b"\0")
)


@given(NAMES)
def test_text_and_back(wire: bytes) -> None:
    assert from_text(to_text(wire)) == wire


@given(NAMES)
def test_text_means_the_same_to_dnspython(wire: bytes) -> None:
    assert dns.name.from_text(to_text(wire)).to_wire() == wire
    assert from_text(dns.name.from_wire(wire, 0)[0].to_text()) == wire


@given(NAMES)
def test_folding_touches_ascii_letters_only(wire: bytes) -> None:
    assert name.fold(wire) == dns.name.from_wire(wire, 0)[0].canonicalize().to_wire()


@given(NAMES, NAMES)
def test_is_subdomain_is_dnspythons(one: bytes, other: bytes) -> None:
    one, other = name.fold(one), name.fold(other)
    joined = one[:-1] + other
    for below, above in ((one, other), (joined if len(joined) < 256 else one, other)):
        expected = dns.name.from_wire(below, 0)[0].is_subdomain(dns.name.from_wire(above, 0)[0])
        assert is_subdomain(below, above) is expected


def test_a_suffix_that_begins_inside_a_label_is_no_parent() -> None:
    # The octets of "example." stand at the end of a label whose own length octet differs.
    assert not is_subdomain(from_text(r"x\007example"), from_text("example"))
    assert not is_subdomain(from_text("xexample"), from_text("example"))
    assert is_subdomain(from_text("x.example"), from_text("example"))


@given(NAMES)
def test_ancestors_run_from_the_apex_down(wire: bytes) -> None:
    path = name.ancestors(wire, name.ROOT)
    assert path[0] == name.ROOT
    assert path[-1] == wire
    assert [name.parent(below) for below in path[1:]] == path[:-1]
    assert len(path) == name.label_count(wire) + 1 == len(name.labels(wire)) + 1
    assert name.ancestors(wire, wire) == [wire]
    assert list(name.suffixes(wire)) == path[::-1]


@given(NAMES, st.binary(max_size=4))
def test_scan_ends_behind_the_name(wire: bytes, rest: bytes) -> None:
    assert scan(b"xyz" + wire + rest, 3) == 3 + len(wire)


@pytest.mark.parametrize(
    ("wire", "why"),
    [
        (b"", "cut off"),
        (b"\x03ab", "cut off"),
        (b"\x01a", "cut off"),
        (b"\xc0\x0c", "pointer"),
        (b"\x01a\xc0\x0c", "pointer"),
        (b"\x40a\0", "reserved"),
        (b"\x80a\0", "reserved"),
        (b"\x3f" + b"a" * 63 + b"\x3f" + b"a" * 63 + b"\x3f" + b"a" * 63 + b"\x3f" + b"a" * 63 + b"\0", "255"),
    ],
)
def test_scan_refuses(wire: bytes, why: str) -> None:
    with pytest.raises(BadName, match=why):
        scan(wire, 0)


@given(st.binary(max_size=300))
def test_scan_takes_any_octets(wire: bytes) -> None:
    try:
        end = scan(wire, 0)
    except BadName:
        return
    assert 1 <= end <= 255
    assert name.join(name.labels(wire[:end])) == wire[:end]


def test_a_name_of_255_octets_is_allowed() -> None:
    text = ".".join(["a" * 63] * 3 + ["a" * 61])
    assert len(from_text(text)) == 255
    assert scan(from_text(text), 0) == 255
    with pytest.raises(BadName, match="256 octets"):
        from_text(text + "a")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "empty name"),
        ("a..b", "empty label"),
        (".a", "empty label"),
        ("..", "empty label"),
        ("a" * 64, "64 octets"),
        ("\\", "nothing behind"),
        ("a\\25", "three digits"),
        ("a\\256", "three digits"),
        ("a\\1x2", "three digits"),
        ("bücher.example", "ASCII"),
    ],
)
def test_text_that_is_no_name(text: str, why: str) -> None:
    with pytest.raises(BadName, match=why):
        from_text(text)


@pytest.mark.parametrize(
    ("text", "wire"),
    [
        (".", b"\0"),
        ("Example.", b"\x07Example\0"),
        ("example", b"\x07example\0"),
        (r"a\.b.c", b"\x03a.b\x01c\0"),
        (r"a\046b.c", b"\x03a.b\x01c\0"),
        (r"\000\255", b"\x02\x00\xff\0"),
        (r"\\x", b"\x02\\x\0"),
        ("*.example", b"\x01*\x07example\0"),
    ],
)
def test_text_to_wire(text: str, wire: bytes) -> None:
    assert from_text(text) == wire


@given(st.text(max_size=40))
def test_any_text_is_a_name_or_a_clear_refusal(text: str) -> None:
    try:
        wire = from_text(text)
    except BadName:
        return
    assert scan(wire, 0) == len(wire)
