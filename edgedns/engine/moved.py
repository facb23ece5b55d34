"""What changed hands between two decisions, as the page and the console show it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from typing import Any, NamedTuple, get_args

import numpy as np

from edgedns.dns.name import to_text
from edgedns.model import Family, NetworkKey, RuleSet
from edgedns.steer.deciding.decisions import Column, Move
from edgedns.steer.space.atoms import Atoms

MOST = 200  # entries: nobody reads more, and a round may move a hundred thousand networks
ADDRESSED = 60  # of one change: finding an address takes a millisecond


class User(NamedTuple):
    """A rule that has a column's terms: the name it steers, as text, and the type."""

    name: str
    type: str
    text: str


def users_of_columns(rules: RuleSet) -> dict[Column, list[User]]:
    """Who uses each column, in the order of the rules."""
    users: dict[Column, list[User]] = {}
    for zone in rules.zones.values():
        for record in zone.records:
            for rule in record.rules:
                for family in get_args(Family):
                    rtype = "A" if family == 4 else "AAAA"
                    column = Column(rule.action, family, record.all_down)
                    user = User(to_text(record.name), rtype, f"{record.label}/{rule.name} {rtype}")
                    users.setdefault(column, []).append(user)
    return users


def told(moved: Sequence[Move], rules: RuleSet, atoms: Atoms, as_names: Mapping[int, str], now: float) -> list[dict[str, Any]]:
    """One entry for each network and change, with all rules that it holds for; networks first, then levels above them.

    The first MOST of them.
    """
    users, entries = users_of_columns(rules) if moved else {}, dict[tuple[object, ...], dict[str, Any]]()
    for move in sorted(moved, key=lambda move: move.network.block < 0):
        key = move.network, move.before.targets[:1], move.after.targets[:1], move.after.reason
        entry = entries.get(key)
        if entry is None and len(entries) >= MOST:
            continue
        if entry is None:
            address = address_in(atoms, move.network) if len(entries) < ADDRESSED else None
            entry = entries[key] = _entry(move, as_names, address, now)
        for user in users.get(move.column, ()):
            entry["rules"].append(user.text)
            entry["name"], entry["type"] = entry["name"] or user.name, entry["type"] or user.type
    return list(entries.values())


def _entry(move: Move, as_names: Mapping[int, str], address: str | None, now: float) -> dict[str, Any]:
    network = move.network
    return {
        "at": now,
        "network": network.text,
        "asn": network.asn if network.asn > 0 else None,
        "as_name": as_names.get(network.asn),
        "address": address,
        "is_level": network.block < 0,
        "rules": [],
        "name": "",
        "type": "",
        "before": move.before.targets[0] if move.before.targets else "",
        "after": move.after.targets[0] if move.after.targets else "",
        "reason": move.after.reason.name,
    }


def address_in(atoms: Atoms, key: NetworkKey) -> str | None:
    """The first address of a network, None for the levels above networks."""
    if key.block < 0:
        return None
    like = np.flatnonzero((atoms.net_asn == key.asn) & (atoms.net_block == key.block) & (atoms.net_family == key.family))
    number = next((one for one in like.tolist() if atoms.net_country[one].decode() == key.country), None)
    if number is None:
        return None
    first = int(np.argmax(atoms.network == number))
    return str(ip_address(atoms.prefix(first).address))
