"""Many lines of samples at once, as columns: the common ones, in a fifth of the time that they take one by one.

What is in any way unusual is left to `lines.read_line`, which takes it, or names what is wrong with it; where both can read a
line they agree (tests/property/test_collector_seam.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from edgedns.model import RTT_LEAST_MS, RTT_MOST_MS, Family, NetworkKey, RttSample
from edgedns.probe.lines import (
    DECODER,
    LINE_LIMIT,
    MAX_AGE,
    MAX_AHEAD,
    Refused,
    World,
    is_name,
    place,
    read_zone,
)
from edgedns.steer.table.batch import Batch, intern
from edgedns.steer.table.rows import Bools, Floats, Ints, Rows, rows_of

PLACES_KEPT = 1 << 18
_NUMBERS = frozenset((int, float))
_UNKNOWN = -1
_FIGURES = ("line", "at", "rtt", "place")
_TEXTS = ("vantage", "provider", "zone", "address")

Fields = dict[str, Any]


class Places:
    """Which network each address lies in, remembered: agents time the same targets again and again.

    An address is one number: that of its network, times two, and one more where its sample is of IPv6.
    """

    def __init__(self, world: World) -> None:
        self.networks: list[NetworkKey] = []
        self._rows = rows_of([])
        self._world = world
        self._numbers: dict[NetworkKey, int] = {}
        self._places: dict[str, int] = {}

    def forget(self) -> None:
        """Begin anew: networks are cut otherwise now."""
        self.networks, self._numbers, self._places, self._rows = [], {}, {}, rows_of([])

    @property
    def rows(self) -> Rows:
        """The networks so far; what is given is not changed later."""
        if len(self._rows) < len(self.networks):
            self._rows = np.concatenate([self._rows, rows_of(self.networks[len(self._rows) :])])
        return self._rows

    def numbers(self, addresses: Sequence[Any]) -> Ints:
        """The number of each address, -1 for what is none or lies in no known network. TypeError where one can't be hashed."""
        if len(self._places) > PLACES_KEPT:
            self.forget()
        found = [self._places.get(address, _UNKNOWN) for address in addresses]
        numbers = np.array(found, dtype=np.int64)
        for i in np.flatnonzero(numbers < 0).tolist():
            numbers[i] = self._number(addresses[i])
        return numbers

    def _number(self, address: Any) -> int:
        known = self._places.get(address)
        if known is not None:
            return known
        try:
            network, family = place(address, self._world)
        except Refused:
            return _UNKNOWN
        number = self._numbers.setdefault(network, len(self.networks))
        if number == len(self.networks):
            self.networks.append(network)
        self._places[address] = code = number * 2 + (family == 6)
        return code


@dataclass(frozen=True, slots=True)
class Columns:
    """n samples, all of them probes. `place` is what `Places` numbers; `rtt` in ms is NaN where lost. `line` is which line."""

    line: Ints
    at: Floats
    rtt: Floats
    place: Ints
    vantage: list[str]
    provider: list[str]
    zone: list[str]
    address: list[str]
    networks: list[NetworkKey] = field(repr=False)
    rows: Rows = field(repr=False)

    def samples(self) -> Iterable[RttSample]:
        """One by one."""
        rtts = (None if rtt != rtt else rtt for rtt in self.rtt.tolist())
        numbers, texts = (self.at.tolist(), self.place.tolist(), rtts), (self.vantage, self.provider, self.address, self.zone)
        for at, where, rtt, vantage, provider, address, zone in zip(*numbers, *texts, strict=True):
            family: Family = 6 if where & 1 else 4
            yield RttSample(at, vantage, provider, self.networks[where >> 1], family, rtt, address, zone)

    def batch(self) -> Batch:
        """As `steer.batch.batch_of` has it: without networks of ASN 0."""
        used, row = np.unique(self.place >> 1, return_inverse=True)
        rows = self.rows[used]
        providers, provider = intern(self.provider)
        vantages, vantage = intern(self.vantage)
        family = np.where(self.place & 1, 6, 4)
        whole = Batch(rows, tuple(providers), tuple(vantages), row.reshape(-1), provider, vantage, family, self.rtt, self.at)
        mapped = rows["asn"][whole.row] != 0
        return whole if mapped.all() else whole.take(mapped)


