"""The rules language: what each key means, and that no bytes do more than be refused."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edgedns.errors import Problem
from edgedns.model import (
    AllDown,
    Capacity,
    Check,
    Failover,
    InlineTest,
    Match,
    Pin,
    Prefix,
    Record,
    Soa,
    StaticText,
    Wan,
    Weighted,
    ZoneRules,
)
from edgedns.steer.rules import words
from edgedns.steer.rules.reading import PUBLIC_RESOLVER_ASNS, Reading, RulesFile, read
from edgedns.steer.rules.shape import json_schema

ROOT = Path(__file__).parents[4]
NOW = datetime(2026, 11, 22, tzinfo=UTC).timestamp()
CONTINENT = {"DE": "EU", "NO": "EU", "NZ": "OC", "AU": "OC", "PT": "EU"}

HEAD = """
version: 1
zone: example.net
soa: {mname: ns1, rname: noc}
ns: [ns1]
providers:
  alder: {v4: 192.0.2.10, v6: "2001:db8:a1::10"}
  birch: {v4: 198.51.100.10, v6: "2001:db8:b1::10"}
  cedar: {v4: 203.0.113.10, v6: "2001:db8:c1::10"}
networks:
  office: {prefix: [198.51.100.0/24, "2001:db8:ff::/48"]}
  eyeballs: {asn: [3320, AS3209]}
