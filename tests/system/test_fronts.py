"""Caches between clients and server: unbound (subnetcache) and PowerDNS Recursor keep answers by client subnet (RFC 7871).

A scope that is a bit too short makes them give one network's answer to another. The zone here pins prefixes of all lengths to
providers, many inside each other; each client has to get, through a cache that others have filled, what the server itself says
to that client's address. In the long form Knot's mod-geoip stands beside it with the same prefixes, and shows what this is for.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from ipaddress import IPv4Network, ip_address, ip_network
from pathlib import Path
from random import Random
from typing import NamedTuple

import pytest

from tests.system import internet, resolvers
from tests.system.internet import Host, Internet

ZONE = "halves.example.net."
NAME = f"www.{ZONE}"
PROVIDERS = {"alder": "192.0.2.10", "birch": "192.0.2.20", "cedar": "192.0.2.30", "dogwood": "192.0.2.40"}
# The /24 that holds a differing /25, and others that hold more; the rest is made by dice.
FIXED = [
    "198.51.100.128/25", "203.0.113.64/26", "203.0.113.255/32", "192.0.2.0/31",
    "2001:db8:ff::/48", "2001:db8:ff:8000::/49",
]
SPACES = ["198.51.100.0/24", "203.0.113.0/24", "192.0.2.0/24", "10.0.0.0/8", "2001:db8::/32"]
PARENTS = {
    "net.": f"$TTL 3600\n@ {resolvers.SOA}\n@ NS a.nic\na.nic A 203.0.113.2\na.nic AAAA 2001:db8:0:2::1\nexample NS a.nic\n",
    "example.net.": f"$TTL 3600\n@ {resolvers.SOA}\n@ NS a.nic.net.\nhalves NS ns1.halves\n"
    f"ns1.halves A {resolvers.SERVER}\nns1.halves AAAA {resolvers.SERVER6}\nknot NS ns1.knot\nns1.knot A 192.0.2.54\n",
}
SUBNETCACHE = [
    "client-subnet-zone: halves.example.net",
    "client-subnet-zone: knot.example.net",
    "client-subnet-always-forward: yes",
    "max-client-subnet-ipv4: 32",
    "max-client-subnet-ipv6: 128",
    "max-ecs-tree-size-ipv4: 1000",
]
ECS = [
    "use-incoming-edns-subnet=yes",
    "edns-subnet-allow-list=halves.example.net,knot.example.net",
    "ecs-ipv4-bits=32",
    "ecs-ipv6-bits=128",
    "ecs-ipv4-cache-bits=32",
    "ecs-ipv6-cache-bits=128",
]
KNOT_ZONE = f"$ORIGIN knot.example.net.\n$TTL 600\n@ {resolvers.SOA}\n@ NS ns1\nns1 A 192.0.2.54\nwww A {PROVIDERS['alder']}\n"
KNOT = """
server:
    listen: 192.0.2.54@53
    rundir: "{folder}"
    edns-client-subnet: on
database:
    storage: "{folder}"
log:
  - target: stderr
    any: warning
mod-geoip:
  - id: halves
    config-file: "{folder}/halves.conf"
    ttl: 600
    mode: subnet
zone:
  - domain: knot.example.net
    file: "{folder}/zone"
    zonefile-sync: -1
    module: mod-geoip/halves
"""
pytestmark = [pytest.mark.root, pytest.mark.xdist_group("resolvers"), pytest.mark.timeout(360)]


def prefixes(dice: Random) -> list[str]:
    found = set(FIXED)
    while len(found) < 60:
        space = ip_network(dice.choice(SPACES))
        length = dice.randint(space.prefixlen + 1, space.max_prefixlen if space.version == 4 else 64)
        base = int(space.network_address) + dice.getrandbits(space.max_prefixlen - space.prefixlen)
        found.add(str(ip_network((base, length), strict=False)))
    return sorted(found)


def clients(dice: Random, made: list[str]) -> list[str]:
    """Addresses at and beside the edges of the prefixes, and elsewhere in the spaces."""
    found = set()
    for text in made:
        network = ip_network(text)
        first, last = int(network.network_address), int(network.broadcast_address)
        kind = type(network.network_address)
        found |= {str(kind(number)) for number in (first - 1, first, last, last + 1, (first + last) // 2)}
    for space in map(ip_network, SPACES):
        top = space.num_addresses
        found |= {str(space[dice.randrange(top)]) for _ in range(20)}
    return sorted(found)


def write_rules(folder: Path, pins: dict[str, str]) -> Path:
    folder.mkdir()
    lines = ["version: 1", "zone: halves.example.net", "soa: {mname: ns1, rname: noc@example.net, serial: 1}", "ns: [ns1]"]
    lines += ["defaults: {ttl: 10m}", "providers:"]
    lines += [f"  {name}: {{v4: [{address}]}}" for name, address in PROVIDERS.items()]
    lines += ["records:", "  www:", "    rules:"]
    # The longest first, so that none hides another.
    for number, text in enumerate(sorted(pins, key=lambda text: -ip_network(text).prefixlen)):
        lines.append(f'      - {{name: n{number}, match: {{prefix: ["{text}"]}}, pin: {pins[text]}}}')
    lines += ["      - {name: rest, pin: alder}", "static:"]
    lines += [f"  - 'ns1 A {resolvers.SERVER}'", f"  - 'ns1 AAAA {resolvers.SERVER6}'"]
    (folder / "halves.yaml").write_text("\n".join(lines) + "\n")
    return folder


def start_knot(net: Internet, pins: dict[str, str]) -> None:
    """Knot's mod-geoip on a host of its own, with the same prefixes for the same addresses."""
    knot = net.host("knot", "192.0.2.54")
    told = [f"  - net: {text}\n    A: {PROVIDERS[provider]}\n" for text, provider in pins.items()]
    (knot.folder / "halves.conf").write_text("www.knot.example.net:\n" + "".join(told))
    (knot.folder / "zone").write_text(KNOT_ZONE)
    (knot.folder / "knot.conf").write_text(KNOT.format(folder=knot.folder))
    knot.start("knotd", "-c", str(knot.folder / "knot.conf"))
    internet.wait_for_answer(knot, "192.0.2.54", "knot.example.net", "SOA")


