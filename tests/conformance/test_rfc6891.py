"""RFC 6891: EDNS (and 3225, 5001, 9619 beside it)."""

from __future__ import annotations

import dns.edns
import dns.flags
import pytest

from tests.conformance.client import Client, flags, option, question, rcode, texts

ANYTHING = [("zero", "A"), ("www", "A"), ("nowhere", "A"), ("host.child", "A"), ("www.example.com.", "A"), ("zero", "MX")]
OPT = b"\0\0\x29\x04\xd0\0\0\0\0\0\0"


def with_records(wire: bytes, *records: bytes, section: int = 5) -> bytes:
    """`wire` with records at its end, counted in the section whose count's low octet is at 2 * section + 1."""
    counts = bytearray(wire[:12])
    counts[2 * section + 1] += len(records)
    return bytes(counts) + wire[12:] + b"".join(records)


def opt(code: int, content: bytes) -> bytes:
    body = code.to_bytes(2, "big") + len(content).to_bytes(2, "big") + content
    return OPT[:-2] + len(body).to_bytes(2, "big") + body


@pytest.mark.parametrize(("name", "rtype"), ANYTHING)
def test_7_no_opt_unless_asked(either: Client, name: str, rtype: str) -> None:
    """Section 7: "Lack of presence of an OPT record in a request MUST be taken as an indication that the requestor does not
    implement any part of this specification and that the responder MUST NOT include an OPT record in its response."."""
    assert either(name, rtype).edns == -1


@pytest.mark.parametrize(("name", "rtype"), ANYTHING)
def test_6_1_1_an_opt_when_asked(either: Client, name: str, rtype: str) -> None:
    """Section 6.1.1: "If an OPT record is present in a received request, compliant responders MUST include an OPT record in
    their respective responses."."""
    reply = either(name, rtype, edns=0)
    assert reply.edns == 0
    assert reply.payload >= 512


def test_6_1_1_nothing_else_changes_with_it(either: Client) -> None:
    for name, rtype in ANYTHING:
        without, with_opt = either(name, rtype), either(name, rtype, edns=0)
        assert texts(without.answer) == texts(with_opt.answer)
        assert texts(without.authority) == texts(with_opt.authority)
        assert (rcode(without), flags(without)) == (rcode(with_opt), flags(with_opt))


def test_6_1_1_two_opts_are_a_format_error(either: Client) -> None:
    """Section 6.1.1: "If a query message with more than one OPT RR is received, a FORMERR (RCODE=1) MUST be returned."."""
    assert rcode(either.send(with_records(question("zero").to_wire(), OPT, OPT))) == "FORMERR"


def test_6_1_1_the_opt_may_be_anywhere_among_the_additional(either: Client) -> None:
    """Section 6.1.1: "The OPT RR MAY be placed anywhere within the additional data section."."""
    other = b"\0\0\x01\0\x01\0\0\0\0\0\x04\xc0\0\x02\x01"
    for records in ((OPT, other), (other, OPT)):
        reply = either.send(with_records(question("zero").to_wire(), *records))
        assert (rcode(reply), reply.edns, texts(reply.answer)) == ("NOERROR", 0, ["zero A 192.0.2.104"])


def test_6_1_2_its_name_must_be_the_root(either: Client) -> None:
    """Section 6.1.2: NAME "MUST be 0 (root domain)"."""
    assert rcode(either.send(with_records(question("zero").to_wire(), b"\1x" + OPT))) == "FORMERR"


@pytest.mark.parametrize("code", [0, 4, 9, 14, 100, 65001, 65535])
def test_6_1_2_unknown_options_are_ignored(either: Client, code: int) -> None:
    """Section 6.1.2: "Any OPTION-CODE values not understood by a responder or requestor MUST be ignored."."""
    for content in (b"", b"x", bytes(200)):
        reply = either.send(with_records(question("zero").to_wire(), opt(code, content)))
        assert (rcode(reply), texts(reply.answer)) == ("NOERROR", ["zero A 192.0.2.104"])
        assert option(reply, code) is None


