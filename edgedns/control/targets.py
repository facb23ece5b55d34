"""Whom agents are to probe: learnt from who asks, and from lists, and given out network by network.

`learn` and `read` take up to seconds where networks are many: they run beside the turns, one at a time, and `offer` is replaced
as a whole. `Answered` is filled in turn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_network
from itertools import compress
from pathlib import Path
from socket import AF_INET, AF_INET6, inet_ntop, inet_pton
from typing import Any, NamedTuple

import numpy as np

from edgedns.engine import seen
from edgedns.engine.seen import NOT_STEERED, Seen
from edgedns.engine.world import World
from edgedns.errors import SourceError
from edgedns.model import RuleSet
from edgedns.probe import lists
from edgedns.probe.collector import Outcome
from edgedns.probe.lists import Listed
from edgedns.special import SPECIAL, Prefixes
from edgedns.steer.probing import targets
from edgedns.steer.probing.targets import ADDRESS, DEMAND, HOST, Addresses, Rows
from edgedns.steer.table.rows import Bools, Ints
from edgedns.store.local import LocalStore

EACH = 3  # hosts of a network
LISTED_IN_SUBNET = 4
ANSWERED_MOST = 500_000
MANY = 50_000  # hosts: from there on a new offer is made once a minute, not each time
OFFER_EVERY = 60.0
BODIES_KEPT = 4
WRITTEN = 1.0  # seconds in which a sample of the queries is surely there to be read
FILE = "targets"


class Terms(NamedTuple):
    """Where targets come from beside who asks, who is never to be probed, and by which method: as `edgedns probe` names it."""

    lists: tuple[Listed, ...] = ()
    opt_out: Path | None = None
    method: str = "icmp"


@dataclass(slots=True)
class Answered:
    """Addresses that probes went to since the last look, as samples write them."""

    replied: set[str] = field(default_factory=set)
    lost: set[str] = field(default_factory=set)

    def take(self, outcome: Outcome) -> None:
        """What a body of samples says of its targets."""
        for sample in (sample for _, sample in outcome.single if sample.kind == "probe"):
            self._note([sample.address], np.array([sample.rtt_ms is None]))
        if outcome.columns is not None:
            self._note(outcome.columns.address, np.isnan(outcome.columns.rtt))

    def _note(self, addresses: Sequence[str], lost: Bools) -> None:
        if len(self.replied) + len(self.lost) < ANSWERED_MOST:
            self.replied.update(compress(addresses, (~lost).tolist()))
            self.lost.update(compress(addresses, lost.tolist()))

    def take_over(self) -> Answered:
        """All of it; it is noted anew from now on."""
        taken = Answered(self.replied, self.lost)
        self.replied, self.lost = set(), set()
        return taken


class Offer:
    """The hosts to be given out, network by network, the network that asks most first; `ends` are where each one's end."""

    def __init__(self, addresses: Addresses, ends: Ints, method: str) -> None:
        self._addresses = addresses
        self._ends = ends
        self._method = method
        self._bodies: dict[int, bytes] = {}

    def __len__(self) -> int:
        """Networks."""
        return len(self._ends)

    def body(self, networks: int) -> bytes:
        """The first so many networks' hosts, as a targets file of JSON lines: made once for all agents that want as many."""
        networks = min(networks, len(self))
        if networks not in self._bodies:
            hosts = self._addresses[: self._ends[networks - 1]] if networks else self._addresses[:0]
            if len(self._bodies) >= BODIES_KEPT:
                self._bodies.clear()
            self._bodies[networks] = b"".join(map(self._line, hosts.tolist()))
        return self._bodies[networks]

    def _line(self, address: bytes) -> bytes:
        packed = targets.packed(address)
        text = inet_ntop(AF_INET if len(packed) == 4 else AF_INET6, packed)
        return f'{{"address": "{text}", "method": "{self._method}"}}\n'.encode()


NOTHING = Offer(np.zeros(0, ADDRESS), np.zeros(0, np.int64), "")


