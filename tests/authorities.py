"""How the tests set up NSD and Knot: by no user but us, with all their files in one folder, and nobody to control them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

NSD = """\
server:
  server-count: 1
  username: ""
  zonesdir: "{folder}"
  database: ""
  pidfile: "{folder}/nsd.pid"
  xfrdfile: "{folder}/xfrd.state"
  zonelistfile: "{folder}/zone.list"
{lines}
remote-control:
  control-enable: no
"""
NSD_ZONE = """\
zone:
  name: "{zone}"
  zonefile: "{file}"
"""
KNOT = """\
server:
    listen: 127.0.0.1@{port}
    rundir: "{folder}"
    udp-workers: 1
    tcp-workers: 1
    background-workers: 1
{lines}
database:
    storage: "{folder}"
log:
  - target: stderr
    any: warning
"""
KNOT_ZONE = """\
zone:
  - domain: "{zone}"
    file: "{folder}/zone"
    zonefile-sync: -1
"""


def nsd(folder: Path, zones: dict[str, str], lines: Sequence[str]) -> str:
    """nsd.conf for these zones (name -> file in the folder); `lines` go into its server section."""
    served = "".join(NSD_ZONE.format(zone=zone, file=file) for zone, file in zones.items())
    return NSD.format(folder=folder, lines="\n".join(f"  {line}" for line in lines)) + served


def knot(folder: Path, zone: str, port: int, lines: Sequence[str], module: str = "", more: Sequence[str] = ()) -> str:
    """knot.conf for the zone in the folder's file `zone`; `lines` go into its server section, `more` into the zone's."""
    server = KNOT.format(folder=folder, port=port, lines="\n".join(f"    {line}" for line in lines))
    served = KNOT_ZONE.format(folder=folder, zone=zone) + "".join(f"    {line}\n" for line in more)
    return server + module + served
