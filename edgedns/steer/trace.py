"""A file of past samples, as `edgedns replay` reads it: CSV lines in, columns out, each bad line named.

Columns, in any order: `slot` or `at` (Unix seconds), `asn` or `client_asn`, `provider`, `rtt_ms` (empty or `lost` = lost), and
optionally `country`, `prefix` and `vantage`.
"""

from __future__ import annotations

import csv
import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from edgedns.errors import SourceError
from edgedns.model import NetworkKey
from edgedns.steer.batch import MAX_MS, Batch, intern
from edgedns.steer.rows import Floats, Ints, rows_of

LEAST_SLOT = 10.0


class Rejected(NamedTuple):
    """A line of the file that was skipped, and why."""

    line: int
    error: str


class Line(NamedTuple):
    """One sample as read; rtt NaN is a loss."""

    at: float
    network: NetworkKey
    vantage: str
    provider: str
    rtt: float


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
    header = [name.strip().lower() for name in next(reader, [])]
    place = _columns(header)
    kept: list[Line] = []
    rejected: list[Rejected] = []
    for fields in reader:
        if not fields:
            continue
        try:
            kept.append(_line(fields, place, len(header)))
        except ValueError as error:
            rejected.append(Rejected(reader.line_num, str(error)))
    if not kept:
        raise SourceError(f"no usable sample in {len(rejected)} lines" + (f"; {rejected[0].error}" if rejected else ""))
    return _trace(kept, slotted="slot" in place), rejected


def _columns(header: list[str]) -> Mapping[str, int]:
    place = {name: i for i, name in enumerate(header)}
    if "client_asn" in place:
        place.setdefault("asn", place["client_asn"])
    missing = [name for name in ("asn", "provider", "rtt_ms") if name not in place]
    if "slot" not in place and "at" not in place:
        missing.append("slot (or at)")
    if missing:
        raise SourceError(f"the header lacks {', '.join(missing)}: it has {', '.join(header) or 'nothing'}")
    return place


def _line(fields: list[str], place: Mapping[str, int], width: int) -> Line:
    if len(fields) != width:
        raise ValueError(f"{len(fields)} columns, the header has {width}")

    def field(name: str) -> str:
        return fields[place[name]].strip() if name in place else ""

    slotted = "slot" in place
    at = _number(field("slot" if slotted else "at"), "slot" if slotted else "at")
    if slotted and at != int(at):
        raise ValueError(f"slot {field('slot')!r} is not a whole number")
    if not field("provider"):
        raise ValueError("no provider")
    network = _network(field("asn"), field("country"), field("prefix"))
    return Line(at, network, field("vantage"), field("provider"), _rtt(field("rtt_ms")))


def _number(text: str, name: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f"{name} {text!r} is not a number") from None
    if not 0 <= value < 1e12:
        raise ValueError(f"{name} {text!r} is out of range")
    return value


def _rtt(text: str) -> float:
    if text.lower() in ("", "lost"):
        return float("nan")
    value = _number(text, "rtt_ms")
    if not 0 < value <= MAX_MS:
        raise ValueError(f"rtt_ms {text!r} is not between 0 and {MAX_MS:g} ms")
    return value  # below 0.2 ms it is scored as it is and counts as 0.2 ms in the histograms


def _network(asn: str, country: str, prefix: str) -> NetworkKey:
    number = asn.upper().removeprefix("AS")
    if not (number.isascii() and number.isdigit() and 0 < int(number) < 2**32):
        raise ValueError(f"asn {asn!r} is not an AS number")
    if country and not (len(country) == 2 and country.isascii() and country.isalpha()):
        raise ValueError(f"country {country!r} is not a two-letter code")
    if not prefix:
        return NetworkKey(int(number), country.upper(), 0, -1)
    try:
        network = ipaddress.ip_network(prefix, strict=False)
    except ValueError:
        raise ValueError(f"prefix {prefix!r} is not an address prefix") from None
    key_bits = 16 if network.version == 4 else 32
    if network.prefixlen < key_bits:
        return NetworkKey(int(number), country.upper(), 0, -1)
    family = 4 if network.version == 4 else 6
    return NetworkKey(int(number), country.upper(), family, int(network.network_address) >> (network.max_prefixlen - key_bits))


def _trace(lines: list[Line], slotted: bool) -> Trace:
    lines.sort(key=lambda line: line.at)
    networks, row = intern([line.network for line in lines])
    providers = sorted({line.provider for line in lines})
    vantages, vantage = intern([line.vantage for line in lines])
    place = {name: i for i, name in enumerate(providers)}
    provider = np.array([place[line.provider] for line in lines], dtype=np.int64)
    at = np.array([line.at for line in lines])
    units, unit = np.unique(np.stack([row, vantage], axis=1), axis=0, return_inverse=True)
    unit = unit.reshape(-1).astype(np.int64)
    seconds = 1.0 if slotted else _interval(at, unit * len(providers) + provider)
    slot = np.floor(at / seconds).astype(np.int64)
    family = np.array([6 if line.network.family == 6 else 4 for line in lines], dtype=np.int64)
    batch = Batch(
        rows=rows_of(networks), providers=tuple(providers), vantages=tuple(vantages), row=row, provider=provider,
        vantage=vantage, family=family, rtt=np.array([line.rtt for line in lines]), at=at + 0.5 if slotted else at,
    )  # fmt: skip
    return Trace(batch, slot, seconds, unit, units[:, 0], units[:, 1], not slotted)


def _interval(at: Floats, arm: Ints) -> float:
    """The usual time between two probes of one arm from one place: that is a slot, at least 10 s."""
    order = np.lexsort((at, arm))
    gaps = np.diff(at[order])[np.diff(arm[order]) == 0]
    return max(LEAST_SLOT, float(np.median(gaps))) if len(gaps) else LEAST_SLOT
