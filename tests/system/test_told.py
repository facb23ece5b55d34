"""What a server tells of itself and its decisions over DNS, and to whom: --identity, and `explain:` of a zone."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import dns.edns
import dns.message
import dns.query
import dns.rcode
import pytest

from tests.small import write_table
from tests.system.serving import SLACK, Server

pytestmark = pytest.mark.xdist_group("told")
ZONE = """\
version: 1
zone: example.net
soa: {mname: ns1, rname: noc@example.net, minimum: 60s, serial: 1}
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


def start(folder: Path, allow: str | None, *options: str, engine: str = "") -> Server:
    rules = folder / "rules"
    rules.mkdir()
    (rules / "example.net.yaml").write_text(ZONE % allow if allow else ZONE.replace("explain: {allow: [%s]}\n", ""))
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


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = start(tmp_path_factory.mktemp("plain"), None, "--identity", "off")
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


@pytest.mark.parametrize("name", ["plain", "nowhere"])
def test_there_is_nothing_else_below_it(allowing: Server, name: str) -> None:
    assert dns.rcode.to_text(allowing.query(f"{name}._explain.example.net", "TXT").rcode()) == "NXDOMAIN"


NAMES = ["www._explain", "shop._explain", "_explain", "x.y._explain", "www._EXPLAIN", "any", "x.y"]


@pytest.mark.parametrize("rtype", ["TXT", "A", "ANY", "DS"])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_nobody_else_can_tell_that_it_exists(silent: Server, plain: Server, name: str, rtype: str, transport: str) -> None:
    """127.0.0.1 is not in the list: it is answered what a zone without `explain:` says, here by a wildcard."""
    replies = [server.query(f"{name}.example.net", rtype, tcp=transport == "tcp") for server in (silent, plain)]
    for reply in replies:
        reply.id = 0
    assert replies[0].to_text() == replies[1].to_text()
    assert dns.rcode.to_text(replies[0].rcode()) == "NOERROR"
    assert bool(replies[0].answer) == (rtype in ("TXT", "ANY"))


def test_from_the_prefix_that_the_packet_came_from_not_from_what_it_says(silent: Server) -> None:
    """A client subnet opens no door: the list is about who asks."""
    told = silent.query("www._explain.example.net", "TXT", of="192.0.2.1/32")
    assert strings(told) == [{"wild": ""}]


def test_it_says_what_the_command_says(allowing: Server) -> None:
    command = [sys.executable, "-m", "edgedns", "explain", "www.example.net", "A", "--from", "127.0.0.1"]
    command += ["--subnet", "192.0.2.7/32", "--json", "--server", allowing.admin]
    said = json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
    dug = dig(allowing, "www._explain.example.net", "TXT", "+short", "+subnet=192.0.2.7/32")
    told = next(dict(re.findall(r'"(\w+)=([^"]*)"', line)) for line in dug.splitlines() if '"type=A"' in line)
    for field in ("provider", "rule", "reason", "scope", "serial"):
        assert str(said[field]) == told[field], field


def dig(server: Server, *words: str) -> str:
    command = ["dig", "@127.0.0.1", "-p", str(server.port), "+norecurse", "+tries=1", *words]
    return subprocess.run(command, capture_output=True, check=True, text=True).stdout


def test_nsid_is_the_node_and_what_it_serves(allowing: Server) -> None:
    """RFC 5001, as `dig +nsid` shows it: after a publish the serial is the new one."""
    before = allowing.root()["serial"]
    assert f'("fra1:{before}")' in dig(allowing, "www.example.net", "A", "+nsid")
    zone = allowing.rules / "example.net.yaml"
    zone.write_text(zone.read_text() + '  - "later A 192.0.2.81"\n')
    allowing.until_answered(["192.0.2.81"], 6.0 * SLACK, name="later.example.net", of=None)
    after = allowing.root()["serial"]
    assert after > before
    assert f'("fra1:{after}")' in dig(allowing, "www.example.net", "A", "+nsid")


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
