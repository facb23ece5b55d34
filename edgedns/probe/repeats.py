"""Bodies that come twice: sent again because a reply was lost, or by somebody who listened. They count once.

A body is known by its digest, so a sender needs no names for its batches, and it doesn't matter who sends it again. It is
remembered for as long as its samples would be taken; those of an older one are refused for their age.
"""

from __future__ import annotations

import hashlib
from itertools import islice

import numpy as np

from edgedns.errors import SourceError
from edgedns.probe.lines import MAX_AGE, MAX_AHEAD
from edgedns.steer.table.rows import Sections

KEPT = MAX_AGE + 2 * MAX_AHEAD
MOST = 1 << 17
DIGEST = 16


class Repeats:
    """The digests of late, those that came first are forgotten first."""

    def __init__(self) -> None:
        self.count = 0
        self._seen: dict[bytes, float] = {}

    def is_one(self, body: bytes, now: float) -> bool:
        """Whether this body came before; from now on it did. Empty ones are none."""
        if not body.strip():
            return False
        digest = hashlib.blake2b(body, digest_size=DIGEST).digest()
        at = self._seen.get(digest)
        if at is not None and now - at <= KEPT:
            self.count += 1
            return True
        self._seen.pop(digest, None)
        self._seen[digest] = now
        self._forget(now)
        return False

    def _forget(self, now: float) -> None:
        """Two at most are over for each that comes, unless the clock leapt."""
        old = [digest for digest, at in islice(self._seen.items(), 2) if now - at > KEPT or len(self._seen) > MOST]
        for digest in old:
            del self._seen[digest]

    def to_sections(self) -> Sections:
        """All that is remembered, for the next process."""
        digests = np.frombuffer(b"".join(self._seen), dtype=np.uint8).reshape(-1, DIGEST)
        return {"digests": digests, "at": np.array(list(self._seen.values()), dtype=np.float64)}

    @classmethod
    def from_sections(cls, sections: Sections) -> Repeats:
        """What `to_sections` wrote; SourceError when it is not that."""
        repeats = cls()
        try:
            digests, times = sections["digests"], sections["at"].astype(np.float64).tolist()
            if digests.ndim != 2 or digests.shape[1] != DIGEST:
                raise ValueError(f"digests of shape {digests.shape}")
            repeats._seen = dict(zip((row.tobytes() for row in digests.astype(np.uint8)), times, strict=True))
        except (KeyError, TypeError, ValueError) as error:
            raise SourceError(f"what is stored of bodies that came can't be read: {error!r}") from error
        return repeats
