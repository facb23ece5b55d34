"""Transfers of a zone: AXFR (RFC 5936) and IXFR answered in full (RFC 1995), to whom `transfer:` allows them."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import dns.flags
import dns.message
import dns.name
import dns.query
import dns.rcode
import dns.rdatatype
import dns.rrset
import dns.xfr
import dns.zone
import pytest

from edgedns.engine import transfer as transfers
from tests.conformance import peers
from tests.small import write_table
from tests.system.serving import SLACK, Server

pytestmark = pytest.mark.xdist_group("transfer")
COUNT = 1000
OTHERS = 14  # SOA, NS, eight static records, four addresses of steered names
ZONE = """\
version: 1
zone: example.net
soa: {mname: ns1, rname: noc@example.net, minimum: 60s, serial: 2026112201}
ns: [ns1]
transfer: {allow: [127.0.0.1, 127.0.3.0/24]}
explain: {allow: [127.0.0.1]}
providers:
  alder: {v4: [192.0.2.10, 192.0.2.11], v6: ["2001:db8:a1::10"]}
  birch: {v4: [198.51.100.10]}
records:
  www:
    rules:
      - {name: near, match: {prefix: 192.0.2.0/25}, pin: birch}
      - {name: rest, wan: {among: all, nominal: [alder, birch]}}
  two: {ttl: 5m, rules: [{name: all, pin: birch}]}
