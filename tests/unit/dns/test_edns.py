"""OPT content: what is read, what earns a FORMERR, what is written."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_network

import dns.edns
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgedns.dns import edns
from edgedns.dns.edns import BadOption, ClientSubnet, Edns, parse, parse_subnet


def option(code: int, content: bytes = b"") -> bytes:
    return code.to_bytes(2, "big") + len(content).to_bytes(2, "big") + content


def subnet(family: int, source: int, scope: int, octets: bytes) -> bytes:
    return family.to_bytes(2, "big") + bytes((source, scope)) + octets


def test_a_plain_opt() -> None:
    assert parse(1232, 0x8000, b"") == Edns(1232, 0, True)


@pytest.mark.parametrize(("sent", "meant"), [(0, 512), (511, 512), (512, 512), (513, 513), (65535, 65535)])
def test_a_payload_below_512_counts_as_512(sent: int, meant: int) -> None:
    assert parse(sent, 0, b"").payload == meant


def test_z_bits_and_unknown_options_are_ignored() -> None:
    assert parse(1232, 0x7FFF, option(65001, b"abc") + option(12, bytes(20))) == Edns(1232, 0, False)


def test_an_unknown_version_is_told_and_its_options_are_not_read() -> None:
    assert parse(1232, 0x00010000, b"\xff") == Edns(1232, 1, False)


def test_nsid_and_keepalive_may_have_content_and_nsid_may_come_last() -> None:
    assert parse(1232, 0, option(3)).nsid
    assert parse(1232, 0, option(3, b"x") + option(11, b"\0\x10")) == Edns(1232, 0, False, nsid=True, keepalive=True)


def test_the_first_of_two_counts() -> None:
    first, second = subnet(1, 24, 0, b"\xc0\0\2"), subnet(1, 24, 0, b"\xc6\x33\x64")
    got = parse(1232, 0, option(10, b"11111111") + option(8, first) + option(10, b"2") + option(8, second))
    assert got.cookie == b"11111111"
    assert got.subnet == ClientSubnet(1, 24, 0, b"\xc0\0\2\0")


@pytest.mark.parametrize("rdata", [b"\0", b"\0\3\0", option(3) + b"\0\0\0", b"\0\3\0\1", option(3, b"abc")[:-1]])
def test_options_must_fill_the_record(rdata: bytes) -> None:
    with pytest.raises(BadOption):
        parse(1232, 0, rdata)


@pytest.mark.parametrize("length", range(45))
def test_cookie_lengths(length: int) -> None:
    if length == 8 or 16 <= length <= 40:
        assert parse(1232, 0, option(10, bytes(length))).cookie == bytes(length)
    else:
        with pytest.raises(BadOption, match="cookie"):
            parse(1232, 0, option(10, bytes(length)))


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "less than four"),
        (b"\0\1\x18", "less than four"),
        (subnet(1, 24, 1, b"\xc0\0\2"), "scope"),
        (subnet(1, 33, 0, bytes(5)), "longer"),
        (subnet(2, 129, 0, bytes(17)), "longer"),
        (subnet(1, 24, 0, b"\xc0\0"), "too few or too many"),
        (subnet(1, 24, 0, b"\xc0\0\2\0"), "too few or too many"),
        (subnet(1, 0, 0, b"\0"), "too few or too many"),
        (subnet(1, 25, 0, b"\xc0\0\2\x01"), "bits set"),
        (subnet(1, 1, 0, b"\x40"), "bits set"),
        (subnet(2, 33, 0, b"\x20\x01\x0d\xb8\x01"), "bits set"),
        (subnet(3, 8, 0, b"\1"), "family"),
        (subnet(3, 0, 0, b""), "family"),
        (subnet(0, 0, 0, b"\0"), "family"),
        (subnet(0, 8, 0, b"\1"), "family"),
    ],
)
def test_a_client_subnet_that_earns_a_formerr(content: bytes, why: str) -> None:
    with pytest.raises(BadOption, match=why):
        parse_subnet(content)


def test_source_zero_of_each_family() -> None:
    assert parse_subnet(subnet(1, 0, 0, b"")) == ClientSubnet(1, 0, 0, bytes(4))
    assert parse_subnet(subnet(2, 0, 0, b"")) == ClientSubnet(2, 0, 0, bytes(16))
    assert parse_subnet(subnet(0, 0, 0, b"")) == ClientSubnet(0, 0, 0, b"")


PREFIXES = st.one_of(
    st.tuples(st.binary(min_size=4, max_size=4), st.integers(0, 32)),
    st.tuples(st.binary(min_size=16, max_size=16), st.integers(0, 128)),
).map(lambda pair: ip_network(pair, strict=False))


@given(PREFIXES, st.integers(0, 128))
def test_client_subnets_are_dnspythons(prefix: IPv4Network | IPv6Network, scope: int) -> None:
    sent = dns.edns.ECSOption(str(prefix.network_address), prefix.prefixlen).to_wire()
    assert sent is not None
    got = parse_subnet(sent)
    assert got.address == prefix.network_address.packed
    assert got.source == prefix.prefixlen
    code, content = edns.subnet_option(got, scope)
    assert code == 8
    assert content == sent[:3] + bytes((scope,)) + sent[4:]


@given(st.binary(max_size=24))
def test_any_octets_are_a_subnet_or_refused(content: bytes) -> None:
    try:
        got = parse_subnet(content)
    except BadOption:
        return
    assert edns.subnet_option(got, 0) == (8, content)


def test_extended_error_and_keepalive() -> None:
    assert edns.extended_error(22, "no") == (15, b"\0\x16no")
    assert edns.keepalive_option(12.34) == (11, b"\0\x7b")
    assert edns.keepalive_option(1e9) == (11, b"\xff\xff")


def test_a_replys_opt() -> None:
    wire = edns.encode(True, 23, [(10, b"c" * 24), (3, b"")])
    assert wire == b"\0\0\x29\x04\xd0\x01\0\x80\0\0\x20" + option(10, b"c" * 24) + option(3)
    assert edns.encode(False, 0) == b"\0\0\x29\x04\xd0\0\0\0\0\0\0"
    assert len(edns.encode(False, 0)) == edns.OVERHEAD
