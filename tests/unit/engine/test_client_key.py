"""Which address a client is looked up by."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from edgedns.engine.lookup import client_key, walk

V4 = int(ip_address("192.0.2.33"))


@pytest.mark.parametrize(
    ("address", "resolver", "expected"),
    [
        ("192.0.2.33", True, (4, V4, 0)),
        ("::ffff:192.0.2.33", False, (4, V4, 96)),
        ("64:ff9b::192.0.2.33", False, (4, V4, 96)),
        ("2002:c000:0221::1", False, (4, V4, 16)),
        ("2002:c000:0221:ffff::", True, (4, V4, 16)),
        ("2001:0:ffff:ffff:0:0:3fff:fdde", True, (4, V4, 96)),
        ("2001:0:ffff:ffff:0:0:3fff:fdde", False, (6, int(ip_address("2001:0:ffff:ffff:0:0:3fff:fdde")), 0)),
        ("2001:1::c000:221", True, (6, int(ip_address("2001:1::c000:221")), 0)),
        ("::192.0.2.33", True, (6, V4, 0)),
        ("64:ff9b:1::192.0.2.33", True, (6, int(ip_address("64:ff9b:1::192.0.2.33")), 0)),
        ("2001:db8::1", True, (6, int(ip_address("2001:db8::1")), 0)),
    ],
)
def test_ipv4_clients_are_ipv4_clients(address: str, resolver: bool, expected: tuple[int, int, int]) -> None:
    assert client_key(ip_address(address).packed, resolver) == expected


def test_an_index_of_another_form_is_not_walked_for_ever() -> None:
    loop = [1 << 31] * 65536
    with pytest.raises(IndexError, match="ends in a pointer"):
        walk(loop, loop, 4, V4)
