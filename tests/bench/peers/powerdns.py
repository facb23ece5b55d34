"""PowerDNS: steering by the geoip backend, and by a Lua record; both look the client up in an MMDB made from the table."""

from __future__ import annotations

from pathlib import Path

from mmdb_writer import MMDBWriter
from netaddr import IPNetwork, IPSet

from tests.bench.peers.peer import Peer, said
from tests.bench.peers.served import PROVIDERS, TTL, ZONE, World

CONFIG = """\
local-address=127.0.0.1
local-port={port}
socket-dir={folder}
config-dir={folder}
daemon=no
guardian=no
receiver-threads=1
distributor-threads=1
edns-subnet-processing=yes
geoip-database-files=mmdb:{folder}/../table.mmdb
geoip-zones-file={folder}/zones.yaml
"""
# The database's country codes stand for providers.
CODES = dict(zip(PROVIDERS, ("aa", "bb", "cc", "dd"), strict=True))
FIRST = next(iter(PROVIDERS))


def write_mmdb(world: World, path: Path) -> None:
    """Provider codes as country codes. Written once for all in a run, since it takes long."""
    if path.exists():
        return
    made = MMDBWriter(6, "edgedns-bench", ipv4_compatible=True)
    for name, nets in world.prefixes.items():
        for net in nets:
            made.insert_network(IPSet([IPNetwork(str(net))]), {"country": {"iso_code": CODES[name].upper()}})
    made.to_db_file(str(path))


def zones_yaml(count: int) -> str:
    """The zone for the geoip backend: `www` is the record of the provider's code, or the first one's."""
    lines = ["domains:", f"- domain: {ZONE}", f"  ttl: {TTL}", "  records:", f"    {ZONE}:"]
    lines += [f"      - soa: ns1.{ZONE} noc.example.net 2026112201 3600 900 1209600 60", f"      - ns: ns1.{ZONE}"]
    lines += [f"    ns1.{ZONE}:", "      - a: 192.0.2.53"]
    for name, address in PROVIDERS.items():
        lines += [f"    {CODES[name]}.www.{ZONE}:", f"      - a: {address}"]
    for number in range(count):
        lines += [f"    n{number}.{ZONE}:", f"      - a: {{content: 192.0.2.{number % 250}, ttl: 300}}"]
    lines += ["  services:", f"    www.{ZONE}: ['%cc.www.{ZONE}', '{CODES[FIRST]}.www.{ZONE}']", ""]
    return "\n".join(lines)


class PowerDnsGeoip(Peer):
    name, title, program, steers, rate = "pdns-geoip", "PowerDNS geoip", "pdns_server", "subnet", 3000
    note = "backend geoip, the table as MMDB"

    def configure(self) -> list[str]:
        write_mmdb(self.world, self.folder.parent / "table.mmdb")
        return self._configure("launch=geoip\n", zones_yaml(self.world.names))

    def _configure(self, more: str, zones: str) -> list[str]:
        (self.folder / "zones.yaml").write_text(zones)
        text = CONFIG.format(port=self.port, folder=self.folder) + more
        (self.folder / "pdns.conf").write_text(text)
        return ["pdns_server", f"--config-dir={self.folder}"]

    @property
    def version(self) -> str:
        return said("pdns_server", "--version").split("Server ")[1].split()[0]


class PowerDnsLua(PowerDnsGeoip):
    name, title, rate = "pdns-lua", "PowerDNS Lua", 3000
    note = "a Lua record with country(), one Lua state for all queries, the table as MMDB"

    def configure(self) -> list[str]:
        write_mmdb(self.world, self.folder.parent / "table.mmdb")
        others = [(code.upper(), PROVIDERS[name]) for name, code in CODES.items() if name != FIRST]
        tests = "".join(f"if country('{code}') then return '{address}' end " for code, address in others)
        (self.folder / "zone").write_text(self.world.zone_text(f"LUA A \";{tests}return '{PROVIDERS[FIRST]}'\""))
        (self.folder / "bind.conf").write_text(f'zone "{ZONE}" {{ type master; file "{self.folder}/zone"; }};\n')
        more = f"launch=bind,geoip\nbind-config={self.folder}/bind.conf\nenable-lua-records=shared\n"
        return self._configure(more, "domains: []\n")
