"""The networks that the demo's Internet has: some 200 real access networks, with one address inside each."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from typing import NamedTuple


class Network(NamedTuple):
    """One line of networks.tsv: `continent` as the ASN table tells it, `address` as text."""

    asn: int
    country: str
    continent: str
    address: str
    name: str


def networks() -> tuple[Network, ...]:
    """All of them, in the file's order, which is also that of their simulated addresses."""
    return parse((files("edgedns") / "demo" / "networks.tsv").read_text("utf-8"))


def parse(text: str) -> tuple[Network, ...]:
    """Tab-separated lines; `#` begins a comment line."""
    return tuple(_network(line.split("\t")) for line in text.splitlines() if line and not line.startswith("#"))


def _network(cells: Sequence[str]) -> Network:
    asn, country, continent, address, name = cells
    return Network(int(asn), country, continent, address, name)
