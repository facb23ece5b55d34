"""RFC 8945: TSIG, from a client whose key we don't know; we know none."""

from __future__ import annotations

import base64
import struct
import subprocess
import time

import dns.edns
import dns.message
import dns.name
import dns.rcode
import dns.tsig
import pytest

from tests.conformance.client import Client, coded, option, question, rcode

SECRET = base64.b64encode(bytes(32)).decode()
NAMES = ["key.example", "key.cdn.example.net", "CDN.example.net", ".", "k" * 63 + "." + "l" * 63]
TSIG, ANY, BADKEY = 250, 255, 17


def signed(query: dns.message.Message, name: str = "key.example", algorithm: str = "hmac-sha256") -> bytes:
    key = dns.tsig.Key(dns.name.from_text(name), SECRET, dns.name.from_text(algorithm))
    query.use_tsig(key)
    return query.to_wire()


def record(owner: bytes = b"\3key\0", rdata: bytes | None = None, rclass: int = ANY, ttl: int = 0) -> bytes:
    """A TSIG record, by default a whole one."""
    rdata = b"\4hmac\0" + bytes(6) + b"\1\x2c" + b"\0\4mac!" + b"\x12\x34" + bytes(4) if rdata is None else rdata
    return owner + struct.pack("!HHIH", TSIG, rclass, ttl, len(rdata)) + rdata


def with_additional(*records: bytes) -> bytes:
    wire = question("zero").to_wire()
    return wire[:10] + struct.pack("!H", len(records)) + wire[12:] + b"".join(records)


OPT = b"\0\0\x29\x04\xd0" + bytes(6)


def tail(either: Client, wire: bytes, opt: bytes = b"") -> bytes:
    """The reply's octets behind header and question, and behind the OPT record that it then begins with."""
    reply, end = either.exchange(wire), wire.index(b"\0", 12) + 5
    assert reply[12:end] == wire[12:end]
    assert reply[end:].startswith(opt)
    return reply[end + len(opt) :]


def told(either: Client, wire: bytes) -> dns.message.Message:
    return dns.message.from_wire(either.exchange(wire), keyring=False, ignore_trailing=False)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("algorithm", ["hmac-sha256", "hmac-md5.sig-alg.reg.int", "hmac-sha512-256"])
@pytest.mark.parametrize("edns", [-1, 0])
def test_5_2_1_a_key_that_nobody_knows(either: Client, name: str, algorithm: str, edns: int) -> None:
    """Section 5.2.1: "If a non-forwarding server does not recognize the key or algorithm used by the client (or recognizes
    the algorithm but does not implement it), the server MUST generate an error response with RCODE 9 (NOTAUTH) and TSIG ERROR
    17 (BADKEY)."; and 5.3.2: "an unsigned error message (MAC Size == 0 and empty MAC)"."""
    query = question("zero", edns=edns)
    reply = told(either, signed(query, name, algorithm))
    assert (reply.rcode(), reply.answer, reply.authority, reply.additional) == (dns.rcode.NOTAUTH, [], [], [])
    assert reply.tsig is not None
    assert (reply.edns, reply.tsig.name) == (edns, dns.name.from_text(name))
    ours = reply.tsig[0]
    assert (ours.algorithm, ours.fudge) == (dns.name.from_text(algorithm), 300)
    assert abs(ours.time_signed - time.time()) < 60
    assert (ours.mac, ours.original_id, ours.error, ours.other) == (b"", query.id, BADKEY, b"")


def test_rfc1035_4_1_1_the_question_comes_back(either: Client) -> None:
    """As with every other error: resolvers tell by it what a reply is to."""
    query = question("zero")
    assert told(either, signed(query)).question == query.question


def test_dig_says_so(ask: Client) -> None:
    command = ["dig", f"@{ask.host}", "-p", str(ask.port), "-y", f"hmac-sha256:key.cdn.example.net:{SECRET}", "+tries=1"]
    said = subprocess.run([*command, "zero.cdn.example.net"], capture_output=True, text=True, check=False).stdout
    assert "status: NOTAUTH" in said
    assert "BADKEY" in said


@pytest.mark.ours
def test_its_record_comes_back_without_the_mac(either: Client) -> None:
    wire = with_additional(OPT, record())
    assert tail(either, wire, OPT) == record(rdata=b"\4hmac\0" + bytes(6) + b"\1\x2c\0\0\x12\x34\0\x11\0\0")
    assert len(either.exchange(wire)) < len(wire)


