"""Which replies land at another PoP than the one that asked, as the PoPs where they land tell: losses that are none.

A provider's address is announced from several sites, and anycast takes a reply to whichever is nearest to who replied. A
path from one vantage through a provider to a network thus *lands elsewhere* for as long as somebody says so; meanwhile, and
a little before and after, what that vantage loses on it says nothing of the path. What nobody has said for five minutes is
forgotten.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from edgedns import metrics
from edgedns.model import Family, LandedReply, NetworkKey
from edgedns.steer.batch import Batch
from edgedns.steer.rows import Bools, key_of

AROUND = 15.0  # seconds: a landing is told at most every five, and its batch may be late
KEPT = 300.0
PATHS_LIMIT = 50_000


class Path(NamedTuple):
    """As the vantage that asked sees it."""

    vantage: str
    provider: str
    network: NetworkKey
    family: Family


@dataclass(slots=True)
class Elsewhere:
    """Where a path lands; `since` and `last` in Unix seconds, `replies` as far as they were told."""

    lands_at: str
    since: float
    last: float
    replies: int = 1


class Catchments:
    """What is known of them. `excused` counts losses that were none, `over` landings for which there was no room."""

    def __init__(self) -> None:
        self.excused = self.over = 0
        self._paths: dict[Path, Elsewhere] = {}
        self._forgot_at = 0.0

    def __len__(self) -> int:
        return len(self._paths)

    def take(self, landed: Iterable[LandedReply], now: float, on_new: Callable[[Path], None] = lambda path: None) -> None:
        """Take what was told, in any order; `on_new` is told of each path that wasn't known to land elsewhere."""
        if abs(now - self._forgot_at) >= KEPT / 10:
            self._forgot_at = now
            self._paths = {path: known for path, known in self._paths.items() if abs(now - known.last) < KEPT}
        for reply in landed:
            if (path := self._note(reply)) is not None:
                on_new(path)

    def _note(self, reply: LandedReply) -> Path | None:
        path = Path(reply.sent_by, reply.provider, reply.network, reply.family)
        self._paths.pop(path._replace(vantage=reply.vantage), None)  # what that one asks lands there itself now
        known = self._paths.get(path)
        if known is None:
            if len(self._paths) < PATHS_LIMIT:
                self._paths[path] = Elsewhere(reply.vantage, reply.at, reply.at)
                return path
            self.over += 1
            return None
        if reply.vantage != known.lands_at and reply.at > known.last:
            known.lands_at, known.since, known.replies = reply.vantage, reply.at, 0
        known.since, known.last = min(known.since, reply.at), max(known.last, reply.at)
        known.replies += 1
        return None

    def without_excused(self, batch: Batch) -> Batch:
        """The samples less the losses that landed elsewhere."""
        if not self._paths or not batch.lost.any():
            return batch
        excused = self._landed_elsewhere(batch)
        self.excused += int(excused.sum())
        return batch.take(~excused)

    def _landed_elsewhere(self, batch: Batch) -> Bools:
        found = np.zeros(len(batch), dtype=np.bool_)
        lost = np.flatnonzero(batch.lost)
        networks = {row: key_of(batch.rows[row]) for row in np.unique(batch.row[lost]).tolist()}
        columns = (lost, batch.vantage[lost], batch.provider[lost], batch.row[lost], batch.family[lost], batch.at[lost])
        for i, vantage, provider, row, family, at in zip(*(column.tolist() for column in columns), strict=True):
            path = Path(batch.vantages[vantage], batch.providers[provider], networks[row], family)
            known = self._paths.get(path)
            found[i] = known is not None and known.since - AROUND <= at <= known.last + AROUND
        return found

    def families(self) -> Iterable[metrics.Family]:
        """At /metrics."""
        paths = [((), float(len(self._paths)))]
        yield metrics.Family("edgedns_catchments_elsewhere", "Paths whose replies land at another PoP.", "gauge", (), paths)
        excused = [((), float(self.excused))]
        yield metrics.Family("edgedns_losses_excused", "Losses that landed at another PoP: none.", "counter", (), excused)

    def told(self, limit: int) -> dict[str, Any]:
        """For people: the networks whose replies land elsewhere, those told of last first, `limit` of them at most."""
        groups: dict[tuple[NetworkKey, str, Family, str], list[tuple[Path, Elsewhere]]] = {}
        for path, known in self._paths.items():
            groups.setdefault((path.network, path.provider, path.family, known.lands_at), []).append((path, known))
        newest = sorted(groups.values(), key=lambda group: -max(known.last for _, known in group))
        return {"catchments": [_told(group) for group in newest[:limit]], "total": len(groups)}


def _told(group: Sequence[tuple[Path, Elsewhere]]) -> dict[str, Any]:
    path, known = group[0]
    return {
        "network": path.network.text,
        "provider": path.provider,
        "family": path.family,
        "lands_at": known.lands_at,
        "sent_by": sorted(path.vantage for path, _ in group),
        "since": min(known.since for _, known in group),
        "last": max(known.last for _, known in group),
        "replies": sum(known.replies for _, known in group),
    }
