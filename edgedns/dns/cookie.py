"""Server cookies that any node with the same secret can check: RFC 7873, in the form of RFC 9018.

A server cookie is version 1, three reserved octets, a timestamp and SipHash-2-4 of client cookie, those eight octets
and the client's address. Secrets are 16 octets, the current one first; the others are still believed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import IntEnum
from functools import lru_cache
from hmac import compare_digest
from struct import unpack

CLIENT = 8
SERVER = 16
SECRET = 16
SECRETS_MOST = 4

_HEXADECIMAL = re.compile(rf"[0-9A-Fa-f]{{{SECRET * 2}}}")
_HEAD = b"\x01\0\0\0"
_MASK = 0xFFFFFFFFFFFFFFFF
# RFC 9018 section 4.3: "The DNS server SHOULD allow cookies within a 1-hour period in the past and a 5-minute period
# into the future", and "SHOULD generate a new Server Cookie at least if the received Server Cookie from the client is
# more than half an hour old".
_OLDEST = 3600
_EARLIEST = -300
_RENEW = 1800


class Verdict(IntEnum):
    """What a cookie is worth: nothing; ours, but due for renewal; ours and good to be sent back as it is."""

    BAD = 0
    VALID = 1
    FRESH = 2


def make(client: bytes, address: bytes, secret: bytes, now: float) -> bytes:
    """The content of a reply's COOKIE option: the client's 8 octets and our 16.

    `address` is the client's, packed; `now` Unix seconds.
    """
    head = _HEAD + (int(now) & 0xFFFFFFFF).to_bytes(4, "big")
    return client + head + _hash(client + head + address, secret)


def check(cookie: bytes, address: bytes, secrets: Sequence[bytes], now: float) -> Verdict:
    """What the COOKIE option content `cookie` from `address` is worth; a lone client cookie is BAD."""
    if len(cookie) != CLIENT + SERVER or cookie[CLIENT] != 1:
        return Verdict.BAD
    age = _age(int.from_bytes(cookie[12:16], "big"), now)
    if not _EARLIEST <= age <= _OLDEST:
        return Verdict.BAD
    for place, secret in enumerate(secrets):
        # The reserved octets are hashed as sent (RFC 9018 appendix A.3): other nodes may come to use them.
        if compare_digest(_hash(cookie[:16] + address, secret), cookie[16:]):
            return Verdict.FRESH if not place and age <= _RENEW else Verdict.VALID
    return Verdict.BAD


def renew(cookie: bytes, address: bytes, secrets: Sequence[bytes], now: float) -> tuple[Verdict, bytes]:
    """What `cookie` is worth, and the option content to reply with: itself while it is fresh, else a new one."""
    verdict = check(cookie, address, secrets, now)
    if verdict is Verdict.FRESH:
        return verdict, cookie
    return verdict, make(cookie[:CLIENT], address, secrets[0], now)


def parse_secrets(text: str) -> tuple[bytes, ...]:
    """Secrets as NSD and unbound keep them in a file: 32 hexadecimal digits a line, the one that makes cookies first.

    Empty lines, and those that begin with `#`, are passed over. ValueError says what is wrong, and never shows a line.
    """
    found: list[bytes] = []
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        if not _HEXADECIMAL.fullmatch(line):
            raise ValueError(f"line {number} is not a secret of {SECRET * 2} hexadecimal digits")
        found.append(bytes.fromhex(line))
        if found[-1] in found[:-1]:
            raise ValueError(f"line {number} is a secret that is there already")
    if not 1 <= len(found) <= SECRETS_MOST:
        raise ValueError(f"there are {len(found)} secrets, and 1 to {SECRETS_MOST} are possible")
    return tuple(found)


def _age(stamp: int, now: float) -> int:
    """Seconds since `stamp`, negative for the future.

    RFC 9018 section 4.3: "All comparisons involving these fields MUST use 'Serial number arithmetic'" (RFC 1982).
    """
    return ((int(now) - stamp + 0x80000000) & 0xFFFFFFFF) - 0x80000000


@lru_cache(maxsize=8192)
def _hash(message: bytes, secret: bytes) -> bytes:
    """SipHash-2-4's 8 octets, remembered, because a resolver sends the same cookie for half an hour."""
    return siphash24(message, secret).to_bytes(8, "little")


def siphash24(message: bytes, key: bytes) -> int:
    """SipHash-2-4 (Aumasson and Bernstein, 2012, section 2) of `message` under a 16-octet key, as a 64-bit number."""
    k0, k1 = unpack("<QQ", key)
    state = (k0 ^ 0x736F6D6570736575, k1 ^ 0x646F72616E646F6D, k0 ^ 0x6C7967656E657261, k1 ^ 0x7465646279746573)
    # The last word holds what is left of the message and, in its top octet, the length.
    padded = message + b"\0" * (7 - len(message) % 8) + bytes((len(message) & 0xFF,))
    for word in unpack(f"<{len(padded) // 8}Q", padded):
        v0, v1, v2, v3 = _rounds(*state[:3], state[3] ^ word, 2)
        state = v0 ^ word, v1, v2, v3
    v0, v1, v2, v3 = _rounds(state[0], state[1], state[2] ^ 0xFF, state[3], 4)
    return v0 ^ v1 ^ v2 ^ v3


def _rounds(v0: int, v1: int, v2: int, v3: int, count: int) -> tuple[int, int, int, int]:
    for _ in range(count):
        v0 = (v0 + v1) & _MASK
        v2 = (v2 + v3) & _MASK
        v1 = (v1 << 13 | v1 >> 51) & _MASK ^ v0
        v3 = (v3 << 16 | v3 >> 48) & _MASK ^ v2
        v0 = (v0 << 32 | v0 >> 32) & _MASK
        v2 = (v2 + v1) & _MASK
        v0 = (v0 + v3) & _MASK
        v1 = (v1 << 17 | v1 >> 47) & _MASK ^ v2
        v3 = (v3 << 21 | v3 >> 43) & _MASK ^ v0
        v2 = (v2 << 32 | v2 >> 32) & _MASK
    return v0, v1, v2, v3
