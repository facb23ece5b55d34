"""Response rate limiting, by the clock it is given."""

from __future__ import annotations

import zlib
from ipaddress import ip_network
from typing import Any

import dns.edns
import dns.flags
import dns.message
import dns.name
import dns.rcode
import pytest

from edgedns.dns import cookie, message
from edgedns.engine import native
from edgedns.engine.limit import DEFAULT, PLACES, SURPLUS, State, Terms, Verdict, limit, parse_terms, truncated

TERMS = Terms(rate=10, slip=2)
SECRETS = bytes(range(16)), bytes(range(16, 32))
FIRST, SECOND, UNKNOWN = *SECRETS, bytes(16)
RENEWED = [(FIRST, 1801, True), (FIRST, 3600, True), (FIRST, 3601, False), (SECOND, 5, True), (UNKNOWN, 5, False)]


def exchange(name: str = "www.example.net", rcode: int = 0, answer: bool = True, cookie: bytes = b"") -> tuple[bytes, bytes]:
    query = dns.message.make_query(name, "A")
    if cookie:
        query.use_edns(0, 0, 1232, options=[dns.edns.GenericOption(dns.edns.OptionType.COOKIE, cookie)])
    reply = dns.message.make_response(query)
    if cookie:
        reply.use_edns(0, 0, 1232, options=[dns.edns.GenericOption(dns.edns.OptionType.COOKIE, cookie)])
    reply.set_rcode(dns.rcode.Rcode.make(rcode))
    if answer:
        reply.answer.append(dns.rrset.from_text(f"{name}.", 30, "IN", "A", "192.0.2.1"))
    return query.to_wire(), reply.to_wire()


CLIENT = bytes((192, 0, 2, 1))


def run(
    state: State, count: int, start: float, per_second: float, client: bytes = CLIENT, **exchanged: Any
) -> list[Verdict]:
    packet, reply = exchange(**exchanged)
    return [limit(TERMS, state, packet, reply, client, start + i / per_second) for i in range(count)]


def test_under_the_rate_everything_is_sent() -> None:
    assert set(run(State(), 100, 1000.0, 9.0)) == {Verdict.SEND}


def test_over_the_rate_half_slips_and_half_is_dropped() -> None:
    verdicts = run(State(), 1000, 1000.0, 1000.0)
    assert verdicts.count(Verdict.SEND) in range(10, 22)
    assert abs(verdicts.count(Verdict.SLIP) - verdicts.count(Verdict.DROP)) <= 1


def test_a_flood_owes_and_then_is_forgiven() -> None:
    state = State()
    run(state, 1000, 1000.0, 1000.0)
    assert run(state, 1, 1002.0, 1.0) != [Verdict.SEND]
    assert run(state, 1, 1012.0, 1.0) == [Verdict.SEND]


def test_neighbours_share_a_prefix_and_strangers_do_not() -> None:
    state = State()
    run(state, 1000, 1000.0, 1000.0)
    assert run(state, 1, 1001.0, 1.0, client=bytes((192, 0, 2, 77))) != [Verdict.SEND]
    assert run(state, 1, 1001.0, 1.0, client=bytes((198, 51, 100, 1))) == [Verdict.SEND]


def test_another_question_is_another_outcome() -> None:
    state = State()
    run(state, 1000, 1000.0, 1000.0)
    assert run(state, 1, 1001.0, 1.0, name="img.example.net") == [Verdict.SEND]


def test_random_names_are_one_outcome() -> None:
    state, verdicts = State(), []
    for i in range(200):
        packet, reply = exchange(f"x{i}.example.net", rcode=3, answer=False)
        verdicts.append(limit(TERMS, state, packet, reply, bytes(16), 1000.0 + i / 1000))
    assert verdicts.count(Verdict.SEND) < 15


def test_a_valid_cookie_is_exempt() -> None:
    verdicts = run(State(), 500, 1000.0, 1000.0, cookie=bytes(range(24)))
    assert set(verdicts) == {Verdict.SEND}


def renewing(secret: bytes, age: int) -> tuple[bytes, bytes]:
    """A query with a cookie of that age, and the reply with a new one."""
    given = cookie.make(bytes(8), CLIENT, secret, 1000.0 - age)
    packet, _ = exchange(cookie=given)
    return packet, exchange(cookie=cookie.make(bytes(8), CLIENT, SECRETS[0], 1000.0))[1]


