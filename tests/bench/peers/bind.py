"""BIND: a view for each provider, whose clients are the table's prefixes. It has no views by client subnet."""

from __future__ import annotations

from tests.bench.peers.peer import Peer, said
from tests.bench.peers.served import PROVIDERS, ZONE

CONFIG = """\
options {{
  directory "{folder}";
  listen-on port {port} {{ 127.0.0.1; }};
  listen-on-v6 {{ none; }};
  pid-file "{folder}/named.pid";
  session-keyfile "{folder}/session.key";
  recursion no;
  minimal-responses yes;
  dnssec-validation no;
  notify no;
}};
controls {{ }};
"""
VIEW = """\
view {name} {{
  match-clients {{ {clients}; }};
  zone "{zone}" {{ type primary; file "{name}.zone"; }};
}};
"""


class Bind(Peer):
    name, title, program, steers = "bind", "BIND views", "named", "source"
    note = "the table as views by source; it has none by client subnet"

    def configure(self) -> list[str]:
        for name, address in PROVIDERS.items():
            (self.folder / f"{name}.zone").write_text(self.world.zone_text(f"A {address}"))
        with (self.folder / "named.conf").open("w") as file:
            file.write(CONFIG.format(folder=self.folder, port=self.port))
            for name, nets in self.world.prefixes.items():
                file.write(f"acl {name} {{\n")
                file.writelines(f"  {net};\n" for net in nets)
                file.write("};\n")
            for name in (*self.world.prefixes, next(iter(PROVIDERS))):
                clients = name if name in self.world.prefixes else "any"
                file.write(VIEW.format(name=name, clients=clients, zone=ZONE))
        return ["named", "-g", "-n", "1", "-c", str(self.folder / "named.conf")]

    @property
    def version(self) -> str:
        return said("named", "-v").split()[1].split("-")[0]
