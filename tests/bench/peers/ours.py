"""edgedns: the native engine, and plain Python."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import edgedns
from edgedns.bench import owners
from edgedns.engine import native
from tests.bench.peers.peer import PATIENCE, Peer
from tests.bench.peers.served import BY_SOURCE, PROVIDERS, ZONE

FIRST, *OTHERS = PROVIDERS


class Native(Peer):
    name, title, program, steers = "edgedns", "edgedns", sys.executable, "subnet"
    note = "native engine; the table as rules by ASN; counters, cookies and NSID on"
    engine = "native"
    _marked = 0  # from here on the log is the second start's

    @classmethod
    def missing(cls) -> bool:
        return not native.LOOPS

    def environ(self) -> dict[str, str]:
        return {"EDGEDNS_ENGINE": self.engine}

    def configure(self) -> list[str]:
        rules = self.folder / "rules"
        rules.mkdir(exist_ok=True)
        self._write(rules)
        return [
            *(sys.executable, "-m", "edgedns", "serve", "--rules", str(rules), "--state", str(self.folder / "state")),
            *("--listen", f"127.0.0.1:{self.port}", "--admin", "off", "--workers", "1"),
            *(("--asn", str(self.world.path)) if self.world.path else ()),
        ]

    def start(self) -> None:
        """The first start expands the table; the second is what is measured."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.launch(self.configure(), first=False)
        self._settled()
        self.stop()
        self._marked = self.log.stat().st_size
        while owners.owners("127.0.0.1", self.port):
            time.sleep(0.05)
        self.launch(self.configure())
        self._settled()

    def _settled(self) -> None:
        """Until it has said that it serves: workers answer before that."""
        until = time.monotonic() + PATIENCE
        while b"serving " not in self.log.read_bytes()[self._marked :]:
            if time.monotonic() > until:
                raise RuntimeError(f"{self.title} never said that it serves:\n{self.log.read_text()}")
            time.sleep(0.05)

    def _write(self, rules: Path) -> None:
        lines = ["version: 1", "providers:", *(f"  {name}: {{v4: [{address}]}}" for name, address in PROVIDERS.items())]
        lines += ["networks:", *(f"  as-{name}: {{asn: {self.world.asns[name]}}}" for name in OTHERS)]
        lines += [f"  from-{name}: {{prefix: [{net}]}}" for net, name in BY_SOURCE.items() if name != FIRST]
        (rules / "providers.yaml").write_text("\n".join([*lines, ""]))
        lines = ["version: 1", f"zone: {ZONE}", "defaults: {ttl: 30s, all_down: fail-open}", "records:", "  www:", "    rules:"]
        for kind in ("from", "as"):
            for name in OTHERS:
                lines.append(f"      - {{name: {kind}-{name}, match: {{network: {kind}-{name}}}, failover: [{name}]}}")
        lines += [f"      - {{name: everyone-else, failover: [{FIRST}]}}", "static: {file: static.zone}", ""]
        (rules / f"{ZONE}.yaml").write_text("\n".join(lines))
        (rules / "static.zone").write_text("\n".join([*self.world.static_lines(), ""]))

    def answering(self) -> list[int]:
        """The worker. What the control process does besides, once in a round, is no cost of a query."""
        holders = set(owners.owners("127.0.0.1", self.port))
        return [pid for pid in self.pids()[1:] if pid in holders]

    @property
    def version(self) -> str:
        return edgedns.__version__


class Python(Native):
    name, title, engine = "edgedns-python", "edgedns, plain Python", "python"
    note = "the same without the native engine"

    @classmethod
    def missing(cls) -> bool:
        return False