@pytest.mark.parametrize("version", [1, 2, 255])
def test_6_1_3_versions_not_known(either: Client, version: int) -> None:
    """Section 6.1.3: "If a responder does not implement the VERSION level of the request, then it MUST respond with
    RCODE=BADVERS."."""
    reply = either("zero", edns=version)
    assert (rcode(reply), reply.edns, reply.answer) == ("BADVERS", 0, [])


def test_6_1_4_flags_not_known_are_ignored(either: Client) -> None:
    """Section 6.1.4: Z is "Set to zero by senders and ignored by receivers, unless modified in a subsequent specification."."""
    query = question("zero", edns=0)
    query.ednsflags |= 0x4321
    reply = either.send(query)
    assert (rcode(reply), reply.ednsflags & 0xFFFF) == ("NOERROR", 0)


@pytest.mark.parametrize(("name", "rtype"), ANYTHING)
def test_rfc3225_3_do_is_copied(either: Client, name: str, rtype: str) -> None:
    """RFC 3225 section 3: "The DO bit of the query MUST be copied in the response."."""
    assert either(name, rtype, do=True).ednsflags & dns.flags.DO
    assert not either(name, rtype, edns=0).ednsflags & dns.flags.DO


@pytest.mark.parametrize("payload", [0, 1, 100, 511, 512])
def test_6_2_3_less_than_512_counts_as_512(ask: Client, payload: int) -> None:
    """Section 6.2.3: "Values lower than 512 MUST be treated as equal to 512."."""
    reply = ask("old-shop", "HTTPS", edns=0, payload=payload)
    assert "TC" not in flags(reply)
    assert len(reply.answer) == 3


@pytest.mark.ours
@pytest.mark.parametrize("payload", [1232, 4096, 65535])
def test_rfc9715_3_1_no_more_than_is_never_cut_into_fragments(ask: Client, payload: int) -> None:
    """RFC 9715 section 3.1: a responder's own limit keeps its replies below the size that paths cut. Ours is 1,232."""
    reply = ask("zero", edns=0, payload=payload)
    assert reply.payload == 1232


def test_7_an_option_that_can_t_be_read(either: Client) -> None:
    """Section 7: "If there is a problem with processing the OPT record itself, such as an option value that is badly formatted
    or that includes out-of-range values, a FORMERR MUST be returned. If this occurs, the response MUST include an OPT
    record."."""
    for broken in (b"\0", b"\0\x08\0", b"\0\x08\0\x09\0", b"\xff\xff\xff\xff"):
        record = OPT[:-2] + len(broken).to_bytes(2, "big") + broken
        reply = either.send(with_records(question("zero").to_wire(), record))
        assert (rcode(reply), reply.edns) == ("FORMERR", 0)


@pytest.mark.ours
def test_rfc5001_2_2_nsid_when_asked(either: Client) -> None:
    """RFC 5001 section 2.2: "A name server MUST NOT send an NSID option back to a resolver which did not request it."."""
    asked = option(either("zero", options=[dns.edns.GenericOption(dns.edns.OptionType.NSID, b"")]), dns.edns.OptionType.NSID)
    assert asked is not None
    assert len(asked.to_wire() or b"") > 0
    assert option(either("zero", edns=0), dns.edns.OptionType.NSID) is None


def test_rfc9619_4_more_than_one_question(either: Client) -> None:
    """RFC 9619 section 4: "A DNS message with OPCODE = 0 and QDCOUNT > 1 MUST be treated as an incorrectly formatted message.
    The value of the RCODE parameter in the response message MUST be set to 1 (FORMERR)."."""
    wire = bytearray(question("zero").to_wire())
    wire[5] = 2
    assert rcode(either.send(bytes(wire + wire[12:]))) == "FORMERR"
    assert rcode(either.send(bytes(wire))) == "FORMERR"
