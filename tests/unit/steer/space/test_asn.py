"""Tables in: what each form says, what is wrong with a broken one, and how the sources' faults are taken."""

from __future__ import annotations

import gzip
import hashlib
import os
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mmdb_writer import MMDBWriter
from netaddr import IPSet

from edgedns.errors import SourceError
from edgedns.steer.space import asn, asnpack

DAT = "; IP-ASN32-DAT file\n192.0.2.0/24\t64496\n192.0.2.128/25\t64497\n2001:db8::/32\t64498\n"
TSV = (
    "198.51.100.0\t198.51.100.255\t64501\tFR\tBirch Telecom\n"
    "192.0.2.0\t192.0.2.255\t64496\tDE\tAlder Networks\n"
    "192.0.2.128\t192.0.2.255\t64497\tNone\t\n"
    "203.0.113.0\t203.0.113.255\t0\tNone\tNot routed\n"
    "2001:db8::\t2001:db8:ffff:ffff:ffff:ffff:ffff:ffff\t64498\tNO\tCedar\n"
)


def at(table: asn.AsnTable, text: str) -> tuple[int, str]:
    return table.lookup(ip_address(text).packed)


def saved(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def mmdb(path: Path, records: dict[str, dict[str, Any]]) -> Path:
    writer = MMDBWriter(ip_version=6, ipv4_compatible=True, database_type="Test-ASN")
    for prefix, record in records.items():
        writer.insert_network(IPSet([prefix]), record)
    writer.to_db_file(str(path))
    return path


@pytest.fixture(scope="module")
def asn_mmdb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    records: dict[str, dict[str, Any]] = {
        "192.0.2.0/24": {"autonomous_system_number": 64496, "autonomous_system_organization": "Alder", "country_code": "DE"},
        "198.51.100.0/24": {"asn": "AS64497", "as_name": "Birch", "country": {"iso_code": "NO"}},
        "203.0.113.0/24": {"organization": "no ASN here"},
        "2001:db8::/32": {"autonomous_system_number": 64498, "country": "Unknown"},
    }
    return mmdb(tmp_path_factory.mktemp("mmdb") / "table.txt", records)


def test_embedded_table_is_the_source_whole() -> None:
    table = asn.embedded()
    assert (table.rows4, table.rows6, table.asn_count()) == (411_961, 103_197, 91_065)
    assert len(table.names) == 91_065
    assert table.date == "2026-06-17"
    assert at(table, "1.1.1.1") == (13335, "US")
    assert at(table, "2001:4860:4860::8888") == (15169, "US")
    assert at(table, "192.0.2.1") == at(table, "255.255.255.255") == at(table, "::1") == (0, "")
    assert table.names[13335] == "Cloudflare, Inc."


def test_embedded_ranges_are_sorted_and_disjoint() -> None:
    table = asn.embedded()
    assert (table.start4 <= table.end4).all()
    assert (table.end4[:-1] < table.start4[1:]).all()
    assert (table.end6_hi[:-1] <= table.start6_hi[1:]).all()


def test_embedded_overlap_goes_to_the_later_start() -> None:
    """214.96.0.0-214.255.255.255 (AS749) and 214.255.0.0-215.0.3.255 (AS721) in the source."""
    table = asn.embedded()
    seam = 3607101440
    assert table.lookup((seam - 1).to_bytes(4))[0] == 749
    assert table.lookup(seam.to_bytes(4))[0] == 721
    assert table.lookup((3607166975).to_bytes(4))[0] == 721


def test_embedded_keeps_private_asns() -> None:
    kept = {int(number) for number in {*asn.embedded().asn4.tolist(), *asn.embedded().asn6.tolist()}}
    assert {65534, 64515, 4294967294} <= kept


def test_first_address_is_the_lowest_v4_else_v6(tmp_path: Path) -> None:
    table = asn.load(saved(tmp_path / "t", TSV))
    assert table.first_address(64496) == ip_address("192.0.2.0").packed
    assert table.first_address(64498) == ip_address("2001:db8::").packed
    assert table.first_address(64511) is None
    assert table.first_address(0) is table.first_address(-1) is table.first_address(1 << 32) is None


def test_continents_cover_the_table() -> None:
    table = asn.embedded()
    countries = {code.decode() for code in {*table.country4.tolist(), *table.country6.tolist()}} - {"", "AP"}
    assert {asn.continent(country) for country in countries} == {"AF", "AN", "AS", "EU", "NA", "OC", "SA"}
    assert asn.continent("NO") == "EU"
    assert asn.continent("") == asn.continent("XX") == ""


@pytest.mark.parametrize("name", ["table.mmdb", "table"])
def test_dat_is_told_by_content(tmp_path: Path, name: str) -> None:
    table = asn.load(saved(tmp_path / name, DAT))
    assert (table.source, table.rows4, table.rows6) == ("pyasn .dat", 2, 1)
    assert at(table, "192.0.2.127") == (64496, "")
    assert at(table, "192.0.2.128") == (64497, "")
    assert at(table, "2001:db8:ffff::1") == (64498, "")


def test_tsv_unsorted_with_asn_zero(tmp_path: Path) -> None:
    table = asn.load(saved(tmp_path / "table.dat", TSV))
    assert at(table, "192.0.2.1") == (64496, "DE")
    assert at(table, "192.0.2.200") == (64497, "")
    assert at(table, "203.0.113.9") == (0, "")
    assert at(table, "2001:db8::1") == (64498, "NO")
    assert table.names == {64496: "Alder Networks", 64498: "Cedar", 64501: "Birch Telecom"}


def test_tsv_with_decimal_addresses_and_crlf(tmp_path: Path) -> None:
    table = asn.load(saved(tmp_path / "t", "3221225984\t3221226239\t64496\tDE\tAlder\r\n"))
    assert at(table, "192.0.2.255") == (64496, "DE")


def test_asn_zero_cuts_a_hole(tmp_path: Path) -> None:
    table = asn.load(saved(tmp_path / "t", "192.0.2.0/24 64496\n192.0.2.64/26 0\n"))
    assert [at(table, f"192.0.2.{host}")[0] for host in (63, 64, 127, 128)] == [64496, 0, 0, 64496]


def test_file_date_is_the_table_date(tmp_path: Path) -> None:
    path = saved(tmp_path / "t", DAT)
    os.utime(path, (1_764_000_000, 1_764_000_000))
    assert asn.load(path).date == "2025-11-24"


@pytest.mark.parametrize("content", [DAT, TSV])
def test_gzip_is_unpacked(tmp_path: Path, content: str) -> None:
    plain, zipped = asn.load(saved(tmp_path / "a", content)), asn.load(saved(tmp_path / "b", gzip.compress(content.encode())))
    assert plain.asn4.tolist() == zipped.asn4.tolist()
    assert plain.source == zipped.source


def test_mmdb_of_several_makers(asn_mmdb: Path) -> None:
    table = asn.load(asn_mmdb)
    assert table.source == "MMDB Test-ASN"
    assert at(table, "192.0.2.7") == (64496, "DE")
    assert at(table, "198.51.100.7") == (64497, "NO")
    assert at(table, "203.0.113.7") == (0, "")
    assert at(table, "2001:db8::7") == (64498, "")
    assert table.names == {64496: "Alder", 64497: "Birch"}


def test_gzipped_mmdb(tmp_path: Path, asn_mmdb: Path) -> None:
    table = asn.load(saved(tmp_path / "t.gz", gzip.compress(asn_mmdb.read_bytes())))
    assert at(table, "198.51.100.7") == (64497, "NO")


def test_own_form_round_trip(tmp_path: Path) -> None:
    table = asn.load(saved(tmp_path / "t", TSV))
    about = {"source": "made", "date": "2026-11-01", "rows4": 4, "rows6": 1}
    again = asn.load(saved(tmp_path / "o", asnpack.pack(table.v4, table.v6, dict(table.names), about)))
    assert again.v4.asn.tolist() == table.v4.asn.tolist()
    assert again.country4.tolist() == table.country4.tolist()
    assert again.end6_lo.tolist() == table.end6_lo.tolist()
    assert again.names == table.names
    assert (again.source, again.date, again.rows4) == ("made", "2026-11-01", 4)


def own(**changes: Any) -> bytes:
    table = asn.embedded()
    about = {"source": "made", "date": "2026-11-01", "rows4": 1, "rows6": 0} | changes
    return asnpack.pack(table.v4.take(np.arange(3)), table.v6.take(np.arange(2)), {64496: "Alder"}, about)


BROKEN: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "the file is empty"),
    "foreign-text": (b'{"asn": 64496}\n', "its first line is of no form known here"),
    "foreign-binary": (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "binary, and no MMDB"),
    "half-dat": (DAT.encode()[:-3], "its last line has no line end"),
    "half-tsv": (TSV.encode()[:-70], "its last line has no line end"),
    "short-line": (b"192.0.2.0/24\t64496\n198.51.1\n", "line 2 is not prefix/length and an ASN .*the file may be cut off"),
    "host-too-long": (b"192.0.2.0/33\t64496\n", "/33 is too long a prefix"),
    "octet": (b"192.0.2.256/24\t64496\n", "'192.0.2.256' is no address"),
    "octal": (b"192.0.2.010/24\t64496\n", "'192.0.2.010' is no address"),
    "asn-too-large": (b"192.0.2.0/24\t4294967296\n", "4294967296 is 2\\*\\*32 or more"),
    "backwards": (b"192.0.2.9\t192.0.2.1\t64496\tDE\tAlder\n", "the range's end is not after its start"),
    "two-families": (b"192.0.2.9\t2001:db8::\t64496\tDE\tAlder\n", "the range's end is not after its start"),
    "unrouted-only": (b"192.0.2.0\t192.0.2.9\t0\tNone\tNot routed\n", "no address in it belongs to an ASN"),
    "half-gzip": (gzip.compress(DAT.encode() * 50)[:60], "a broken gzip file"),
    "gzip-noise": (b"\x1f\x8b\x08\0junk-junk-junk-junk", "a broken gzip file"),
    "half-xz": (own()[:200], "an xz file that ends too early"),
    "xz-noise": (own()[:60] + bytes(40) + own()[100:], "a broken xz file"),
    "own-date": (own(date="soon"), "header is damaged"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_files_are_refused_with_a_reason(tmp_path: Path, case: str) -> None:
    content, reason = BROKEN[case]
    path = saved(tmp_path / "table", content)
    with pytest.raises(SourceError, match=reason) as caught:
        asn.load(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_half_mmdb_is_refused(tmp_path: Path, asn_mmdb: Path) -> None:
    content = asn_mmdb.read_bytes()
    with pytest.raises(SourceError, match="the end of one is missing"):
        asn.load(saved(tmp_path / "t", content[: len(content) // 2]))


def test_mmdb_with_a_broken_tree_is_refused(tmp_path: Path, asn_mmdb: Path) -> None:
    content = asn_mmdb.read_bytes()
    with pytest.raises(SourceError, match="a broken MMDB"):
        asn.load(saved(tmp_path / "t", content[400:]))


def test_mmdb_of_countries_is_refused(tmp_path: Path) -> None:
    path = mmdb(tmp_path / "t", {"192.0.2.0/24": {"country_code": "DE"}})
    with pytest.raises(SourceError, match="an MMDB without ASNs"):
        asn.load(path)


def test_mmdb_that_never_ends_is_refused(asn_mmdb: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asn, "NETWORK_LIMIT", 2)
    with pytest.raises(SourceError, match="more than 2 networks"):
        asn.load(asn_mmdb)


def test_gzip_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asn, "EXPANDED_LIMIT", 1000)
    with pytest.raises(SourceError, match="expands past"):
        asn.load(saved(tmp_path / "t", gzip.compress(DAT.encode() * 50)))


def test_unreadable_paths_are_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="No such file"):
        asn.load(tmp_path / "missing")
    with pytest.raises(SourceError, match="Is a directory"):
        asn.load(tmp_path)


def test_own_form_of_another_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asnpack, "VERSION", 9)
    content = own()
    monkeypatch.undo()
    with pytest.raises(SourceError, match="of version 9; this program reads version 1"):
        asnpack.unpack(content)


def test_own_form_checks_its_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    class Wrong:
        def hexdigest(self) -> str:
            return "0" * 64

    monkeypatch.setattr(hashlib, "sha256", lambda _: Wrong())
    content = own()
    monkeypatch.undo()
    with pytest.raises(SourceError, match="checksum is wrong"):
        asnpack.unpack(content)
