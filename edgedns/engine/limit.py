"""Response rate limiting: a stage after the answer, so that a spoofed flood is not passed on to its victim.

Two things are held against the client's /24 or /56. *Surplus*: the octets of its replies beyond 1.5 times those of its queries,
whatever was asked, so that a flood never becomes much more than it was; what does not amplify costs nothing, so that a
resolver which asks for ten thousand client subnets is not touched. And, where a *rate* is given, replies by their outcome: an
answer by its question, everything else by its kind, so that a flood of random names is one outcome.

The table is of fixed size, and those who meet at a place of it share it: nobody gets a fresh start by coming between.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from mmap import mmap

from edgedns.dns import cookie

PLACES = 1 << 16
BURST = 1.0
WINDOW = 5.0
MOST = 1_000_000_000
# A /24 without cookies may get 40 answers of 1,232 octets a second to short questions, or 2,000 of the usual NXDOMAIN.
SURPLUS = 100_000
DEFAULT = f"surplus={SURPLUS}"
OFF = "off"
NONE_ADDITIONAL = b"\0\0"
COOKIE_OPTION = b"\x00\x0a\x00\x18"
FULL = cookie.CLIENT + cookie.SERVER
COOKIE_SIZE = len(COOKIE_OPTION) + FULL
QUESTION = 12
TC = 0x02
NXDOMAIN, NOTAUTH = 3, 9


class Verdict(IntEnum):
    """What becomes of a reply: sent, sent truncated (a real client comes back over TCP), or not sent."""

    SEND = 0
    SLIP = 1
    DROP = 2


@dataclass(frozen=True, slots=True)
class Terms:
    """`rate`: replies a second to one prefix with one outcome; `surplus`: octets a second to one prefix; 0 for no limit.

    Of those over it every `slip`-th is truncated. `exempt` prefixes are never limited. With `dry_run` everything is sent, and
    only counted.
    """

    rate: int = 0
    slip: int = 2
    dry_run: bool = False
    exempt: tuple[IPv4Network | IPv6Network, ...] = ()
    surplus: int = 0

    @property
    def limits(self) -> bool:
        return bool(self.rate or self.surplus)


def parse_terms(text: str) -> Terms:
    """Terms as operators write them: `off`, or in any order `[RATE][,surplus=OCTETS][,slip=N][,dry-run][,exempt=PREFIX ...]`.

    The surplus is limited unless it is said to be 0. ValueError says what is wrong.
    """
    if text == OFF:
        return Terms()
    terms = Terms(surplus=SURPLUS)
    for word in text.split(","):
        name, _, value = word.partition("=")
        if name == "surplus":
            terms = replace(terms, surplus=_whole(value, name))
        elif name == "slip":
            terms = replace(terms, slip=_whole(value, name))
        elif word == "dry-run":
            terms = replace(terms, dry_run=True)
        elif name == "exempt":
            terms = replace(terms, exempt=(*terms.exempt, ip_network(value)))
        elif word.isdigit():
            terms = replace(terms, rate=_rate(word))
        else:
            raise ValueError(f"'{word}' is none of {OFF}, a rate, surplus=OCTETS, slip=N, dry-run and exempt=PREFIX")
    return terms


def _rate(text: str) -> int:
    rate = _whole(text, "replies a second")
    if not rate:
        raise ValueError(f"'{text}' would be no reply at all; '{OFF}' limits nothing")
    return rate


def _whole(text: str, what: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) < MOST):
        raise ValueError(f"'{text}' is no whole number ({what})")
    return int(text)


@dataclass(slots=True)
class State:
    """One socket's own table. By place: until when what was sent is paid for (Unix seconds), and how many were limited.

    Of its memory only what was once used is taken.
    """

    due: memoryview[float] = field(default_factory=lambda: memoryview(mmap(-1, 8 * PLACES)).cast("d"))
    over: memoryview[int] = field(default_factory=lambda: memoryview(mmap(-1, 4 * PLACES)).cast("I"))


def limit(
    terms: Terms, state: State, packet: bytes, reply: bytes, client: bytes, now: float, secrets: Sequence[bytes] = ()
) -> Verdict:
    """What becomes of `reply` to `packet` over UDP; `now` is Unix seconds, `secrets` are those of server cookies."""
    surplus = 2 * len(reply) - 3 * len(packet) if terms.surplus else 0
    if (surplus <= 0 and not terms.rate) or has_valid_cookie(packet, reply, client, now, secrets):
        return Verdict.SEND
    prefix = zlib.crc32(client[:3] if len(client) == 4 else client[:7])
    over = 0
    if surplus > 0:
        over = _spend(state, prefix, surplus / (2 * terms.surplus), now)
    if terms.rate:
        over = _spend(state, zlib.crc32(outcome(reply), prefix), 1 / terms.rate, now) or over
    if not over or is_exempt(terms, client):
        return Verdict.SEND
    return Verdict.SLIP if terms.slip and over % terms.slip == 0 else Verdict.DROP


def _spend(state: State, place: int, cost: float, now: float) -> int:
    """Take `cost` seconds of a place's time: 0, or the number of those that it could not pay.

    What a flood owes is kept for a while, so that it does not get a fresh second every second.
    """
    at = place & PLACES - 1
    due = state.due[at] = min(max(state.due[at], now - BURST) + cost, now + WINDOW)
    if due - cost / 2 <= now:  # half of it: sums of times round
        return 0
    over = state.over[at] = (state.over[at] + 1 & 0xFFFFFFFF) or 1
    return over


def outcome(reply: bytes) -> bytes:
    """What replies are counted by: the question of an answer, else the kind of the reply."""
    rcode, answers = reply[3] & 0x0F, reply[6:8] != b"\0\0"
    if rcode == 0 and answers:
        end = reply.find(b"\0", 12) + 5
        return reply[12:end].lower()
    return bytes((rcode, reply[2] & 0x04))


def has_valid_cookie(packet: bytes, reply: bytes, client: bytes, now: float, secrets: Sequence[bytes]) -> bool:
    """Whether the query's server cookie was good: it is given back as it came, or a new one for it (RFC 9018 section 4.3).

    It ends the OPT record that ends the reply; without additional records, or with TSIG, that ends in octets of the asker's.
    """
    if reply[-COOKIE_SIZE:-FULL] != COOKIE_OPTION or reply[10:12] == NONE_ADDITIONAL or reply[3] & 0x0F == NOTAUTH:
        return False
    made = reply[-FULL:]
    at = packet.find(COOKIE_OPTION + made[: cookie.CLIENT])
    given = packet[at + len(COOKIE_OPTION) :][:FULL] if at > 0 else b""
    return given == made or bool(cookie.check(given, client, secrets, now))


def is_exempt(terms: Terms, client: bytes) -> bool:
    if not terms.exempt:
        return False
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