"""


def reading(*contents: str | bytes, shared: str | None = None) -> Reading:
    files = [
        RulesFile(f"zone{number}.yaml", f"zone{number}", False, text.encode() if isinstance(text, str) else text)
        for number, text in enumerate(contents)
    ]
    if shared is not None:
        files.append(RulesFile("providers.yaml", "providers", True, shared.encode()))
    return read(files, lambda country: CONTINENT.get(country, ""), NOW)


def zone(text: str, head: str = HEAD) -> ZoneRules:
    found = reading(head + text)
    assert not [each for each in found.problems if each.severity == "error"], found.problems
    return found.rules.zones["example.net"]


def record(text: str) -> Record:
    return zone("records:\n  www:\n    rules:\n" + text).records[0]


def said(text: str, head: str = HEAD) -> list[str]:
    return [each.code for each in reading(head + text).problems if each.code not in ("W603", "W604")]


EVERYONE = "      - {name: everyone, wan: {among: all}}\n"


# values


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30", 30), ("30s", 30), ("5m", 300), ("1h30m", 5400), ("250ms", 0.25), ("1.5h", 5400), ("2w", 1209600)],
)
def test_durations(text: str, seconds: float) -> None:
    assert words.duration(0, 1e9)(text) == seconds


@pytest.mark.parametrize("text", ["", "1:30", "010", "s", "-1", "1 h", "5x", "1e3", "٣s", "1" * 50, "nan"])
def test_not_durations(text: str) -> None:
    with pytest.raises(words.Wrong):
        words.duration(0, 1e9)(text)


@pytest.mark.parametrize("text", ["2147483648", "1.5", "500ms", "2w" * 3000])
def test_not_ttls(text: str) -> None:
    """RFC 2181 section 8: 0 to 2^31 - 1 seconds."""
    with pytest.raises(words.Wrong):
        words.ttl(text)


@pytest.mark.parametrize(
    ("text", "value", "unit"),
    [
        ("400Gbps", 4e11, "bps"),
        ("10Tbps", 1e13, "bps"),
        ("500 Mbps", 5e8, "bps"),
        ("40%", 0.4, "share"),
        ("0.4", 0.4, "share"),
    ],
)
def test_capacities(text: str, value: float, unit: Any) -> None:
    found = words.capacity(text)
    assert found == Capacity(found.value, unit)
    assert found.value == pytest.approx(value)


@pytest.mark.parametrize("text", ["400", "0%", "101%", "400 GB", "4.0.0", ".", "-1Gbps", "0bps", "%"])
def test_not_capacities(text: str) -> None:
    with pytest.raises(words.Wrong, match=r"capacity"):
        words.capacity(text)


@pytest.mark.parametrize("text", ["3320", "AS3320", "as3320"])
def test_asns(text: str) -> None:
    assert words.asn(text) == 3320


@pytest.mark.parametrize("text", ["0", "AS", "4294967296", "03320", "1.10", "ASAS1", "-1", "3320 "])
def test_not_asns(text: str) -> None:
    with pytest.raises(words.Wrong):
        words.asn(text)


def test_dates_are_utc() -> None:
    assert words.date("2036-12-05") == datetime(2036, 12, 5, tzinfo=UTC).timestamp()
    assert (
        words.date("2036-12-05T10:00:00+02:00") == words.date("2036-12-05 08:00") == words.date("2036-12-05T08:00:00Z")
    )


@pytest.mark.parametrize(
    "text", ["2036-13-01", "2036-02-30", "5.12.2036", "2036-W01-1", "20361205", "now", "0000-01-01"]
)
def test_not_dates(text: str) -> None:
    with pytest.raises(words.Wrong):
        words.date(text)


def test_prefixes() -> None:
    assert words.prefix("198.51.100.0/24") == Prefix(4, b"\xc6\x33\x64\0", 24)
    assert words.prefix("2001:db8::/32") == Prefix(6, b"\x20\x01\x0d\xb8" + bytes(12), 32)
    assert words.prefix("198.51.100.9") == Prefix(4, b"\xc6\x33\x64\x09", 32)
    assert words.prefix("0.0.0.0/0") == Prefix(4, bytes(4), 0)
    with pytest.raises(words.Wrong, match=r"write 198\.51\.100\.0/24"):
        words.prefix("198.51.100.9/24")


@pytest.mark.parametrize(
    "text", ["198.51.100/24", "1.2.3.4/", "1.2.3.4/255.255.255.0", "::/129", "fe80::1%eth0", "/24", "::ffff:0:0/96"]
)
def test_not_prefixes(text: str) -> None:
    with pytest.raises(words.Wrong):
        words.prefix(text)


# YAML's traps


def test_norway_is_a_country_and_nothing_else() -> None:
    rule = record("      - {name: nordic, match: {country: [NO, de]}, pin: alder}\n" + EVERYONE).rules[0]
    assert rule.match == Match(countries=frozenset({"NO", "DE"}))


def test_yes_no_and_numbers_are_names_where_a_name_is_asked() -> None:
    text = "records:\n  no: {rules: [{name: yes, pin: alder}]}\n  0123: {rules: [{name: 1e3, pin: alder}]}\n"
    records = zone(text).records
    assert [(each.label, each.rules[0].name) for each in records] == [("no", "yes"), ("0123", "1e3")]


@pytest.mark.parametrize("bad", ["010", "0x1E", "1_0", "0o10", "1:30", "true", "~", "[30]", "+30", "3e1"])
def test_a_ttl_is_a_plain_number_or_duration(bad: str) -> None:
    assert said(f"records:\n  www: {{ttl: {bad}, rules: [{{name: all, wan: {{}}}}]}}\n")


@pytest.mark.parametrize(
    "line",
    [
        "a: &x 1",
        "a: *x",
        "a: !!str x",
        "a: !x 1",
        "<<: {a: 1}",
        "---\na: 1",
        "a: 1\n---\nb: 2",
        "? [a]\n: b",
        "a: 1\na: 2",
    ],
)
def test_what_yaml_may_do_but_rules_may_not(line: str) -> None:
    assert reading(f"zone: example.net\n{line}\n").problems[0].code in ("E104", "E106", "E107")


def test_a_billion_laughs_is_one_refusal_each() -> None:
    bomb = "a: &a [x,x,x,x]\n" + "".join(
        f"{chr(98 + n)}: &{chr(98 + n)} [{','.join(['*' + chr(97 + n)] * 9)}]\n" for n in range(9)
    )
    assert {each.code for each in reading(bomb).problems} == {"E107"}


@pytest.mark.parametrize("text", ["v6: 2001:db8::", "v6: [2001:db8::]", "v6: [::1]", "v6: [alder, 2001:db8:a1::]"])
def test_a_bare_ipv6_address_gets_a_hint(text: str) -> None:
    problem = reading(f"zone: example.net\nproviders:\n  alder: {{v4: 192.0.2.1}}\n  birch:\n    {text}\n").problems[0]
    assert problem.code == "E111"
    assert "needs quotes" in problem.message


def test_a_bare_ipv6_address_that_yaml_takes_is_taken() -> None:
    found = reading(
        HEAD.replace('"2001:db8:a1::10"', "[2001:db8:a1::10]") + "records:\n  www: {rules: [{name: all, wan: {}}]}\n"
    )
    assert [each.code for each in found.problems if each.severity == "error"] == []


# records and rules


def test_rules_as_the_design_shows_them() -> None:
    www = record("""
      - {name: office-canary, match: {network: office}, pin: cedar, owner: noc, why: "canary until the move", until: 2036-12-05}
      - {name: contract, match: {asn: AS3320}, weighted: {alder: 70, birch: 30}}
      - {name: oceania, match: {continent: OC}, failover: [birch, alder]}
      - name: everyone-else
        wan: {among: all, nominal: [cedar], margin: {ms: 3, percent: 7}, min_samples: 9, holdout: 1%}