@pytest.mark.parametrize("native_one", [False, True])
@pytest.mark.parametrize(("secret", "age", "valid"), RENEWED)
def test_a_cookie_that_is_renewed_is_exempt_while_it_is_valid(native_one: bool, secret: bytes, age: int, valid: bool) -> None:
    """RFC 9018 section 4.3: a server renews cookies of more than half an hour, and believes them for an hour."""
    if native_one and not native.AVAILABLE:
        pytest.skip("_fastpath was not built")
    packet, reply = renewing(secret, age)
    state = State()
    twin = native.limiter_of(TERMS, state) if native_one else None

    def verdicts(client: bytes) -> set[int]:
        if twin:
            return {twin.limit(packet, reply, client, 1000.0, b"".join(SECRETS)) for _ in range(100)}
        return {limit(TERMS, state, packet, reply, client, 1000.0, SECRETS) for _ in range(100)}

    assert (verdicts(CLIENT) == {Verdict.SEND}) is valid
    assert verdicts(CLIENT[:3] + b"\2") != {Verdict.SEND}


def test_a_client_cookie_alone_is_not() -> None:
    query, reply = exchange(cookie=bytes(8))
    other = exchange(cookie=bytes(8) + bytes(range(16)))[1]
    state = State()
    assert Verdict.DROP in [limit(TERMS, state, query, other, bytes(4), 1000.0) for _ in range(100)]
    assert reply != other


NARROW = Terms(surplus=1000)


