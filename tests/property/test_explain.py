"""Law 3: what explain tells is what a query over a socket gets, from the snapshot whose serial it names."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from pathlib import Path
from random import Random
from typing import Any

import dns.edns
import dns.flags
import dns.message
import dns.query
import dns.rcode
import dns.rdatatype
import pytest

from edgedns.steer.space import asn
from edgedns.steer.space.asn import AsnTable
from tests.system.serving import Server, wait_until

RULES = Path(__file__).parents[2] / "rules"
NAMES = (
    "www", "WWW", "img", "dl", "v4", "any.apps", "a.b.apps", "@", "shop", "old-shop", "mail", "partner", "dangling", "x.moved",
    "x.wild", "fixed.wild", "x.cname", "deep.tree", "leaf.deep.tree", "pool", "zero", "child", "x.child", "signed", "nowhere",
    "ns1", "api", "_sip._udp",
)  # fmt: skip
TYPES = ("A", "A", "A", "AAAA", "AAAA", "CNAME", "MX", "TXT", "HTTPS", "SOA", "NS", "DS", "TYPE65280")
PROVIDERS = ("alder", "birch", "cedar", "dogwood")
ODD = ("192.0.2.1", "203.0.113.200", "198.51.100.7", "2001:db8:ff::9", "::ffff:8.8.8.8", "2002:808:808::1", "2001::1")
SEED = 20261122


@pytest.fixture(scope="module")
def table() -> AsnTable:
    return asn.embedded()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, table: AsnTable) -> Iterator[Server]:
    """The example rules over the real table, with measurements of 300 networks, a drain and a pin."""
    top = tmp_path_factory.mktemp("explain")
    shutil.copytree(RULES, top / "rules")
    shared = top / "rules/providers.yaml"
    shared.write_text("round: 500ms\n" + re.sub(r"(?m)^round:.*\n", "", shared.read_text()))
    running = Server(top, top / "rules")
    try:
        running.start()
        dice, clients = Random(SEED), measured(table)
        for _ in range(3):
            running.http("/v1/samples", b"\n".join(sample(dice, client, name) for client in clients for name in PROVIDERS))
            time.sleep(0.6)
        wait_until(lambda: running.root()["fresh_until"] > 0, 10)
        order = {"owner": "noc", "reason": "test"}
        running.http("/v1/overrides", {"kind": "drain", "provider": "dogwood", **order})
        pin = {"kind": "pin", "name": "img.cdn.example.net", "provider": "cedar", "match": {"country": "FR"}}
        assert running.http("/v1/overrides", pin | order)[0] == 201
        yield running
    finally:
        running.clean_up()


def measured(table: AsnTable) -> list[IPv4Address | IPv6Address]:
    dice = Random(SEED + 1)
    named = [ip_address(table.first_address(number) or b"") for number in (3320, 3209, 3243, 15169)]
    return [mapped(table, dice, 4) for _ in range(300)] + named * 20


def sample(dice: Random, client: IPv4Address | IPv6Address, provider: str) -> bytes:
    line = {"at": time.time(), "vantage": "fra1", "provider": provider, "address": str(client), "rtt_ms": dice.uniform(5, 90)}
    return json.dumps(line).encode()


def mapped(table: AsnTable, dice: Random, version: int) -> IPv4Address | IPv6Address:
    """An address of some range of the table."""
    side = table.v4 if version == 4 else table.v6
    number = side.start.number(dice.randrange(len(side.asn)))
    return IPv4Address(number) if version == 4 else IPv6Address(number)


def inputs(table: AsnTable, count: int) -> Iterator[tuple[str, str, str | None]]:
    """(name, type, client subnet): measured and other mapped networks, unmapped and odd space, every prefix length."""
    dice, known = Random(SEED), measured(table)
    for address in known[-4:]:  # those whose rules few networks meet
        yield "www.cdn.example.net", "A", str(ip_network(f"{address}/24", strict=False))
    for _ in range(count):
        version = dice.choice((4, 4, 6))
        kind = dice.random()
        if kind < 0.3:
            address = dice.choice(known)
        elif kind < 0.7:
            address = mapped(table, dice, version)
        elif kind < 0.8:
            address = ip_address(
                dice.choice(("192.0.2.1", "203.0.113.200", "198.51.100.7", "2001:db8:ff::9", "::ffff:8.8.8.8"))
            )
        else:
            address = IPv4Address(dice.getrandbits(32)) if version == 4 else IPv6Address(dice.getrandbits(128))
        usual = (24, 24, 32, dice.randrange(33)) if address.version == 4 else (48, 56, 128, dice.randrange(129))
        bits, name = dice.choice(usual), dice.choice(NAMES)
        subnet = None if dice.random() < 0.1 else str(ip_network(f"{address}/{bits}", strict=False))
        yield ("cdn.example.net" if name == "@" else f"{name}.cdn.example.net"), dice.choice(TYPES), subnet


def asked(server: Server, name: str, rtype: str, subnet: str | None) -> dict[str, Any]:
    """The same facts as explain's, from a reply over UDP (over TCP when that was truncated)."""
    options: list[dns.edns.Option] = [dns.edns.GenericOption(dns.edns.OptionType.NSID, b"")]
    options += [dns.edns.ECSOption.from_text(f"ECS {subnet}")] if subnet else []
    query = dns.message.make_query(name, rtype, use_edns=0, payload=1232, options=options)
    reply, _ = dns.query.udp_with_fallback(query, "127.0.0.1", timeout=5, port=server.port)
    scope = next((option.scopelen for option in reply.options if isinstance(option, dns.edns.ECSOption)), None)
    nsid = next(option.nsid for option in reply.options if option.otype == dns.edns.OptionType.NSID)
    return {
        "rcode": dns.rcode.to_text(reply.rcode()),
        "answer": [text(rr) for rrset in reply.answer for rr in rrset],
        "ttl": min((rrset.ttl for rrset in reply.answer), default=None),
        "scope": scope,
        "serial": int(nsid.rpartition(b":")[2]),
    }


