"""A file of past samples, as `edgedns replay` reads it: CSV lines in, columns out, each bad line named.

Columns, in any order: `slot` or `at` (Unix seconds, or ISO 8601, in UTC where it names no zone), `asn` or `client_asn`,
`provider`, `rtt_ms` (empty or `lost` = lost), and optionally `country`, `prefix` and `vantage`.
"""

from __future__ import annotations

import csv
import ipaddress
from array import array
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

import numpy as np

from edgedns.errors import SourceError
from edgedns.model import RTT_MOST_MS, NetworkKey
from edgedns.steer.failure.paths import PROVIDERS, VANTAGES
from edgedns.steer.table.batch import Batch
from edgedns.steer.table.rows import Floats, Ints, rows_of

LEAST_SLOT = 10.0
COLUMNS = ("slot", "at", "asn", "client_asn", "country", "prefix", "vantage", "provider", "rtt_ms")
KEY_BITS = {4: 16, 6: 32}
TOLD = 1000  # lines whose error is kept
SHOWN = 40  # characters of a field in a message


class Rejected(NamedTuple):
    """A line of the file that was skipped, and why."""

    line: int
    error: str


class _Samples:
    """The samples read so far, in columns; `networks`, `vantages` and `providers` number what they name."""

    def __init__(self) -> None:
        self.at, self.rtt = array("d"), array("d")
        self.network, self.vantage, self.provider = array("q"), array("q"), array("q")
        self.networks: dict[NetworkKey, int] = {}
        self.vantages: dict[str, int] = {}
        self.providers: dict[str, int] = {}
        self._told: dict[tuple[str, str, str], int] = {}

    def add(self, at: float, network: tuple[str, str, str], vantage: str, provider: str, rtt: float) -> None:
        """One sample; `network` is ASN, country and prefix as written, rtt NaN for a loss. ValueError for no network."""
        number = self._told.get(network)
        if number is None:
            number = self._told[network] = self.networks.setdefault(_network(*network), len(self.networks))
        self.network.append(number)
        self.at.append(at)
        self.vantage.append(self.vantages.setdefault(vantage, len(self.vantages)))
        self.provider.append(self.providers.setdefault(provider, len(self.providers)))
        self.rtt.append(rtt)


@dataclass(frozen=True)
class Trace:
    """Samples sorted by time. `slot[i]` numbers sample i's slot, `slot_seconds` long; `unit[i]` its (network, vantage).

    timed: the file told times, so that a slot's length means something.
    """

    batch: Batch
    slot: Ints
    slot_seconds: float
    unit: Ints
    unit_row: Ints
    unit_vantage: Ints
    timed: bool = False

    @property
    def slots(self) -> Ints:
        """The slots that have samples, in order."""
        return np.unique(self.slot)


def parse(lines: Iterable[str]) -> tuple[Trace, list[Rejected]]:
    """The samples of a CSV text with a header, and the lines that are none. SourceError when nothing is usable."""
    reader = csv.reader(lines)
    header = [name.strip().lower() for name in _next(reader) or []]
    place = _columns(header)
    samples = _Samples()
    rejected: list[Rejected] = []
    while True:
        try:
            fields = _next(reader)
            if fields is None:
                break
            if fields:
                _take(fields, place, len(header), samples)
        except ValueError as error:
            rejected.append(Rejected(reader.line_num, str(error) if len(rejected) < TOLD else "as others before"))
    if not len(samples.at):
        raise SourceError(f"no usable sample in {len(rejected)} lines" + (f"; {rejected[0].error}" if rejected else ""))
    for what, named, most in (("providers", samples.providers, PROVIDERS), ("vantages", samples.vantages, VANTAGES)):
        if len(named) > most:
            raise SourceError(f"{len(named)} {what}, at most {most}")
    return _trace(samples, slotted="slot" in place), rejected


def _next(reader: Iterator[list[str]]) -> list[str] | None:
    """The next line's fields, None at the end; ValueError when it can't be cut into fields."""
    try:
        return next(reader, None)
    except csv.Error as error:
        raise ValueError(f"no CSV: {error}") from None


def _columns(header: list[str]) -> Mapping[str, int]:
    place = {name: i for i, name in enumerate(header)}
    if "client_asn" in place:
        place.setdefault("asn", place["client_asn"])
    missing = [name for name in ("asn", "provider", "rtt_ms") if name not in place]
    if "slot" not in place and "at" not in place:
        missing.append("slot (or at)")
    twice = [name for name in COLUMNS if header.count(name) > 1]
    if twice:
        raise SourceError(f"the header has {', '.join(twice)} twice")
    if missing:
        raise SourceError(f"the header lacks {', '.join(missing)}: it has {', '.join(header) or 'nothing'}")
    return place