""")
    assert [rule.action for rule in www.rules] == [
        Pin("cedar"),
        Weighted((("alder", 70.0), ("birch", 30.0))),
        Failover(("birch", "alder")),
        Wan(("alder", "birch", "cedar"), ("cedar", "alder", "birch"), 3.0, 7.0, 9.0, 0.01),
    ]
    assert [rule.match for rule in www.rules] == [
        Match(networks=("office",)),
        Match(asns=frozenset({3320})),
        Match(continents=frozenset({"OC"})),
        None,
    ]
    first = www.rules[0]
    assert (first.owner, first.why, first.until) == ("noc", "canary until the move", words.date("2036-12-05"))
    assert (www.name, www.label, www.ttl, www.all_down) == (b"\3www\7example\3net\0", "www", 30, AllDown())


def test_wan_has_defaults() -> None:
    everyone = ("alder", "birch", "cedar")
    for text in ("{}", "{among: all}"):
        assert record(f"      - {{name: all, wan: {text}}}\n").rules[0].action == Wan(everyone, everyone)


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("www", "www"),
        ("WWW", "www"),
        ("www.example.net", "www"),
        ("www.example.net.", "www"),
        ("'@'", "@"),
        ("a.b", "a.b"),
    ],
)
def test_record_names(written: str, name: str) -> None:
    assert zone(f"records:\n  {written}: {{rules: [{{name: all, wan: {{}}}}]}}\n").records[0].label == name


def test_a_wildcard_may_be_steered() -> None:
    found = zone("records:\n  '*.apps': {rules: [{name: all, wan: {}}]}\n").records[0]
    assert found.name == b"\1*\4apps\7example\3net\0"


def test_names_are_bounded() -> None:
    for name in ("x" * 64, ".".join(["x" * 60] * 5), "a..b", "*.*", "a b"):
        assert said(f"records:\n  '{name}': {{rules: [{{name: all, wan: {{}}}}]}}\n") == ["E201"]


def test_like_takes_what_a_record_does_not_say() -> None:
    records = {
        each.label: each
        for each in zone("""
records:
  far: {like: img}
  www:
    ttl: 1m
    all_down: nodata
    rules: [{name: all, wan: {}}]
  img: {like: www, ttl: 5m}