def text(rr: Any) -> str:
    if rr.rdtype in (dns.rdatatype.A, dns.rdatatype.AAAA):
        return str(rr.address)
    kind = dns.rdatatype.to_text(rr.rdtype)
    if rr.rdtype == dns.rdatatype.CNAME:
        return f"CNAME {rr.target.to_text()}"
    wire = rr.to_wire()
    return f"{kind} \\# {len(wire)} {wire.hex()}"


def agree(server: Server, name: str, rtype: str, subnet: str | None) -> dict[str, Any]:
    question = {"name": name, "type": rtype, "from": "127.0.0.1"} | ({"subnet": subnet} if subnet else {})
    for _ in range(100):
        status, told = server.http("/v1/explain", **question)
        assert status == 200, told
        got = asked(server, name, rtype, subnet)
        if told["serial"] == got["serial"]:
            break
        time.sleep(0.05)  # something was just published, and workers look each 100 ms
    shown = {key: told[key] for key in got}
    for side in (shown, got):  # a set's records have no order
        side["answer"] = sorted(side["answer"])
    assert shown == got, (question, told)
    assert not told["steered"] or told["rule"]
    if told.get("provider"):
        assert [one["lost_because"] for one in told["candidates"] if one["provider"] == told["provider"]] == [""]
        assert all(one["lost_because"] for one in told["candidates"] if one["provider"] != told["provider"])
    return dict(told)


def run(server: Server, table: AsnTable, count: int) -> None:
    seen: dict[str, set[Any]] = {"reason": set(), "rule": set(), "rcode": set(), "level": set()}
    for name, rtype, subnet in inputs(table, count):
        told = agree(server, name, rtype, subnet)
        seen["rcode"].add(told["rcode"])
        if told["steered"]:
            seen["reason"].add(told["reason"])
            seen["rule"].add(told["rule"])
            seen["level"] |= {one.get("level") for one in told["candidates"]}
    assert {"NOERROR", "NXDOMAIN"} <= seen["rcode"]
    assert {"MEASURED", "NOMINAL", "ORDERED", "PINNED", "WEIGHTED"} <= seen["reason"], seen["reason"]
    assert len(seen["level"] - {None}) >= 3, seen["level"]


def test_explain_is_what_a_query_gets(server: Server, table: AsnTable) -> None:
    run(server, table, 500)


@pytest.mark.long
def test_explain_is_what_a_query_gets_ten_thousand_times(server: Server, table: AsnTable) -> None:
    run(server, table, 10_000)


def test_names_of_nobody_are_refused_like_over_a_socket(server: Server) -> None:
    for name in ("elsewhere.example", "example.net", "xcdn.example.net", "."):
        assert agree(server, name, "A", "8.8.8.0/24")["rcode"] == "REFUSED"
