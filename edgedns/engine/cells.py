"""Which rule each atom falls under, and the scope an answer to it may carry: one u32 cell an atom, rule << 8 | scope.

Control process only (numpy). The scope is the shortest prefix whose addresses the policy treats alike: the same rule, the same
network where the rule looks at networks, the same hash unit where it splits (law 2).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edgedns.engine.snapshot import UNIT_BITS
from edgedns.model import Match, NamedNetwork, Pin, Prefix, Rule, Weighted
from edgedns.steer.space.atoms import Atoms
from edgedns.steer.space.wide import Wide, top_bit

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Narrow = npt.NDArray[np.signedinteger[Any]]
PUBLIC_RESOLVERS = "public-resolvers"
NOT_MATCHED = 0xFFFF
NARROW = 1 << 22  # leaves: 256 times as many are fewer than 2 ** 31


class Space:
    """The atoms in address order, by family; made once for a set of atoms and used for every policy.

    `continent_of` gives a country's continent. Masks are kept by match, since policies share them.
    """

    def __init__(self, atoms: Atoms, networks: Mapping[str, NamedNetwork], continent_of: Callable[[str], str]) -> None:
        self.atoms = atoms
        self.networks = networks
        self.special = atoms.special()
        own = np.ones(len(atoms.network), bool)
        own[atoms.public_atoms : 2 * atoms.public_atoms] = False
        self.order4, self.order6 = (_in_order(atoms, own & (atoms.family == family)) for family in (4, 6))
        self.shared4, self.shared6 = _shared(atoms, self.order4, 32), _shared(atoms, self.order6, 128)
        self._country = _letters(atoms.net_country)
        self._continent = {
            country.decode(): continent_of(country.decode()) for country in atoms.level_country if country != b""
        }
        self._masks: dict[Match, Bools] = {}

    def where(self, match: Match) -> Bools:
        """The atoms that a match is for: its fields ANDed, the values of each ORed."""
        known = self._masks.get(match)
        if known is None:
            known = self._masks[match] = self._where(match)
        return known

    def _where(self, match: Match) -> Bools:
        mask = np.ones(len(self.atoms.network), bool)
        if match.asns:
            mask &= self._asns(match.asns)
        if match.countries:
            mask &= self._countries(match.countries)
        if match.continents:
            mask &= self._continents(match.continents)
        if match.prefixes:
            mask &= self._prefixes(match.prefixes)
        if match.networks:
            mask &= np.logical_or.reduce([self._named(name) for name in match.networks])
        return mask

    def _named(self, name: str) -> Bools:
        """A named network is the union of its keys; `public-resolvers` is about the resolver's own address only."""
        mask = np.zeros(len(self.atoms.network), bool)
        if name == PUBLIC_RESOLVERS:
            mask[self.atoms.public_atoms : 2 * self.atoms.public_atoms] = True
            return mask
        network = self.networks[name]
        mask |= self._asns(network.asns)
        mask |= self._countries(network.countries)
        mask |= self._continents(network.continents)
        return mask | self._prefixes(network.prefixes)

    def _asns(self, asns: frozenset[int]) -> Bools:
        return np.isin(self.atoms.net_asn, np.array(sorted(asns), np.uint32))[self.atoms.network]

    def _countries(self, countries: Iterable[str]) -> Bools:
        wanted = np.zeros(1 << 16, bool)
        wanted[_letters(np.array(sorted(countries), "S2"))] = True
        return wanted[self._country][self.atoms.network]

    def _continents(self, continents: frozenset[str]) -> Bools:
        return self._countries(country for country, continent in self._continent.items() if continent in continents)

    def _prefixes(self, prefixes: Sequence[Prefix]) -> Bools:
        mask = np.zeros(len(self.atoms.network), bool)
        for prefix in prefixes:
            mask |= self.atoms.inside(prefix)
        return mask


def policy_cells(space: Space, rules: Sequence[Rule], at: float) -> npt.NDArray[np.uint32]:
    """The cells of one policy as it stands at `at` (Unix seconds): rules past their `until` are not there."""
    place = np.full(len(space.atoms.network), NOT_MATCHED, np.int64)
    for ordinal, rule in enumerate(rules):
        if rule.until is not None and rule.until <= at:
            continue
        free = place == NOT_MATCHED
        place[free if rule.match is None else free & space.where(rule.match)] = ordinal
    scope = _scopes(space, rules, place)
    return (place << 8 | scope).astype(np.uint32)


def _scopes(space: Space, rules: Sequence[Rule], place: Ints) -> Ints:
    atoms = space.atoms
    by_network = np.array([not isinstance(rule.action, Pin) for rule in rules])
    by_unit = np.array([isinstance(rule.action, Weighted) for rule in rules])
    networks = np.int64(len(atoms.net_asn))
    alike = place * networks + np.where(by_network[place], atoms.network, 0)
    first = space.order4[0]
    if (alike[space.order4] == alike[first]).all() and not by_unit[place[first]]:
        alike[space.special] = alike[first]
    else:
        alike[space.special] = -1 - np.arange(len(space.special))
    scope = np.zeros(len(place), np.int64)
    scope[space.order4] = _shortest(alike[space.order4], space.shared4)
    scope[space.order6] = _shortest(alike[space.order6], space.shared6)
    scope[atoms.public_atoms : 2 * atoms.public_atoms] = scope[: atoms.public_atoms]
    unit = np.where(atoms.family == 4, UNIT_BITS[4], UNIT_BITS[6])
    return np.where(by_unit[place], np.maximum(scope, unit), scope)


def _shortest(alike: Ints, shared: Ints) -> Ints:
    """For leaves in address order, the length of the shortest prefix that leaves no run of alike neighbours.

    Such a prefix is one bit longer than what the leaf has in common with the last leaf before its run or the first after it.
    In a sorted list, what two addresses have in common is the least that neighbours between them have.
    """
    narrow: type[np.signedinteger[Any]] = np.int32 if len(alike) < NARROW else np.int64  # half the memory to go through
    ends = np.empty(len(alike) + 1, narrow)
    ends[0] = ends[-1] = -1
    ends[1:-1] = shared
    lowered = np.zeros(len(alike), narrow)
    np.cumsum(alike[1:] != alike[:-1], dtype=narrow, out=lowered[1:])
    lowered *= 256
    before = _least_within(ends[:-1], lowered)
    after = _least_within(ends[:0:-1], lowered[-1] - lowered[::-1])[::-1]
    longest: Ints = np.maximum(before, after) + 1
    return longest


def _least_within(shared: Narrow, lowered: Narrow) -> Narrow:
    """The running minimum, begun anew in each run: each is lowered below all that came before it."""
    least: Narrow = shared - lowered
    np.minimum.accumulate(least, out=least)
    least += lowered
    return least


def _in_order(atoms: Atoms, mask: Bools) -> Ints:
    mine = np.flatnonzero(mask)
    return mine[np.lexsort((atoms.start_lo[mine], atoms.start_hi[mine]))]


def _shared(atoms: Atoms, order: Ints, width: int) -> Ints:
    """How many leading bits each leaf has in common with the next one."""
    hi, lo = atoms.start_hi[order], atoms.start_lo[order]
    return width - 1 - top_bit(Wide(hi[1:] ^ hi[:-1], lo[1:] ^ lo[:-1]))


def _letters(countries: npt.NDArray[np.bytes_]) -> npt.NDArray[np.uint16]:
    return np.ascontiguousarray(countries, "S2").view(np.uint16)
