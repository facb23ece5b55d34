"""Knot: static, and steering by mod-geoip in subnet mode."""

from __future__ import annotations

from itertools import chain

from tests import authorities
from tests.bench.peers.peer import Peer, said
from tests.bench.peers.served import PROVIDERS, STEERED, TTL, ZONE

MODULE = """\
mod-geoip:
  - id: table
    config-file: "{folder}/geo.conf"
    ttl: {ttl}
    mode: subnet
"""
FIRST = next(iter(PROVIDERS.values()))


class Knot(Peer):
    name, title, program = "knot", "Knot", "knotd"
    note = "static, no steering"

    def configure(self) -> list[str]:
        return self._configure("off")

    def _configure(self, subnet: str, module: str = "", *more: str) -> list[str]:
        (self.folder / "zone").write_text(self.world.zone_text(f"A {FIRST}"))
        config = self.folder / "knot.conf"
        config.write_text(authorities.knot(self.folder, ZONE, self.port, [f"edns-client-subnet: {subnet}"], module, more))
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
        return self._configure("on", MODULE.format(folder=self.folder, ttl=TTL), "module: mod-geoip/table")
