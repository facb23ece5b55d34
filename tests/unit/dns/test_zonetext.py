"""Zone-file text -> records with places, held against dnspython's own reader of whole zones."""

from __future__ import annotations

import dns.name
import dns.rdatatype
import dns.zone
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgedns.dns import types, zonecheck
from edgedns.dns.name import from_text
from edgedns.dns.zonetext import Line, Reader, StaticRR
from edgedns.errors import Problem
from edgedns.model import Where

APEX = from_text("example.net")


def lines(text: str, file: str = "zone") -> list[Line]:
    return [Line(Where(file, number, 1), line) for number, line in enumerate(text.split("\n"), 1)]


def read(text: str, **files: str) -> Reader:
    """The text read with these further files to include."""

    def opener(name: str, where: Where, found: list[Problem]) -> list[Line] | None:
        return lines(files[name], name)

    reader = Reader(APEX, 30, opener)
    reader.read(lines(text))
    return reader


def codes(text: str) -> list[tuple[str, int, int]]:
    return [(each.code, each.line, each.column) for each in read(text).found]


def rows(reader: Reader) -> set[tuple[bytes, int, int, bytes]]:
    assert not reader.found, reader.found
    return {(rr.owner, rr.type, rr.ttl, rr.rdata) for rr in reader.records}


def by_dnspython(text: str) -> set[tuple[bytes, int, int, bytes]]:
    zone = dns.zone.from_text("$TTL 30\n" + text, origin="example.net", relativize=False, check_origin=False)
    return {
        (name.to_digestable(), int(rdataset.rdtype), rdataset.ttl, rdata.to_wire())
        for name, rdataset in zone.iterate_rdatasets()
        for rdata in rdataset
    }


ZONE = r"""
@ 3600 IN SOA ns1 noc.example.net. ( 2036120500 ; serial
        1h  ; refresh
        15m 2w 1m )
@       NS   ns1
        NS   ns2.example.org.
        300  MX 10 mail      ; comment with ( and "
ns1 IN 1h A  192.0.2.53
ns1 1h IN AAAA 2001:db8::53
MAIL    A    192.0.2.25
$TTL 5m
txt     TXT  "semi;colon" "par(en)thesis" "quo\"te" back\;slash "" "\200\010"
        TXT  ( "over"
               "lines" )
$ORIGIN sub.example.net.
www     CNAME @
a\.b    A    192.0.2.1
\065c   A    192.0.2.2
$ORIGIN deep
*       SRV  0 5 5060 sip.example.net.
x       TYPE65280 \# 4 0A 00 00 01
        CAA  0 issue "ca.example.net; policy=ev"
        NAPTR 100 10 "u" "E2U+sip" "!^.*$!sip:info@example.net!" .
        HTTPS 1 . alpn=h2,h3 ipv4hint=192.0.2.1
        LOC  51 30 12.748 N 0 7 39.612 W 0m
        DS   60485 13 2 ( d4b7d520e7bb5f0f67674a0cceb1e3e0
                          614b93c4f9e99b8383f6a1e4469da50a )
"""


def test_a_whole_zone_reads_as_dnspython_reads_it() -> None:
    assert rows(read(ZONE)) == by_dnspython(ZONE)
    assert len(read(ZONE).records) == 19


WORDS = st.sampled_from(["a", "b.c", "@", "x\\.y", "*", "A\\066"])
TTLS = st.sampled_from(["", "60", "5m", "1h30m"])
CLASSES = st.sampled_from(["", "IN", "in"])
DATA = st.sampled_from(
    [
        "A 192.0.2.1",
        "AAAA 2001:db8::1",
        "MX 10 m",
        'TXT "a;b(c" d',
        "TXT ( one\n two ) ; three",
        "TYPE4711 \\# 2 abcd",
        "ns ns.example.org.",
    ]
)


