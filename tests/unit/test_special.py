"""Address space that is no network's, as IANA's registries have it, and sets of prefixes."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edgedns.special import SPECIAL, V4, V6, Prefixes, prefix_of

Network = IPv4Network | IPv6Network
ADDRESSES = st.binary(min_size=4, max_size=4) | st.binary(min_size=16, max_size=16)
NETWORKS = st.lists(
    st.tuples(st.integers(0, 2**32 - 1), st.integers(8, 32)).map(lambda one: ip_network(one, strict=False))
    | st.tuples(st.integers(0, 2**128 - 1), st.integers(1, 128)).map(lambda one: ip_network(one, strict=False)),
    max_size=30,
)


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "193.0.14.129", "223.255.255.254", "2001:500:2::c", "2a00:1450::1"])
def test_what_is_on_the_internet(address: str) -> None:
    assert ip_address(address).packed not in SPECIAL


@pytest.mark.parametrize(
    "address",
    [
        *("0.0.0.1", "10.1.2.3", "100.127.0.1", "127.0.0.1", "169.254.169.254", "172.31.255.255", "192.0.0.9", "192.0.2.1"),
        *("192.31.196.1", "192.52.193.1", "192.88.99.1", "192.168.0.1", "192.175.48.6", "198.19.0.1", "198.51.100.1"),
        *("203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255"),
        *("::", "::1", "::ffff:8.8.8.8", "64:ff9b::808:808", "64:ff9b:1::1", "100::1", "2001::1", "2001:2::1"),
        *("2001:1ff:ffff::", "2001:db8::1", "2002:808:808::1", "2620:4f:8000::1", "3fff:fff::1", "5f00::1"),
        *("fc00::1", "fd12::1", "fe80::1", "ff02::1"),
    ],
)
def test_what_is_not(address: str) -> None:
    assert ip_address(address).packed in SPECIAL


@given(ADDRESSES)
@example(IPv4Address("192.0.0.170").packed)
@example(IPv6Address("5fff::").packed)
def test_whatever_python_calls_not_global_is_special(packed: bytes) -> None:
    """Python's own list is of the same registries; ours has more: what is routed, but to the nearest of many hosts."""
    address = ip_address(packed)
    if address.is_private or address.is_multicast or address.is_reserved or address.is_link_local:
        assert packed in SPECIAL


@given(NETWORKS, ADDRESSES)
def test_a_set_of_prefixes_is_each_of_them(networks: list[Network], packed: bytes) -> None:
    prefixes, address = Prefixes(networks), ip_address(packed)
    assert (packed in prefixes) == any(address in one for one in networks)
    for one in networks:
        assert one.network_address.packed in prefixes
        assert one.broadcast_address.packed in prefixes


def test_the_registries_overlap_nowhere() -> None:
    assert len(SPECIAL) == len(V4) + len(V6) - 1, "224.0.0.0/4 and 240.0.0.0/4 join"


@pytest.mark.parametrize(
    ("line", "found"),
    [("", None), (" # nothing", None), ("8.8.8.0/24  # why", "8.8.8.0/24"), ("8.8.8.8", "8.8.8.8/32")],
)
def test_a_line_is_a_prefix_or_an_address(line: str, found: str | None) -> None:
    assert prefix_of(line) == (found and ip_network(found))


@pytest.mark.parametrize("line", ["8.8.8.8/24", "8.8.8", "example.net", "8.8.8.0/33", "fe80::1%eth0"])
def test_a_line_that_is_none(line: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        prefix_of(line)
