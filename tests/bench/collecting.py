"""What one collector takes in: CPU time a sample, for reading bodies and for all that a control process does with them.

    collecting.py NETWORKS PROVIDERS VANTAGES [ROUNDS]

Each round is every vantage's sample of every path, in bodies of 5,000 lines as agents send them, by the embedded ASN table;
then the round is closed. JSON on standard output: microseconds a sample and samples a second of one core, MB in all. CPU
time: on a machine that is shared with others, the best of the rounds after the first is nearest to what it takes.
"""

from __future__ import annotations

import json
import random
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import numpy as np

from edgedns.control import Control, Paths

BODY = 5000
START = 1_790_000_000.0
PROVIDERS = """\
version: 1
fresh_for: 1h
max_moved_share: 1
providers:
{providers}
"""
ZONE = """\
version: 1
zone: example.net
soa: {{mname: ns1, rname: noc@example.net}}
ns: [ns1]
records:
  www:
    rules: [{{name: measured, wan: {{among: all, nominal: [{names}]}}}}]
static: ["ns1 A 192.0.2.53"]
"""


def control_of(top: Path, providers: list[str]) -> Control:
    (top / "rules").mkdir()
    shown = "\n".join(f"  {name}: {{v4: [192.0.2.{10 + i}]}}" for i, name in enumerate(providers))
    (top / "rules" / "providers.yaml").write_text(PROVIDERS.format(providers=shown))
    (top / "rules" / "example.net.yaml").write_text(ZONE.format(names=", ".join(providers)))
    control = Control(Paths(top, top / "rules"), "node", lambda line: None)
    control.start(START)
    return control


def addresses_of(control: Control, count: int) -> list[str]:
    """The first address of so many IPv4 networks, spread over the table."""
    atoms = control.world.ground.atoms
    mapped = np.flatnonzero((atoms.family == 4) & (atoms.network > 0) & (atoms.network <= atoms.public_networks))
    if not len(mapped):
        mapped = np.flatnonzero((atoms.family == 4) & (atoms.network > 0))
    _, first = np.unique(atoms.network[mapped], return_index=True)
    rest = np.flatnonzero((atoms.family == 4) & (atoms.network > atoms.public_networks * 2))
    _, more = np.unique(atoms.network[rest], return_index=True)
    places = np.concatenate([mapped[first], rest[more]])
    chosen = places[np.linspace(0, len(places) - 1, count).astype(np.int64)]
    return [str(ip_address(int(start))) for start in atoms.start_lo[chosen]]


def bodies(addresses: list[str], providers: list[str], vantage: str, at: float, dice: random.Random) -> Iterator[bytes]:
    lines = []
    for number, address in enumerate(addresses):
        for provider in providers:
            result = '"lost":true' if dice.random() < 0.01 else f'"rtt_ms":{20 + number % 50 + 4 * dice.random():.3f}'
            about = f'"vantage":"{vantage}","provider":"{provider}","address":"{address}"'
            lines.append(f'{{"at":{at + 9 * dice.random():.3f},{about},{result}}}'.encode())
    dice.shuffle(lines)
    for first in range(0, len(lines), BODY):
        yield b"\n".join(lines[first : first + BODY])


def main(networks: int, providers: int, vantages: int, rounds: int = 3) -> None:
    dice, names = random.Random(1), [f"p{number}" for number in range(providers)]
    best = {"read": float("inf"), "ingest": float("inf"), "close": float("inf")}
    taken = 0
    with tempfile.TemporaryDirectory() as folder:
        control = control_of(Path(folder), names)
        control.collector.rate = control.collector.burst = 1e12
        addresses = addresses_of(control, networks)
        for number in range(rounds):
            at = START + 10 * number
            spent = dict.fromkeys(best, 0.0)
            taken = 0
            for vantage in range(vantages):
                for body in bodies(addresses, names, f"v{vantage}", at, dice):
                    began = time.process_time()
                    control.collector.accept(body, at + 10).probes()
                    read = time.process_time()
                    taken += control.ingest(body, at + 10).taken
                    spent["read"] += read - began
                    spent["ingest"] += time.process_time() - read
            began = time.process_time()
            control.measured.close_round(names, at + 10)
            spent["close"] = time.process_time() - began
            if number or rounds == 1:
                best = {name: min(best[name], spent[name] * 1e6 / taken) for name in best}
    whole = best["ingest"] + best["close"]
    print(
        json.dumps({
            "samples_a_round": taken,
            "us_read": round(best["read"], 2),
            "us_ingest": round(best["ingest"], 2),
            "us_close": round(best["close"], 2),
            "read_per_second": round(1e6 / best["read"]),
            "ingest_per_second": round(1e6 / best["ingest"]),
            "whole_per_second": round(1e6 / whole),
            "rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        })
    )  # fmt: skip


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
