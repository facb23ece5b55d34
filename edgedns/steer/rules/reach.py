"""Which rule hides which: whether the clients of one match are surely all among those of an earlier one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from edgedns.model import Family, Match, NamedNetwork, Prefix, Rule

Element = tuple[str, int | str] | Prefix


@dataclass(frozen=True)
class _Reach:
    """The clients that one key of a match describes: a union."""

    asns: frozenset[int] = frozenset()
    prefixes: frozenset[Prefix] = frozenset()
    countries: frozenset[str] = frozenset()
    continents: frozenset[str] = frozenset()

    def elements(self) -> Iterator[Element]:
        yield from (("asn", each) for each in self.asns)
        yield from (("country", each) for each in self.countries)
        yield from (("continent", each) for each in self.continents)
        yield from self.prefixes


class Hiders:
    """The rules of a record so far, found by what their first key describes, so that long policies stay cheap."""

    def __init__(self, networks: Mapping[str, NamedNetwork], continent: Callable[[str], str]) -> None:
        self._networks = networks
        self._continent = continent
        self._everyone: list[tuple[int, Rule, list[_Reach]]] = []
        self._by_element: dict[Element, list[tuple[int, Rule, list[_Reach]]]] = {}
        self._lengths: set[tuple[Family, int]] = set()
        self._count = 0

    def add(self, rule: Rule) -> None:
        reaches = _reaches(rule.match, self._networks)
        if reaches is None:
            return
        row = (self._count, rule, reaches)
        self._count += 1
        if not reaches:
            self._everyone.append(row)
            return
        for element in reaches[0].elements():
            self._by_element.setdefault(element, []).append(row)
        self._lengths.update((prefix.family, prefix.length) for prefix in reaches[0].prefixes)

    def of(self, rule: Rule) -> Rule | None:
        """The first rule so far that takes all clients of this one for as long as it lasts."""
        inner = _reaches(rule.match, self._networks)
        if inner is None:
            return None
        near = [row for reach in inner for element in self._around(reach) for row in self._by_element.get(element, ())]
        hiding = [
            (position, earlier)
            for position, earlier, outer in (*self._everyone, *near)
            if _outlives(earlier, rule) and all(any(self._holds(wide, each) for each in inner) for wide in outer)
        ]
        return min(hiding, key=lambda each: each[0])[1] if hiding else None

    def _around(self, reach: _Reach) -> Iterator[Element]:
        """What a union that holds `reach` must have at least one of: whatever holds any one element of it."""
        kind, value, *_ = element = min(reach.elements(), key=repr)
        if isinstance(element, Prefix):
            yield from (_cut(element, n) for f, n in self._lengths if f == element.family and n <= element.length)
            return
        yield element
        if kind == "country":
            yield "continent", self._continent(str(value))

    def _holds(self, outer: _Reach, inner: _Reach) -> bool:
        return (
            inner.asns <= outer.asns
            and inner.continents <= outer.continents
            and all(each in outer.countries or self._continent(each) in outer.continents for each in inner.countries)
            and _contained(inner.prefixes, outer.prefixes)
        )


def _outlives(earlier: Rule, later: Rule) -> bool:
    return earlier.until is None or (later.until is not None and later.until <= earlier.until)


def _reaches(match: Match | None, networks: Mapping[str, NamedNetwork]) -> list[_Reach] | None:
    """What each key of a match describes, a client being matched when it is in all; None where mistakes leave it open."""
    if match is None:
        return []
    named = [networks[name] for name in match.networks if name in networks]
    union = _Reach(
        asns=frozenset().union(*(each.asns for each in named)),
        prefixes=frozenset(prefix for each in named for prefix in each.prefixes),
        countries=frozenset().union(*(each.countries for each in named)),
        continents=frozenset().union(*(each.continents for each in named)),
    )
    keys = (
        _Reach(asns=match.asns),
        _Reach(prefixes=frozenset(match.prefixes)),
        _Reach(countries=match.countries),
        _Reach(continents=match.continents),
        union,
    )
    reaches = [each for each in keys if each != _Reach()]
    mistaken = not reaches or (match.networks and union == _Reach()) or len(named) < len(match.networks)
    return None if mistaken else reaches


def _contained(narrow: frozenset[Prefix], wide: frozenset[Prefix]) -> bool:
    """Whether each of `narrow` lies in one of `wide`."""
    lengths = {(prefix.family, prefix.length) for prefix in wide}
    return all(any(_cut(each, n) in wide for f, n in lengths if f == each.family and n <= each.length) for each in narrow)


def _cut(prefix: Prefix, length: int) -> Prefix:
    host_bits = 8 * len(prefix.address) - length
    number = int.from_bytes(prefix.address) >> host_bits << host_bits
    return Prefix(prefix.family, number.to_bytes(len(prefix.address)), length)
