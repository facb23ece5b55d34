"""Domain names: uncompressed wire form, with the final zero octet, and the text that operators write.

A name is *folded* when its ASCII letters are lower-case; names are compared and looked up folded.
Functions other than `scan` and `from_text` expect a well-formed name and check nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

ROOT = b"\0"
WILDCARD = b"\x01*"
MAX_LABEL = 63
MAX_NAME = 255

_ESCAPED = frozenset(b'."\\()@$;')


class BadName(ValueError):
    """Text or bytes that are no domain name, and why."""


def fold(name: bytes) -> bytes:
    """`name` in lower-case.

    Length octets are at most 63, below "A" (65), so the whole string can be folded at once.
    """
    return name.lower()


def scan(wire: bytes | bytearray, start: int) -> int:
    """The offset just past the uncompressed name that begins at `start`.

    Raises BadName for a compression pointer, a reserved label type, a name over 255 octets, or one cut off.
    """
    at = start
    size = len(wire)
    while at < size:
        length = wire[at]
        at += 1 + length
        # RFC 1035 section 2.3.4: "labels 63 octets or less", "names 255 octets or less".
        if length > MAX_LABEL:
            raise BadName("a compression pointer or a reserved label type")
        if at - start > MAX_NAME:
            raise BadName("a name longer than 255 octets")
        if not length:
            return at
    raise BadName("a name that is cut off")


def labels(name: bytes) -> list[bytes]:
    """The labels of `name`, leftmost first, without the root's empty one."""
    found = []
    at = 0
    while length := name[at]:
        found.append(name[at + 1 : at + 1 + length])
        at += 1 + length
    return found


def join(parts: list[bytes] | tuple[bytes, ...]) -> bytes:
    """The name made of these labels, leftmost first. BadName where one is empty or too long, or all are."""
    for label in parts:
        if not label:
            raise BadName("an empty label")
        if len(label) > MAX_LABEL:
            raise BadName(f"a label of {len(label)} octets; 63 are allowed")
    name = b"".join(bytes((len(label),)) + label for label in parts) + ROOT
    if len(name) > MAX_NAME:
        raise BadName(f"a name of {len(name)} octets; 255 are allowed")
    return name


def label_count(name: bytes) -> int:
    """How many labels `name` has; the root has none."""
    count = at = 0
    while length := name[at]:
        count += 1
        at += 1 + length
    return count


def parent(name: bytes) -> bytes:
    """`name` without its leftmost label; the root is its own parent."""
    return name[1 + name[0] :] if name[0] else name


def is_subdomain(name: bytes, apex: bytes) -> bool:
    """Is folded `name` equal to or below folded `apex`?"""
    rest = len(name) - len(apex)
    if rest < 0 or not name.endswith(apex):
        return False
    # "xexample." ends in the octets of "example." only by chance: a label has to begin there.
    at = 0
    while at < rest:
        at += 1 + name[at]
    return at == rest


def suffixes(name: bytes, most: int = MAX_NAME) -> Iterator[bytes]:
    """`name` itself and every name above it, the root last; only those of at most `most` labels."""
    places, at = [0], 0
    while length := name[at]:
        at += 1 + length
        places.append(at)
    for at in places[-1 - most :]:
        yield name[at:]


def ancestors(name: bytes, apex: bytes) -> list[bytes]:
    """The names from `apex` down to `name`, both included; `name` must be at or below `apex`."""
    path = []
    at = 0
    last = len(name) - len(apex)
    while at <= last:
        path.append(name[at:])
        at += 1 + name[at]
    path.reverse()
    return path


def to_text(name: bytes) -> str:
    """`name` as a zone file writes it, with the final dot; odd octets escaped (RFC 4343 section 2.1)."""
    return "".join(_label_text(label) + "." for label in labels(name)) or "."


def _label_text(label: bytes) -> str:
    # RFC 1035 section 5.1: "\DDD where each D is a digit is the octet corresponding to the decimal number".
    return "".join(
        f"\\{chr(octet)}" if octet in _ESCAPED else chr(octet) if 0x21 <= octet <= 0x7E else f"\\{octet:03d}"
        for octet in label
    )


def from_text(text: str) -> bytes:
    """The absolute name written as `text`, with or without its final dot; the case is kept.

    Escapes are those of RFC 1035 section 5.1. No IDNA: only ASCII is taken. Raises BadName.
    """
    if text == ".":
        return ROOT
    if not text:
        raise BadName("an empty name")
    if not text.isascii():
        raise BadName("not ASCII; write internationalised names in their xn-- form")
    parts = _split(text)
    if not parts[-1]:
        del parts[-1]
    return join(parts)


def _split(text: str) -> list[bytes]:
    parts = [bytearray()]
    at = 0
    while at < len(text):
        if text[at] == "\\":
            octet, at = _escape(text, at + 1)
            parts[-1].append(octet)
            continue
        if text[at] == ".":
            parts.append(bytearray())
        else:
            parts[-1].append(ord(text[at]))
        at += 1
    return [bytes(part) for part in parts]


def _escape(text: str, at: int) -> tuple[int, int]:
    """The octet that the escape at `at` (past its backslash) stands for, and where the text goes on."""
    digits = text[at : at + 3]
    if not digits:
        raise BadName("a backslash with nothing behind it")
    if not digits[0].isdigit():
        return ord(digits[0]), at + 1
    if len(digits) < 3 or not digits.isdigit() or int(digits) > 255:
        raise BadName(f"\\{digits} is no escape: three digits up to 255 are needed")
    return int(digits), at + 3
