"""Real resolvers resolve the example zone from a root and a TLD of the tests' own (NSD), in namespaces.

Each is asked for every set of the zone and for names that the zone only makes, and has to say what the server itself says
to the resolver's address. unbound uses strict QNAME minimisation (RFC 9156) and 0x20; the others minimise too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import dns.name
import dns.rdatatype
import pytest

from edgedns.engine.load import load_rules
from tests.system import internet, resolvers
from tests.system.internet import Host

ROOT = Path(__file__).parents[2]
ZONE = "cdn.example.net."
SOA = resolvers.SOA
PARENTS = {
    "net.": f"$ORIGIN net.\n$TTL 3600\n@ {SOA}\n@ NS a.nic\nexample NS a.nic\n"
    "a.nic A 203.0.113.2\na.nic AAAA 2001:db8:0:2::1\n",
    "example.net.": f"$TTL 3600\n@ {SOA}\n@ NS a.nic.net.\ncdn NS ns1.cdn\ncdn NS ns2.cdn\n"
    f"ns1.cdn A {resolvers.SERVER}\nns1.cdn AAAA {resolvers.SERVER6}\n"
    f"ns2.cdn A {resolvers.ALSO[0]}\nns2.cdn AAAA {resolvers.ALSO[1]}\n",
    "example.": f"$TTL 3600\n@ {SOA}\n@ NS a.nic.net.\nns.elsewhere A 192.0.2.90\nedge.partner A 192.0.2.91\n",
}
DELEGATED = {
    "child.cdn.example.net.": f"$TTL 60\n@ {SOA}\n@ NS ns1\n@ NS ns2\nns1 A 192.0.2.90\nns1 AAAA 2001:db8:90::1\n"
    "ns2 A 198.51.100.90\nhost A 192.0.2.99\n",
    "sub.cdn.example.net.": f"$TTL 60\n@ {SOA}\n@ NS ns.elsewhere.example.\nhost A 192.0.2.98\n",
    "signed.cdn.example.net.": f"$TTL 60\n@ {SOA}\n@ NS ns1.child.cdn.example.net.\nhost A 192.0.2.97\n",
}
# What the server itself can't say: where the zone leads elsewhere.
ELSEWHERE = {
    ("host.child", "A"): ["192.0.2.99"],
    ("host.sub", "A"): ["192.0.2.98"],
    ("host.signed", "A"): ["192.0.2.97"],
    ("partner", "A"): ["192.0.2.91"],
}
MADE = ["any.wild A", "two.labels.wild TXT", "some.apps A", "some.apps AAAA", "some.moved A", "x.cname A", "to-moved A"]
MADE += ["shop A", "old-shop AAAA", "mail A", "alias HTTPS", "to-wild TXT", "www A", "www AAAA", "dl A", "@ A", "v4 A"]
NOTHING = ["nowhere A", "below.www A", "dangling A", "no.deep.tree A", "v4 AAAA", "deep.tree A", "tree A", "www MX"]
NOTHING += ["x.cname MX", "to-wild MX"]
# Delegations and glue are the children's to answer, DNAMEs and circles each resolver's own matter.
NOT_ASKED = ("crowd", "child", "sub", "signed", "ring-", "far", "ns1.cdn", "ns2.cdn", "dangling", "partner")


class Variant(NamedTuple):
    """A resolver, and how it is started on its host."""

    name: str
    start: Callable[[Host], None]
    program: str


def _unbound(*lines: str) -> Callable[[Host], None]:
    return lambda host: resolvers.start_unbound(host, lines)


VARIANTS = [
    Variant("unbound", _unbound(), "unbound"),
    Variant("unbound-6", _unbound("prefer-ip6: yes"), "unbound"),
    Variant("unbound-tcp", _unbound("tcp-upstream: yes"), "unbound"),
    Variant("bind", resolvers.start_named, "bind"),
    Variant("kresd", resolvers.start_kresd, "knot-resolver"),
    Variant("pdns", resolvers.start_pdns, "pdns"),
]
pytestmark = [pytest.mark.root, pytest.mark.xdist_group("resolvers"), pytest.mark.timeout(360)]


class World(NamedTuple):
    net: internet.Internet
    server: Host
    client: Host
    resolvers: dict[str, Host]

    def resolver(self, variant: Variant) -> Host:
        """Started when it is first asked for."""
        lacking = resolvers.missing(variant.program)
        if lacking:
            pytest.skip(f"needs {', '.join(lacking)}")
        if variant.name not in self.resolvers:
            number = 60 + VARIANTS.index(variant)
            host = self.net.host(f"r{number}", f"203.0.113.{number}", f"2001:db8:0:{number}::1")
            self.resolvers[variant.name] = host
            variant.start(host)
        return self.resolvers[variant.name]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    if internet.missing_tools():
        pytest.skip(f"needs {', '.join(internet.missing_tools())}")
    folder = tmp_path_factory.mktemp("world")
    with internet.internet(folder) as net:
        server = resolvers.build(net, ROOT / "rules", ZONE, PARENTS, DELEGATED)
        yield World(net, server, net.host("client", "203.0.113.7", "2001:db8:0:7::1"), {})


def full(name: str) -> str:
    return ZONE if name == "@" else f"{name}.{ZONE}"


def of_the_zone() -> list[tuple[str, str]]:
    """Every set of the zone's plain records that the zone itself answers."""
    found = []
    for rr in load_rules(ROOT / "rules").statics["cdn.example.net"]:
        name = dns.name.from_wire(rr.owner, 0)[0].to_text()
        if not any(f".{name}".find(f".{word}") >= 0 for word in NOT_ASKED):
            found.append((name.replace("*", "made-up"), dns.rdatatype.to_text(dns.rdatatype.RdataType.make(rr.type))))
    return sorted(set(found) - {("moved.cdn.example.net.", "DNAME")})


