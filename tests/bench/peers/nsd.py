"""NSD: static answers."""

from __future__ import annotations

from tests.bench.peers.peer import Peer, said
from tests.bench.peers.served import PROVIDERS, ZONE

CONFIG = """\
server:
  server-count: 1
  ip-address: 127.0.0.1
  port: {port}
  username: ""
  zonesdir: "{folder}"
  database: ""
  pidfile: "{folder}/nsd.pid"
  xfrdfile: "{folder}/xfrd.state"
  zonelistfile: "{folder}/zone.list"
  rrl-ratelimit: 0
remote-control:
  control-enable: no
zone:
  name: "{zone}"
  zonefile: "zone"
"""


class Nsd(Peer):
    name, title, program = "nsd", "NSD", "nsd"
    note = "static, no steering"

    def configure(self) -> list[str]:
        (self.folder / "zone").write_text(self.world.zone_text(f"A {next(iter(PROVIDERS.values()))}"))
        config = self.folder / "nsd.conf"
        config.write_text(CONFIG.format(port=self.port, folder=self.folder, zone=ZONE))
        return ["nsd", "-d", "-c", str(config)]

    @property
    def version(self) -> str:
        return said("nsd", "-v").split()[2]
