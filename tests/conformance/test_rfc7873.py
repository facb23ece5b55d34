"""RFC 7873 and 9018: cookies."""

from __future__ import annotations

import dns.edns
import dns.message
import pytest

from tests.conformance.client import Client, option, question, rcode, texts
from tests.conformance.test_rfc6891 import OPT, opt, with_records

CLIENT = bytes.fromhex("2464c4abcf10c957")
COOKIE = dns.edns.OptionType.COOKIE


def cookie(client: bytes = CLIENT, server: bytes = b"") -> dns.edns.Option:
    return dns.edns.CookieOption(client, server)


def given(reply: dns.message.Message) -> tuple[bytes, bytes]:
    found = option(reply, COOKIE)
    assert isinstance(found, dns.edns.CookieOption)
    return found.client, found.server


@pytest.mark.ours
@pytest.mark.parametrize("name", ["zero", "www", "nowhere", "host.child", "www.example.com."])
def test_5_2_3_a_client_s_cookie_gets_a_server_s(either: Client, name: str) -> None:
    """Section 5.2.3: the response has the client's cookie, and one of the server's for the next time."""
    client, server = given(either(name, options=[cookie()]))
    assert client == CLIENT
    assert 8 <= len(server) <= 32


@pytest.mark.ours
def test_rfc9018_4_the_server_cookie_s_form(ask: Client) -> None:
    """RFC 9018 section 4: version 1, three reserved octets, a time stamp, an 8-octet hash."""
    _, server = given(ask("zero", options=[cookie()]))
    assert len(server) == 16
    assert server[:4] == b"\1\0\0\0"


@pytest.mark.ours
def test_5_2_5_a_good_cookie_is_good(either: Client) -> None:
    """Section 5.2.5: a request with the cookie that the server gave is answered in full."""
    client, server = given(either("zero", options=[cookie()]))
    reply = either("zero", options=[cookie(client, server)])
    assert (rcode(reply), texts(reply.answer)) == ("NOERROR", ["zero A 192.0.2.104"])
    assert given(reply)[0] == client


@pytest.mark.ours
def test_5_2_4_a_wrong_one_is_answered_with_a_right_one(either: Client) -> None:
    """Section 5.2.4: an invalid server cookie counts as none: the reply has one that is valid."""
    reply = either("zero", options=[cookie(CLIENT, bytes(16))])
    assert rcode(reply) in ("NOERROR", "BADCOOKIE")
    client, server = given(reply)
    assert client == CLIENT
    assert server != bytes(16)


@pytest.mark.ours
def test_the_cookie_is_the_client_s_alone(ask: Client) -> None:
    """RFC 9018 section 4.4: the hash covers client cookie and address."""
    _, server = given(ask("zero", options=[cookie()]))
    _, other = given(ask("zero", options=[cookie(bytes(8))]))
    assert server[8:] != other[8:]


@pytest.mark.ours
@pytest.mark.parametrize("length", [0, 1, 7, 9, 15, 41, 60])
def test_5_2_2_malformed_cookies(either: Client, length: int) -> None:
    """Section 5.2.2: "If the COOKIE option is too short to contain a Client Cookie, then FORMERR is generated.", and so for
    those of 9 to 15 octets and of more than 40."""
    reply = either.send(with_records(question("zero").to_wire(), opt(COOKIE, bytes(length))))
    assert (rcode(reply), reply.answer) == ("FORMERR", [])


def test_5_2_1_no_cookie_unless_asked(either: Client) -> None:
    """Section 5.2.1: "If there is no OPT RR or no COOKIE option present in the request, then the server responds to the
    request as if the server doesn't implement the COOKIE option."."""
    assert option(either("zero", edns=0), COOKIE) is None


@pytest.mark.ours
def test_5_4_a_cookie_may_be_asked_for_without_a_question(ask: Client) -> None:
    """Section 5.4: "the QUERY opcode behavior is extended to support queries with an empty Question Section (a QDCOUNT of
    zero (0)), provided that an OPT record is present with a COOKIE option."."""
    header = b"\x12\x34\0\0" + bytes(8)
    reply = ask.send(with_records(header, opt(COOKIE, CLIENT)))
    assert (rcode(reply), reply.question) == ("NOERROR", [])
    assert given(reply)[0] == CLIENT
    assert rcode(ask.send(with_records(header, OPT))) == "FORMERR"
