"""RFC 8906 section 8, its eighteen queries as `dig` sends them, with everything that it expects of each; and, as ISC's EDNS
compliance tester does, each bit and option set with the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import dns.edns
import dns.flags
import dns.message
import dns.opcode
import dns.rdatatype
import pytest

from tests.conformance.client import NO_EDNS, Client, coded, option, question, rcode

NSID, EXPIRE = coded(3), coded(9)
COOKIE, SUBNET = dns.edns.CookieOption(b"8octets.", b""), dns.edns.ECSOption("0.0.0.0", 0)
UNKNOWN = coded(100)
EDNS_Z = 0x40


@dataclass(frozen=True)
class Sent:
    """A question for the zone's SOA, or what differs from that. `bits` are the header's, `ednsflags` those of OPT."""

    rtype: str = "SOA"
    bits: int = 0
    edns: int = NO_EDNS
    ednsflags: int = 0
    payload: int = 1232
    options: Sequence[dns.edns.Option] = field(default=())

    def message(self) -> dns.message.Message:
        made = question("@", self.rtype, edns=self.edns, payload=self.payload, options=self.options)
        made.flags = dns.flags.Flag(self.bits)
        if self.edns != NO_EDNS:
            made.ednsflags |= self.ednsflags
        return made


ANSWERED = {
    "8.1.1, the zone is there": Sent(),
    "8.1.3.1, CD": Sent(bits=0x0010),
    "8.1.3.2, AD": Sent(bits=0x0020),
    "8.1.3.3, the reserved bit": Sent(bits=0x0040),
    "8.1.3.4, RD": Sent(bits=0x0100),
    "8.2.1, EDNS": Sent(edns=0),
    "8.2.3, an unknown option": Sent(edns=0, options=[UNKNOWN]),
    "8.2.4, an unknown flag": Sent(edns=0, ednsflags=EDNS_Z),
    "8.2.8, DO": Sent(edns=0, ednsflags=dns.flags.DO),
    "8.2.10, several known options": Sent(edns=0, options=[COOKIE, NSID, EXPIRE, SUBNET]),
    "AA": Sent(bits=0x0400),
    "TC": Sent(bits=0x0200),
    "RA": Sent(bits=0x0080),
    "DO and CD": Sent(bits=0x0010, edns=0, ednsflags=dns.flags.DO),
    "EDNS with 512 octets": Sent(edns=0, payload=512),
    **{f"option {each.otype} alone": Sent(edns=0, options=[each]) for each in (NSID, COOKIE, EXPIRE, SUBNET)},
}
BAD_VERSION = {
    "8.2.2, version 1": Sent(edns=1),
    "8.2.5, with an unknown flag": Sent(edns=1, ednsflags=EDNS_Z),
    "8.2.6, with an unknown option": Sent(edns=1, options=[UNKNOWN]),
    "8.2.9, with DO": Sent(edns=1, ednsflags=dns.flags.DO),
    **{f"with option {each.otype}": Sent(edns=1, options=[each]) for each in (NSID, COOKIE, EXPIRE, SUBNET)},
}


def check_form(sent: Sent, reply: dns.message.Message) -> None:
    """What is expected of every reply: of the query's bits only RD, its OPT record's DO alone, nothing unknown."""
    assert reply.flags & 0x03F0 == sent.bits & 0x0100
    assert reply.edns == (-1 if sent.edns == NO_EDNS else 0)
    assert reply.ednsflags & 0xFFFF == sent.ednsflags & dns.flags.DO
    assert option(reply, 100) is None


@pytest.mark.parametrize("case", ANSWERED)
def test_8_answered_as_ever(either: Client, case: str) -> None:
    """NOERROR, the SOA in the answer section, AA; with EDNS an OPT record of version 0."""
    sent = ANSWERED[case]
    reply = either.send(sent.message())
    check_form(sent, reply)
    assert (rcode(reply), [rrset.rdtype for rrset in reply.answer]) == ("NOERROR", [dns.rdatatype.SOA])
    assert reply.flags & dns.flags.AA


@pytest.mark.parametrize("case", BAD_VERSION)
def test_8_2_another_version(either: Client, case: str) -> None:
    """BADVERS, no SOA, no AA, an OPT record of version 0."""
    sent = BAD_VERSION[case]
    reply = either.send(sent.message())
    check_form(sent, reply)
    assert (rcode(reply), [*reply.answer, *reply.authority, *reply.additional]) == ("BADVERS", [])
    assert not reply.flags & dns.flags.AA


@pytest.mark.parametrize("rtype", ["TYPE666", "TYPE1000"])
def test_8_1_2_an_unknown_type(either: Client, rtype: str) -> None:
    """Section 8.1.2: NOERROR, an empty answer section, AA."""
    sent = Sent(rtype)
    reply = either.send(sent.message())
    check_form(sent, reply)
    assert (rcode(reply), reply.answer) == ("NOERROR", [])
    assert reply.flags & dns.flags.AA


@pytest.mark.parametrize("bits", [0x0000, 0x07F0])
def test_8_1_4_an_unknown_opcode(either: Client, bits: int) -> None:
    """Section 8.1.4, `dig +opcode=15 +header-only`: NOTIMP, all sections empty, no AA; with every bit set, too."""
    flags = 15 << 11 | bits
    reply = either.exchange(b"\x12\x34" + flags.to_bytes(2, "big") + bytes(8))
    assert reply == b"\x12\x34" + (0x8000 | 15 << 11 | bits & 0x0100 | 4).to_bytes(2, "big") + bytes(8)


@pytest.mark.parametrize("name", ["@", "crowd", "large"])
def test_8_2_7_truncated_replies_have_an_opt_record(ask: Client, name: str) -> None:
    """Section 8.2.7, `dig +bufsize=512 +dnssec +ignore`: an OPT record of version 0, truncated or not."""
    for rtype in ("DNSKEY", "TXT", "A"):
        reply = ask(name, rtype, edns=0, do=True, payload=512)
        assert (rcode(reply), reply.edns, reply.ednsflags & dns.flags.DO) == ("NOERROR", 0, dns.flags.DO)
