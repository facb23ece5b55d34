"""The secrets of server cookies: those of a file that nodes share, else one of this node's own, changed each month.

RFC 9018 section 5 recommends to change a secret regularly, and finds once a month adequate. Workers follow what is kept in the
store.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from edgedns.dns.cookie import SECRET, parse_secrets
from edgedns.errors import SourceError
from edgedns.plainfile import PlainFile, mark, read_plain
from edgedns.store.local import CookieSecrets, LocalStore

DAY = 86400.0
MONTH = 30 * DAY
LARGEST = 4096


def rolled(kept: CookieSecrets, now: float, fresh: bytes) -> CookieSecrets:
    """A node's own secrets as they are to be at `now` (Unix seconds); `fresh` is a new one, should it be time for that.

    The one before is believed for another day: clients use a cookie for an hour, and come back when TTLs end.
    """
    age = now - kept.since
    if kept.shared or not 0 <= age < MONTH:
        return CookieSecrets((fresh, kept.keys[0]), now)
    return kept._replace(keys=kept.keys[:1]) if age >= DAY else kept


class Secrets:
    """Keeps the store's secrets as the file has them, or rolls the node's own where `path` is None. Not thread-safe."""

    def __init__(self, store: LocalStore, path: Path | None, log: Callable[[str], None]) -> None:
        self._store = store
        self._path = path
        self._log = log
        self._seen = self._last = mark(path)
        self._read = False

    def follow(self, now: float) -> None:
        """To be called every second or so. What is wrong with the file is told once, and the secrets stay as they were."""
        if self._path is None:
            self._roll(now)
        elif self._has_changed():
            try:
                keys, file = read_secrets(self._path)
            except SourceError as error:
                self._log(f"{error}; the cookie secrets stay as they were")
                return
            try:
                self._take(keys, file, self._path, now)
            except SourceError:  # the state directory's fault: it is tried again
                self._read = False
                raise

    def _roll(self, now: float) -> None:
        kept = self._store.cookie_secrets()
        if kept is None:
            self._store.ensure_secrets(now)
            return
        made = rolled(kept, now, os.urandom(SECRET))
        if made != kept:
            self._store.keep_cookie_secrets(made)

    def _has_changed(self) -> bool:
        """At first, and where two looks in a row see another file than the one that was read: it may be half written."""
        now, before = mark(self._path), self._last
        self._last = now
        if self._read and (now == self._seen or now != before):
            return False
        self._read, self._seen = True, now
        return True

    def _take(self, keys: tuple[bytes, ...], file: PlainFile, path: Path, now: float) -> None:
        if file.is_everybodys:
            self._log(f"{path}: everybody can read or write the cookie secrets (mode {file.mode:o}): chmod o-rwx")
        kept = self._store.cookie_secrets()
        if kept is None or (kept.keys, kept.shared) != (keys, True):
            self._store.keep_cookie_secrets(CookieSecrets(keys, now, shared=True))
            self._log(f"{path}: {len(keys)} cookie secret{'s' * (len(keys) > 1)}, shared; the first makes cookies")


def read_secrets(path: Path) -> tuple[tuple[bytes, ...], PlainFile]:
    """The secrets in a file, and the file; SourceError."""
    file = read_plain(path, LARGEST)
    try:
        return parse_secrets(file.content.decode("ascii", "replace")), file
    except ValueError as error:
        raise SourceError(f"{path}: {error}") from error
