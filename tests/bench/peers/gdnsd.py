"""gdnsd: steering by plugin geoip's nets."""

from __future__ import annotations

from ipaddress import ip_network

from tests.bench.peers.peer import Peer, said
from tests.bench.peers.served import PROVIDERS, ZONE

CONFIG = """\
options => {{
  listen => [ 127.0.0.1:{port} ]
  udp_threads => 1
  udp_rcvbuf => 1048576
  tcp_threads => 1
  run_dir => {folder}/run
  state_dir => {folder}/state
  edns_client_subnet => true
}}
plugins => {{ geoip => {{
  maps => {{ table => {{
    datacenters => [ {names} ]
    nets => nets
  }} }}
  resources => {{ www => {{
    map => table
    service_types => up
    dcmap => {{ {addresses} }}
  }} }}
}} }}
"""
# IPv6 space that stands for IPv4's, which gdnsd looks up there and refuses in a list.
V4_LIKE = [ip_network("2001::/32"), ip_network("2002::/16")]


class Gdnsd(Peer):
    name, title, program, steers = "gdnsd", "gdnsd", "gdnsd", "subnet"
    note = "plugin geoip, the table as nets"

    def configure(self) -> list[str]:
        for place in ("run", "state", "zones", "geoip"):
            (self.folder / place).mkdir(exist_ok=True)
        addresses = ", ".join(f"{name} => {address}" for name, address in PROVIDERS.items())
        text = CONFIG.format(
            port=self.port, folder=self.folder, names=", ".join(PROVIDERS), addresses=addresses
        )  # a client in none of the nets gets the first datacenter
        (self.folder / "config").write_text(text)
        (self.folder / "zones" / ZONE).write_text(self.world.zone_text("DYNA geoip!www"))
        with (self.folder / "geoip" / "nets").open("w") as file:
            for name, nets in self.world.prefixes.items():
                file.writelines(f"{net} => [ {name} ]\n" for net in nets if not any(map(net.__eq__, V4_LIKE)))
        return ["gdnsd", "-c", str(self.folder), "start"]

    @property
    def version(self) -> str:
        return said("gdnsd", "--help").split("version ")[1].split()[0]