class _Asked(NamedTuple):
    """A sample of the queries: each by its subnet, where one was forwarded, else by who asked."""

    first: Addresses
    last: Addresses
    forwarded: Bools
    proven: Bools

    @classmethod
    def of(cls, entries: Iterable[Seen]) -> _Asked:
        kept = [each for each in entries if each.answered != NOT_STEERED and (each.source or not each.subnet)]
        ends = [_ends(each.subnet, each.source) if each.subnet else (each.client, each.client) for each in kept]
        whole = cls(
            _addresses(first for first, _ in ends),
            _addresses(last for _, last in ends),
            np.array([bool(each.subnet) for each in kept], np.bool_),
            np.array([each.proven for each in kept], np.bool_),
        )
        return whole.take(~targets.inside(SPECIAL, whole.first))

    def take(self, which: Bools) -> _Asked:
        return _Asked(self.first[which], self.last[which], self.forwarded[which], self.proven[which])


def _ends(subnet: bytes, length: int) -> tuple[bytes, bytes]:
    host_bits = (1 << max(0, len(subnet) * 8 - length)) - 1
    return subnet, (int.from_bytes(subnet, "big") | host_bits).to_bytes(len(subnet), "big")


def _addresses(packed: Iterable[bytes]) -> Addresses:
    return np.array([targets.key(one) for one in packed], ADDRESS)