WRONG_RDATA = [
    b"", b"\4hmac", b"\4hmac\0" + bytes(9), b"\4hmac\0" + bytes(8) + b"\0\5mac!" + bytes(5), b"\xc0\x0c" + bytes(16),
    b"\4hmac\0" + bytes(14) + b"\0\1", b"\4hmac\0" + bytes(17), b"\x40" * 80, (b"\x3f" + b"x" * 63) * 4 + bytes(17),
]  # fmt: skip
WRONG = [
    *[[record(rdata=rdata)] for rdata in WRONG_RDATA],
    *[[record(), OPT], [record(), record()], [record(rclass=1)], [record(ttl=1)]],
    *[[record(b"\xc0\x0d")], [record(b"\xc0\x00")], [record(b"\3key\xc0\xff")], [record((b"\x3f" + b"x" * 63) * 4 + b"\0")]],
]


@pytest.mark.ours
@pytest.mark.parametrize("records", WRONG)
def test_5_2_what_is_no_tsig_at_its_place(either: Client, records: list[bytes]) -> None:
    """Section 5.1: "If multiple TSIG records are detected or a TSIG record is present in any other position, the DNS message is
    dropped and a response with RCODE 1 (FORMERR) MUST be returned."; the same where it can't be read. Its names are not
    compressed, or end in one of the question's."""
    assert rcode(either.send(with_additional(*records))) == "FORMERR"


@pytest.mark.ours
@pytest.mark.parametrize("at", [6, 8])
def test_5_1_in_another_section(either: Client, at: int) -> None:
    wire = bytearray(with_additional(record()))
    wire[11], wire[at + 1] = 0, 1
    assert rcode(either.send(bytes(wire))) == "FORMERR"


@pytest.mark.ours
@pytest.mark.parametrize("owner", [b"\xc0\x0c", b"\1a\xc0\x11", b"\xc0\x20", b"\xc0\x21", b"\3KEY\xc0\x15"])
def test_a_name_that_ends_in_the_question_s(either: Client, owner: bytes) -> None:
    """zero.cdn.example.net begins at 12, its labels at 17, 21 and 29, the root at 33."""
    wire = with_additional(record(owner))
    wanted = "NOTAUTH" if owner[-1] != 0x20 else "FORMERR"
    reply = either.exchange(wire)
    assert dns.rcode.to_text(dns.rcode.Rcode.make(reply[3] & 15)) == wanted
    assert wanted == "FORMERR" or reply[len(question("zero").to_wire()) :].startswith(owner)


@pytest.mark.ours
def test_what_comes_before_it(either: Client) -> None:
    """What can't be read, an opcode or a version not known; then the key, whatever was asked."""
    wire = with_additional(record())
    assert rcode(either.send(wire[:2] + b"\x28" + wire[3:])) == "NOTIMP"
    assert either.exchange(with_additional(b"\0\0\x29\x04\xd0\0\1\0\0\0\0", record()))[3] & 15 == 0  # BADVERS
    for name, rtype, rclass in (("@", "AXFR", "IN"), ("www.example.com.", "A", "IN"), ("version.server.", "TXT", "CH")):
        assert either.exchange(signed(question(name, rtype, rclass=rclass)))[3] & 15 == dns.rcode.NOTAUTH


@pytest.mark.ours
def test_options_come_along(either: Client) -> None:
    """A cookie, and over TCP a keepalive; no client subnet, which would say what the answer depends on."""
    query = question("zero", options=[coded(10, b"12345678"), coded(3)], subnet="192.0.2.0/24")
    reply = told(either, signed(query))
    assert option(reply, 10) is not None
    assert option(reply, dns.edns.OptionType.ECS) is None


@pytest.mark.ours
def test_without_a_question(either: Client) -> None:
    """RFC 7873 section 5.4, and signed: its record's name has nothing to point to."""
    cookie = b"\0\0\x29\x04\xd0\0\0\0\0\0\x0c\0\x0a\0\x0812345678"
    head = b"\x12\x34\0\0\0\0\0\0\0\0\0\2"
    assert either.exchange(head + cookie + record())[3] & 15 == dns.rcode.NOTAUTH
    assert either.exchange(head + cookie + record(b"\xc0\x0c"))[3] & 15 == dns.rcode.FORMERR


@pytest.mark.ours
def test_one_that_does_not_fit_is_left_out(ask: Client) -> None:
    """Names so long are nobody's: the reply is what fits in 512 octets."""
    long = (b"\x3f" + b"x" * 63) * 3 + b"\x3d" + b"y" * 61 + b"\0"
    wire = question(f"{'a' * 60}.{'b' * 60}.{'c' * 60}").to_wire()
    wire = wire[:11] + b"\1" + wire[12:] + record(long, long + bytes(8) + b"\0\0" + bytes(6))
    reply = ask.exchange(wire)
    assert (reply[3] & 15, reply[2] & 2, reply[10:12], len(reply) <= 512) == (dns.rcode.NOTAUTH, 0, b"\0\0", True)
    assert len(ask.over("tcp").exchange(wire)) > 512