def amplified(state: State, octets: int, count: int, start: float, per_second: float, client: bytes = CLIENT) -> list[Verdict]:
    """Verdicts on replies that are `octets` longer than 1.5 times their queries."""
    packet, reply = exchange()
    reply += bytes(3 * len(packet) // 2 + octets - len(reply))
    return [limit(NARROW, state, packet, reply, client, start + i / per_second) for i in range(count)]


def test_what_does_not_amplify_is_never_limited_by_its_surplus() -> None:
    assert set(amplified(State(), 0, 5000, 1000.0, 1e6)) == {Verdict.SEND}


def test_a_second_s_surplus_at_once_and_then_none_while_the_flood_lasts() -> None:
    state = State()
    flood = amplified(state, 100, 5000, 1000.0, 1000.0)
    assert flood[:10] == [Verdict.SEND] * 10
    assert Verdict.SEND not in flood[12:]
    assert amplified(state, 100, 1, 1010.1, 1.0) == [Verdict.SEND]


def test_under_the_surplus_everything_is_sent() -> None:
    assert set(amplified(State(), 100, 500, 1000.0, 9.5)) == {Verdict.SEND}


def test_a_prefix_has_one_surplus_for_all_it_asks_and_others_have_theirs() -> None:
    """Questions without number, as under a wildcard, are not a way around it."""
    state, verdicts = State(), []
    for i in range(100):
        packet, reply = exchange(f"x{i}.example.net")
        verdicts.append(limit(NARROW, state, packet, reply + bytes(500), CLIENT[:3] + bytes((i,)), 1000.0))
    assert verdicts.count(Verdict.SEND) < 5
    assert amplified(state, 100, 1, 1000.0, 1.0, bytes((198, 51, 100, 1))) == [Verdict.SEND]


def test_nobody_gets_a_fresh_start_by_coming_between() -> None:
    """Of 65,537 prefixes two share a place. Taking turns they get what one would."""
    seen: dict[int, bytes] = {}
    pair = (CLIENT, CLIENT)
    for number in range(PLACES + 1):
        client = bytes((10, *divmod(number & 0xFFFF, 256), 1)) if number < PLACES else bytes((11, 0, 0, 1))
        place = zlib.crc32(client[:3]) & PLACES - 1
        if place in seen:
            pair = (seen[place], client)
            break
        seen[place] = client
    assert pair[0] != pair[1]
    state, verdicts = State(), []
    for i in range(200):
        verdicts += amplified(state, 100, 1, 1000.0 + i / 1e4, 1.0, pair[i % 2])
    assert verdicts.count(Verdict.SEND) < 15


def test_a_name_that_looks_like_a_cookie_is_none() -> None:
    """A refusal without OPT is the question alone: its last octets are the asker's."""
    name = dns.name.Name([b"\0\x0a\0\x18" + bytes(19), b""])
    query = dns.message.make_query(name, "A")
    reply = dns.message.make_response(query)
    packet, said, state = query.to_wire(), reply.to_wire(), State()
    assert said[-28:-24] == b"\0\x0a\0\x18"
    verdicts = [limit(TERMS, state, packet, said, CLIENT, 1000.0 + i / 1000) for i in range(500)]
    assert verdicts.count(Verdict.SEND) < 50
    if native.AVAILABLE:
        twin = native.limiter_of(TERMS, State())
        assert [twin.limit(packet, said, CLIENT, 1000.0 + i / 1000, b"") for i in range(500)] == verdicts


def test_a_signature_that_looks_like_a_cookie_is_none() -> None:
    """A reply to a key that nobody knows ends in the asker's TSIG record, whose octets are the asker's."""
    packet, _ = exchange()
    rdata = b"\x0b\0\x0a\0\x18" + bytes(7) + b"\0" + bytes(8) + b"\0\0\x12\x34\0\x11\0\0"
    signed = packet[:11] + b"\1" + packet[12:] + b"\0\0\xfa\0\xff\0\0\0\0" + len(rdata).to_bytes(2, "big") + rdata
    query = message.parse(signed)
    assert isinstance(query, message.Malformed)
    reply, state = message.encode(query, message.Response(query.rcode), 512), State()
    assert reply[-28:-24] == b"\0\x0a\0\x18"
    assert Verdict.DROP in {limit(TERMS, state, signed, reply, CLIENT, 1000.0) for _ in range(100)}
    if native.AVAILABLE:
        twin = native.limiter_of(TERMS, State())
        assert Verdict.DROP in {twin.limit(signed, reply, CLIENT, 1000.0, b"") for _ in range(100)}


def test_exempt_prefixes() -> None:
    terms = Terms(rate=1, exempt=(ip_network("127.0.0.0/8"), ip_network("::1/128")))
    packet, reply = exchange()
    state = State()
    assert {limit(terms, state, packet, reply, bytes((127, 0, 0, 1)), 1000.0) for _ in range(50)} == {Verdict.SEND}
    assert Verdict.DROP in {limit(terms, state, packet, reply, bytes((192, 0, 2, 1)), 1000.0) for _ in range(50)}


def test_no_rate_is_no_limit() -> None:
    packet, reply = exchange()
    assert {limit(Terms(), State(), packet, reply, bytes(4), 0.0) for _ in range(1000)} == {Verdict.SEND}


@pytest.mark.parametrize("name", ["www.example.net", "a." * 100 + "example.net"])
def test_a_truncated_reply_is_a_question_with_tc(name: str) -> None:
    packet, reply = exchange(name)
    cut = truncated(reply)
    read = dns.message.from_wire(cut)
    assert read.flags & dns.flags.TC
    assert read.id == dns.message.from_wire(packet).id
    assert not read.answer
    assert len(cut) <= len(packet)


def test_a_truncated_reply_without_a_question_is_a_header() -> None:
    """As a format error is, or what says that an opcode is not implemented; with and without an OPT record."""
    head, opt = b"\x12\x34\x80\x01" + bytes(8), b"\0\0\x29" + bytes(8)
    for reply in (head, head[:11] + b"\1" + opt):
        assert truncated(reply) == b"\x12\x34\x82\x01" + bytes(8)


def test_terms_as_written() -> None:
    assert parse_terms("off") == Terms()
    assert parse_terms("20") == Terms(20, surplus=SURPLUS)
    assert parse_terms(DEFAULT) == Terms(surplus=SURPLUS)
    exempt = (ip_network("192.0.2.0/24"), ip_network("2001:db8::/32"))
    assert parse_terms("slip=0,dry-run,20,exempt=192.0.2.0/24,exempt=2001:db8::/32,surplus=5") == Terms(20, 0, True, exempt, 5)
    assert not parse_terms("surplus=0").limits


WRONG = ["", "0", "-1", "x", "5,slip", "5,slip=-1", "5,exempt=192.0.2.1/24", "5,often", "9999999999", "5,off", "\u00b2"]


@pytest.mark.parametrize("text", WRONG)
def test_terms_that_nobody_can_tell(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_terms(text)
