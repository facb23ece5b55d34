"""IXFR over UDP (RFC 1995 section 2), by each engine: all of a zone that fits, else its SOA alone, and nothing to strangers."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import dns.edns
import dns.flags
import dns.message
import dns.query
import dns.rcode
import dns.rrset
import pytest

from edgedns.engine import native
from tests.conformance import peers
from tests.small import write_table
from tests.system.serving import SLACK, Server

pytestmark = pytest.mark.xdist_group("transfer")
HEAD = """\
version: 1
zone: {zone}
soa: {{mname: ns1, rname: noc@example.net, minimum: 60s, serial: 7}}
ns: [ns1]
transfer: {{allow: [127.0.0.1]}}
"""
TINY = """\
providers: {alder: {v4: [192.0.2.10]}}
records: {www: {rules: [{name: all, pin: alder}]}}
static: ["ns1 A 192.0.2.53", "x TXT old"]
"""
# The owner of its SOA is so long that with the question not even that fits: 5 labels of 50 octets
DEEP = ".".join(letter * 46 for letter in "abcde") + ".example"
ZONES = {
    "tiny.example": TINY,
    "grown.example": "static: [" + ", ".join(f'"h{number} A 192.0.2.{number}"' for number in range(200)) + "]\n",
    DEEP: 'static: ["ns1 A 192.0.2.53"]\n',
}


@pytest.fixture(scope="module", params=["native", "python", "reference"])
def primary(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    if request.param == "native" and not native.LOOPS:
        pytest.skip("_fastpath was not built")
    top = tmp_path_factory.mktemp("primary")
    (top / "rules").mkdir()
    for number, (zone, records) in enumerate(ZONES.items()):
        (top / "rules" / f"{number}.yaml").write_text(HEAD.format(zone=zone) + records)
    made = Server(top, top / "rules", write_table(top / "table.tsv"))
    try:
        yield made.start(environ={"EDGEDNS_ENGINE": request.param})
    finally:
        made.clean_up()


def asked(zone: str = "tiny.example", serial: int = 6, payload: int = 0, rtype: str = "IXFR") -> dns.message.Message:
    """The question, with the SOA that the asker has."""
    options: list[dns.edns.Option] = [dns.edns.GenericOption(dns.edns.OptionType.NSID, b"")]
    query = dns.message.make_query(zone, rtype, use_edns=0 if payload else False, payload=payload, options=options)
    query.authority.append(dns.rrset.from_text(f"{zone}.", 0, "IN", "SOA", f"ns1. noc. {serial} 3600 900 1209600 60"))
    return query


def told(server: Server, query: dns.message.Message, source: str = "127.0.0.1") -> dns.message.Message:
    return dns.query.udp(query, "127.0.0.1", 3 * SLACK, server.port, source=source, one_rr_per_rrset=True)


def kinds(reply: dns.message.Message) -> list[str]:
    return [rrset.to_text().split()[3] for rrset in reply.answer]


@pytest.mark.parametrize("payload", [0, 1232])
def test_all_of_a_zone_that_fits(primary: Server, payload: int) -> None:
    """RFC 1995 section 2: "If an IXFR query is via UDP, the IXFR server may attempt to reply using UDP if the entire response
    can be contained in a single DNS packet." """
    query = asked(payload=payload)
    for _ in range(3):  # what an engine remembers of a question included
        reply = told(primary, query)
        assert kinds(reply)[0] == kinds(reply)[-1] == "SOA"
        assert sorted(kinds(reply)[1:-1]) == ["A", "A", "NS", "TXT"]
        assert (reply.answer[0], reply.answer[0][0].serial) == (reply.answer[-1], 7)
        assert reply.flags & (dns.flags.AA | dns.flags.TC) == dns.flags.AA
        assert (reply.edns >= 0, len(reply.options)) == ((True, 1) if payload else (False, 0))