class Targets:
    """What was learnt of each network's hosts, and what of it is given out: nothing while an opt-out list can't be read."""

    def __init__(self, store: LocalStore, run: Path, log: Callable[[str], None], terms: Terms) -> None:
        self.offer = NOTHING
        self.asked_by: dict[str, float] = {}
        self._store = store
        self._run = run
        self._log = log
        self._terms = terms
        self._hosts: Rows = np.zeros(0, HOST)
        self._demand: Rows = np.zeros(0, DEMAND)
        self._list: Addresses = np.zeros(0, ADDRESS)
        self._listed: dict[Listed, Addresses] = {}
        self._opt_out: Prefixes | None = Prefixes() if terms.opt_out is None else None
        self._numbered_by = ""
        self._learnt_at = self._offered_at = 0.0
        self._stale = True

    # -- what operators name

    @property
    def files(self) -> list[Path]:
        """To be watched: `read` one where it changes."""
        return [*(one.path for one in self._terms.lists), *([self._terms.opt_out] if self._terms.opt_out else [])]

    def bars(self, address: bytes) -> bool:
        """Whether a packed address is on the opt-out list; all are, while that can't be read."""
        return self._opt_out is None or address in self._opt_out

    def read(self, path: Path) -> None:
        """Read a list, or the opt-out list. What can't be read stays as it was; an opt-out list that never could bars all."""
        try:
            if path == self._terms.opt_out:
                self._opt_out = lists.prefixes(path)
                self._log(f"{path}: {len(self._opt_out)} prefixes are never probed")
            for listed in self._terms.lists:
                if path == listed.path:
                    self._take_list(listed, lists.addresses(listed))
        except SourceError as error:
            stays = self._opt_out is not None or path != self._terms.opt_out
            self._log(f"{error}\n" + ("it stays as it was" if stays else "no targets are given out until it can be read"))
        self._stale = True

    def _take_list(self, listed: Listed, packed: list[bytes]) -> None:
        found = np.unique(_addresses(packed))
        kept = found[~targets.inside(SPECIAL, found)]
        self._listed[listed] = kept
        self._list = np.unique(np.concatenate([self._listed[one] for one in self._terms.lists if one in self._listed]))
        self._numbered_by = ""  # so that the next look takes them up
        left = len(found) - len(kept)
        self._log(f"{listed}: {len(kept)} targets" + (f", {left} left out: no network's addresses" if left else ""))

    # -- learning

    def restore(self) -> None:
        """Take up what was kept; what can't be read begins anew."""
        try:
            kept = self._store.load_arrays(FILE)
        except SourceError as error:
            self._log(str(error))
            return
        if kept and (kept["hosts"].dtype, kept["demand"].dtype) == (HOST, DEMAND):
            self._hosts, self._demand = kept["hosts"], kept["demand"]

    def save(self) -> None:
        self._store.save_arrays(FILE, {"hosts": self._hosts, "demand": self._demand})

    def learn(self, world: World, answered: Answered, now: float) -> None:
        """Take in who asked since the last time and who answered, and make a new offer where it is time for one."""
        self._number(world)
        until = now - WRITTEN
        since = self._learnt_at if 0 < until - self._learnt_at < OFFER_EVERY else until - OFFER_EVERY
        self._take(world, _Asked.of(seen.read(self._run, since, until)), until - since)
        self._learnt_at = until
        replied, lost = (_addresses(_packed(texts)) for texts in (answered.replied, answered.lost))
        self._hosts = targets.heard(self._hosts, replied, lost, now)
        if self._stale or len(self._hosts) < MANY or not 0 <= now - self._offered_at < OFFER_EVERY:
            self._hosts, self._demand = targets.trimmed(self._hosts, self._demand, now)
            self._make_offer(world.rules, now)

    def _number(self, world: World) -> None:
        """Networks under the ids of the atoms in force; listed hosts that had no room may have some now."""
        atoms = world.ground.atoms
        if self._numbered_by != world.ground.key:
            self._hosts, self._demand = targets.renumbered(self._hosts, self._demand, atoms)
            self._hosts = targets.with_list(self._hosts, self._list, targets.networks_of(atoms, self._list))
            self._numbered_by = world.ground.key

    def _take(self, world: World, asked: _Asked, seconds: float) -> None:
        networks = targets.networks_of(world.ground.atoms, asked.first)
        self._demand = targets.decayed(self._demand, seconds)
        self._demand = targets.with_demand(self._demand, asked.first, networks, np.ones(len(networks)))
        own = ~asked.forwarded & (networks > 0)
        hosts = targets.decayed(self._hosts, seconds)
        hosts = targets.with_hosts(hosts, asked.first[own], networks[own], asked.proven[own])
        listed = self._list[self._listed_in(asked.take(asked.forwarded))]
        nobody = np.zeros(len(listed), np.bool_)
        self._hosts = targets.with_hosts(hosts, listed, targets.networks_of(world.ground.atoms, listed), nobody)

    def _listed_in(self, asked: _Asked) -> Ints:
        """Places of listed addresses in the subnets that were asked for, a few of each."""
        first = np.searchsorted(self._list, asked.first)
        end = np.searchsorted(self._list, asked.last, "right")
        return np.concatenate([(first + k)[first + k < end] for k in range(LISTED_IN_SUBNET)])

    # -- giving out

    def _make_offer(self, rules: RuleSet, now: float) -> None:
        self._offered_at, self._stale = now, False
        if self._opt_out is None:
            self.offer = NOTHING
            return
        addresses = self._hosts["address"]
        barred = targets.inside(self._opt_out, addresses) | targets.inside(_own(rules), addresses)
        barred |= targets.inside(SPECIAL, addresses)  # what was kept may be of another release's list
        best = targets.chosen(self._hosts, self._demand, barred, EACH, now)
        self._hosts["given"] = False
        self._hosts["given"][best] = True
        ends = np.flatnonzero(np.diff(self._hosts["network"][best], append=0)) + 1
        self.offer = Offer(addresses[best], ends, self._terms.method)

    def give(self, vantage: str, networks: int, now: float) -> bytes:
        """The targets of a vantage, as a targets file of JSON lines."""
        if vantage in self.asked_by or len(self.asked_by) < 1024:
            self.asked_by[vantage] = now
        return self.offer.body(networks)

    def told(self) -> dict[str, Any]:
        """As status shows it."""
        return {"networks": len(self.offer), "hosts": len(self._hosts), "asked_by": dict(self.asked_by)}


def _packed(texts: Iterable[str]) -> Iterable[bytes]:
    return (inet_pton(AF_INET6 if ":" in text else AF_INET, text) for text in texts if text)


def _own(rules: RuleSet) -> Prefixes:
    """The addresses of the providers: ours, and anycast."""
    return Prefixes(ip_network(one) for each in rules.providers.values() for one in (*each.v4, *each.v6))
