"""YAML bytes -> a plain tree of text with positions, or what is wrong with them.

Nothing is typed here: a plain scalar is the text that was written, and the reader of a key decides what it means.
That closes YAML 1.1's traps at the root (`NO`, `010`, `1:30`). Anchors, aliases, tags and further documents are
refused; size, depth and count are bounded, so hostile bytes cost little and raise nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from edgedns.errors import Problem, problem
from edgedns.model import Where

MAX_BYTES = 8 << 20
MAX_DEPTH = 32
MAX_NODES = 1_000_000
MAX_REFUSALS = 100

# What YAML itself cannot hold (YAML 1.1, 5.1): C0 without tab and breaks, DEL, C1 without NEL, non-characters.
_UNPRINTABLE = re.compile("[\0-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ufffe\uffff]")
_BREAK = re.compile("\r\n|[\n\r\x85\u2028\u2029]")
_BARE_IPV6 = re.compile(r"""(?<!["'\w:.])((?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{0,4}(?:/\d+)?)""")


@dataclass(frozen=True, slots=True)
class Scalar:
    """Text as written; `plain` when it stood without quotes, `block` when it was a `|` or `>` block."""

    where: Where
    text: str
    plain: bool = True
    block: bool = False

    @property
    def empty(self) -> bool:
        return self.plain and self.text in ("", "~", "null")


@dataclass(frozen=True, slots=True)
class Sequence:
    where: Where
    nodes: list[Node] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Table:
    """A mapping, its pairs in file order; keys are unique scalars."""

    where: Where
    pairs: list[tuple[Scalar, Node]] = field(default_factory=list)


Node = Scalar | Sequence | Table


def lines(text: str) -> list[str]:
    """The lines of a text as YAML counts them."""
    return _BREAK.split(text)


def parse(content: bytes, file: str, found: list[Problem]) -> Node | None:
    """The file's one document, or None after adding to `found` why there is none."""
    text = _decode(content, file, found)
    if text is None:
        return None
    try:
        return _Builder(file, found).build(text)
    except yaml.YAMLError as error:
        found.append(_syntax(error, file, lines(text)))
        return None


def _decode(content: bytes, file: str, found: list[Problem]) -> str | None:
    text = decode(content, file, found)
    if text is not None and not text.strip():
        found.append(problem((file, 1, 1), "E109", "the file is empty"))
        return None
    return text


def decode(content: bytes, file: str, found: list[Problem]) -> str | None:
    """UTF-8 text without a byte order mark or control characters; None when it is anything else."""
    if len(content) > MAX_BYTES:
        found.append(problem((file, 1, 1), "E108", f"the file has {len(content)} bytes, the most is {MAX_BYTES}"))
        return None
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        where = _place(file, content[: error.start].decode())
        found.append(problem(where, "E101", f"byte 0x{content[error.start]:02x} is not UTF-8: save the file as UTF-8"))
        return None
    if text.startswith("\ufeff"):
        found.append(problem((file, 1, 1), "E101", "the file begins with a byte order mark: save it as plain UTF-8"))
        return None
    if bad := _UNPRINTABLE.search(text):
        where = _place(file, text[: bad.start()])
        found.append(problem(where, "E101", f"control character U+{ord(bad[0]):04X} in the text"))
        return None
    return text


def _place(file: str, before: str) -> Where:
    above = lines(before)
    return Where(file, len(above), len(above[-1]) + 1)


def _syntax(error: yaml.YAMLError, file: str, text: list[str]) -> Problem:
    mark = getattr(error, "problem_mark", None)
    where = Where(file, mark.line + 1, mark.column + 1) if mark else Where(file, 1, 1)
    line = text[where.line - 1] if where.line <= len(text) else ""
    if bare := next((m for m in _BARE_IPV6.finditer(line) if m.start() < where.column <= m.end() + 1), None):
        return problem(where._replace(column=bare.start() + 1), "E111", _quote_hint(bare[1]))
    said = getattr(error, "problem", None) or str(error).splitlines()[0]
    return problem(where, "E102", f"not YAML: {said}{_syntax_hint(line[where.column - 1 :][:1], str(said))}")


def _syntax_hint(character: str, said: str) -> str:
    if character == "\t":
        return " (a tab: indent with spaces)"
    if character in tuple("@`%"):
        return f" (text that begins with {character} needs quotes)"
    if "alphabetic or numeric" in said:
        return " (text that begins with * or & needs quotes)"
    return ""


def _quote_hint(text: str) -> str:
    return f"an IPv6 address needs quotes here: \"{text}\""


def bare_ipv6(node: Node) -> str | None:
    """The address that an unquoted `2001:db8::` was meant to be: YAML reads its last colon as a mapping's."""
    if isinstance(node, Table) and len(node.pairs) == 1:
        key, value = node.pairs[0]
        if isinstance(value, Scalar) and value.empty and re.fullmatch(r"[0-9A-Fa-f:]*:[0-9A-Fa-f:]*", key.text):
            return f"{key.text}:"
    return None


class _Builder:
    """Folds the parser's events into a tree, without recursion."""

    def __init__(self, file: str, found: list[Problem]) -> None:
        self.file = file
        self.found = found
        self.refused = 0

    def build(self, text: str) -> Node | None:
        root: Sequence = Sequence(Where(self.file, 1, 1))
        open_nodes: list[Sequence | _OpenTable] = [root]
        for count, event in enumerate(self._events(text)):
            if isinstance(event, yaml.CollectionEndEvent):
                done = open_nodes.pop()
                if isinstance(done, _OpenTable):
                    self._close(done)
                continue
            node = self._node(event)
            open_nodes[-1].nodes.append(node.table if isinstance(node, _OpenTable) else node)
            if not isinstance(node, Scalar):
                open_nodes.append(node)
            if self._too_much(event, count, len(open_nodes) - 1):
                return None
        if not root.nodes and not self.refused:
            self.found.append(problem((self.file, 1, 1), "E109", "the file holds nothing but comments"))
        return root.nodes[0] if root.nodes and not self.refused else None

    def _events(self, text: str) -> Iterator[Any]:
        """The events that matter, what we refuse taken out and reported."""
        documents = 0
        for event in yaml.parse(text, Loader=yaml.CSafeLoader):
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    self._refuse(event, "a second document ('---'): one file holds one document")
                    return
            elif isinstance(event, yaml.AliasEvent):
                self._refuse(event, f"the alias '*{event.anchor}': aliases are not allowed (quote text that begins with *)")
            elif isinstance(event, yaml.NodeEvent | yaml.CollectionEndEvent):
                self._refuse_marks(event)
                yield event
            if self.refused >= MAX_REFUSALS:
                return

    def _refuse_marks(self, event: Any) -> None:
        if anchor := getattr(event, "anchor", None):
            self._refuse(event, f"the anchor '&{anchor}': anchors are not allowed (quote text that begins with &)")
        if tag := getattr(event, "tag", None):
            shown = tag.replace("tag:yaml.org,2002:", "!!")
            self._refuse(event, f"the tag '{shown}': tags are not allowed (quote text that begins with !)")

    def _refuse(self, event: Any, what: str) -> None:
        self.refused += 1
        self.found.append(problem(self._where(event), "E107", what))

    def _where(self, event: Any) -> Where:
        return Where(self.file, event.start_mark.line + 1, event.start_mark.column + 1)

    def _node(self, event: Any) -> Scalar | Sequence | _OpenTable:
        where = self._where(event)
        if isinstance(event, yaml.ScalarEvent):
            return Scalar(where, event.value, plain=not event.style, block=event.style in ("|", ">"))
        if isinstance(event, yaml.SequenceStartEvent):
            return Sequence(where)
        return _OpenTable(Table(where))

    def _too_much(self, event: Any, count: int, depth: int) -> bool:
        if depth > MAX_DEPTH:
            self.found.append(problem(self._where(event), "E108", f"nested deeper than {MAX_DEPTH} levels"))
        elif count >= MAX_NODES:
            self.found.append(problem(self._where(event), "E108", f"more than {MAX_NODES} values in one file"))
        else:
            return False
        return True

    def _close(self, done: _OpenTable) -> None:
        """Pair keys with values; a key given twice, a merge and a key that is no word are reported."""
        seen: dict[str, Where] = {}
        flat = done.nodes
        for key, value in zip(flat[::2], flat[1::2], strict=False):
            if not isinstance(key, Scalar):
                self.found.append(problem(key.where, "E106", "a key must be a word, not a list or a mapping"))
            elif key.text == "<<" and key.plain:
                self.found.append(problem(key.where, "E107", "the merge key '<<': merges are not allowed"))
            elif key.text in seen:
                first = seen[key.text].line
                self.found.append(problem(key.where, "E104", f"key '{key.text}' is given twice, first in line {first}"))
            else:
                seen[key.text] = key.where
                done.table.pairs.append((key, value))


@dataclass(slots=True)
class _OpenTable:
    """A mapping whose end is still to come: keys and values in turn."""

    table: Table
    nodes: list[Node] = field(default_factory=list)
