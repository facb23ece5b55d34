"""What a server tells of itself and its decisions over DNS, and to whom: --identity, and `explain:` of a zone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import dns.edns
import dns.message
import dns.query
import dns.rcode
import pytest
from serving import Server

from tests.small import write_table

ZONE = """\
version: 1
zone: example.net
soa: {mname: ns1, rname: noc@example.net, minimum: 60s}
ns: [ns1]
explain: {allow: [%s]}
providers:
  alder: {v4: [192.0.2.10], v6: ["2001:db8:a1::10"]}
  birch: {v4: [198.51.100.10]}
records:
  www:
    rules:
      - {name: near, match: {prefix: 192.0.2.0/25}, pin: birch}
      - {name: rest, wan: {among: all, nominal: [alder, birch]}}
static:
  - "ns1 A 192.0.2.53"
  - "shop CNAME www"
  - "plain A 192.0.2.80"
  - "* TXT wild"
"""
NSID = dns.edns.GenericOption(dns.edns.OptionType.NSID, b"")


def start(folder: Path, allow: str, *options: str, engine: str = "") -> Server:
    rules = folder / "rules"
    rules.mkdir()
    (rules / "example.net.yaml").write_text(ZONE % allow)
    server = Server(folder, rules, write_table(folder / "table.tsv"))
    return server.start(*options, environ={"EDGEDNS_ENGINE": engine} if engine else None)


@pytest.fixture(scope="module", params=["", "python", "reference"])
def allowing(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = start(tmp_path_factory.mktemp("allowing"), "127.0.0.0/8", "--identity", "fra1", engine=request.param)
    yield server
    server.clean_up()


@pytest.fixture(scope="module")
def silent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = start(tmp_path_factory.mktemp("silent"), "192.0.2.1", "--identity", "off")
    yield server
    server.clean_up()


def strings(reply: dns.message.Message) -> list[dict[str, str]]:
    return [
        dict(part.decode().partition("=")[::2] for part in rdata.strings) for rrset in reply.answer for rdata in rrset
    ]


def test_the_decision_behind_a_name(allowing: Server) -> None:
    reply = allowing.query("www._explain.example.net", "TXT", of="192.0.2.7/32")
    first, second = sorted(strings(reply), key=lambda told: told["type"])
    assert (first["type"], first["provider"], first["rule"], first["reason"]) == ("A", "birch", "near", "PINNED")
    assert (first["scope"], second["provider"]) == ("25", "none")
    assert {option.scopelen for option in reply.options if isinstance(option, dns.edns.ECSOption)} == {25}
    assert reply.answer[0].ttl == 0
    other = strings(allowing.query("www._explain.example.net", "TXT", of="192.0.2.200/32"))
    assert {told["rule"] for told in other} == {"rest"}
    assert {told["ranking"] for told in other} >= {"alder,birch"}


def test_through_an_alias(allowing: Server) -> None:
    assert len(strings(allowing.query("shop._explain.example.net", "TXT"))) == 2


def test_it_agrees_with_the_answer(allowing: Server) -> None:
    (address,) = allowing.addresses(of="192.0.2.7/32")
    told = strings(allowing.query("www._explain.example.net", "TXT", of="192.0.2.7/32"))
    assert (address, told[0]["provider"]) == ("198.51.100.10", "birch")


@pytest.mark.parametrize(("name", "rtype"), [("plain", "TXT"), ("nowhere", "TXT"), ("www", "A")])
def test_there_is_nothing_else_below_it(allowing: Server, name: str, rtype: str) -> None:
    assert dns.rcode.to_text(allowing.query(f"{name}._explain.example.net", rtype).rcode()) == "NXDOMAIN"


def test_nobody_else_is_told(silent: Server) -> None:
    """127.0.0.1 is not in the list: the names below _explain are like any that don't exist."""
    assert dns.rcode.to_text(silent.query("www._explain.example.net", "TXT").rcode()) == "NXDOMAIN"
    assert strings(silent.query("any.example.net", "TXT")) == [{"wild": ""}]


def ask(server: Server, name: str) -> dns.message.Message:
    query = dns.message.make_query(name, "TXT", "CH", use_edns=0, options=[NSID])
    return dns.query.udp(query, "127.0.0.1", 5, server.port)


@pytest.mark.parametrize("name", ["id.server", "hostname.bind"])
def test_who_it_is(allowing: Server, name: str) -> None:
    reply = ask(allowing, name)
    assert reply.answer[0][0].to_text() == '"fra1"'
    (nsid,) = (option for option in reply.options if option.otype == dns.edns.OptionType.NSID)
    assert (nsid.to_wire() or b"").startswith(b"fra1:")


@pytest.mark.parametrize("name", ["id.server", "hostname.bind", "version.server", "version.bind"])
def test_or_not(silent: Server, name: str) -> None:
    reply = ask(silent, name)
    assert (dns.rcode.to_text(reply.rcode()), reply.answer) == ("REFUSED", [])
    assert not [option for option in reply.options if option.otype == dns.edns.OptionType.NSID]
