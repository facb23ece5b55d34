"""Names in rules files -> folded wire form: relative to the zone, or full when they say so."""

from __future__ import annotations

from edgedns.steer.rules.words import Wrong

MAX_WIRE = 255  # RFC 1035 section 2.3.4


def in_zone(text: str, zone: str) -> str:
    """The full name (no final dot) of a record: relative, unless it ends in a dot or in the zone's own name."""
    if text == "@":
        return zone
    if text.endswith("."):
        return text[:-1]
    if text == zone or text.endswith("." + zone):
        return text
    return f"{text}.{zone}"


def host(text: str, zone: str) -> str:
    """The full name of a server: a single label lies in the zone, a name with a dot is complete."""
    if text == "@" or "." not in text:
        return in_zone(text, zone)
    return text.removesuffix(".")


def below(name: str, zone: str) -> bool:
    """Whether a full name is the zone's apex or lies under it."""
    return name == zone or name.endswith("." + zone)


def relative(name: str, zone: str) -> str:
    """A full name as written in the zone: `@`, `www`."""
    return "@" if name == zone else name.removesuffix("." + zone)


def wire(name: str) -> bytes:
    """Folded uncompressed wire form of a full name; Wrong when it is too long."""
    encoded = b"".join(bytes([len(label)]) + label.encode("ascii") for label in name.lower().split(".")) + b"\0"
    if len(encoded) > MAX_WIRE:
        raise Wrong("E201", f"the name has {len(encoded)} octets, the most is {MAX_WIRE}")
    return encoded
