"""A small world for tests of the control process: sixty networks, three providers, one zone of two measured names."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypedDict, Unpack

NETWORKS = 60
PROVIDERS = ("alder", "birch", "cedar")
ADDRESS = {"alder": "192.0.2.10", "birch": "198.51.100.10", "cedar": "203.0.113.10"}

SHARED = """\
version: 1
round: {round}
fresh_for: {fresh_for}
max_moved_share: {limit}
{more}
providers:
  alder: {{v4: [192.0.2.10], v6: ["2001:db8:a1::10"]}}
  birch: {{v4: [198.51.100.10], v6: ["2001:db8:b1::10"]}}
  cedar: {{v4: [203.0.113.10]}}
"""
ZONE = """\
version: 1
zone: {name}
soa: {{mname: ns1, rname: noc@example.net, minimum: 60s}}
ns: [ns1]
defaults: {{ttl: 5s, all_down: {all_down}}}
records:
  www:
    rules:
      - {{name: lab, match: {{asn: 64999}}, pin: cedar}}
      - {{name: measured, wan: {{among: all, nominal: [{nominal}], min_samples: 1, margin: {{ms: 0, percent: 1}}}}}}
  split: {{rules: [{{name: halves, weighted: {{alder: 1, birch: 1}}}}]}}
  one: {{rules: [{{name: fixed, failover: [birch]}}]}}
static:
  - "ns1 A 192.0.2.53"
  - "plain A {plain}"
  - "alias CNAME www"
"""


def network(number: int) -> str:
    """The first address of network `number`, AS 64512 + number; each is one /16, hence one steering network."""
    return f"10.{number}.0.0"


def subnet(number: int) -> str:
    return f"10.{number}.1.0/24"


def write_table(path: Path, networks: Iterable[int] = range(NETWORKS)) -> Path:
    """An iptoasn TSV, put in place by renaming."""
    rows = [f"10.{n}.0.0\t10.{n}.255.255\t{64512 + n}\tDE\tNetwork {n}\n" for n in networks]
    rows.append("2001:db8:77::\t2001:db8:77:ffff:ffff:ffff:ffff:ffff\t64600\tDE\tSix\n")
    replace(path, "".join(rows))
    return path


class Zone(TypedDict, total=False):
    """What a zone may have otherwise: see `write_zone`."""

    name: str
    nominal: Sequence[str]
    plain: str
    all_down: str


def write_zone(
    directory: Path, name: str = "example.net", nominal: Sequence[str] = PROVIDERS, plain: str = "192.0.2.80",
    all_down: str = "fail-open", more: str = "",
) -> Path:  # fmt: skip
    text = ZONE.format(name=name, nominal=", ".join(nominal), plain=plain, all_down=all_down) + more
    return replace(directory / f"{name}.yaml", text)


def write_rules(
    directory: Path, period: str = "10s", fresh_for: str = "10m", limit: float = 0.5, more: str = "", **zone: Unpack[Zone]
) -> Path:
    """A rules directory of one zone."""
    directory.mkdir(exist_ok=True)
    shared = SHARED.format(round=period, fresh_for=fresh_for, limit=limit, more=more)
    replace(directory / "providers.yaml", shared)
    write_zone(directory, **zone)
    return directory


def replace(path: Path, text: str) -> Path:
    """Save as editors do: aside, then renamed."""
    aside = path.with_name(f".{path.name}.new")
    aside.write_text(text, encoding="utf-8")
    os.replace(aside, path)
    return path


def samples(
    at: float, rtts: Mapping[str, float | None], networks: Iterable[int] = range(NETWORKS), vantage: str = "fra1"
) -> bytes:
    """NDJSON lines: for each network and provider an RTT in ms, None for a loss."""
    lines = []
    for number in networks:
        for provider, rtt in rtts.items():
            result = {"lost": True} if rtt is None else {"rtt_ms": rtt}
            line = {"at": at, "vantage": vantage, "provider": provider, "address": network(number), **result}
            lines.append(json.dumps(line))
    return "\n".join(lines).encode()
