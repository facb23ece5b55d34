"""Which replies land at another PoP than the one that asked, as the PoPs where they land tell: losses that are none.

A provider's address is announced from several sites, and anycast takes a reply to whichever is nearest to who replied. A
path from one vantage through a provider to a network thus *lands elsewhere* for as long as somebody says so; meanwhile, and
a little before and after, what that vantage loses on it says nothing of the path. What nobody has said for five minutes is
forgotten. Where the vantage hears replies itself meanwhile, it was not so, or is no longer: then nobody is believed about
that path for ten minutes, so that whoever says it of all paths hides no failure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from edgedns import metrics
from edgedns.model import Family, LandedReply, NetworkKey
from edgedns.steer.table.batch import Batch
from edgedns.steer.table.rows import Bools, Floats, key_of, lookup, pack, rows_of

AROUND = 15.0  # seconds: a landing is told at most every five, and its batch may be late
KEPT = 300.0
GRACE = 5.0  # seconds: as far as clocks may differ
DOUBTED = 600.0
PATHS_LIMIT = 100_000


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
    """What is known of them. `excused` counts losses that were none, `belied` landings that were not believed.

    Landings for which there is no room are counted by `over`.
    """

    def __init__(self) -> None:
        self.excused = self.over = self.belied = 0
        self._paths: dict[Path, Elsewhere] = {}
        self._doubted: dict[Path, float] = {}
        self._forgot_at = 0.0

    def __len__(self) -> int:
        return len(self._paths)

    def take(self, landed: Iterable[LandedReply], now: float, on_new: Callable[[Path], None] = lambda path: None) -> None:
        """Take what was told, in any order; `on_new` is told of each path that wasn't known to land elsewhere, and does now."""
        if abs(now - self._forgot_at) >= KEPT / 10:
            self._forgot_at = now
            self._paths = {path: known for path, known in self._paths.items() if abs(now - known.last) < KEPT}
            self._doubted = {path: at for path, at in self._doubted.items() if abs(now - at) < DOUBTED}
        for reply in landed:
            if (path := self._note(reply)) is not None and abs(now - reply.at) <= AROUND:
                on_new(path)

    def _note(self, reply: LandedReply) -> Path | None:
        path = Path(reply.sent_by, reply.provider, reply.network, reply.family)
        self._paths.pop(path._replace(vantage=reply.vantage), None)  # what that one asks lands there itself now
        if path in self._doubted:
            self.belied += 1
            return None
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

    def hold_to(self, heard: Batch, now: float) -> None:
        """Take what the vantages heard themselves, in a round: that ends what was told of those paths."""
        paths = [path for path, known in self._paths.items() if abs(now - known.last) <= 2 * AROUND]  # others excuse nothing
        if not paths or not len(heard):
            return
        last = _last_heard(paths, heard)
        since = np.array([self._paths[path].since for path in paths])
        for i in np.flatnonzero(last > since + GRACE).tolist():
            del self._paths[paths[i]]
            self._doubted[paths[i]] = now

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
        belied = [((), float(self.belied))]
        yield metrics.Family("edgedns_landings_belied", "Landings told of though the asker hears.", "counter", (), belied)

    def told(self, limit: int) -> dict[str, Any]:
        """For people: the networks whose replies land elsewhere, those told of last first, `limit` of them at most."""
        groups: dict[tuple[NetworkKey, str, Family, str], list[tuple[Path, Elsewhere]]] = {}
        for path, known in self._paths.items():
            groups.setdefault((path.network, path.provider, path.family, known.lands_at), []).append((path, known))
        newest = sorted(groups.values(), key=lambda group: -max(known.last for _, known in group))
        return {"catchments": [_told(group) for group in newest[:limit]], "total": len(groups)}


def _last_heard(paths: Sequence[Path], heard: Batch) -> Floats:
    """When each path's own vantage last heard a reply on it, -inf for never."""
    keys, places = np.unique(pack(heard.rows), return_inverse=True)
    providers, vantages = ({name: i for i, name in enumerate(names)} for names in (heard.providers, heard.vantages))
    width = len(heard.vantages) * len(heard.providers)
    code = places.reshape(-1)[heard.row] * 2 * width + (heard.family == 6) * width
    code += heard.provider * len(heard.vantages) + heard.vantage
    codes, which = np.unique(code, return_inverse=True)
    latest = np.full(len(codes), -np.inf)
    np.maximum.at(latest, which.reshape(-1), np.where(heard.lost, -np.inf, heard.at))
    rows = lookup(keys, pack(rows_of([path.network for path in paths])))
    parts = [(path.family == 6, providers.get(path.provider, -1), vantages.get(path.vantage, -1)) for path in paths]
    six, provider, vantage = (np.array(column, dtype=np.int64) for column in zip(*parts, strict=True))
    wanted = rows * 2 * width + six * width + provider * len(heard.vantages) + vantage
    at = np.minimum(np.searchsorted(codes, wanted), len(codes) - 1)
    there = (rows >= 0) & (provider >= 0) & (vantage >= 0) & (codes[at] == wanted)
    return np.where(there, latest[at], -np.inf)


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