@given(st.lists(st.tuples(WORDS, TTLS, CLASSES, st.booleans(), DATA), min_size=1, max_size=8))
def test_any_zone_reads_as_dnspython_reads_it(entries: list[tuple[str, str, str, bool, str]]) -> None:
    text = ""
    for number, (owner, ttl, class_, first, data) in enumerate(entries):
        # One name each, so that sets keep the TTL they were given.
        owner = f"n{number}.{owner}" if owner != "@" else f"n{number}"
        middle = f"{ttl} {class_}" if first else f"{class_} {ttl}"
        text += f"{owner} {middle} {data}\n"
    assert rows(read(text)) == by_dnspython(text)


@pytest.mark.parametrize(
    ("text", "type_", "octets"),
    [
        ("a.example.net. CLASS1 TYPE1 10.0.0.2", 1, "0a000002"),
        ("a.example.net. 60 class1 A \\# 4 0A000001", 1, "0a000001"),
        ("a.example.net. CLASS1 60 TYPE731 \\# 6 abcd ( ef 01 23 45 )", 731, "abcdef012345"),
        ("a.example.net. IN TYPE62347 \\# 0", 62347, ""),
    ],
)
def test_rfc3597_5_types_and_classes_by_number(text: str, type_: int, octets: str) -> None:
    """RFC 3597 section 5 has types and classes by number, known or not, and data of known types in either form."""
    (record,) = read(text + "\n").records
    assert (record.type, record.rdata.hex()) == (type_, octets)


def test_places_are_those_of_the_text() -> None:
    reader = read("a A 192.0.2.1\n\n  ; nothing\nb TXT ( x\n  y )\nc A 192.0.2.2\n  A 192.0.2.3")
    assert [(rr.where.line, rr.where.column) for rr in reader.records] == [(1, 1), (4, 1), (6, 1), (7, 3)]


def test_one_mistake_hides_no_other() -> None:
    assert codes("a A x\nb AA 1\nc.example.org. A 192.0.2.1\nd A 192.0.2.1\n$TTL 1y\ne MX 10\nf CH TXT x\n") == [
        ("E401", 1, 5),
        ("E410", 2, 3),
        ("E402", 3, 1),
        ("E208", 5, 6),
        ("E401", 6, 6),
        ("E413", 7, 3),
    ]


def test_a_place_inside_parentheses_is_the_line_of_the_part() -> None:
    assert codes("a ( 60\n    IN\n   BAD 1 )\n") == [("E410", 3, 4)]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("  A 192.0.2.1", "E401"),
        ("a", "E401"),
        ("a 60 IN", "E401"),
        ("a A", "E401"),
        ('a TXT "open', "E401"),
        ("a TXT ( x", "E401"),
        ("a TXT x )", "E401"),
        ('"a" A 192.0.2.1', "E401"),
        (f"{'x' * 64} A 192.0.2.1", "E401"),
        ("a..b A 192.0.2.1", "E401"),
        ("a A 192.0.2.1 192.0.2.2", "E401"),
        ("a TYPE1 \\# 3 010203", "E401"),
        ("a 99999999999 A 192.0.2.1", "E208"),
        ("a CLASS3 TXT x", "E413"),
        ("a 60 CLASS32 TYPE731 \\# 0", "E413"),
        ("a ANY x", "E413"),
        ("a OPT x", "E413"),
        ("a TYPE0 \\# 0", "E413"),
        ("a RRSIG A 13 3 60 20361205000000 20361105000000 1 example.net. AAAA", "E413"),
        ("a TYPE65536 \\# 0", "E410"),
        ("$TTL", "E414"),
        ("$ORIGIN a b", "E414"),
        ("$GENERATE 1-9 a$ A 192.0.2.$", "E414"),
    ],
)
def test_what_is_refused(text: str, code: str) -> None:
    assert [each[0] for each in codes(text + "\n")] == [code]


def test_includes_keep_the_origin_and_owner_of_the_file_that_includes() -> None:
    reader = read("a A 192.0.2.1\n$INCLUDE one sub\n  A 192.0.2.2", one="$TTL 7\nb A 192.0.2.3\n$ORIGIN org.\n")
    assert [(rr.owner, rr.ttl) for rr in reader.records] == [
        (from_text("a.example.net"), 30),
        (from_text("b.sub.example.net"), 7),
        (from_text("a.example.net"), 30),
    ]
    assert reader.records[1].where == Where("one", 2, 1)


