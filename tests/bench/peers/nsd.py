"""NSD: static answers."""

from __future__ import annotations

from tests import authorities
from tests.bench.peers.peer import Peer, said
from tests.bench.peers.served import PROVIDERS, ZONE


class Nsd(Peer):
    name, title, program = "nsd", "NSD", "nsd"
    note = "static, no steering"

    def configure(self) -> list[str]:
        (self.folder / "zone").write_text(self.world.zone_text(f"A {next(iter(PROVIDERS.values()))}"))
        config = self.folder / "nsd.conf"
        lines = "ip-address: 127.0.0.1", f"port: {self.port}", "rrl-ratelimit: 0"
        config.write_text(authorities.nsd(self.folder, {ZONE: "zone"}, lines))
        return ["nsd", "-d", "-c", str(config)]

    @property
    def version(self) -> str:
        return said("nsd", "-v").split()[2]