""").records
    }
    assert records["img"].rules == records["far"].rules == records["www"].rules
    assert [records[name].ttl for name in ("www", "img", "far")] == [60, 300, 300]
    assert records["img"].all_down == records["far"].all_down == AllDown("nodata")


def test_like_of_nothing() -> None:
    assert said("records:\n  www: {rules: [{name: all, wan: {}}]}\n  img: {like: ww}\n") == ["E301"]
    assert said("records:\n  a: {like: a}\n  b: {like: a}\n") == ["E311"]


def test_all_down_and_ttl_defaults_are_a_ladder() -> None:
    shared = "providers: {alder: {v4: 192.0.2.1, v6: '2001:db8::1'}}\ndefaults: {ttl: 10s, all_down: servfail}\n"
    head = "zone: example.net\nsoa: {mname: ns1, rname: noc}\nns: [ns1]\n"
    text = "records:\n  a: {rules: [{name: all, wan: {}}]}\n  b: {like: a, all_down: {use: alder}}\n"
    plain = reading(head + text, shared=shared).rules.zones["example.net"].records
    own = reading(head + "defaults: {ttl: 20s}\n" + text, shared=shared).rules.zones["example.net"].records
    assert [(each.ttl, each.all_down) for each in plain] == [(10, AllDown("servfail")), (10, AllDown("use", "alder"))]
    assert [each.ttl for each in own] == [20, 20]


# providers, networks, the zone


def test_a_provider_in_full() -> None:
    head = HEAD.replace(
        "  birch:",
        "  elm:\n    v4: [192.0.2.1, 192.0.2.2]\n    capacity: 1Tbps\n    state: drain\n"
        "    check: {http: 'http://{ip}:8080/healthz', every: 2s, timeout: 1s, down_after: 4, up_after: 5}\n  birch:",
    )
    elm = reading(head).rules.providers["elm"]
    assert (elm.v4, elm.v6) == ((b"\xc0\0\2\1", b"\xc0\0\2\2"), ())
    assert (elm.capacity, elm.state) == (Capacity(1e12, "bps"), "drain")
    assert elm.check == Check("http", "http://{ip}:8080/healthz", 0, 2.0, 1.0, 4, 5)


def test_public_resolvers_are_built_in_and_can_be_replaced_or_extended() -> None:
    def asns(text: str) -> frozenset[int]:
        return reading(HEAD + text).rules.networks["public-resolvers"].asns

    assert asns("") == PUBLIC_RESOLVER_ASNS >= {15169, 13335, 19281, 36692}
    assert asns("  public-resolvers: {asn: 64496}\n") == {64496}
    assert asns("  public-resolvers: {asn: 64496, extend: true}\n") == PUBLIC_RESOLVER_ASNS | {64496}


def test_soa_names_with_a_dot_are_full() -> None:
    text = HEAD.replace(
        "{mname: ns1, rname: noc}", "{mname: ns1.example.org, rname: first.last@example.org, serial: 7, minimum: 1m}"
    )
    found = reading(text).rules.zones["example.net"].soa
    assert isinstance(found, Soa)
    assert (found.mname, found.rname, found.serial, found.minimum) == (
        "ns1.example.org",
        r"first\.last.example.org",
        7,
        60,
    )
    short = reading(HEAD).rules.zones["example.net"]
    assert short.soa is not None
    assert (short.soa.mname, short.soa.serial, short.ns) == ("ns1.example.net", None, ("ns1.example.net",))


def test_static_entries_and_transfer() -> None:
    found = zone(
        'transfer: {allow: [127.0.0.1, "2001:db8::/32"]}\nstatic:\n  - "a A 192.0.2.1"\n  - {file: more.zone}\n'
    )
    assert [(type(each), each.text, each.file) for each in found.static] == [
        (StaticText, "a A 192.0.2.1", ""),
        (StaticText, "", "more.zone"),
    ]
    assert [each.length for each in found.transfer_allow] == [32, 32]
    assert zone("static: {file: more.zone}\n").static[0].file == "more.zone"
    block = zone("static: |\n  a A 192.0.2.1\n").static[0]
    assert (block.text, block.where.line) == ("a A 192.0.2.1\n", HEAD.count("\n") + 2)


def test_inline_tests() -> None:
    found = zone("""
records:
  www: {rules: [{name: all, wan: {}}]}
tests:
  - {name: www, type: aaaa, from: 198.51.100.9, subnet: 203.0.113.0/24, at: 2036-12-01, expect: cedar}
  - {name: www, asn: AS3320, expect: [alder, birch]}
  - {name: gone, type: TXT, from: "2001:db8::1", expect: NXDOMAIN}
