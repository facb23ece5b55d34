"""Caching resolvers of some networks: unbound, which asks the server from its network's address and honours the TTL."""

from __future__ import annotations

from pathlib import Path

from .globe import SERVER, ZONE, Network

CONFIG = """
server:
  num-threads: 1
  username: ""
  chroot: ""
  directory: "{folder}"
  pidfile: ""
  logfile: "{folder}/unbound.log"
  use-syslog: no
  interface: {address}
  outgoing-interface: {address}
  access-control: 0.0.0.0/0 allow
  do-ip6: no
  module-config: "iterator"
  target-fetch-policy: "0 0 0 0 0"
stub-zone:
  name: "{zone}"
  stub-addr: {server}
remote-control:
  control-enable: no
"""
HOST = 98  # of its network


def command(folder: Path, network: Network) -> list[str]:
    """Starts the resolver of a network, in whose namespace this is run."""
    folder.mkdir()
    config = folder / "unbound.conf"
    config.write_text(CONFIG.format(folder=folder, address=network.address(HOST), zone=ZONE, server=SERVER))
    return ["unbound", "-d", "-c", str(config)]
