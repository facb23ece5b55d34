"""Response rate limiting: a stage after the answer, so that a spoofed flood is not passed on to its victim.

Replies are counted by the client's /24 or /56 and by their outcome: an answer by its question, everything else by its kind, so
that a flood of random names is one outcome. The table is of fixed size; who comes last to a place takes it over.
"""

from __future__ import annotations

import zlib
from array import array
from dataclasses import dataclass, field, replace
from enum import IntEnum
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

PLACES = 1 << 16
WINDOW = 5.0
MOST = 1_000_000
COOKIE_OPTION = b"\x00\x0a\x00\x18"
QUESTION = 12
TC = 0x02
NXDOMAIN = 3


class Verdict(IntEnum):
    """What becomes of a reply: sent, sent truncated (a real client comes back over TCP), or not sent."""

    SEND = 0
    SLIP = 1
    DROP = 2


@dataclass(frozen=True, slots=True)
class Terms:
    """`rate`: replies a second to one prefix with one outcome, 0 for no limit. Of those over it every `slip`-th is truncated.

    `exempt` prefixes are never limited. With `dry_run` everything is sent and only counted.
    """

    rate: int = 0
    slip: int = 2
    dry_run: bool = False
    exempt: tuple[IPv4Network | IPv6Network, ...] = ()


def parse_terms(text: str) -> Terms:
    """Terms as an operator writes them: `RATE[,slip=N][,dry-run][,exempt=PREFIX ...]`. ValueError says what is wrong."""
    rate, *words = text.split(",")
    terms = Terms(rate=_whole(rate, "replies a second"))
    for word in words:
        name, _, value = word.partition("=")
        if name == "slip":
            terms = replace(terms, slip=_whole(value, "slip"))
        elif word == "dry-run":
            terms = replace(terms, dry_run=True)
        elif name == "exempt":
            terms = replace(terms, exempt=(*terms.exempt, ip_network(value)))
        else:
            raise ValueError(f"'{word}' is none of slip=N, dry-run and exempt=PREFIX")
    return terms


def _whole(text: str, what: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) < MOST):
        raise ValueError(f"'{text}' is no whole number ({what})")
    return int(text)


@dataclass(slots=True)
class State:
    """One worker's own table: by place the tag of its user, what is left of its rate, when, and how many were limited."""

    tag: array[int] = field(default_factory=lambda: array("I", bytes(4 * PLACES)))
    left: array[float] = field(default_factory=lambda: array("d", bytes(8 * PLACES)))
    at: array[float] = field(default_factory=lambda: array("d", bytes(8 * PLACES)))
    over: array[int] = field(default_factory=lambda: array("I", bytes(4 * PLACES)))


def limit(terms: Terms, state: State, packet: bytes, reply: bytes, client: bytes, now: float) -> Verdict:
    """What becomes of `reply` to `packet` over UDP; `now` is Unix seconds."""
    if not terms.rate or has_valid_cookie(packet, reply):
        return Verdict.SEND
    prefix = client[:3] if len(client) == 4 else client[:7]
    place = zlib.crc32(outcome(reply), zlib.crc32(prefix))
    at = place & PLACES - 1
    if state.tag[at] != place:
        state.tag[at], state.left[at], state.at[at], state.over[at] = place, terms.rate, now, 0
    gained = (now - state.at[at]) * terms.rate
    state.at[at] = now
    # What a flood owes is kept for a while, so that it does not get a fresh second every second.
    left = max(min(terms.rate, state.left[at] + gained) - 1.0, -WINDOW * terms.rate)
    state.left[at] = left
    if left >= 0.0 or is_exempt(terms, client):
        return Verdict.SEND
    over = state.over[at] = state.over[at] + 1 & 0xFFFFFFFF
    return Verdict.SLIP if terms.slip and over % terms.slip == 0 else Verdict.DROP


def outcome(reply: bytes) -> bytes:
    """What replies are counted by: the question of an answer, else the kind of the reply."""
    rcode, answers = reply[3] & 0x0F, reply[6:8] != b"\0\0"
    if rcode == 0 and answers:
        end = reply.find(b"\0", 12) + 5
        return reply[12:end].lower()
    return bytes((rcode, reply[2] & 0x04))


def has_valid_cookie(packet: bytes, reply: bytes) -> bool:
    """Whether the query's server cookie was good: it is given back as it came (RFC 9018 section 4.3)."""
    return reply[-28:-24] == COOKIE_OPTION and packet.find(reply[-24:]) > 0


def is_exempt(terms: Terms, client: bytes) -> bool:
    address = ip_address(client)
    return any(address.version == network.version and address in network for network in terms.exempt)


def truncated(reply: bytes) -> bytes:
    """`reply` as its question alone, if it has one, with TC set: never longer than the query was."""
    questions, end = reply[5], QUESTION
    if questions:
        while reply[end]:
            end += reply[end] + 1
        end += 5
    return reply[:2] + bytes((reply[2] | TC, reply[3], 0, questions, 0, 0, 0, 0, 0, 0)) + reply[QUESTION:end]
