"""What a value of the rules language can be: each kind reads a node and describes itself as JSON Schema.

`read` gives a Spot (the value and where it stands) or None after adding the Problem, so that one pass finds
every mistake. The keys themselves are in shape.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from edgedns.errors import Problem, problem
from edgedns.model import Where
from edgedns.steer.rules.words import Wrong, did_you_mean, short
from edgedns.steer.rules.yamltree import Node, Scalar, Sequence, Table, bare_ipv6

T = TypeVar("T")
Json = dict[str, Any]


class Spot(NamedTuple, Generic[T]):
    """A value and where it stands."""

    value: T
    where: Where


class Kind(Protocol):
    def read(self, node: Node, found: list[Problem]) -> Spot[Any] | None: ...

    def schema(self, defs: dict[str, Json]) -> Json:
        """The kind as JSON Schema; shapes go to `defs` and are referred to."""
        ...


def mismatch(node: Node, expected: str, found: list[Problem]) -> None:
    """Report a node of the wrong form."""
    if bare := bare_ipv6(node):
        found.append(problem(node.where, "E111", f'an IPv6 address needs quotes here: "{bare}"'))
        return
    if isinstance(node, Scalar):
        got = "nothing" if node.empty else f"'{short(node.text)}'"
    else:
        got = "a mapping" if isinstance(node, Table) else "a list" if node.nodes else "an empty list"
    found.append(problem(node.where, "E106", f"expected {expected}, found {got}"))


@dataclass(frozen=True)
class Word:
    """One scalar, read by `parse` from its text."""

    what: str
    parse: Callable[[str], Any]
    json: Json

    def read(self, node: Node, found: list[Problem]) -> Spot[Any] | None:
        if not isinstance(node, Scalar) or node.empty:
            mismatch(node, self.what, found)
            return None
        try:
            return Spot(self.parse(node.text), node.where)
        except Wrong as wrong:
            found.append(problem(node.where, wrong.code, str(wrong)))
            return None

    def schema(self, defs: dict[str, Json]) -> Json:
        return dict(self.json)


@dataclass(frozen=True)
class Text:
    """Zone-file text: the scalar itself, so that its lines can be found again."""

    def read(self, node: Node, found: list[Problem]) -> Spot[Scalar] | None:
        if not isinstance(node, Scalar) or node.empty:
            mismatch(node, "zone-file text", found)
            return None
        return Spot(node, node.where)

    def schema(self, defs: dict[str, Json]) -> Json:
        return {"type": "string"}


@dataclass(frozen=True)
class Many:
    """A list of values, or one value alone; the value is a list of Spots."""

    what: str
    kind: Kind
    unique: bool = True

    def read(self, node: Node, found: list[Problem]) -> Spot[list[Spot[Any]]] | None:
        nodes = node.nodes if isinstance(node, Sequence) else [node]
        if not nodes or (isinstance(node, Scalar) and node.empty):
            mismatch(node, f"a list of {self.what}", found)
            return None
        spots: list[Spot[Any]] = []
        seen: set[Any] = set()
        for each in nodes:
            spot = self.kind.read(each, found)
            if spot and self.unique and spot.value in seen:
                found.append(problem(spot.where, "E215", f"'{short(getattr(each, 'text', ''))}' is listed twice"))
            elif spot:
                spots.append(spot)
                seen.update([spot.value] if self.unique else [])
        return Spot(spots, node.where)

    def schema(self, defs: dict[str, Json]) -> Json:
        one = self.kind.schema(defs)
        return {"anyOf": [one, {"type": "array", "items": one, "minItems": 1}]}


@dataclass(frozen=True)
class Items:
    """A list, never one value alone."""

    what: str
    kind: Kind

    def read(self, node: Node, found: list[Problem]) -> Spot[list[Spot[Any]]] | None:
        if not isinstance(node, Sequence):
            mismatch(node, f"a list of {self.what}", found)
            return None
        return Spot([spot for spot in (self.kind.read(each, found) for each in node.nodes) if spot], node.where)

    def schema(self, defs: dict[str, Json]) -> Json:
        return {"type": "array", "items": self.kind.schema(defs)}


@dataclass(frozen=True)
class Each:
    """A mapping from names to values of one kind; the value is a list of (name, value) Spots in file order.

    A name whose value is wrong stays, with None, so that references to it are not reported as well.
    """

    what: str
    name: Word
    kind: Kind

    def read(self, node: Node, found: list[Problem]) -> Spot[list[tuple[Spot[str], Spot[Any] | None]]] | None:
        if not isinstance(node, Table):
            mismatch(node, f"a mapping of {self.what}", found)
            return None
        pairs: dict[str, tuple[Spot[str], Spot[Any] | None]] = {}
        for key, value in node.pairs:
            name, read = self.name.read(key, found), self.kind.read(value, found)
            if name is None:
                continue
            if name.value in pairs:
                first = pairs[name.value][0].where.line
                found.append(problem(key.where, "E104", f"key '{key.text}' is given twice, first in line {first}"))
            else:
                pairs[name.value] = (name, read)
        return Spot(list(pairs.values()), node.where)

    def schema(self, defs: dict[str, Json]) -> Json:
        return {"type": "object", "additionalProperties": self.kind.schema(defs)}


@dataclass(frozen=True)
class Either:
    """A mapping of one shape, or else a single value."""

    single: Kind
    shape: Shape

    def read(self, node: Node, found: list[Problem]) -> Spot[Any] | None:
        if isinstance(node, Table) and not bare_ipv6(node):
            return self.shape.read(node, found)
        return self.single.read(node, found)

    def schema(self, defs: dict[str, Json]) -> Json:
        return {"anyOf": [self.single.schema(defs), self.shape.schema(defs)]}


class Key(NamedTuple):
    """One key of a shape: its name, what it holds and a sentence for people."""

    name: str
    kind: Kind
    doc: str
    required: bool = False


@dataclass(frozen=True)
class Fields:
    """A mapping as read. `given` has every known key that was written, `spots` those whose values could be read."""

    where: Where
    spots: Mapping[str, Spot[Any]]
    given: Mapping[str, Where]

    def get(self, key: str, default: Any = None) -> Any:
        spot = self.spots.get(key)
        return default if spot is None else spot.value

    def at(self, key: str) -> Where:
        """Where the value of `key` stands, or the mapping itself when there is none."""
        return self.spots[key].where if key in self.spots else self.where


@dataclass(frozen=True)
class Shape:
    """A mapping with known keys. `elsewhere` says where keys belong that are not at home here."""

    name: str
    doc: str
    keys: tuple[Key, ...]
    elsewhere: Mapping[str, str] = field(default_factory=dict)

    def read(self, node: Node, found: list[Problem]) -> Spot[Fields] | None:
        if not isinstance(node, Table):
            mismatch(node, f"a mapping ({', '.join(key.name for key in self.keys[:4])} ...)", found)
            return None
        known = {key.name: key for key in self.keys}
        spots: dict[str, Spot[Any]] = {}
        given: dict[str, Where] = {}
        for word, value in node.pairs:
            if word.text not in known:
                found.append(problem(word.where, "E103", self._unknown(word.text)))
                continue
            given[word.text] = word.where
            if spot := known[word.text].kind.read(value, found):
                spots[word.text] = spot
        for key in self.keys:
            if key.required and key.name not in given:
                found.append(problem(node.where, "E105", f"key '{key.name}' is missing: {key.doc}"))
        return Spot(Fields(node.where, spots, given), node.where)

    def _unknown(self, word: str) -> str:
        if word in self.elsewhere:
            return f"unknown key '{word}' here: {self.elsewhere[word]}"
        return f"unknown key '{short(word)}'{did_you_mean(word, [key.name for key in self.keys])}"

    def schema(self, defs: dict[str, Json]) -> Json:
        if self.name not in defs:
            defs[self.name] = {}  # the place is taken before its keys are described, so that it keeps the order of use
            defs[self.name] = self._described(defs)
        return {"$ref": f"#/$defs/{self.name}"}

    def _described(self, defs: dict[str, Json]) -> Json:
        properties = {key.name: {"description": key.doc, **key.kind.schema(defs)} for key in self.keys}
        described: Json = {"type": "object", "description": self.doc, "properties": properties, "additionalProperties": False}
        if required := [key.name for key in self.keys if key.required]:
            described["required"] = required
        return described