def questions(words: Sequence[str]) -> list[tuple[str, str]]:
    return [(full(name), rtype) for name, rtype in (word.split() for word in words)]


def through(world: World, host: Host, asked: Sequence[tuple[str, str]], tcp: bool, address: str) -> list[resolvers.Told]:
    return resolvers.ask_all(
        world.client, [{"server": address, "name": name, "type": rtype, "tcp": tcp} for name, rtype in asked]
    )


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.name)
def test_everything_resolves(world: World, variant: Variant) -> None:
    host = world.resolver(variant)
    own = [*of_the_zone(), *questions(MADE), *questions(NOTHING)]
    source = resolvers.SERVER6 if variant.name == "unbound-6" else resolvers.SERVER
    direct = resolvers.ask_all(
        host, [{"server": source, "name": name, "type": rtype, "tcp": True, "rd": False} for name, rtype in own]
    )
    expected = dict(zip(own, direct, strict=True))
    for (name, rtype), records in ELSEWHERE.items():
        expected[full(name), rtype] = {"rcode": "NOERROR", "data": records, "scope": None}
    assert len(expected) > 60
    # Through both families and transports, half of the questions each.
    for tcp, address in ((False, host.addresses[0]), (True, host.addresses[1])):
        asked = list(expected)
        wrong = {
            f"{name} {rtype}": (told["rcode"], told["data"], expected[name, rtype]["data"])
            for (name, rtype), told in zip(asked, through(world, host, asked, tcp, address), strict=True)
            if (told["rcode"], told["data"]) != (expected[name, rtype]["rcode"], expected[name, rtype]["data"])
        }
        assert not wrong, host.output()


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.name)
def test_circles_and_long_names_hurt_nobody(world: World, variant: Variant) -> None:
    """Whatever a resolver makes of them, it makes it soon, and goes on."""
    host = world.resolver(variant)
    asked = [(full(name), "A") for name in ("ring-a", "x.far", "x" * 63 + ".far", "zero", "caf\\195\\169\\.\\000")]
    told = through(world, host, asked, False, host.addresses[0])
    assert told[0]["rcode"] in ("SERVFAIL", "NOERROR", "NXDOMAIN")
    assert told[2]["rcode"] in ("YXDOMAIN", "SERVFAIL", "NXDOMAIN")
    assert told[3]["data"] == ["192.0.2.104"]
    assert told[4]["data"] == ["192.0.2.105"]