def _take(fields: list[str], place: Mapping[str, int], width: int, samples: _Samples) -> None:
    if len(fields) != width:
        raise ValueError(f"{len(fields)} columns, the header has {width}")

    def field(name: str) -> str:
        return fields[place[name]].strip() if name in place else ""

    slotted = "slot" in place
    at = _number(field("slot"), "slot") if slotted else _time(field("at"))
    if slotted and at != int(at):
        raise ValueError(f"slot {_shown(field('slot'))} is not a whole number")
    if not field("provider"):
        raise ValueError("no provider")
    network = (field("asn"), field("country"), field("prefix"))
    samples.add(at, network, field("vantage"), field("provider"), _rtt(field("rtt_ms")))


def _shown(text: str) -> str:
    """A field as messages quote it."""
    return repr(text if len(text) <= SHOWN else text[:SHOWN] + "...")


def _number(text: str, name: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f"{name} {_shown(text)} is not a number") from None
    if not 0 <= value < 1e12:
        raise ValueError(f"{name} {_shown(text)} is out of range")
    return value


def _time(text: str) -> float:
    """Unix seconds of either spelling."""
    if text[4:5] != "-":
        return _number(text, "at")
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"at {_shown(text)} is no time") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _rtt(text: str) -> float:
    if text.lower() in ("", "lost"):
        return float("nan")
    value = _number(text, "rtt_ms")
    if not 0 < value <= RTT_MOST_MS:
        raise ValueError(f"rtt_ms {_shown(text)} is not between 0 and {RTT_MOST_MS:g} ms")
    return value  # below 0.2 ms it is scored as it is and counts as 0.2 ms in the histograms


def _network(asn: str, country: str, prefix: str) -> NetworkKey:
    number = asn.upper().removeprefix("AS")
    if not (number.isascii() and number.isdigit() and 0 < int(number) < 2**32):
        raise ValueError(f"asn {_shown(asn)} is not an AS number")
    if country and not (len(country) == 2 and country.isascii() and country.isalpha()):
        raise ValueError(f"country {_shown(country)} is not a two-letter code")
    if not prefix:
        return NetworkKey(int(number), country.upper(), 0, -1)
    try:
        network = ipaddress.ip_network(prefix, strict=False)
    except ValueError:
        raise ValueError(f"prefix {_shown(prefix)} is not an address prefix") from None
    family = 4 if network.version == 4 else 6
    bits = KEY_BITS[family]  # a shorter prefix counts as the first of those that it holds
    return NetworkKey(int(number), country.upper(), family, int(network.network_address) >> (network.max_prefixlen - bits))


def _trace(samples: _Samples, slotted: bool) -> Trace:
    order = np.argsort(np.frombuffer(samples.at), kind="stable")
    at, rtt = np.frombuffer(samples.at)[order], np.frombuffer(samples.rtt)[order]
    row, vantage, provider = (
        np.frombuffer(column, dtype=np.int64)[order] for column in (samples.network, samples.vantage, samples.provider)
    )
    names = sorted(samples.providers)
    place = np.argsort([samples.providers[name] for name in names])
    provider = place[provider].astype(np.int64)
    rows, vantages = rows_of(samples.networks), tuple(samples.vantages)
    units, unit = np.unique(row * len(vantages) + vantage, return_inverse=True)
    unit = unit.reshape(-1).astype(np.int64)
    seconds = 1.0 if slotted else _interval(at, unit * len(names) + provider)
    slot = np.floor(at / seconds).astype(np.int64)
    family = np.where(rows["family"] == 6, 6, 4).astype(np.int64)[row]
    batch = Batch(
        rows=rows, providers=tuple(names), vantages=vantages, row=row, provider=provider, vantage=vantage, family=family,
        rtt=rtt, at=at + 0.5 if slotted else at,
    )  # fmt: skip
    return Trace(batch, slot, seconds, unit, units // len(vantages), units % len(vantages), not slotted)


def _interval(at: Floats, arm: Ints) -> float:
    """The usual time between two probes of one arm from one place: that is a slot, at least 10 s."""
    order = np.lexsort((at, arm))
    gaps = np.diff(at[order])[np.diff(arm[order]) == 0]
    return max(LEAST_SLOT, float(np.median(gaps))) if len(gaps) else LEAST_SLOT
