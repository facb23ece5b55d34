"""RFC 8906: what must not go unanswered. Section 8's queries, each by its `dig` line's meaning."""

from __future__ import annotations

import dns.edns
import dns.message
import dns.opcode
import pytest

from tests.conformance.client import Client, coded, flags, option, question, rcode, texts

OPCODES = [1, 2, 3, *range(6, 16)]


@pytest.mark.parametrize("opcode", OPCODES)
@pytest.mark.parametrize("rest", ["nothing", "a question", "noise"])
def test_8_1_4_unknown_opcodes(either: Client, opcode: int, rest: str) -> None:
    """Section 8.1.4: "there is only one possible rcode that makes sense to return to a request with an unknown opcode, and that
    is NOTIMP"; it is asked with a header alone, because what follows depends on the opcode."""
    if rest == "nothing":
        wire = b"\x12\x34" + bytes((opcode << 3, 0)) + bytes(8)
    else:
        query = question("zero")
        query.set_opcode(dns.opcode.Opcode(opcode))
        wire = query.to_wire() if rest == "a question" else query.to_wire()[:12] + b"\xff" * 9
    reply = either.exchange(wire)
    assert (reply[:2], reply[2] >> 3, reply[3] & 15) == (wire[:2], 16 | opcode, 4)
    assert reply[6:10] == bytes(4)


@pytest.mark.parametrize("bits", [0x0400, 0x0200, 0x0080, 0x0040, 0x0020, 0x0010, 0x07F0])
@pytest.mark.parametrize(("name", "expected"), [("zero", {"AA"}), ("nowhere", {"AA"}), ("www.example.com.", set())])
def test_8_1_3_bits_that_mean_nothing_in_a_query(either: Client, bits: int, name: str, expected: set[str]) -> None:
    """Section 8.1.3: unassigned bits (and those of replies) are ignored in queries and zero in replies."""
    wire = bytearray(question(name).to_wire())
    wire[2] |= bits >> 8
    wire[3] |= bits & 0xFF
    reply = either.send(bytes(wire))
    assert flags(reply) - {"RD"} == expected


@pytest.mark.parametrize("name", ["zero", "www.example.com."])
def test_8_1_4_error_replies_are_clean(either: Client, name: str) -> None:
    """A reply that is an error has none of the query's AA, TC, RA, AD, CD and Z bits."""
    wire = bytearray(question(name).to_wire() + b"junk")
    wire[2] |= 0x06
    wire[3] |= 0xF0
    reply = either.exchange(bytes(wire))
    assert (reply[2] & 0x06, reply[3]) in ((0, 1), (0, 5))


@pytest.mark.parametrize("number", [*range(41), *range(42, 132), 200, 247, 248, *range(258, 262), 32768, 65279, 65534, 65535])
def test_8_1_2_every_type_is_answered(ask: Client, number: int) -> None:
    """Section 8.1.2: unknown types get NOERROR or NXDOMAIN, as the name demands; only NXNAME (128) is a mistake by itself."""
    for name in ("zero", "nowhere", "www"):
        reply = ask(name, f"TYPE{number}")
        allowed = {"NOERROR", "NXDOMAIN"} | ({"FORMERR"} if number == 128 else set()) | ({"NOTIMP"} if not number else set())
        assert rcode(reply) in allowed


def test_8_2_edns_of_every_kind(either: Client) -> None:
    """Sections 8.2.1 to 8.2.8: plain, unknown version, unknown option, unknown flags, both with each, DO, truncated, all known
    options."""
    unknown = coded(100)
    flagged = question("zero", edns=0)
    flagged.ednsflags |= 0x0040
    assert (rcode(either.send(flagged)), either.send(flagged).ednsflags & 0x7FFF) == ("NOERROR", 0)
    assert rcode(either("zero", edns=1, options=[unknown])) == "BADVERS"
    reply = either("zero", options=[unknown], do=True)
    assert (rcode(reply), reply.edns, texts(reply.answer)) == ("NOERROR", 0, ["zero A 192.0.2.104"])
    known = [coded(3), coded(10, b"12345678"), coded(9)]
    reply = either("zero", options=[*known[:2], dns.edns.ECSOption("0.0.0.0", 0)])
    assert (rcode(reply), texts(reply.answer)) == ("NOERROR", ["zero A 192.0.2.104"])
    assert option(reply, 100) is None


def test_3_1_5_tcp_is_answered_after_tc(ask: Client) -> None:
    """Section 3.1.5: TCP is no option: what truncates answers over TCP."""
    assert "TC" in flags(ask("large", "TXT"))
    assert len(texts(ask.over("tcp")("large", "TXT").answer)) == 9
