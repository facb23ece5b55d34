"""Messages: what a packet asks, what a reply's octets are; dnspython reads what is written here."""

from __future__ import annotations

import struct
from itertools import pairwise

import dns.flags
import dns.message
import dns.name
import dns.rdata
import dns.rdataclass
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edgedns.dns import edns, types
from edgedns.dns.message import (
    RR,
    TRUNCATED,
    Malformed,
    Query,
    Response,
    Tail,
    encode,
    encode_tail,
    fit,
    name_spans,
    parse,
)
from edgedns.dns.name import fold, from_text
from edgedns.dns.types import CNAME, DNAME, FORMERR, MX, NOERROR, NOTIMP, NS, PTR, RRSIG, SOA, SRV, SVCB, TXT, A

QNAME = from_text("wWw.Example.net")
QUESTION = QNAME + b"\0\1\0\1"
OPT = b"\0\0\x29\x04\xd0\0\0\0\0\0\0"
APEX = from_text("example.net")


def packet(
    rest: bytes = QUESTION, flags: int = 0x0100, counts: tuple[int, int, int, int] = (1, 0, 0, 0), id_: int = 0x1234
) -> bytes:
    return struct.pack("!6H", id_, flags, *counts) + rest


def record(type_: int, owner: bytes = b"\0", rdata: bytes = b"") -> bytes:
    return owner + struct.pack("!HHIH", type_, 1, 0, len(rdata)) + rdata


def opt(*options: tuple[int, bytes], version: int = 0) -> bytes:
    rdata = b"".join(struct.pack("!HH", code, len(content)) + content for code, content in options)
    return b"\0" + struct.pack("!HHBBHH", 41, 1232, 0, version, 0, len(rdata)) + rdata


def query(sent: bytes) -> Query:
    got = parse(sent)
    assert isinstance(got, Query)
    return got


def malformed(sent: bytes) -> Malformed:
    got = parse(sent)
    assert isinstance(got, Malformed)
    return got


# --- parse ---


def test_a_plain_query() -> None:
    got = query(packet())
    assert got == Query(0x1234, 0, True, False, QNAME, fold(QNAME), 1, 1, None, QUESTION)


def test_flags_that_mean_nothing_in_a_query_are_ignored() -> None:
    # AA, TC, RA, Z, AD set, an rcode too.
    got = query(packet(flags=0x0400 | 0x0200 | 0x0080 | 0x0040 | 0x0020 | 0x0003))
    assert (got.rd, got.cd) == (False, False)
    assert query(packet(flags=0x0010)).cd


def test_edns_is_read_among_other_additional_records() -> None:
    signature = record(24, b"\x03key\0", bytes(20))
    pointed = record(99, b"\xc0\x0c", b"x")
    got = query(packet(QUESTION + pointed + opt((3, b"")) + signature, counts=(1, 0, 0, 3)))
    assert got.edns == edns.Edns(1232, 0, False, nsid=True)


def test_an_ixfr_query_brings_its_soa() -> None:
    ixfr = QNAME + b"\0\xfb\0\1"
    assert query(packet(ixfr + record(SOA, b"\xc0\x0c", bytes(22)), counts=(1, 0, 1, 0))).qtype == types.IXFR


@pytest.mark.parametrize("length", range(12))
def test_shorter_than_a_header_is_silence(length: int) -> None:
    assert parse(packet()[:length]) is None


@given(st.integers(0x8000, 0xFFFF), st.binary(max_size=40))
def test_a_response_is_silence(flags: int, rest: bytes) -> None:
    assert parse(packet(rest, flags=flags)) is None


@pytest.mark.parametrize("opcode", range(1, 16))
@pytest.mark.parametrize(
    ("rest", "counts"),
    [
        (b"", (0, 0, 0, 0)),
        (QUESTION, (1, 0, 0, 0)),
        (b"\xff" * 30, (9, 9, 9, 9)),
        (QUESTION + record(A) + record(A), (1, 1, 1, 0)),
    ],
)
def test_every_other_opcode_is_notimp(opcode: int, rest: bytes, counts: tuple[int, int, int, int]) -> None:
    got = malformed(packet(rest, flags=opcode << 11 | 0x0100, counts=counts))
    assert (got.rcode, got.opcode, got.rd) == (NOTIMP, opcode, True)
    assert encode(got, Response(got.rcode), 512) == struct.pack("!6H", 0x1234, 0x8100 | opcode << 11 | 4, 0, 0, 0, 0)


