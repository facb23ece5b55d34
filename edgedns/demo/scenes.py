"""What of the script is worth watching: which network's answer each event moves, and when the next one comes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from ipaddress import ip_network
from zlib import crc32

from edgedns.demo.board import Spot
from edgedns.demo.networks import networks
from edgedns.demo.paths import Internet
from edgedns.demo.script import Event, Script, timeline

PASTED = 3


def spots() -> list[Spot]:
    """All networks in mixed order, each with the client subnet that a resolver would send for it."""
    found = [Spot(network, str(ip_network(f"{network.address}/24", strict=False))) for network in networks()]
    return sorted(found, key=lambda spot: crc32(spot.subnet.encode()))


def candidates(script: Script, among: Sequence[Spot]) -> list[list[Spot]]:
    """For each of the first few events, cuts before others, the networks that it moves, the surest first."""
    internet = Internet(script, [spot.network for spot in among])
    events = sorted(script.events, key=lambda event: (event.kind != "cut", event.at))[:PASTED]
    return [_moved(internet, event, among) for event in sorted(events, key=lambda event: event.at)]


def _moved(internet: Internet, event: Event, among: Sequence[Spot]) -> list[Spot]:
    """Networks that the event's provider is the best for, by how far it is ahead."""
    names = [transit.name for transit in internet.script.providers]
    leads = []
    for place, spot in enumerate(among):
        rtts = {name: internet.paths[row][place].base_ms for row, name in enumerate(names)}
        best, second = sorted(rtts, key=rtts.__getitem__)[:2] if len(rtts) > 1 else (names[0], names[0])
        if event.touches(spot.network) and event.provider in ("", best):
            leads.append((rtts[second] / rtts[best], place))
    return [among[place] for _, place in sorted(leads, reverse=True)]


def beginnings(script: Script) -> Iterator[tuple[float, str]]:
    """(seconds from the start, text) of each event, endless where the script repeats."""
    return ((change.at, change.event.text) for change in timeline(script) if change.begins)
