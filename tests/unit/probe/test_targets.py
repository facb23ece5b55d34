"""The targets file: both forms, and a sentence for each mistake."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgedns.errors import SourceError
from edgedns.probe.measure import Endpoint
from edgedns.probe.targets import Target, labelled, load, target_of


def read(tmp_path: Path, text: str | bytes) -> tuple[Target, ...]:
    file = tmp_path / "targets"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load(file)


def mistake(tmp_path: Path, text: str | bytes) -> str:
    with pytest.raises(SourceError) as caught:
        read(tmp_path, text)
    return str(caught.value)


JSON_LINES = """
{"address": "203.0.113.7", "endpoint": "127.80.0.1:5301"}

{"asn": 64496, "endpoint": "[::1]:53", "method": "dns", "name": "cdn.example.net"}
"""
YAML = """
targets:
  - {address: 203.0.113.7, endpoint: 127.80.0.1, port: 5301}
  - asn: 64496
    endpoint: "[::1]:53"
    method: dns
    name: cdn.example.net
"""


@pytest.mark.parametrize("text", [JSON_LINES, YAML, YAML.replace("targets:", "")])
def test_json_lines_and_yaml_say_the_same(tmp_path: Path, text: str) -> None:
    assert read(tmp_path, text) == (
        Target("203.0.113.7", None, 4, Endpoint("127.80.0.1", 5301), "udp"),
        Target("", 64496, 4, Endpoint("::1", 53), "dns", "cdn.example.net"),
    )


@pytest.mark.parametrize(
    ("entry", "endpoint"),
    [
        ({"address": "203.0.113.7"}, ("203.0.113.7", 7)),
        ({"address": "203.0.113.7", "method": "tcp"}, ("203.0.113.7", 443)),
        ({"address": "203.0.113.7", "method": "dns"}, ("203.0.113.7", 53)),
        ({"address": "203.0.113.7", "method": "icmp", "port": 5}, ("203.0.113.7", 0)),
        ({"address": "2001:DB8:0::7"}, ("2001:db8::7", 7)),
        ({"address": "203.0.113.7", "endpoint": "2001:db8::1"}, ("2001:db8::1", 7)),
        ({"address": "203.0.113.7", "endpoint": "[2001:db8::1]"}, ("2001:db8::1", 7)),
        ({"address": "203.0.113.7", "endpoint": "::ffff:192.0.2.1"}, ("192.0.2.1", 7)),
    ],
)
def test_endpoints(entry: dict[str, Any], endpoint: tuple[str, int]) -> None:
    assert target_of(entry).endpoint[:2] == endpoint


def test_without_a_table_a_network_is_no_more_than_surely_one() -> None:
    def network(address: str) -> str:
        return target_of({"address": address}).network

    assert network("203.0.113.7") == network("203.0.113.200") != network("203.0.200.1")
    assert network("2001:db8:1::7") == network("2001:db8:1:ffff::1") != network("2001:db8:2::7")


def test_labels_are_the_steering_keys() -> None:
    def lookup(address: bytes) -> tuple[int, str]:
        return (0, "") if address[0] == 198 else (64496 + address[2] // 128, "DE")

    def network(address: str) -> str:
        return labelled([target_of({"address": address})], lookup)[0].network

    assert network("203.0.113.7") == network("203.0.1.1") != network("203.0.200.1")
    assert network("203.0.113.7") != network("203.1.113.7")
    assert network("198.51.100.7") == network("198.51.100.8") != network("198.51.101.7")
    by_asn = target_of({"asn": 64496, "endpoint": "127.0.0.1"})
    assert labelled([by_asn], lookup) == (by_asn,)


@pytest.mark.parametrize(
    ("entry", "error"),
    [
        ("203.0.113.7", "a target is a mapping with `address` or `asn`"),
        ({}, "a target needs an `address`, or an `asn` that is an AS number"),
        ({"asn": 0, "endpoint": "127.0.0.1"}, "a target needs an `address`, or an `asn`"),
        ({"asn": True, "endpoint": "127.0.0.1"}, "a target needs an `address`, or an `asn`"),
        ({"asn": 64496}, "a target with only an `asn` needs an `endpoint`"),
        ({"address": "203.0.113"}, "address is not an IP address: '203.0.113'"),
        ({"address": 5}, "address is not an IP address: 5"),
        ({"address": "fe80::1%lo"}, "address is not an IP address: 'fe80::1%lo'"),
        ({"address": "203.0.113.7", "family": 6}, "family is 6, but the address is IPv4"),
        ({"address": "203.0.113.7", "family": "4"}, "family is not 4 or 6: '4'"),
        ({"address": "203.0.113.7", "endpont": "x"}, "unknown key 'endpont'"),
        ({"address": "203.0.113.7", "method": "ftp"}, "unknown method 'ftp', it is one of udp, tcp, dns, icmp, http, https"),
        ({"address": "203.0.113.7", "method": "https", "server": "a b"}, "server is not the name of a host: 'a b'"),
        ({"address": "203.0.113.7", "method": "https", "server": "a..b"}, "server is not the name of a host: 'a..b'"),
        ({"address": "203.0.113.7", "method": "https", "server": "a." * 127 + "b"}, "server is not the name of a host"),
        ({"address": "203.0.113.7", "method": "tcp", "server": "www.example.com"}, "`server` is only for `http` and `https`"),
        ({"address": "203.0.113.7", "method": ["udp"]}, "unknown method ['udp']"),
        ({"address": "203.0.113.7", "port": 65536}, "port is not within 1 to 65535: 65536"),
        ({"address": "203.0.113.7", "port": "7"}, "port is not within 1 to 65535: '7'"),
        ({"address": "203.0.113.7", "endpoint": "127.0.0.1:0"}, "port is not within 1 to 65535: 0"),
        ({"address": "203.0.113.7", "endpoint": "127.0.0.1:7", "port": 7}, "the port is given twice"),
        ({"address": "203.0.113.7", "endpoint": "localhost:7"}, "endpoint is not an IP address: 'localhost'"),
        ({"address": "203.0.113.7", "endpoint": "127.0.0.1:x"}, "endpoint is not an address with a port: '127.0.0.1:x'"),
        ({"address": "203.0.113.7", "endpoint": 7}, "endpoint is not an address with a port: 7"),
        ({"address": "203.0.113.7", "endpoint": "224.0.0.1"}, "224.0.0.1 is not the address of one host"),
        ({"address": "255.255.255.255"}, "255.255.255.255 is not the address of one host"),
        ({"address": "::"}, ":: is not the address of one host"),
        ({"address": "203.0.113.7", "name": 5}, "name is not the name of a zone: 5"),
    ],
)
def test_a_wrong_entry_is_named(entry: Any, error: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        target_of(entry)
    assert str(caught.value).startswith(error)


def test_all_mistakes_come_at_once_with_their_places(tmp_path: Path) -> None:
    text = mistake(tmp_path, '{"address": "203.0.113.7"}\n{"asn": 0}\n{"a\n{"address": 5}\n')
    assert [line.split(": ")[0].rsplit(":", 1)[1] for line in text.splitlines()] == ["2", "3", "4"]
    assert "target 2: unknown key 'x'" in mistake(tmp_path, "- {address: 203.0.113.7}\n- {x: 1}\n")
    assert len(mistake(tmp_path, '{"asn": 0}\n' * 1000).splitlines()) == 20


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (b"\xff", "not UTF-8 at byte 1"),
        ("", "give a list of targets"),
        ("targets: 5", "give a list of targets"),
        ("[]", "no targets in it"),
        ("- [", "not YAML: "),
        ("- !!python/object:os.system {}", "not YAML: "),
        ("[" * 100_000, ": nested deeper than 8 levels"),
        ('{"a":' * 100_000, "not JSON: "),
    ],
)
def test_a_file_that_is_no_list_of_targets(tmp_path: Path, text: str | bytes, error: str) -> None:
    assert error in mistake(tmp_path, text)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="No such file"):
        load(tmp_path / "nowhere")
