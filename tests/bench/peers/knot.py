"""Knot: static, and steering by mod-geoip in subnet mode."""

from __future__ import annotations

from itertools import chain

from tests.bench.peers.peer import Peer, said
from tests.bench.peers.served import PROVIDERS, STEERED, TTL, ZONE

CONFIG = """\
server:
    listen: 127.0.0.1@{port}
    rundir: "{folder}"
    udp-workers: 1
    tcp-workers: 1
    background-workers: 1
    edns-client-subnet: {subnet}
database:
    storage: "{folder}"
log:
  - target: stderr
    any: warning
"""
MODULE = """\
mod-geoip:
  - id: table
    config-file: "{folder}/geo.conf"
    ttl: {ttl}
    mode: subnet
"""
SERVED = """\
zone:
  - domain: "{zone}"
    file: "{folder}/zone"
    zonefile-sync: -1
"""
FIRST = next(iter(PROVIDERS.values()))


class Knot(Peer):
    name, title, program = "knot", "Knot", "knotd"
    note = "static, no steering"

    def configure(self) -> list[str]:
        return self._configure(CONFIG + SERVED, subnet="off")

    def _configure(self, text: str, **more: str) -> list[str]:
        (self.folder / "zone").write_text(self.world.zone_text(f"A {FIRST}"))
        config = self.folder / "knot.conf"
        config.write_text(text.format(port=self.port, folder=self.folder, zone=ZONE, ttl=TTL, **more))
        return ["knotd", "-c", str(config)]

    @property
    def version(self) -> str:
        return said("knotd", "-V").split()[-1]


class KnotGeoip(Knot):
    name, title, steers = "knot-geoip", "Knot mod-geoip", "subnet"
    note = "the table as subnets"

    def configure(self) -> list[str]:
        pairs = ((net, PROVIDERS[name]) for name, nets in self.world.prefixes.items() for net in nets)
        everyone = ((net, FIRST) for net in ("0.0.0.0/0", "::/0"))
        with (self.folder / "geo.conf").open("w") as file:
            file.write(f"{STEERED}:\n")
            file.writelines(f"  - net: {net}\n    A: {address}\n" for net, address in chain(everyone, pairs))
        return self._configure(CONFIG + MODULE + SERVED + "    module: mod-geoip/table\n", subnet="on")
