"""What there is: PoPs, providers, networks, and the path between each network and each provider.

Made by dice of one seed, so that every run meets the same world. RTTs in ms. Networks have addresses of the benchmark and
documentation ranges (RFC 2544, RFC 3849) and private-use ASNs (RFC 6996).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

POPS = ("fra", "iad", "sin")
REGIONS = ("eu", "na", "as")  # each has the PoP of the same place in the list
BETWEEN = {frozenset(("eu", "na")): 85.0, frozenset(("eu", "as")): 160.0, frozenset(("as", "na")): 210.0}
COUNTRY = {"eu": "DE", "na": "US", "as": "SG"}
TARGETS = (10, 11, 12)
ZONE = "cdn.example.net"
SERVER = "203.0.113.53"
TTL = 10


@dataclass(frozen=True)
class Provider:
    name: str
    v4: str
    v6: str  # empty: none
    pops: tuple[str, ...]


PROVIDERS = (
    Provider("alder", "192.0.2.10", "2001:db8:a1::10", POPS),
    Provider("birch", "198.51.100.10", "2001:db8:b1::10", POPS),
    Provider("cedar", "203.0.113.10", "2001:db8:c1::10", POPS),
    Provider("dogwood", "192.0.2.140", "", ("iad",)),
)
NAMES = tuple(provider.name for provider in PROVIDERS)


class Network(NamedTuple):
    number: int
    region: str

    @property
    def asn(self) -> int:
        return 4_200_000_000 + self.number

    @property
    def v4(self) -> str:
        return f"198.18.{self.number}.0/24"

    @property
    def v6(self) -> str:
        return f"2001:db8:{0x1000 + self.number:x}::/48"

    def address(self, host: int, family: int = 4) -> str:
        return f"198.18.{self.number}.{host}" if family == 4 else f"2001:db8:{0x1000 + self.number:x}::{host}"


class Arm(NamedTuple):
    """One network, one provider's number, one family."""

    network: int
    provider: int
    family: int


@dataclass(frozen=True)
class Way:
    """Both ways between a network and a provider: the PoP that its packets reach, and how. `loss` is a share, each way.

    `bursts` (to bad, to good): chances per packet; losses then come only while the path is bad.
    """

    pop: str
    rtt: float
    jitter: float = 0.3
    loss: float = 0.0
    bursts: tuple[float, float] = (0.0, 0.0)

    @property
    def dead(self) -> bool:
        return self.loss >= 0.5 and self.bursts == (0.0, 0.0)

    def changed(self, **what: Any) -> Way:
        return replace(self, **what)


def between(one: str, other: str) -> float:
    """The round trip between two regions, beside what is within each."""
    return 0.0 if one == other else BETWEEN[frozenset((one, other))]


@dataclass(frozen=True)
class World:
    """Networks and the path of each arm; `anycast[network]` is the provider's number that plain anycast would have used."""

    networks: tuple[Network, ...]
    paths: dict[Arm, Way]
    anycast: tuple[int, ...]


def make(count: int = 100, seed: int = 7) -> World:
    dice = Random(seed)
    networks = tuple(Network(i, REGIONS[(0, 0, 1, 1, 2)[i % 5]]) for i in range(count))
    paths: dict[Arm, Way] = {}
    for network in networks:
        access = dice.uniform(4, 25)
        for number, provider in enumerate(PROVIDERS):
            home = POPS[REGIONS.index(network.region)]
            pop = home if home in provider.pops else provider.pops[0]
            far = between(network.region, REGIONS[POPS.index(pop)])
            rtt = round(access + far + dice.choice((0, 3, 8, 20)) + dice.uniform(0, 6), 1)
            paths[Arm(network.number, number, 4)] = Way(pop, rtt)
            if provider.v6:
                paths[Arm(network.number, number, 6)] = Way(pop, round(rtt + dice.uniform(-2, 2), 1))
    return World(networks, paths, tuple(dice.randrange(3) for _ in networks))


def write_rules(world: World, directory: Path) -> None:
    """The rules directory of the server, and beside it `asn.tsv`, the table of this world's networks."""
    directory.mkdir(parents=True)
    rule = f"{{name: all, wan: {{among: all, nominal: [{', '.join(NAMES)}]}}}}"
    families = {p.name: f'{{v4: ["{p.v4}"]' + (f', v6: ["{p.v6}"]' if p.v6 else "") + "}" for p in PROVIDERS}
    providers = "".join(f"  {name}: {addresses}\n" for name, addresses in families.items())
    (directory / "providers.yaml").write_text(f"version: 1\nround: 5s\nproviders:\n{providers}")
    (directory / f"{ZONE}.yaml").write_text(
        f"version: 1\nzone: {ZONE}\nsoa: {{mname: ns1.{ZONE}, rname: noc.example.net}}\nns: [ns1]\n"
        f"records:\n  www:\n    ttl: {TTL}s\n    rules:\n      - {rule}\n"
        f'static:\n  - "ns1 A {SERVER}"\n'
    )
    rows = []
    for network in world.networks:
        who = f"{network.asn}\t{COUNTRY[network.region]}\tnetwork {network.number}"
        rows.append(f"198.18.{network.number}.0\t198.18.{network.number}.255\t{who}")
        head = f"2001:db8:{0x1000 + network.number:x}:"
        rows.append(f"{head}:\t{head}ffff:ffff:ffff:ffff:ffff\t{who}")
    (directory.parent / "asn.tsv").write_text("\n".join(rows) + "\n")


def write_targets(world: World, path: Path, families: tuple[int, ...] = (4, 6)) -> None:
    """Three hosts of each network and family, as `edgedns probe` reads them; ICMP, which their kernel answers."""
    lines = [
        f'{{"address": "{network.address(host, family)}", "method": "icmp"}}'
        for network in world.networks
        for family in families
        for host in TARGETS
    ]
    path.write_text("\n".join(lines) + "\n")