static: {file: zone}
"""
STATIC = r"""
ns1 A 192.0.2.53
shop CNAME www
*.wild TXT "any"
sub NS ns.sub
ns.sub A 192.0.2.54
moved DNAME elsewhere.example.
odd\.dot\000 TXT "x" "y"
un TYPE65280 \# 2 0aff
"""
OTHER = "version: 1\nzone: other.example\nsoa: {mname: n, rname: h@o.example}\nns: [n]\nstatic: [\"n A 192.0.2.1\"]\n"
STEERED = {("www", "A"): ["192.0.2.10", "192.0.2.11"], ("www", "AAAA"): ["2001:db8:a1::10"], ("two", "A"): ["198.51.100.10"]}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    top = tmp_path_factory.mktemp("primary")
    rules = top / "rules"
    rules.mkdir()
    (rules / "example.net.yaml").write_text(ZONE)
    many = "".join(f"h{number} A 192.0.2.{number % 256}\nh{number} TXT {'t' * 100}\n" for number in range(COUNT))
    (rules / "zone").write_text(STATIC + many)
    (rules / "other.yaml").write_text(OTHER)
    made = Server(top, rules, write_table(top / "table.tsv"))
    try:
        yield made.start()
    finally:
        made.clean_up()


def transferred(server: Server, rtype: str = "AXFR", serial: int = 0, source: str | None = None) -> list[dns.rrset.RRset]:
    """The answer section of all messages."""
    query = dns.message.make_query("example.net", rtype, use_edns=False)
    if rtype == "IXFR":
        soa = f"ns1.example.net. noc.example.net. {serial} 3600 900 1209600 60"
        query.authority.append(dns.rrset.from_text("example.net.", 0, "IN", "SOA", soa))
    found: list[dns.rrset.RRset] = []
    with socket.create_connection(("127.0.0.1", server.port), 10, (source, 0) if source else None) as sock:
        dns.query.send_tcp(sock, query)
        while len([rrset for rrset in found if rrset.rdtype == dns.rdatatype.SOA]) < 2:
            reply, _ = dns.query.receive_tcp(sock, time.time() + 10, one_rr_per_rrset=True)
            assert reply.id == query.id
            assert reply.flags & dns.flags.AA
            found += reply.answer
            if dns.rcode.to_text(reply.rcode()) != "NOERROR" or len(found) == 1:
                break
    return found


def test_it_is_the_whole_zone_and_its_soa_first_and_last(server: Server) -> None:
    """RFC 5936 section 2.2: the first and the last record are the SOA, and each other record of the zone comes once."""
    found = transferred(server)
    assert found[0] == found[-1]
    got = {(rrset.name, rrset.rdtype, rrset[0]) for rrset in found}
    assert len(got) == len(found) - 1 == 2 * COUNT + OTHERS
    head = f"$ORIGIN example.net.\n$TTL 30\n@ 3600 SOA {found[0][0]}\n@ 3600 NS ns1\n"
    wanted = dns.zone.from_text(head + STATIC, relativize=False, check_origin=False)
    for name, _, rdata in wanted.iterate_rdatas():
        assert (name, rdata.rdtype, rdata) in got, (name, rdata)


def test_steered_names_are_what_nobody_known_would_get(server: Server) -> None:
    found = transferred(server)
    for (name, rtype), wanted in STEERED.items():
        owner, kind = dns.name.from_text(f"{name}.example.net."), dns.rdatatype.from_text(rtype)
        rrsets = [one for one in found if (one.name, one.rdtype) == (owner, kind)]
        assert [one[0].to_text() for one in rrsets] == wanted
        assert {one.ttl for one in rrsets} == {300 if name == "two" else 30}
    assert not [one for one in found if b"_explain" in one.name.labels]


def test_ixfr_is_answered_with_all_of_it_or_with_nothing_new(server: Server) -> None:
    """RFC 1995 section 4: a server may answer with the entire zone; section 2: a current one gets a single SOA."""
    assert len(transferred(server, "IXFR", 2026112200)) == len(transferred(server))
    for serial in (2026112201, 2026112202):
        (soa,) = transferred(server, "IXFR", serial)
        assert soa[0].serial == 2026112201


STRANGERS = [("127.0.0.2", "example.net"), ("127.0.0.1", "other.example")]


@pytest.mark.parametrize(("source", "zone"), STRANGERS)
@pytest.mark.parametrize("rtype", ["AXFR", "IXFR"])
def test_others_are_refused(server: Server, source: str, zone: str, rtype: str) -> None:
    with socket.create_connection(("127.0.0.1", server.port), 10, (source, 0)) as sock:
        dns.query.send_tcp(sock, dns.message.make_query(zone, rtype))
        reply, _ = dns.query.receive_tcp(sock, time.time() + 10)
    assert (dns.rcode.to_text(reply.rcode()), reply.answer) == ("REFUSED", [])


def test_a_prefix_may_be_allowed(server: Server) -> None:
    assert len(transferred(server, source="127.0.3.77")) > COUNT


def test_not_over_udp(server: Server) -> None:
    """RFC 5936 section 4.2: "AXFR sessions over UDP transport are not defined"."""
    assert dns.rcode.to_text(server.query("example.net", "AXFR").rcode()) == "REFUSED"


def test_messages_are_small_and_what_was_asked_behind_is_answered(server: Server) -> None:
    behind = dns.message.make_query("ns1.example.net", "A")
    with socket.create_connection(("127.0.0.1", server.port), 10) as sock:
        dns.query.send_tcp(sock, dns.message.make_query("example.net", "AXFR", use_edns=0, payload=1232))
        dns.query.send_tcp(sock, behind)
        soas, first = 0, True
        while soas < 2:
            reply, _ = dns.query.receive_tcp(sock, time.time() + 10, one_rr_per_rrset=True)
            assert len(reply.to_wire()) <= transfers.ROOM + 100
            assert (len(reply.question), reply.edns >= 0) == ((1, True) if first else (0, False))
            soas += sum(rrset.rdtype == dns.rdatatype.SOA for rrset in reply.answer)
            first = False
        reply, _ = dns.query.receive_tcp(sock, time.time() + 10)
    assert reply.id == behind.id
    assert reply.answer[0][0].to_text() == "192.0.2.53"


def test_who_does_not_read_holds_up_nobody(server: Server) -> None:
    before = server.counters()
    slow = []
    try:
        for _ in range(20):
            slow.append(socket.socket())
            slow[-1].setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            slow[-1].connect(("127.0.0.1", server.port))
            dns.query.send_tcp(slow[-1], dns.message.make_query("example.net", "AXFR"))
        for _ in range(20):
            begun = time.monotonic()
            assert server.query("ns1.example.net", of=None, tcp=True).answer
            assert server.query("ns1.example.net", of=None).answer
            assert time.monotonic() - begun < 0.3 * SLACK
        assert len(transferred(server)) > COUNT
    finally:
        for sock in slow:
            sock.close()
    time.sleep(0.3)
    after = server.counters()
    gained = {name: after[name] - before.get(name, 0) for name in after if name.startswith("edgedns_tcp_")}
    outcomes = sum(count for name, count in gained.items() if name.startswith("edgedns_tcp_outcomes"))
    assert gained["edgedns_tcp_received_total"] == outcomes


@pytest.mark.skipif(shutil.which("dig") is None, reason="needs dig")
def test_dig_takes_it(server: Server) -> None:
    said = subprocess.run(
        ["dig", "@127.0.0.1", "-p", str(server.port), "example.net", "AXFR"], capture_output=True, text=True, check=True
    ).stdout
    assert f"XFR size: {2 * COUNT + OTHERS + 1} records" in said


@pytest.mark.skipif(shutil.which("kdig") is None, reason="needs kdig")
def test_kdig_takes_it(server: Server) -> None:
    command = ["kdig", "@127.0.0.1", "-p", str(server.port), "example.net", "IXFR=1"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert f"h{COUNT - 1}.example.net." in said
    assert "Transfer failed" not in said


SECONDARIES = {
    "nsd": "  request-xfr: 127.0.0.1@{port} NOKEY\n",
    "knot": "remote:\n  - id: p\n    address: 127.0.0.1@{port}\ntemplate:\n  - id: default\n    master: p\n",
}
CORNERS = [("www", "A"), ("two", "A"), ("x.wild", "TXT"), ("host.sub", "A"), ("shop", "CNAME"), ("un", "TYPE65280")]


@pytest.mark.parametrize("peer", SECONDARIES)
def test_a_secondary_serves_what_it_took(server: Server, tmp_path: Path, peer: str) -> None:
    """NSD asks for AXFR or IXFR as it likes, Knot for IXFR."""
    if peers.missing(peer):
        pytest.skip(f"needs {peer}")
    stub = "$TTL 60\n@ SOA ns1 h 1 1 1 1209600 60\n@ NS ns1\nns1 A 192.0.2.1\n"
    with peers.serving(peer, "example.net.", stub, tmp_path, SECONDARIES[peer].format(port=server.port)) as port:
        until = time.monotonic() + 10 * SLACK
        query = dns.message.make_query("h77.example.net", "A")
        while not (reply := dns.query.udp(query, "127.0.0.1", 5, port)).answer:
            assert time.monotonic() < until, (tmp_path / "out").read_text()
            time.sleep(0.1)
        for name, rtype in CORNERS:
            asked = dns.message.make_query(f"{name}.example.net", rtype)
            theirs, ours = (dns.query.udp(asked, "127.0.0.1", 5, each) for each in (port, server.port))
            assert (theirs.answer, theirs.rcode()) == (ours.answer, ours.rcode()), name
    assert reply.answer[0][0].to_text() == "192.0.2.77"
