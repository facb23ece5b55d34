"""One round for 100,000 networks x 8 providers x 2 families, each arm measured in every round. Prints JSON: CPU seconds, MB.

Samples come in bodies of 1,000 networks, as a collector gets them. `observe`: what the detector takes, if it is asked for;
`close`: counting and decay.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Iterator

import numpy as np

from edgedns.model import Provider, Wan
from edgedns.steer.deciding.decisions import Column
from edgedns.steer.deciding.policy import decide
from edgedns.steer.failure.health import Health
from edgedns.steer.table.batch import Batch
from edgedns.steer.table.rows import ROW, Floats
from edgedns.steer.table.rtt import RttStore
from edgedns.steer.table.wan import estimate

NETWORKS, BODY = 100_000, 1000
NAMES = tuple(f"p{i}" for i in range(8))
PROVIDERS = {name: Provider(name, (bytes(4),), (bytes(16),)) for name in NAMES}
COLUMNS = tuple(Column(Wan(NAMES, NAMES), family) for family in (4, 6))


def rows() -> np.ndarray:
    """Four countries an ASN; both families are measured at (ASN, country), so that every row has 16 arms."""
    made = np.zeros(NETWORKS, dtype=ROW)
    made["asn"], made["block"] = 64512 + np.arange(NETWORKS) // 4, -1
    made["country"] = np.array([b"BR", b"DE", b"JP", b"US"])[np.arange(NETWORKS) % 4]
    return made


def bodies(number: int, base: Floats, rng: np.random.Generator) -> Iterator[Batch]:
    """One sample of every arm, in pieces; `base[network, provider, family]` in ms, 4 % of noise."""
    known = rows()
    shape = (BODY, len(NAMES), 2)
    row, provider, family = (axis.reshape(-1) for axis in np.indices(shape))
    for first in range(0, NETWORKS, BODY):
        rtt = base[first : first + BODY] * (1 + rng.normal(0, 0.04, shape))
        at = number * 10 + rng.random(row.size) * 10
        vantage = np.zeros(row.size, dtype=np.int64)
        yield Batch(
            known[first : first + BODY], NAMES, ("v",), row, provider, vantage, np.where(family == 1, 6, 4), rtt.reshape(-1), at
        )


def main(rounds: int, detect: bool) -> list[dict[str, float]]:
    rng = np.random.default_rng(1)
    base = rng.uniform(10, 200, (NETWORKS, len(NAMES), 2))
    store, health, decisions, told = RttStore(), Health(), None, []
    for number in range(100, 100 + rounds):
        took: dict[str, float] = {}

        def spent(name: str, since: float, took: dict[str, float] = took) -> float:
            took[name] = took.get(name, 0.0) + time.process_time() - since
            return time.process_time()

        for body in bodies(number, base, rng):
            clock = time.process_time()
            for counted in health.observe(body) if detect else [body]:
                store.observe_columns(counted)
            spent("observe", clock)
        now = (number + 1) * 10.0
        clock = time.process_time()
        store.close_round(now)
        clock = spent("close", clock)
        table = estimate(store)
        clock = spent("estimate", clock)
        decisions = decide(COLUMNS, PROVIDERS, {}, table, health, decisions, now, 30.0)
        spent("decide", clock)
        took["round"] = took["close"] + took["estimate"] + took["decide"]
        took["rss_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        told.append(took)
    return told


if __name__ == "__main__":
    print(json.dumps(main(int(sys.argv[1]), "detect" in sys.argv)))