def test_includes_are_bounded() -> None:
    assert [each.code for each in read("$INCLUDE one", one="$INCLUDE two", two="$INCLUDE one").found] == ["E404"]
    ladder = {f"f{n}": f"$INCLUDE f{n + 1}\n" * 9 for n in range(20)}
    assert {each.code for each in read("$INCLUDE f0", **ladder).found} == {"E108"}


@given(st.text(alphabet='a.;()"\\ \t@$*\n0129AMXTé\u2028', max_size=120))
def test_any_text_is_read_or_refused(text: str) -> None:
    reader = read(text)
    assert all(0 < each.column <= 122 for each in reader.found)
    zonecheck.check(APEX, zonecheck.tidy(reader.records)[0], {from_text("a.example.net")})


# the zone as a whole


def checked(text: str, *steered: str) -> list[str]:
    reader = read(text)
    assert not reader.found, reader.found
    records, changed = zonecheck.tidy(reader.records)
    names = {from_text(f"{name}.example.net") for name in steered}
    return sorted(each.code for each in (*changed, *zonecheck.check(APEX, records, names)))


@pytest.mark.parametrize(
    ("text", "steered", "said"),
    [
        ("a CNAME b\na TXT x", (), ["E405"]),
        ("a CNAME b", (), []),
        ("a MX 1 b", ("a",), ["W613"]),
        ("a MX 1 b", ("b",), []),
        ("a MX 1 b", ("*",), []),
        ("a MX 1 b\n* A 192.0.2.1", (), []),
        ("a MX 0 .", (), []),
        ("a MX 1 c\nc CNAME b", (), ["W612"]),
        ("a SRV 1 1 1 b\n*.b A 192.0.2.1", (), ["W613"]),
        ("a A 192.0.2.1", ("a",), ["E406"]),
        ("a TXT x\na MX 1 mail.example.org.", ("a",), []),
        ("a NS ns.example.org.", ("a",), ["E411"]),
        ("a NS ns.example.org.", ("x.y.a",), ["E411"]),
        ("a DNAME b", ("a",), []),
        ("a DNAME b", ("x.a",), ["E411"]),
        ("a NS ns.a\nns.a A 192.0.2.1", (), []),
        ("a NS ns.a\nns.a A 192.0.2.1\nns.a TXT x", (), ["W608"]),
        ("a NS ns.a", (), ["W611"]),
        ("a NS a\na A 192.0.2.1", (), []),
        ("a NS ns.b\nb NS ns.b\nns.b A 192.0.2.1", (), []),
        ("a NS ns.example.org.\na TXT x", (), ["W608"]),
        ("a NS ns.example.org.\na DS 1 13 2 " + "00" * 32, (), []),
        ("a A 192.0.2.1\na 60 A 192.0.2.2\na A 192.0.2.1", (), ["W609", "W610"]),
        ("a MX 10 m.example.org.\na MX 10 M.Example.org.\na MX 11 m.example.org.", (), ["W610"]),
        ("a CNAME ns1\na CNAME nS1", (), ["W610"]),
        ("a TXT x\na TXT X", (), []),
    ],
)
def test_a_zone_as_a_whole(text: str, steered: tuple[str, ...], said: list[str]) -> None:
    assert checked(text + "\n", *steered) == said


def test_a_set_has_its_lowest_ttl_and_each_record_once() -> None:
    records, _ = zonecheck.tidy(read("a 60 A 192.0.2.1\na 30 A 192.0.2.2\na 60 A 192.0.2.1\n").records)
    assert [(rr.ttl, rr.rdata[-1]) for rr in records] == [(30, 1), (30, 2)]


def test_a_record_says_what_it_is() -> None:
    (record,) = read("WWW.Sub MX 10 Mail\n").records
    rdata = b"\0\n" + b"\4Mail\7example\3net\0"
    assert record == StaticRR(from_text("www.sub.example.net"), types.MX, 30, rdata, Where("zone", 1, 1))
