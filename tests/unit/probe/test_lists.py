"""Lists of addresses and prefixes as others publish them."""

from __future__ import annotations

import json
import os
from ipaddress import ip_address
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgedns.errors import SourceError
from edgedns.probe import lists
from edgedns.probe.lists import Listed

ANCHORS = {
    "count": 3,
    "next": None,
    "results": [
        {"id": 1, "fqdn": "de-fra-as64500.anchors.example.net", "ip_v4": "8.8.8.8", "ip_v6": "2a00::8", "as_v4": 64500},
        {"id": 2, "ip_v4": "9.9.9.9", "ip_v6": None, "is_disabled": False, "date_decommissioned": None},
        {"id": 3, "ip_v4": "4.4.4.4", "ip_v6": None, "is_disabled": True},
        {"id": 4, "ip_v4": "5.5.5.5", "ip_v6": None, "date_decommissioned": "2025-01-01"},
    ],
}


def read(path: Path, text: str, column: str = "") -> list[str]:
    path.write_text(text)
    return [str(ip_address(packed)) for packed in lists.addresses(Listed(path, column))]


@pytest.mark.parametrize(
    ("text", "column"),
    [
        ("8.8.8.8\n9.9.9.9\n", ""),
        ("# hitlist\n8.8.8.8  # one\n\n 9.9.9.9 \n8.8.8.8\n", ""),
        ("8.8.8.8\r\n9.9.9.9\r\n", ""),
        ("ip\n8.8.8.8\n9.9.9.9\n", ""),
        ("score,ADDRESS,as\n3,8.8.8.8,15169\n9,::ffff:9.9.9.9,19281\n", ""),
        ("score\tprobe\n3\t8.8.8.8\n9\t9.9.9.9\n", "probe"),
        ('score;"ip"\n3;"8.8.8.8"\n9;"9.9.9.9"\n', ""),
        (json.dumps(ANCHORS["results"]).replace('"ip_v6": "2a00::8"', '"ip_v6": null'), ""),
    ],
)
def test_each_form_is_told_by_its_content(tmp_path: Path, text: str, column: str) -> None:
    assert read(tmp_path / "list", text, column) == ["8.8.8.8", "9.9.9.9"]


def test_anchors_of_both_families_that_are_in_service(tmp_path: Path) -> None:
    assert read(tmp_path / "anchors.json", json.dumps(ANCHORS)) == ["8.8.8.8", "2a00::8", "9.9.9.9"]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "has no addresses"),
        ("8.8.8\n", "list:1: '8.8.8' does not appear to be an IPv4 or IPv6 address"),
        ("8.8.8.8\nx\ny\nz\nu\nv\nw\n", "list:6: .*\n... and 1 more"),
        ("8.8.8.8,3\n9.9.9.9,4\n", "list:1: which column has the addresses"),
        ("score,where\n3,8.8.8.8\n", "with one of score, where"),
        ("score,ip\n3\n", "list:2: there is no column 2"),
        ("fe80::1%eth0\n", "names an interface"),
        ("8.8.8.8\n\0\n", "list:2: "),
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ('{"results": 3}', "this is not RIPE Atlas' list of anchors"),
        ('{"results": [3]}', "this is not RIPE Atlas' list of anchors"),
        ('{"results": [{"ip_v4": 3}]}', "'3' is not an address"),
        ('{"results": [{"ip_v4": "3"}]}', "'3' does not appear to be"),
        ('{"results": []}', "has no addresses under ip_v4 and ip_v6"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, error: str) -> None:
    with pytest.raises(SourceError, match=error):
        read(tmp_path / "list", text)


def test_a_pipe_is_not_waited_for_and_what_is_too_large_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with (tmp_path / "large").open("wb") as file:
        file.truncate(lists.SIZE_LIMIT + 1)
    for name, error in (("pipe", "is not a file"), ("large", "over 64 MiB"), ("nowhere", "can't be read: No such file")):
        with pytest.raises(SourceError, match=error):
            lists.addresses(Listed(tmp_path / name))
        with pytest.raises(SourceError, match=error):
            lists.prefixes(tmp_path / name)


def test_a_column_is_named_after_a_colon(tmp_path: Path) -> None:
    odd = tmp_path / "a:b"
    odd.write_text("8.8.8.8\n")
    assert Listed.parse(str(odd)) == (odd, "")
    assert Listed.parse(f"{tmp_path}/list:addr") == (tmp_path / "list", "addr")
    assert str(Listed.parse(f"{tmp_path}/list:addr")) == f"{tmp_path}/list:addr"


def test_prefixes_of_an_opt_out_list(tmp_path: Path) -> None:
    path = tmp_path / "opt-out"
    path.write_text("# they asked us to\n8.8.8.0/24\n2a00::/16 # by mail\n9.9.9.9\n")
    prefixes = lists.prefixes(path)
    assert all(ip_address(text).packed in prefixes for text in ("8.8.8.1", "2a00:1::1", "9.9.9.9"))
    assert all(ip_address(text).packed not in prefixes for text in ("8.8.9.1", "2a01::1", "9.9.9.8"))
    path.write_text("# nobody\n")
    assert len(lists.prefixes(path)) == 0
    path.write_text("8.8.8.0/24\n8.8.8.1/24\n")
    with pytest.raises(SourceError, match=r"opt-out:2: 8\.8\.8\.1/24 has host bits set"):
        lists.prefixes(path)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200) | st.text("0123456789.:,;\t\n\"'#{}[]ipx", max_size=200).map(str.encode))
def test_any_octets_give_addresses_or_one_error(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any"
    path.write_bytes(content)
    try:
        found = lists.addresses(Listed(path))
    except SourceError:
        return
    assert found
    assert all(len(packed) in (4, 16) for packed in found)
