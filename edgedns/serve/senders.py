"""Who sends samples: the admin token speaks for every vantage, a vantage's own token for that vantage alone.

A tokens file has a vantage a line, `fra1: TOKEN` or `fra1: sha256:HEX`, where HEX is the SHA-256 of the token: then the file
gives nobody the means to send. A vantage may have several lines, while its token is being changed. The file is followed.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from aiohttp import web

from edgedns.errors import SourceError
from edgedns.model import NAME
from edgedns.plainfile import mark, read_plain
from edgedns.serve.guard import Refused, require_token

SENT = "Edgedns-Sent"
LARGEST = 1 << 20
SHORTEST = 16

_LINE = re.compile(rf"({NAME.pattern})\s*:\s*(\S+)")
_TIME = re.compile(r"[0-9]{1,12}(\.[0-9]{1,9})?")

Digests = tuple[tuple[bytes, str], ...]  # (SHA-256 of the token, vantage)


class Sender(NamedTuple):
    """Of one request: the only vantage that it may speak for (None: any), and by how many seconds its clock is ahead."""

    vantage: str | None = None
    ahead: float | None = None


class VantageTokens:
    """What a tokens file says, as it is now; without a file nobody has a token of their own."""

    def __init__(self, path: Path | None = None, log: Callable[[str], None] = lambda line: None) -> None:
        """SourceError where the file can't be used."""
        self._path = path
        self._log = log
        self._mark = mark(path)
        self._digests: Digests = read_tokens(path) if path else ()

    def __repr__(self) -> str:
        return f"<tokens of {len(self._digests)}>"

    def follow(self) -> None:
        """To be called every second or so. What is wrong with the file is told once, and the tokens stay as they were."""
        if self._path is None or (now := mark(self._path)) == self._mark:
            return
        self._mark = now
        try:
            self._digests = read_tokens(self._path)
        except SourceError as error:
            self._log(f"{error}; the vantages' tokens stay as they were")
        else:
            self._log(f"{self._path}: tokens of {len({name for _, name in self._digests})} vantages")

    def vantage_of(self, token: bytes) -> str | None:
        """Whose token it is; each is compared, so that time tells nothing."""
        given, found = hashlib.sha256(token).digest(), None
        for digest, vantage in self._digests:
            if hmac.compare_digest(digest, given):
                found = vantage
        return found


TOKENS = web.AppKey("vantage_tokens", VantageTokens)
"""Where the application has them."""


def sender_of(request: web.Request, token: str, content_types: tuple[str, ...] = ()) -> Sender:
    """Who sends this. Refused 401 for nobody that we know, 400 for a time that is none."""
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    tokens = request.app.get(TOKENS)
    vantage = tokens.vantage_of(given.strip().encode()) if tokens and scheme.lower() == "bearer" else None
    if vantage is None:
        require_token(request, token, content_types)
    return Sender(vantage, _ahead(request.headers.get(SENT)))


def require_speaks_for(sender: Sender, vantage: str) -> None:
    """Refused 403 where a vantage's own token is used in another one's name."""
    if sender.vantage not in (None, vantage):
        raise Refused(403, f"this token speaks for vantage {sender.vantage!r}, not {vantage[:80]!r}")


def _ahead(sent: str | None) -> float | None:
    if sent is None:
        return None
    if not _TIME.fullmatch(sent):
        raise Refused(400, f"{SENT} is not a Unix time in seconds")
    return float(sent) - time.time()


def read_tokens(path: Path) -> Digests:
    """What `parse_tokens` makes of a file that not everybody may read."""
    file = read_plain(path, LARGEST)
    if file.is_everybodys:
        raise SourceError(f"{path}: everybody can read or write the tokens (mode {file.mode:o}): chmod o-rwx")
    return parse_tokens(file.content.decode("utf-8", "replace"), str(path))


def parse_tokens(text: str, name: str) -> Digests:
    """The lines of a tokens file; SourceError names file and line, and never what a token is."""
    found: dict[bytes, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            raise SourceError(f"{name}:{number}: expected `VANTAGE: TOKEN`")
        vantage, digest = match[1], _digest(match[2], f"{name}:{number}")
        if found.setdefault(digest, vantage) != vantage:
            raise SourceError(f"{name}:{number}: {vantage} has the same token as {found[digest]}")
    return tuple(found.items())


def _digest(token: str, where: str) -> bytes:
    if token.startswith("sha256:"):
        if not re.fullmatch(r"sha256:[0-9a-fA-F]{64}", token):
            raise SourceError(f"{where}: after sha256: come 64 hexadecimal digits")
        return bytes.fromhex(token[7:])
    if len(token) < SHORTEST or not all("!" <= char <= "~" for char in token):
        raise SourceError(f"{where}: a token is at least {SHORTEST} printable ASCII characters")
    return hashlib.sha256(token.encode()).digest()