def objects(lines: Sequence[str]) -> Sequence[Fields | None]:
    """The JSON object that each line is, None where it is none, or is too long to be read."""
    text = "],[".join(lines)
    if "[" not in text.replace("],[", "") and max(map(len, lines)) <= LINE_LIMIT:
        try:
            # No line has a bracket, so none can end the list it stands in, nor begin another: where there are as many
            # lists as lines, each of them is one line.
            found = [item[0] for item in DECODER.decode(f"[[{text}]]") if len(item) == 1 and type(item[0]) is dict]
            if len(found) == len(lines):
                return found
        except (ValueError, RecursionError, IndexError, Refused):
            pass
    return [_object(line) for line in lines]


def _object(line: str) -> Fields | None:
    try:
        fields = DECODER.decode(line) if len(line) <= LINE_LIMIT else None
    except (ValueError, RecursionError, Refused):
        return None
    return fields if type(fields) is dict else None


def read(lines: Sequence[str], numbers: Ints, places: Places, world: World, now: float, vantage: str | None) -> Columns | None:
    """The samples of those lines that are plainly good; None where nothing can be said of them all at once."""
    found = objects(lines)
    there = np.array([fields is not None for fields in found], dtype=np.bool_)
    fields = [each for each in found if each is not None]
    try:
        good, columns = _columns(fields, numbers[there], places, world, now, vantage)
    except (TypeError, OverflowError):  # a list where a word is expected; a number with hundreds of digits
        return None
    return columns if good.all() else _only(columns, np.flatnonzero(good))


def _columns(
    fields: list[Fields], numbers: Ints, places: Places, world: World, now: float, vantage: str | None
) -> tuple[Bools, Columns]:
    at, rtt = _numbers(fields, "at"), _numbers(fields, "rtt_ms")
    good = (at >= now - MAX_AGE) & (at <= now + MAX_AHEAD) & _told(fields, rtt)
    vantages, providers, addresses = (_values(fields, name) for name in ("vantage", "provider", "address"))
    good &= _among(vantages, {one for one in set(vantages) if is_name(one) and vantage in (None, one)})
    good &= _among(providers, {one for one in set(providers) if is_name(one) and world.knows_provider(one)})
    good &= _plain(fields)
    zones = _values(fields, "name")
    folded = _zones(set(zones), world)
    good &= _among(zones, folded.keys())
    place = places.numbers(addresses)
    good &= place >= 0
    zone = [folded.get(one, "") for one in zones]
    return good, Columns(numbers, at, rtt, place, vantages, providers, zone, addresses, places.networks, places.rows)


def _values(fields: list[Fields], name: str) -> list[Any]:
    return [each.get(name) for each in fields]


def _numbers(fields: list[Fields], name: str) -> Floats:
    """A column of JSON numbers, NaN for whatever else is there; OverflowError for one with hundreds of digits."""
    values = _values(fields, name)
    if not set(map(type, values)) <= _NUMBERS:
        values = [value if type(value) in _NUMBERS else np.nan for value in values]
    return np.array(values, dtype=np.float64)


def _told(fields: list[Fields], rtt: Floats) -> Bools:
    """Where there is an RTT within bounds or `"lost": true`, and not both."""
    heard = (rtt >= RTT_LEAST_MS) & (rtt <= RTT_MOST_MS)
    lost = [each.get("lost", False) for each in fields]
    if not any(lost) and set(map(type, lost)) <= {bool}:
        return heard
    is_lost = np.array([one is True for one in lost], dtype=np.bool_)
    is_heard = np.array([one is False for one in lost], dtype=np.bool_)
    untimed = np.array([each.get("rtt_ms") is None for each in fields], dtype=np.bool_)
    return (is_lost & untimed) | (is_heard & heard)


def _plain(fields: list[Fields]) -> Bools:
    """Where a line is of a probe, and gives an address and nothing beside it."""
    return np.array(
        [each.get("asn") is None and each.get("family") is None and each.get("kind", "probe") == "probe" for each in fields],
        dtype=np.bool_,
    )


def _among(values: Sequence[Any], known: Iterable[Any]) -> Bools:
    known = frozenset(known)
    return np.array([value in known for value in values], dtype=np.bool_)


def _zones(names: set[Any], world: World) -> dict[Any, str]:
    """The zones that are known, as they are given and folded."""
    folded = {}
    for name in names:
        try:
            folded[name] = read_zone(name, world)
        except Refused:
            continue
    return folded


def _only(columns: Columns, which: Ints) -> Columns:
    picked = which.tolist()
    texts: dict[str, Any] = {name: [getattr(columns, name)[i] for i in picked] for name in _TEXTS}
    return replace(columns, **texts, **{name: getattr(columns, name)[which] for name in _FIGURES})