def test_notimp_keeps_the_opt() -> None:
    got = malformed(packet(QUESTION + OPT, flags=0x7800, counts=(1, 0, 0, 1)))
    assert encode(got, Response(got.rcode), 512)[12:] == OPT


BROKEN = {
    "no question": (b"", (0, 0, 0, 0)),
    "no question but OPT": (OPT, (0, 0, 0, 1)),
    "two questions": (QUESTION + QUESTION, (2, 0, 0, 0)),
    "a question missing": (b"", (1, 0, 0, 0)),
    "a question cut off": (QUESTION[:-1], (1, 0, 0, 0)),
    "a name cut off": (QNAME[:-1], (1, 0, 0, 0)),
    "a pointer as qname": (b"\xc0\x0c\0\1\0\1", (1, 0, 0, 0)),
    "a pointer in the qname": (b"\x01a\xc0\x04\0\1\0\1", (1, 0, 0, 0)),
    "label type 0x40": (b"\x41a\0\0\1\0\1", (1, 0, 0, 0)),
    "label type 0x80": (b"\x81a\0\0\1\0\1", (1, 0, 0, 0)),
    "a qname of 256 octets": ((b"\x3f" + b"a" * 63) * 3 + b"\x3e" + b"a" * 62 + b"\0\0\1\0\1", (1, 0, 0, 0)),
    "octets at the end": (QUESTION + b"\0", (1, 0, 0, 0)),
    "an answer": (QUESTION + record(A), (1, 1, 0, 0)),
    "an authority record": (QUESTION + record(A), (1, 0, 1, 0)),
    "ANCOUNT that lies": (QUESTION, (1, 1, 0, 0)),
    "ARCOUNT that lies": (QUESTION, (1, 0, 0, 1)),
    "a record cut off": (QUESTION + record(A, rdata=b"1234")[:-1], (1, 0, 0, 1)),
    "a reserved label type in an owner": (QUESTION + record(A, b"\x80\0"), (1, 0, 0, 1)),
}
BROKEN_OPT = {
    "two OPT": (QUESTION + OPT + OPT, (1, 0, 0, 2)),
    "OPT not at the root": (QUESTION + b"\x01a" + OPT, (1, 0, 0, 1)),
    "OPT by a pointer": (QUESTION + b"\xc0\x1c" + OPT[1:], (1, 0, 0, 1)),
    "an answer and OPT": (QUESTION + record(A) + OPT, (1, 1, 0, 1)),
    "octets behind OPT": (QUESTION + OPT + b"x", (1, 0, 0, 1)),
    "a bad cookie": (QUESTION + opt((10, b"1234567")), (1, 0, 0, 1)),
    "a bad client subnet": (QUESTION + opt((8, b"\0\1\x18\0\1\2")), (1, 0, 0, 1)),
    "options that don't fill OPT": (QUESTION + b"\0" + struct.pack("!HHIH", 41, 512, 0, 3) + b"\0\3\0", (1, 0, 0, 1)),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_earns_a_formerr(case: str) -> None:
    rest, counts = BROKEN[case]
    got = malformed(packet(rest, counts=counts))
    assert (got.id, got.rcode) == (0x1234, FORMERR)
    assert got.why
    assert got.question in (b"", QUESTION)


@pytest.mark.parametrize("case", BROKEN_OPT)
def test_what_earns_a_formerr_with_opt(case: str) -> None:
    """RFC 6891 section 7: an OPT in the request, an OPT in the response."""
    rest, counts = BROKEN_OPT[case]
    got = malformed(packet(rest, counts=counts))
    assert (got.rcode, got.question) == (FORMERR, QUESTION)
    assert got.edns is not None
    assert dns.message.from_wire(encode(got, Response(got.rcode), 512)).edns == 0


@pytest.mark.parametrize("section", [1, 2])
def test_opt_in_another_section_is_a_formerr(section: int) -> None:
    counts = [1, 0, 0, 0]
    counts[section] = 1
    assert malformed(packet(QUESTION + OPT, counts=(counts[0], counts[1], counts[2], 0))).rcode == FORMERR
    ixfr = QNAME + b"\0\xfb\0\1"
    assert malformed(packet(ixfr + OPT, counts=(1, counts[1], counts[2], 0))).rcode == FORMERR


def test_an_unknown_edns_version_is_badvers_whatever_its_options() -> None:
    got = malformed(packet(QUESTION + opt((8, b"?"), version=1), counts=(1, 0, 0, 1)))
    assert got.rcode == types.BADVERS
    reply = dns.message.from_wire(encode(got, Response(got.rcode), 512))
    assert (reply.rcode(), reply.edns, reply.options) == (16, 0, ())


def test_no_question_but_a_cookie_is_no_error() -> None:
    got = malformed(packet(opt((10, b"12345678")), counts=(0, 0, 0, 1)))
    assert (got.rcode, got.question) == (NOERROR, b"")
    assert got.edns is not None
    assert got.edns.cookie == b"12345678"


def test_labels_hold_any_octet() -> None:
    name = b"\x04\xff.\0A\0"
    assert query(packet(name + b"\0\1\0\1")).folded == b"\x04\xff.\0a\0"


@given(st.binary(max_size=120))
@example(packet(QUESTION + OPT, counts=(1, 0, 0, 1)))
def test_any_octets_are_parsed(sent: bytes) -> None:
    check_reply(sent)


@given(st.data())
def test_any_mutation_is_parsed(data: st.DataObject) -> None:
    rest = QUESTION + opt((8, b"\0\1\x18\0\xc0\0\2"), (10, bytes(24)), (3, b""))
    sent = bytearray(packet(rest, counts=(1, 0, 0, 1)))
    for _ in range(data.draw(st.integers(1, 4))):
        sent[data.draw(st.integers(2, len(sent) - 1))] = data.draw(st.integers(0, 255))
    check_reply(bytes(sent[: data.draw(st.integers(0, len(sent)))]))


def check_reply(sent: bytes) -> None:
    """Silence only for what has no header or QR set; any other reply is well-formed and has the id."""
    got = parse(sent)
    if got is None:
        assert len(sent) < 12 or sent[2] & 0x80
        return
    rcode = got.rcode if isinstance(got, Malformed) else types.REFUSED
    reply = encode(got, Response(rcode), 512)
    assert len(reply) <= len(sent) + 32
    message = dns.message.from_wire(reply)
    assert message.id == int.from_bytes(sent[:2], "big")
    assert message.rcode() == rcode
    assert message.opcode() == sent[2] >> 3 & 15
    assert message.flags & ~(dns.flags.QR | dns.flags.RD | 0x7800 | 0xF) == 0


# --- encode ---

WORDS = st.sampled_from(["a", "b", "Example", "net", "example", "ns1", "*", "mail"])
TEXTS = st.lists(WORDS, min_size=1, max_size=4).map(".".join)
INSIDE = st.lists(WORDS, max_size=3).map(lambda parts: ".".join([*parts, "example", "net"]))
TARGETS = st.one_of(TEXTS, INSIDE, st.just("."))


def rdatas() -> st.SearchStrategy[tuple[int, bytes]]:
    target = TARGETS.map(from_text)
    return st.one_of(
        st.binary(min_size=4, max_size=4).map(lambda octets: (A, octets)),
        st.tuples(st.sampled_from([NS, CNAME, PTR, DNAME]), target),
        target.map(lambda name: (MX, b"\0\x0a" + name)),
        st.tuples(target, target).map(lambda pair: (SOA, pair[0] + pair[1] + bytes(20))),
        target.map(lambda name: (SRV, bytes(6) + name)),
        target.map(lambda name: (SVCB, b"\0\1" + name)),
        target.map(lambda name: (RRSIG, bytes(18) + name + b"sig")),
        st.binary(max_size=30).map(lambda octets: (65280, octets)),
    )


@st.composite
def records(draw: st.DrawFn, owner: st.SearchStrategy[bytes]) -> tuple[RR, ...]:
    drawn = draw(st.lists(st.tuples(owner, rdatas(), st.integers(0, 2**31 - 1)), max_size=4))
    return tuple(RR(name, type_, ttl, rdata) for name, (type_, rdata), ttl in drawn)


@st.composite
def responses(draw: st.DrawFn, qname: bytes) -> Response:
    owners = st.one_of(TARGETS.map(from_text).map(fold), st.just(fold(qname)))
    additional = draw(records(owners))
    return Response(
        draw(st.sampled_from([NOERROR, types.NXDOMAIN, types.YXDOMAIN])),
        draw(st.booleans()),
        draw(records(owners)),
        draw(records(owners)),
        additional,
        draw(st.sampled_from([APEX, b"\0", b""])),
        draw(st.integers(0, len(additional))),
    )


@given(st.data())
def test_a_reply_says_what_the_response_is(data: st.DataObject) -> None:
    qname = from_text(data.draw(st.one_of(INSIDE, st.just("."))))
    asked = query(packet(qname + b"\0\1\0\1"))
    response = data.draw(responses(qname))
    message = dns.message.from_wire(encode(asked, response, 65535), one_rr_per_rrset=True)
    for section, expected in zip(
        (message.answer, message.authority, message.additional),
        (response.answer, response.authority, response.additional),
        strict=True,
    ):
        got = [
            (fold(rrset.name.to_wire() or b""), int(rrset.rdtype), rrset.ttl, rrset[0].to_generic().data) for rrset in section
        ]
        assert [(*rest, fold(rdata)) for *rest, rdata in got] == [(*r[:3], fold(r.rdata)) for r in expected]
    assert message.question[0].name.to_wire() == qname
    assert message.rcode() == response.rcode
    assert bool(message.flags & dns.flags.AA) is response.aa
    assert not message.flags & (dns.flags.TC | dns.flags.RA | dns.flags.AD | dns.flags.CD)


@given(st.data())
def test_a_tail_shifted_is_the_tail_of_the_other_question(data: st.DataObject) -> None:
    """For a response that names the question's own name as owner or not at all, only the length matters."""
    one = from_text("q1.w.example.net")
    other = from_text(data.draw(st.text("xyz", min_size=1, max_size=40)) + ".w.example.net")
    response = data.draw(responses(one))

    def renamed(section: tuple[RR, ...]) -> tuple[RR, ...]:
        return tuple(r._replace(owner=fold(other)) if r.owner == fold(one) else r for r in section)

    theirs_response = response._replace(
        answer=renamed(response.answer),
        authority=renamed(response.authority),
        additional=renamed(response.additional),
    )
    mine, theirs = encode_tail(one, response), encode_tail(other, theirs_response)
    assert mine.shifted(len(other) - len(one)) == theirs.body
    assert mine._replace(body=b"") == theirs._replace(body=b"")


@given(st.data())
def test_pointers_keep_the_rule(data: st.DataObject) -> None:
    """Every pointer is to the whole question name, its apex, or a name in the body, and strictly backwards."""
    qname = from_text(data.draw(INSIDE))
    response = data.draw(responses(qname))
    tail = encode_tail(qname, response)
    start = 12 + len(qname) + 4
    for at in tail.pointers:
        target = int.from_bytes(tail.body[at : at + 2], "big") - 0xC000
        assert start <= target < start + at or target == 12 + len(qname) - len(response.apex)


SOA_RR = RR(APEX, SOA, 60, from_text("ns1.example.net") + from_text("noc.example.net") + bytes(20))


def test_compression_by_the_letter() -> None:
    answer = (RR(fold(QNAME), CNAME, 5, from_text("Foo.example.net")), RR(from_text("foo.example.net"), A, 5, b"1234"))
    tail = encode_tail(QNAME, Response(NOERROR, True, answer, (SOA_RR,), apex=APEX))
    # Question: 12 + 17 + 4 = 33; the apex is at 16.
    assert tail.body[:2] == b"\xc0\x0c"
    assert tail.body[12:18] == b"\x03Foo\xc0\x10"
    assert tail.body[18:20] == bytes((0xC0, 33 + 12))
    assert tail.pointers[:3] == (16, 18, 34)
    assert tail.counts == (2, 1, 0)


def test_rfc3597_types_outside_rfc1035_are_never_compressed() -> None:
    target = from_text("foo.example.net")
    for type_, rdata in ((SRV, bytes(6) + target), (DNAME, target), (SVCB, b"\0\1" + target), (TXT, target), (65280, target)):
        tail = encode_tail(QNAME, Response(answer=(RR(fold(QNAME), type_, 5, rdata),), apex=APEX))
        assert tail.body.endswith(rdata)
        assert tail.pointers == ()


def test_an_owner_equal_to_the_question_is_always_a_pointer_even_the_root() -> None:
    tail = encode_tail(b"\0", Response(answer=(RR(b"\0", A, 5, b"1234"),), apex=b"\0"))
    assert tail.body[:2] == b"\xc0\x0c"


def test_rdata_that_is_not_well_formed_stays_as_it_is() -> None:
    assert name_spans(MX, b"\0") == name_spans(NS, b"\x05ab") == name_spans(SOA, b"\0\x05") == []
    assert name_spans(SOA, b"\0\x01a\0" + bytes(20)) == [(0, 1), (1, 4)]


def test_a_wildcards_owner_is_the_question_in_the_askers_case() -> None:
    reply = encode(query(packet()), Response(answer=(RR(fold(QNAME), A, 5, b"1234"),), apex=APEX), 512)
    assert dns.message.from_wire(reply).answer[0].name.to_text() == "wWw.Example.net."


def test_names_beyond_the_reach_of_a_pointer() -> None:
    filler = tuple(RR(fold(QNAME), TXT, 5, bytes(250)) for _ in range(70))
    far = tuple(RR(from_text(f"n{at}.example.org"), A, 5, b"1234") for at in range(3))
    response = Response(NOERROR, True, filler, far, apex=APEX)
    message = dns.message.from_wire(encode(query(packet()), response, 65535), one_rr_per_rrset=True)
    assert [rrset.name.to_text() for rrset in message.authority] == [f"n{at}.example.org." for at in range(3)]


def test_no_reader_goes_through_more_than_ten_pointers() -> None:
    """Each name of a chain could point to the one before; Go's reader gives up at the eleventh pointer, dnspython's later."""
    names = [from_text("a." * depth + "z.example.net") for depth in range(30)]
    answer = tuple(RR(one, CNAME, 5, other) for one, other in pairwise(names))
    tail = encode_tail(names[0], Response(NOERROR, True, answer, (SOA_RR,), apex=APEX))
    head = bytes(12) + names[0] + bytes(4)
    wire = head + tail.body
    assert max(hops(wire, len(head) + at) for at in tail.pointers) == 9
    asked = query(packet(names[0] + b"\0\1\0\1"))
    reply = dns.message.from_wire(encode(asked, Response(NOERROR, True, answer, apex=APEX), 65535))
    assert [rrset[0].target.to_wire() for rrset in reply.answer] == names[1:]
    assert len(wire) < 1400  # still a tenth of what the names have written out


def hops(wire: bytes, at: int) -> int:
    """How many pointers a reader takes from a pointer to the end of the name."""
    count = 0
    while wire[at]:
        if wire[at] < 0xC0:
            at += 1 + wire[at]
        else:
            at, count = int.from_bytes(wire[at : at + 2], "big") & 0x3FFF, count + 1
    return count


# --- flags, OPT, size ---


def test_the_header_echoes_id_opcode_and_rd_alone() -> None:
    reply = encode(query(packet(flags=0x07F0)), Response(), 512)
    assert reply[:12] == struct.pack("!6H", 0x1234, 0x8100, 1, 0, 0, 0)
    assert encode(query(packet(flags=0x0010)), Response(types.REFUSED), 512)[2:4] == b"\x80\x05"


def test_opt_is_last_and_only_if_asked() -> None:
    glue = (RR(from_text("ns1.example.net"), A, 5, b"1234"),)
    response = Response(types.BADCOOKIE, additional=glue, apex=APEX)
    asked = query(packet(QUESTION + b"\0\0\x29\x04\xd0\0\0\x80\0\0\0", counts=(1, 0, 0, 1)))
    reply = encode(asked, response, 512, [(10, b"c" * 24)])
    assert reply.endswith(edns.encode(True, types.BADCOOKIE, [(10, b"c" * 24)]))
    assert reply[10:12] == b"\0\2"
    assert dns.message.from_wire(reply).rcode() == types.BADCOOKIE
    assert b"\0\0\x29" not in encode(query(packet()), Response(additional=glue, apex=APEX), 512)


def referral(glue: int, extras: int, required: int) -> Response:
    additional = tuple(RR(from_text(f"ns{at}.sub.example.net"), A, 5, b"1234") for at in range(glue + extras))
    servers = tuple(RR(from_text("sub.example.net"), NS, 5, r.owner) for r in additional[:glue])
    return Response(NOERROR, False, (), servers, additional, APEX, required)


@pytest.mark.parametrize("limit", range(33, 400))
def test_what_does_not_fit_goes_in_order(limit: int) -> None:
    asked = query(packet())
    response = referral(3, 5, 3)
    reply = encode(asked, response, limit)
    message = dns.message.from_wire(reply)
    records = len(message.authority[0]) if message.authority else 0
    assert len(reply) <= limit
    if message.flags & dns.flags.TC:
        assert len(reply) == 12 + len(QUESTION)
        assert len(encode(asked, response._replace(additional=response.additional[:3]), 65535)) > limit
    else:
        assert records == 3
        held = len(message.additional)
        assert held >= 3
        if held < 8:
            one_more = response._replace(additional=response.additional[: held + 1])
            assert len(encode(asked, one_more, 65535)) > limit


def test_whole_rrsets_are_dropped() -> None:
    mail = from_text("mail.example.net")
    extras = tuple(RR(mail, type_, 5, bytes(size)) for type_, size in ((A, 4), (A, 4), (28, 16), (28, 16)))
    tail = encode_tail(QNAME, Response(answer=(RR(fold(QNAME), A, 5, b"1234"),), additional=extras, apex=APEX))
    assert [count for _, count in tail.cuts] == [0, 2, 4]
    assert [fit(tail, size - 1).counts[2] for size, _ in tail.cuts[1:]] == [0, 2]
    assert fit(tail, tail.cuts[0][0] - 1) is TRUNCATED


def test_what_is_required_ends_with_its_rrset() -> None:
    extras = tuple(RR(from_text("ns1.example.net"), A, 5, bytes((0, 0, 0, at))) for at in range(3))
    tail = encode_tail(QNAME, Response(additional=extras, apex=APEX, required=1))
    assert [count for _, count in tail.cuts] == [3]


def test_a_shortened_tail_keeps_only_its_own_pointers() -> None:
    tail = encode_tail(QNAME, referral(2, 3, 0))
    size, count = tail.cuts[2]
    short = fit(tail, size)
    assert short == Tail((0, 2, count), tail.body[:size], tuple(at for at in tail.pointers if at < size), tail.cuts[:3])


def test_opt_counts_against_the_limit() -> None:
    asked = query(packet(QUESTION + OPT, counts=(1, 0, 0, 1)))
    response = Response(answer=(RR(fold(QNAME), TXT, 5, bytes(100)),), apex=APEX)
    full = encode(asked, response, 65535, [(3, b"node")])
    assert encode(asked, response, len(full), [(3, b"node")]) == full
    cut = encode(asked, response, len(full) - 1, [(3, b"node")])
    assert cut[2] & 2
    assert cut.endswith(edns.encode(False, 0, [(3, b"node")]))


def test_an_empty_response_is_never_truncated() -> None:
    assert not encode(query(packet()), Response(types.REFUSED), 12)[2] & 2
