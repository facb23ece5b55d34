"""The demo's script: which providers there are, how far they are from each continent, and what happens when.

    version: 1
    seed: 1887                          # the same seed, the same Internet
    spread_percent: 12                  # how much one path differs from its region's figure
    drift_percent: 4                    # the swing of a day
    jitter_ms: 0.8
    loss_percent: 0.05
    repeat: 240                         # seconds until the events begin again; 0: they happen once
    providers:
      alder: {source: 127.1.0.1, rtt_ms: {AF: 90, AS: 150, EU: 14, NA: 75, OC: 260, SA: 150}}
    events:                             # seconds from the start
      - {at: 30, for: 40, kind: cut, provider: alder, continent: EU, text: "what the console says"}
      - {at: 90, for: 40, kind: slow, provider: alder, asn: 3215, by_ms: 80, text: "..."}
      - {at: 150, for: 40, kind: loss, country: [BR, AR], percent: 30, text: "..."}

An event without `provider` touches all of them, one without a place touches every network; places are ORed.
"""

from __future__ import annotations

import ipaddress
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar, get_args

import yaml

from edgedns.demo.networks import Network
from edgedns.errors import SourceError

Kind = Literal["cut", "slow", "loss"]
One = TypeVar("One", int, str)
CONTINENTS = ("AF", "AS", "EU", "NA", "OC", "SA")
SIZE_LIMIT = 1 << 20
DEPTH_LIMIT = 8
_EVENT_KEYS = {"at", "for", "kind", "provider", "continent", "country", "asn", "by_ms", "percent", "text"}
_SCRIPT_KEYS = {
    "version", "seed", "spread_percent", "drift_percent", "jitter_ms", "loss_percent", "repeat", "providers", "events"
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Transit:
    """A provider: the loopback address its probes come from, and its RTT in ms to each continent."""

    name: str
    source: str
    rtt_ms: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Event:
    """What happens from `at` to `at + lasts` (seconds from the start) to the paths it touches."""

    at: float
    lasts: float
    kind: Kind
    text: str
    provider: str = ""
    continents: frozenset[str] = frozenset()
    countries: frozenset[str] = frozenset()
    asns: frozenset[int] = frozenset()
    add_ms: float = 0.0
    loss: float = 0.0

    def touches(self, network: Network) -> bool:
        if not (self.continents or self.countries or self.asns):
            return True
        return network.continent in self.continents or network.country in self.countries or network.asn in self.asns


@dataclass(frozen=True, slots=True)
class Script:
    """A whole script; shares are 0 to 1."""

    seed: int
    spread: float
    drift: float
    jitter_ms: float
    loss: float
    repeat: float
    providers: tuple[Transit, ...]
    events: tuple[Event, ...]


class Change(NamedTuple):
    """An event begins or ends, `at` seconds after the start."""

    at: float
    event: Event
    begins: bool


def timeline(script: Script) -> Iterator[Change]:
    """All changes in order; endless where the script repeats. Ends come before beginnings of the same moment."""
    changes = [Change(event.at, event, True) for event in script.events]
    changes += [Change(event.at + event.lasts, event, False) for event in script.events]
    changes.sort(key=lambda change: (change.at, change.begins))
    start = 0.0
    while changes:
        yield from (change._replace(at=change.at + start) for change in changes)
        if not script.repeat:
            return
        start += script.repeat


class _Wrong(Exception):
    """One thing in a script can't be used."""


def default() -> Script:
    """The script that ships with the package."""
    return parse((files("edgedns") / "demo" / "script.yaml").read_text("utf-8"), "script.yaml")


def load(path: Path) -> Script:
    """The script in a file; SourceError says what is wrong with it."""
    try:
        with path.open("rb") as file:
            raw = file.read(SIZE_LIMIT + 1)
        if len(raw) > SIZE_LIMIT:
            raise SourceError(f"{path}: over {SIZE_LIMIT >> 20} MiB")
        return parse(raw.decode("utf-8"), str(path))
    except OSError as error:
        raise SourceError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise SourceError(f"{path}: not UTF-8 at byte {error.start + 1}") from None


def parse(text: str, name: str) -> Script:
    """A script's text; SourceError names `name` and the first mistake."""
    try:
        _refuse_deep(text)
        return _script(yaml.load(text, Loader=yaml.CSafeLoader))
    except _Wrong as wrong:
        raise SourceError(f"{name}: {wrong}") from None
    except (yaml.YAMLError, ValueError) as error:
        raise SourceError(f"{name}: not YAML: {' '.join(str(error).split())}") from None


def _refuse_deep(text: str) -> None:
    """libyaml's loader recurses in C: enough brackets would end the process. Its parser doesn't."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.CSafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEPTH_LIMIT:
            raise _Wrong(f"nested deeper than {DEPTH_LIMIT} levels")


def _script(tree: Any) -> Script:
    top = _mapping(tree, "the script", _SCRIPT_KEYS)
    if top.get("version") != 1:
        raise _Wrong("version is not 1")
    providers = top.get("providers")
    if not isinstance(providers, dict) or not providers:
        raise _Wrong("providers: give at least one")
    transits = tuple(_transit(key, value) for key, value in providers.items())
    if len({transit.source for transit in transits}) < len(transits):
        raise _Wrong("providers: each needs a source of its own")
    repeat = _number(top, "repeat", "", 0, 86400.0, 0.0)
    events = top.get("events", [])
    if not isinstance(events, list):
        raise _Wrong("events: not a list")
    return Script(
        seed=int(_number(top, "seed", "", 0, 2**32, 0)),
        spread=_number(top, "spread_percent", "", 0, 100, 12) / 100,
        drift=_number(top, "drift_percent", "", 0, 50, 4) / 100,
        jitter_ms=_number(top, "jitter_ms", "", 0, 1000, 0.8),
        loss=_number(top, "loss_percent", "", 0, 100, 0.0) / 100,
        repeat=repeat,
        providers=transits,
        events=tuple(_event(event, number, transits, repeat) for number, event in enumerate(events, 1)),
    )


def _transit(name: Any, value: Any) -> Transit:
    place = f"provider {name}"
    if not isinstance(name, str) or not name.isascii():
        raise _Wrong(f"{place}: not a name")
    fields = _mapping(value, place, {"source", "rtt_ms"})
    try:
        source = ipaddress.IPv4Address(fields.get("source", ""))
    except ValueError:
        raise _Wrong(f"{place}: source is not an IPv4 address: {fields.get('source')!r}") from None
    if not source.is_loopback:
        raise _Wrong(f"{place}: source {source} is not within 127.0.0.0/8")
    rtts = _mapping(fields.get("rtt_ms"), f"{place}: rtt_ms", set(CONTINENTS))
    rtt_ms = {continent: _number(rtts, continent, f"{place}: rtt_ms: ", 0.5, 5000) for continent in CONTINENTS}
    return Transit(name, str(source), rtt_ms)


def _event(value: Any, number: int, transits: Sequence[Transit], repeat: float) -> Event:
    place = f"event {number}: "
    fields = _mapping(value, f"event {number}", _EVENT_KEYS)
    kind, provider, text = _kind(fields.get("kind"), place), fields.get("provider", ""), fields.get("text", "")
    if provider != "" and provider not in [transit.name for transit in transits]:
        raise _Wrong(f"{place}unknown provider {provider!r}")
    if not isinstance(text, str) or not text or len(text) > 200:
        raise _Wrong(f"{place}text: say what happens, in at most 200 characters")
    at, lasts = _number(fields, "at", place, 0, 86400), _number(fields, "for", place, 0.1, 86400)
    if repeat and at + lasts > repeat:
        raise _Wrong(f"{place}it ends after {repeat:g} s, when the script repeats")
    continents = _listed(fields, "continent", str, place)
    if not continents <= set(CONTINENTS):
        raise _Wrong(f"{place}continent is not among {', '.join(CONTINENTS)}")
    return Event(
        at, lasts, kind, text, provider, continents,
        countries=_listed(fields, "country", str, place),
        asns=_listed(fields, "asn", int, place),
        add_ms=_number(fields, "by_ms", place, 0.1, 5000) if kind == "slow" else 0.0,
        loss=_number(fields, "percent", place, 0, 100) / 100 if kind == "loss" else float(kind == "cut"),
    )  # fmt: skip


def _kind(value: Any, place: str) -> Kind:
    for kind in get_args(Kind):
        if value == kind:
            return kind  # type: ignore[no-any-return]
    raise _Wrong(f"{place}kind is not one of {', '.join(get_args(Kind))}: {value!r}")


def _mapping(value: Any, place: str, keys: set[str]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _Wrong(f"{place}: not a mapping")
    unknown = sorted(str(key) for key in value.keys() - keys)
    if unknown:
        raise _Wrong(f"{place}: unknown key {unknown[0]!r}")
    return value


def _number(fields: Mapping[str, Any], key: str, place: str, least: float, most: float, default: float | None = None) -> float:
    value = fields.get(key, default)
    if value is None:
        raise _Wrong(f"{place}{key} is missing")
    if type(value) not in (int, float) or not math.isfinite(value) or not least <= value <= most:
        raise _Wrong(f"{place}{key} is not a number from {least:g} to {most:g}: {value!r}")
    return float(value)


def _listed(fields: Mapping[str, Any], key: str, kind: type[One], place: str) -> frozenset[One]:
    """One value or a list of them."""
    value = fields.get(key, [])
    values = value if isinstance(value, list) else [value]
    if any(type(one) is not kind for one in values):
        raise _Wrong(f"{place}{key} is not of {kind.__name__}s: {value!r}")
    return frozenset(values)