@pytest.mark.parametrize("zone", ["grown.example", "tiny.example"])
@pytest.mark.parametrize("payload", [0, 1232])
def test_the_soa_alone_where_it_does_not_fit_or_is_known(primary: Server, zone: str, payload: int) -> None:
    """Section 2: "If the UDP reply does not fit, the query is responded to with a single SOA record of the server's current
    version to inform the client that a TCP query should be initiated." and one "with the same or newer version number than
    that of the server is received, it is replied to with a single SOA record"."""
    for serial in (6, 7, 8) if zone == "grown.example" else (7, 8):
        reply = told(primary, asked(zone, serial, payload))
        assert (kinds(reply), reply.answer[0][0].serial) == (["SOA"], 7)
        assert not reply.flags & dns.flags.TC
        assert len(reply.to_wire()) <= 512


def test_not_even_the_soa_fits(primary: Server) -> None:
    reply = told(primary, asked(DEEP))
    assert reply.rcode() == 0
    assert (kinds(reply), reply.flags & dns.flags.TC) == ([], dns.flags.TC)
    assert len(told(primary, asked(DEEP, payload=1232)).answer) >= 1


def test_strangers_are_refused(primary: Server) -> None:
    """And get no more octets than they sent, with what an extended error and NSID take."""
    for zone in ZONES:
        for payload in (0, 1232):
            query = asked(zone, payload=payload)
            reply = told(primary, query, source="127.0.0.2")
            assert (reply.rcode(), reply.answer) == (dns.rcode.REFUSED, [])
            assert len(reply.to_wire()) <= len(query.to_wire()) + 32


def test_what_else_is_refused(primary: Server) -> None:
    """AXFR over UDP (RFC 5936 section 4.2), names that are no apex, and zones that are not ours."""
    for query, rcode in (
        (asked(rtype="AXFR"), dns.rcode.REFUSED),
        (asked("www.tiny.example"), dns.rcode.NOTAUTH),
        (asked("other.example"), dns.rcode.NOTAUTH),
    ):
        query.authority = []
        assert told(primary, query).rcode() == rcode


def test_replies_are_counted(primary: Server) -> None:
    def counts() -> list[float]:
        now = primary.counters()
        return [
            sum(count for name, count in now.items() if name.startswith(start) and 'zone="tiny.example"' in name)
            for start in ("edgedns_dns_requests_total", "edgedns_dns_responses_total")
        ]

    before = counts()
    for _ in range(5):
        told(primary, asked())
    until = time.monotonic() + 3 * SLACK
    while counts() != [before[0] + 5, before[1] + 5]:
        assert time.monotonic() < until, (before, counts())
        time.sleep(0.05)


def test_broken_ones_are_format_errors(primary: Server) -> None:
    """Cut anywhere: silence below a header, else a reply, and no worker is the worse for it."""
    wire = asked(payload=1232).to_wire()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(3 * SLACK)
        sock.connect(("127.0.0.1", primary.port))
        for size in range(12, len(wire)):
            sock.send(wire[:size])
            assert sock.recv(4096)[3] & 0x0F == dns.rcode.FORMERR


@pytest.mark.skipif(bool(peers.missing("nsd")), reason="needs nsd")
def test_nsd_asks_over_udp(primary: Server, tmp_path: Path) -> None:
    """The SOA alone makes it ask again over TCP; what fits it takes as it is."""
    stub = "$TTL 60\n@ SOA ns1 h 1 1 1 1209600 60\n@ NS ns1\nns1 A 192.0.2.1\n"
    more = f"  request-xfr: UDP 127.0.0.1@{primary.port} NOKEY\n"
    for zone, name in (("tiny.example.", "www"), ("grown.example.", "h199")):
        folder = tmp_path / name
        folder.mkdir()
        with peers.serving("nsd", zone, stub, folder, more) as port:
            query, until = dns.message.make_query(f"{name}.{zone}", "A"), time.monotonic() + 10 * SLACK
            while not dns.query.udp(query, "127.0.0.1", 5, port).answer:
                assert time.monotonic() < until, (folder / "nsd.log").read_text()
                time.sleep(0.1)