""").tests
    where = found[0].where
    client, subnet = words.prefix("198.51.100.9"), words.prefix("203.0.113.0/24")
    name = b"\3www\7example\3net\0"
    assert found[0] == InlineTest(name, "AAAA", client, subnet, None, words.date("2036-12-01"), ("cedar",), where)
    assert (found[1].type, found[1].client, found[1].asn, found[1].expect) == ("A", None, 3320, ("alder", "birch"))
    assert (found[2].expect, found[2].client) == (("NXDOMAIN",), words.prefix("2001:db8::1"))


def test_settings_for_all_zones() -> None:
    found = reading(HEAD, shared="round: 5s\nfresh_for: 2m\nmax_moved_share: 20%\nsalt: pepper\n").rules
    assert (found.round, found.fresh_for, found.max_moved_share, found.salt) == (5.0, 120.0, 0.2, "pepper")


def test_zones_by_name_and_by_file_where_the_name_cannot_be_read() -> None:
    found = reading(HEAD, "zone: [x\n", "ns: [a]\n")
    assert list(found.rules.zones) == ["example.net"]
    assert found.zone_of == {"zone0.yaml": "example.net", "zone1.yaml": "zone1", "zone2.yaml": "zone2"}


def test_all_mistakes_come_at_once() -> None:
    found = reading(
        HEAD.replace("v4: 192.0.2.10", "v4: 192.0.2.300").replace("mname: ns1, ", "")
        + "records:\n  www:\n    ttl: 1:30\n    rules:\n      - {name: a, pin: adler}\n      - {nam: b, match: {asn: x}}\n"
    )
    codes = [each.code for each in sorted(found.problems)]
    assert codes == ["E105", "E202", "E208", "E301", "E105", "E306", "E103", "E307", "E205"]


# warnings

UNREACHABLE = [
    ("{country: DE}", "{country: DE}", True),
    ("{country: [DE, NO]}", "{country: NO}", True),
    ("{country: DE}", "{country: [DE, NO]}", False),
    ("{continent: EU}", "{country: [DE, NO]}", True),
    ("{continent: OC}", "{country: [DE, NO]}", False),
    ("{country: DE}", "{country: DE, asn: 3320}", True),
    ("{country: DE, asn: 3320}", "{country: DE}", False),
    ("{country: DE, asn: [3320, 3209]}", "{asn: 3209, country: DE, continent: EU}", True),
    ("{prefix: 198.51.100.0/24}", "{prefix: [198.51.100.0/25, 198.51.100.128/26]}", True),
    ("{prefix: 198.51.100.0/24}", "{prefix: [198.51.100.0/25, 198.51.101.0/26]}", False),
    ("{prefix: '::/0'}", "{prefix: 198.51.100.0/25}", False),
    ("{network: office}", "{prefix: 198.51.100.0/25}", True),
    ("{prefix: [198.51.100.0/23, '2001:db8::/32']}", "{network: office}", True),
    ("{prefix: 198.51.100.0/23}", "{network: office}", False),
    ("{asn: [3320, 3209, 1]}", "{network: eyeballs}", True),
    ("{network: [office, eyeballs]}", "{asn: 3320}", True),
    ("{network: office}", "{network: [office, eyeballs]}", False),
]


@pytest.mark.parametrize(
    ("earlier", "later", "hidden"), [(a, b.replace("198.51.100.0/23", "198.51.100.0/23"), c) for a, b, c in UNREACHABLE]
)
def test_rules_that_nothing_reaches(earlier: str, later: str, hidden: bool) -> None:
    text = (
        f"      - {{name: a, match: {earlier}, pin: alder}}\n      - {{name: b, match: {later}, pin: birch}}\n"
        + EVERYONE
    )
    assert ("W602" in said("records:\n  www:\n    rules:\n" + text)) is hidden


@pytest.mark.parametrize(
    ("earlier", "later", "hidden"),
    [
        ("", "", True),
        (", until: 2036-01-01", "", False),
        ("", ", until: 2036-01-01", True),
        (", until: 2036-01-01", ", until: 2037-01-01", False),
    ],
)
def test_a_rule_that_ends_hides_nothing_for_good(earlier: str, later: str, hidden: bool) -> None:
    row = "      - {{name: {0}, match: {{asn: 1}}, pin: {1}{2}}}\n"
    text = row.format("a", "alder", earlier) + row.format("b", "birch", later)
    assert ("W602" in said("records:\n  www:\n    rules:\n" + text + EVERYONE)) is hidden


def test_a_warning_is_given_once_for_records_that_are_alike() -> None:
    rules = "[{name: a, match: {asn: 1}, pin: alder, until: 2026-01-01}, {name: b, wan: {}}]"
    assert said(f"records:\n  www:\n    rules: {rules}\n  img: {{like: www}}\n") == ["W601"]


def test_what_is_unused() -> None:
    codes = [
        (each.code, each.line)
        for each in reading(HEAD + "records:\n  www: {rules: [{name: all, pin: alder}]}\n").problems
    ]
    assert sorted(codes) == [("W603", 11), ("W603", 12), ("W604", 8), ("W604", 9)]


def test_providers_are_told_by_their_file() -> None:
    shared = "providers: {alder: {v4: 192.0.2.1, v6: '2001:db8::1'}}\n"
    records = "records: {www: {rules: [{name: a, wan: {}}]}}\n"
    one = "zone: one.example\nproviders: {birch: {v4: 192.0.2.2, v6: '2001:db8::2'}}\n" + records
    two = "zone: two.example\n" + records
    found = reading(one, two, shared=shared)
    assert found.problems == []
    actions = [each.records[0].rules[0].action for each in found.rules.zones.values()]
    assert [action.among for action in actions if isinstance(action, Wan)] == [("alder", "birch"), ("alder",)]


# any bytes


FRAGMENTS = re.findall(
    r"\S+|\s+", (ROOT / "rules/cdn.example.net.yaml").read_text() + (ROOT / "rules/providers.yaml").read_text()
)
YAMLISH = st.lists(
    st.sampled_from([*FRAGMENTS, "[", "]", "{", "}", ": ", "- ", "&a ", "*a", "!x ", "\t", "|\n", "'", '"', "?"]),
    max_size=60,
)


@given(
    st.one_of(st.binary(max_size=300), st.text(max_size=200).map(str.encode), YAMLISH.map("".join).map(str.encode)),
    st.booleans(),
)
@example(b"[" * 10_000, False)
@example(b"{a: " * 10_000, True)
@example(b"\xef\xbb\xbf", False)
@example(b"- " * 5_000, False)
def test_any_bytes_are_read_or_refused(content: bytes, shared: bool) -> None:
    file = RulesFile("x.yaml", "x", shared, content)
    found = read([file, RulesFile("zone.yaml", "zone", False, HEAD.encode())], lambda _: "EU", NOW)
    assert "example.net" in found.rules.zones
    assert all(isinstance(each, Problem) and each.line > 0 and each.column > 0 for each in found.problems)


# the schema and the reference say the same


def walk(schema: Any, see: Callable[[dict[str, Any]], None]) -> None:
    if isinstance(schema, dict):
        see(schema)
    for each in schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ():
        walk(each, see)


def test_the_committed_schema_is_the_one_printed() -> None:
    assert json.loads((ROOT / "schema/edgedns.v1.json").read_text()) == json_schema()


def test_the_schema_refers_to_what_it_has_and_describes_every_key() -> None:
    schema = json_schema()

    def see(part: dict[str, Any]) -> None:
        if "$ref" in part:
            assert part["$ref"].removeprefix("#/$defs/") in schema["$defs"]
        for key in part.get("properties", {}).values():
            assert key["description"]

    walk(schema, see)


def test_the_reference_names_every_key_and_code() -> None:
    text = (ROOT / "docs/rules.md").read_text()
    keys: set[str] = set()
    walk(json_schema()["$defs"], lambda part: keys.update(part.get("properties", ()) if "type" in part else ()))
    assert [key for key in sorted(keys) if f"`{key}`" not in text] == []
    sources = [*(ROOT / "edgedns").rglob("*.py")]
    codes = {
        code for path in sources for code in re.findall(r'problem\([^"]*"([EW]\d{3})"|"([EW]\d{3})"', path.read_text())
    }
    known = {code for pair in codes for code in pair if code}
    assert [code for code in sorted(known) if f"`{code}`" not in text] == []
