"""Differences of tables beside counting each address by itself, and countries joined to ASNs."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from edgedns.steer.space import asn
from edgedns.steer.space.asndiff import Difference, differences
from edgedns.steer.space.asnfiles import Row, TextTable
from edgedns.steer.space.ranges import disjoint, ranges

SPACE = 64
V4, V6 = 0xC0000200, 0x20010DB8 << 96  # 192.0.2.0, 2001:db8::
COUNTRIES = (b"", b"DE", b"NO")

rows = st.lists(
    st.tuples(st.integers(0, SPACE - 1), st.integers(0, SPACE - 1), st.integers(0, 3), st.sampled_from(COUNTRIES)).map(
        lambda row: (min(row[:2]), max(row[:2]), row[2], row[3])
    ),
    max_size=8,
)


def shifted(some: list[Row], by: int) -> list[Row]:
    return [(first + by, last + by, number, country) for first, last, number, country in some]


def table(some: list[Row]) -> asn.AsnTable:
    text = TextTable()
    text.v4, text.v6 = shifted([(SPACE, SPACE, 9, b""), *some], V4), shifted([(SPACE, SPACE, 9, b""), *some], V6)
    return asn.from_rows(text, "made", "2026-11-22", "")


def each(found: asn.AsnTable) -> list[tuple[int, str]]:
    return [found.lookup((V4 + number).to_bytes(4)) for number in range(SPACE + 1)]


def counted(before: list[tuple[int, str]], after: list[tuple[int, str]]) -> tuple[int, int, float, float]:
    def runs(side: list[tuple[int, str]]) -> int:
        asns = [0, *(number for number, _ in side)]
        return sum(now != was and now > 0 for was, now in pairwise(asns))

    pairs = list(zip(before, after, strict=True))
    moved = sum(was[0] > 0 and was[0] != now[0] for was, now in pairs) / sum(was[0] > 0 for was, _ in pairs)
    named = sum(was[1] != "" for was, _ in pairs)
    unnamed = sum(was[1] != "" and now[1] == "" for was, now in pairs)
    return runs(before), runs(after), moved, unnamed / named if named else 0.0


@given(rows, rows)
@settings(max_examples=150, deadline=None)
def test_as_counted_address_by_address(before: list[Row], after: list[Row]) -> None:
    one, other = table(before), table(after)
    wanted = counted(each(one), each(other))
    assert differences(one, other) == (Difference(4, *wanted), Difference(6, *wanted))


@given(rows, rows)
@settings(max_examples=100, deadline=None)
def test_countries_joined(asns: list[Row], countries: list[Row]) -> None:
    """The ASN of the one, the country of the other, and nothing where there is no ASN."""
    right = disjoint(ranges([(first, last, 1, country) for first, last, _, country in shifted(countries, V4) if country]))
    kept, nothing = table(asns), disjoint(ranges([]))
    joined = asn.joined(kept, (right, nothing))
    whose = table([(first, last, 1, country) for first, last, _, country in countries if country])
    for (number, _), (_, country), found in zip(each(kept), each(whose), each(joined), strict=True):
        assert found == ((number, country) if number else (0, ""))


def test_a_table_of_one_family() -> None:
    text, countries = TextTable(), disjoint(ranges([(V4, V4 + 9, 1, b"DE")]))
    text.v6 = [(V6, V6 + 9, 64496, b"")]
    joined = asn.joined(asn.from_rows(text, "made", "2026-11-22", ""), (countries, disjoint(ranges([(V6, V6, 1, b"NO")]))))
    assert [joined.lookup((V6 + number).to_bytes(16)) for number in (0, 9, 10)] == [(64496, "NO"), (64496, ""), (0, "")]
    assert len(joined.asn4) == 0


def test_a_table_beside_itself() -> None:
    found = differences(asn.embedded(), asn.embedded())
    assert [(one.runs_before, one.runs_after, one.moved, one.unnamed) for one in found] == [
        (411_961, 411_961, 0.0, 0.0),
        (103_197, 103_197, 0.0, 0.0),
    ]