class Fronted(NamedTuple):
    net: Internet
    pins: dict[str, str]
    client: Host
    fronts: dict[str, str]
    asking: list[str]
    own: dict[str, resolvers.Told]


@pytest.fixture(scope="module")
def fronted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fronted]:
    lacking = resolvers.missing("unbound", "pdns")
    if lacking or not internet.unbound_has("subnetcache"):
        pytest.skip(f"needs {', '.join(lacking) or 'an unbound with subnetcache'}")
    folder, dice = tmp_path_factory.mktemp("fronts"), Random(7871)
    made = prefixes(dice)
    with internet.internet(folder) as net:
        pins = {text: dice.choice(list(PROVIDERS)) for text in made}
        rules = write_rules(folder / "rules", pins)
        resolvers.build(net, rules, ZONE, PARENTS, {})
        unbound = net.host("unbound", "203.0.113.70", "2001:db8:0:70::1")
        resolvers.start_unbound(unbound, SUBNETCACHE, "subnetcache iterator")
        pdns = net.host("pdns", "203.0.113.71", "2001:db8:0:71::1")
        resolvers.start_pdns(pdns, ECS)
        client, asking = net.host("client", "203.0.113.7", "2001:db8:0:7::1"), clients(dice, made)
        question = {"server": resolvers.SERVER, "name": NAME, "type": "A", "rd": False}
        direct = [{**question, "subnet": whole(text)} for text in asking]
        own = dict(zip(asking, resolvers.ask_all(client, direct), strict=True))
        yield Fronted(net, pins, client, {"unbound": unbound.addresses[0], "pdns": pdns.addresses[0]}, asking, own)


def whole(address: str) -> str:
    return f"{address}/{ip_address(address).max_prefixlen}"


def test_the_server_tells_the_halves_apart(fronted: Fronted) -> None:
    answers = {tuple(told["data"]) for told in fronted.own.values()}
    assert len(answers) == len(PROVIDERS)
    assert all(told["rcode"] == "NOERROR" for told in fronted.own.values())
    inside = [fronted.own[text]["scope"] for text in fronted.asking if ip_address(text) in IPv4Network("198.51.100.0/24")]
    assert all(scope and scope >= 25 for scope in inside)


def wrong_answers(fronted: Fronted, front: str, name: str, seed: int) -> list[str]:
    """Who is answered otherwise than the rules have it, all asking twice in an order made by dice."""
    order = [*fronted.asking, *fronted.asking]
    Random(seed).shuffle(order)
    assert len(order) > 500
    asked = [{"server": fronted.fronts[front], "name": name, "type": "A", "subnet": whole(text)} for text in order]
    told = resolvers.ask_all(fronted.client, asked)
    return [
        f"{text} got {got['data']}, its own is {fronted.own[text]['data']}"
        for text, got in zip(order, told, strict=True)
        if got["data"] != fronted.own[text]["data"]
    ]


@pytest.mark.parametrize("front", ["unbound", "pdns"])
@pytest.mark.parametrize("seed", [1, 2])
def test_nobody_gets_the_answer_of_another(fronted: Fronted, front: str, seed: int) -> None:
    """What is cached for one network must not be given to the next."""
    wrong = wrong_answers(fronted, front, NAME, seed)
    assert not wrong, f"{len(wrong)}: {wrong[:5]}"


@pytest.fixture(scope="module")
def knot(fronted: Fronted) -> None:
    path = internet._path()
    if shutil.which("knotd", path=path) is None or not list(Path("/usr/lib").glob("*/knot/modules-*/geoip.so")):
        pytest.skip("needs knot and knot-module-geoip")
    start_knot(fronted.net, fronted.pins)


@pytest.mark.long
@pytest.mark.parametrize("front", ["unbound", "pdns"])
def test_behind_the_same_caches_knot_s_scopes_give_many_another_s(fronted: Fronted, knot: None, front: str) -> None:
    """Knot 3.2.6 gives a /24 that holds a differing /25 scope 24, and what no prefix names scope 0: if this fails, Knot was
    mended, and docs/conformance.md is to say so."""
    question = {"server": "192.0.2.54", "name": "www.knot.example.net.", "type": "A", "rd": False}
    (told,) = resolvers.ask_all(fronted.client, [{**question, "subnet": "8.8.8.0/24"}])
    assert told["scope"] == 0
    wrong = wrong_answers(fronted, front, "www.knot.example.net.", 1)
    print(f"{front}: {len(wrong)} of {2 * len(fronted.asking)} wrong")
    assert wrong
