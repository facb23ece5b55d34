"""A rules directory as loaded: which files, whose mistakes, and what stands while a zone is wrong."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from edgedns.dns import types
from edgedns.dns.name import from_text
from edgedns.engine.load import Loaded, load_rules, with_last_good, with_serial
from edgedns.errors import RuleErrors, SourceError

ROOT = Path(__file__).parents[3]
SHARED = 'providers:\n  alder: {v4: 192.0.2.10, v6: "2001:db8:a1::10"}\n'
HEAD = "soa: {mname: ns.example.org, rname: noc}\nns: [ns.example.org]\n"
RECORDS = "records:\n  www: {rules: [{name: all, pin: alder}]}\n"


def zone(name: str, rest: str = RECORDS) -> str:
    return f"zone: {name}\n{HEAD}{rest}"


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text)
    return folder


def errors(loaded: Loaded) -> list[str]:
    return [each.code for each in loaded.problems if each.severity == "error"]


def raised(folder: Path) -> list[str]:
    with pytest.raises(RuleErrors) as caught:
        load_rules(folder)
    return [each.code for each in caught.value.problems if each.severity == "error"]


def test_the_example_is_good() -> None:
    loaded = load_rules(ROOT / "rules", 1795305600.0)
    assert [each.code for each in loaded.problems] == ["W605"]
    assert set(loaded.rules.providers) == {"alder", "birch", "cedar", "dogwood"}
    assert {rr.type for rr in loaded.statics["cdn.example.net"]} >= {
        types.SOA, types.NS, types.MX, types.TXT, types.CAA, types.SRV, types.CNAME, types.DNAME, types.HTTPS, types.SVCB,
        types.DS, types.NAPTR, types.TLSA, types.SSHFP, types.LOC, types.HINFO, types.URI,
    }  # fmt: skip


def test_the_example_in_the_reference_is_good(tmp_path: Path) -> None:
    (text,) = re.findall(r"```yaml\n(version: 1.*?)```", (ROOT / "docs/rules.md").read_text(), re.S)
    assert load_rules(write(tmp_path, zone=text)).problems == []


def test_soa_and_ns_come_from_their_keys(tmp_path: Path) -> None:
    loaded = load_rules(write(tmp_path, providers=SHARED, zone=zone("example.net")))
    soa, ns = loaded.statics["example.net"]
    assert (soa.type, soa.ttl, ns.type, ns.ttl) == (types.SOA, 3600, types.NS, 3600)
    assert (ns.rdata, ns.where.line) == (from_text("ns.example.org"), 3)
    assert soa.rdata[-20:] == b"".join(number.to_bytes(4) for number in (0, 3600, 900, 1209600, 60))
    assert with_serial([soa, ns], 7)[0].rdata[-20:-16] == b"\0\0\0\7"
    assert with_serial([soa, ns], 7)[1] == ns


def test_a_wrong_zone_holds_back_only_itself(tmp_path: Path) -> None:
    write(tmp_path, providers=SHARED, good=zone("good.example"), bad=zone("bad.example", "records: 1\n"))
    loaded = load_rules(tmp_path)
    assert set(loaded.rules.zones) == {"good.example"}
    assert loaded.failed_zones == {"bad.example"}
    assert set(loaded.statics) == {"good.example"}
    assert errors(loaded) == ["E106"]


def test_plain_records_hold_back_their_zone_too(tmp_path: Path) -> None:
    loaded = load_rules(write(tmp_path, bad=zone("bad.example", 'static: ["a A x"]\n'), good=zone("good.example", "")))
    assert loaded.failed_zones == {"bad.example"}
    assert errors(loaded) == ["E401"]


@pytest.mark.parametrize("shared", ["providers: [", "round: never\n", "providers: {alder: {}}\n"])
def test_an_error_in_providers_holds_back_everything(tmp_path: Path, shared: str) -> None:
    write(tmp_path, providers=shared, one=zone("one.example", "records: 1\n"))
    assert "E106" in raised(tmp_path)
    assert len(raised(tmp_path)) > 1


def test_two_files_of_one_zone_hold_back_that_zone(tmp_path: Path) -> None:
    loaded = load_rules(write(tmp_path, a=zone("x.example", ""), b=zone("X.example.", ""), c=zone("sub.x.example", "")))
    assert set(loaded.rules.zones) == {"sub.x.example"}
    assert loaded.failed_zones == {"x.example"}


def test_the_last_good_zone_stands_with_what_it_needs(tmp_path: Path) -> None:
    own = 'providers: {elm: {v4: 192.0.2.1, v6: "2001:db8::1"}}\nnetworks: {home: {asn: 64496}}\n'
    rules = "records: {w: {rules: [{name: a, match: {network: home}, pin: elm}, {name: b, pin: elm}]}}\n"
    last = load_rules(write(tmp_path, a=zone("a.example", own + rules), b=zone("b.example", "")))
    loaded = load_rules(write(tmp_path, a="zone: [", b=zone("b.example", 'static: ["x A 192.0.2.1"]\n')))
    assert (set(loaded.rules.zones), set(loaded.rules.providers)) == ({"b.example"}, set())
    joined = with_last_good(loaded, last)
    assert joined.rules.zones["a.example"] == last.rules.zones["a.example"]
    assert joined.statics["a.example"] == last.statics["a.example"]
    assert {*joined.rules.providers, *joined.rules.networks} == {"elm", "home", "public-resolvers"}
    assert len(joined.statics["b.example"]) == 3
    assert with_last_good(last, loaded) == last


def test_which_files_are_read(tmp_path: Path) -> None:
    write(tmp_path, **{"a": zone("a.example", ""), ".hidden": "zone: ["})
    (tmp_path / "b.yml").write_text(zone("b.example", ""))
    (tmp_path / "notes.txt").write_text("zone: [")
    (tmp_path / "..data.yaml").mkdir()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "c").write_text(zone("c.example", ""))
    (tmp_path / "c.yaml").symlink_to(elsewhere / "c")
    assert set(load_rules(tmp_path).rules.zones) == {"a.example", "b.example", "c.example"}


def test_what_can_not_be_read_is_said(tmp_path: Path) -> None:
    write(tmp_path, good=zone("good.example", ""))
    (tmp_path / "gone.yaml").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe.yaml")
    loaded = load_rules(tmp_path)
    assert errors(loaded) == ["E100", "E100"]
    assert loaded.failed_zones == {"gone", "pipe"}
    (tmp_path / "providers.yaml").symlink_to("nowhere")
    assert raised(tmp_path) == ["E100"] * 3


def test_no_directory_and_no_zone(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="No such file"):
        load_rules(tmp_path / "gone")
    with pytest.raises(SourceError, match="Not a directory"):
        load_rules(write(tmp_path, providers=SHARED) / "providers.yaml")
    assert raised(tmp_path) == ["E100"]
    assert raised(write(tmp_path, zone="# nothing\n", providers="")) == ["E109", "E109"]


def test_includes_stay_in_the_directory(tmp_path: Path) -> None:
    outside = tmp_path / "secret"
    outside.write_text("a TXT secret\n")
    folder = tmp_path / "rules"
    (folder / "more").mkdir(parents=True)
    (folder / "more/good.zone").write_text("b A 192.0.2.1\n")
    (folder / "good.link").symlink_to("more/good.zone")
    (folder / "bad.link").symlink_to(outside)
    (folder / "more/up").symlink_to("..")
    os.mkfifo(folder / "pipe")

    def read(name: str) -> Loaded:
        return load_rules(write(folder, zone=zone("a.example", f"static: {{file: {name!r}}}\n")))

    for name in ("more/good.zone", "good.link", "more/../good.link", "more/up/more/good.zone"):
        assert len(read(name).statics["a.example"]) == 3, name
    for name in ("../secret", "bad.link", "more/up/../secret", str(outside), str(folder / "good.link"), "../rules2/x"):
        assert errors(read(name)) == ["E403"], name
    for name in ("gone", "more", "pipe", "a\0b"):
        assert errors(read(name))[0] in ("E404", "E101"), name


def test_mistakes_in_an_included_file_are_told_there(tmp_path: Path) -> None:
    (tmp_path / "x.zone").write_text("a A 192.0.2.1\nb A x\n")
    (bad,) = load_rules(write(tmp_path, zone=zone("a.example", "static: {file: x.zone}\n"))).problems
    assert (bad.file, bad.line, bad.column, bad.source) == (str(tmp_path / "x.zone"), 2, 5, "b A x")
    (tmp_path / "x.zone").write_bytes(b"a TXT caf\xe9\n")
    loaded = load_rules(tmp_path)
    assert errors(loaded) == ["E101"]
    assert loaded.failed_zones == {"a.example"}


@pytest.mark.parametrize(
    ("entry", "line", "column"),
    [
        ('static: ["a A x"]', 4, 15),
        ("static:\n  - 'a A x'", 5, 10),
        ("static:\n  - a A x", 5, 9),
        ("static: |\n    b A 192.0.2.1\n    a A x\n", 6, 9),
        ("static: |\n  a TXT ( one\n     two )\n  c   BAD 1\n", 7, 7),
        ('static: ["\\x61 A x"]', 4, 14),
    ],
)
def test_mistakes_in_zone_text_are_told_where_they_stand_in_yaml(
    tmp_path: Path, entry: str, line: int, column: int
) -> None:
    (bad,) = load_rules(write(tmp_path, zone=zone("a.example", entry))).problems
    assert (bad.line, bad.column) == (line, column)


def test_an_unknown_type_in_a_test_is_said(tmp_path: Path) -> None:
    text = zone("a.example", "tests:\n  - {name: x, type: BOGUS, from: 192.0.2.1, expect: NXDOMAIN}\n")
    assert errors(load_rules(write(tmp_path, zone=text))) == ["E410"]
