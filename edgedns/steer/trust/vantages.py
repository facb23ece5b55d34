"""Who measures, and how far each is trusted: one sick or lying vantage must not move the table.

Three things hold it, from the mildest to the hardest, and none of them takes a vantage's word for its own network away as
long as it is alone there:

- a *share*: in no round does a vantage carry more than half of what counts for a (network, provider) that others measure too;
- *outvoted*: where three or more measure a network, what one alone sees otherwise is not counted there (`views.py`);
- *quarantine*: none of its samples count anywhere, where for two rounds it was odd on most networks that it shares, beyond what
  its place explains, or lost far more than others did, through each provider. It ends a minute after it agrees again, and
  twice as late each time. Never is half of the vantages in quarantine that way, and never the last one.

An order (`by` whom) goes over all that. Times are Unix seconds.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from edgedns.errors import SourceError
from edgedns.steer.failure.paths import GROUP, PROVIDERS, VANTAGES
from edgedns.steer.table.batch import Batch, joined
from edgedns.steer.table.rows import Bools, Ints, Sections, pack, pack_json, starts, unpack_json
from edgedns.steer.trust.views import NOBODY, Outvoted, Seen, Views

SHARE = 0.5
LEAST_SHARED = 8  # networks
ODD_SHARE = 0.5
LEAST_SENT = 10.0  # samples a provider, decayed
LOSS_BEYOND = 0.25
ROUNDS = 2
LATE = 30.0
AGREES_FOR = 60.0
MOST_FLAPS = 5
FLAPS_KEPT = 86_400.0
ACTIVE = 60.0
KEPT = 7 * 86_400.0
MEMORY = 0.7  # of one round's counts in the next
VANTAGES_KEPT = 2048


@dataclass(slots=True)
class Standing:
    """One vantage. `agreement`: the share of the networks it shares where it was not outvoted, None where it shares none;
    `offset`: by how many seconds its clock is ahead of ours; `by`: who ordered the quarantine, empty for nobody."""

    name: str
    seen_at: float = 0.0
    samples: int = 0
    rate: float = 0.0
    loss: float | None = None
    offset: float | None = None
    shared: int = 0
    agreement: float | None = None
    since: float | None = None
    why: str = ""
    by: str = ""
    odd_for: int = 0
    agrees_since: float | None = None
    flaps: int = 0
    ended: float = 0.0

    @property
    def out(self) -> bool:
        return self.since is not None


@dataclass(slots=True)
class _Tally:
    """What one vantage sent in the round that is open."""

    samples: int = 0
    lost: int = 0


@dataclass(slots=True)
class Vantages:
    """All vantages of late. `news` are sentences about what changed, for the log; whoever reads them empties it."""

    standings: dict[str, Standing] = field(default_factory=dict)
    news: list[str] = field(default_factory=list)
    outvoted: int = 0
    capped: int = 0
    kept_out: int = 0
    views: Views = field(default_factory=Views)
    _outvoted: Outvoted = NOBODY
    _late: Outvoted = NOBODY
    _vetted_at: float = 0.0
    _open: dict[str, _Tally] = field(default_factory=dict)
    _aside: list[Batch] = field(default_factory=list)
    _sent: dict[tuple[str, str], list[float]] = field(default_factory=dict)

    @property
    def quarantined(self) -> list[str]:
        return sorted(name for name, each in self.standings.items() if each.out)

    def admit(self, batch: Batch, now: float) -> Batch:
        """Note who sent what; give back what may count: all but what vantages in quarantine sent."""
        count = np.bincount(batch.vantage, minlength=len(batch.vantages)).tolist()
        lost = np.bincount(batch.vantage[batch.lost], minlength=len(batch.vantages)).tolist()
        free = np.ones(len(batch.vantages), dtype=np.bool_)
        for i, name in enumerate(batch.vantages):
            if not count[i]:
                continue
            tally, standing = self._open.setdefault(name, _Tally()), self._standing(name)
            tally.samples += count[i]
            tally.lost += lost[i]
            standing.seen_at, standing.samples = max(now, standing.seen_at), standing.samples + count[i]
            free[i] = not standing.out
        counts = free[batch.vantage]
        if len(self.standings) > 1 and (aside := batch.lost | ~counts).any():
            self._aside.append(batch.take(aside))
        if counts.all():
            return batch
        self.kept_out += int((~counts).sum())
        return batch.take(counts)

    def note_clock(self, name: str, offset: float) -> None:
        """Its clock was so many seconds ahead of ours; empty for nobody known."""
        if name:
            self._standing(name).offset = offset

    def vet(self, batch: Batch, now: float) -> Batch:
        """Of the samples of a round that ends, those that may be counted; quarantine begins and ends here."""
        if len(self.standings) < 2:
            return batch
        whole = joined([batch, *self._aside])
        codes = self.views.codes(whole)
        heard, beside = ~whole.lost, np.arange(len(whole)) >= len(batch)
        self._tell_losses(whole, codes, heard | beside)
        late = heard & (whole.at < now - LATE)
        heard &= ~late
        self.views.take(codes[heard], whole.rtt[heard], whole.at[heard])
        self._late = self.views.judge_instead(codes[late], whole.rtt[late], now) if late.any() else NOBODY
        verdict = self.views.judge(np.unique(codes[heard] // GROUP), now)
        sick = self._sick()
        for name, standing in self.standings.items():
            self._weigh(standing, verdict.seen.get(name, Seen(0, 0, 0, 0)), sick, now)
        self._outvoted, self._vetted_at = verdict.outvoted, now
        self.outvoted += int(self._is_outvoted(batch).sum())
        left = self._trusted(batch)
        shared = within_share(left)
        self.capped += int((~shared).sum())
        return left if shared.all() else left.take(shared)

    def counted(self, batch: Batch) -> Batch:
        """Of other samples of the round that was vetted last, those that may be counted."""
        if len(self.standings) < 2:
            return batch
        left = self._trusted(batch)
        return left.take(within_share(left))

    def _trusted(self, batch: Batch) -> Batch:
        kept = ~self._is_outvoted(batch) & ~np.isin(batch.vantages, self.quarantined)[batch.vantage]
        return batch if kept.all() else batch.take(kept)

    def _is_outvoted(self, batch: Batch) -> Bools:
        """What came late was held against what the others see now."""
        late = batch.at < self._vetted_at - LATE
        return np.where(late, self._late.among(batch), self._outvoted.among(batch))

    def close(self, now: float, seconds: float) -> None:
        """A round of so many seconds ended."""
        for name, standing in self.standings.items():
            tally = self._open.get(name, _Tally())
            standing.rate = round(tally.samples / seconds, 3)
            standing.loss = round(tally.lost / tally.samples, 4) if tally.samples else None
        self._open, self._aside = {}, []
        self._sent = {
            key: kept for key, (sent, lost) in self._sent.items() if (kept := [sent * MEMORY, lost * MEMORY])[0] > 0.1
        }
        self.views.forget(now)
        self.standings = {name: each for name, each in self.standings.items() if now - each.seen_at < KEPT or each.by}
        self._never_the_last(now)

    def order_out(self, name: str, by: str, why: str, now: float) -> None:
        """Put a vantage in quarantine until an order ends it. ValueError where it would leave nobody, or nobody knows it."""
        standing = self._known(name)
        if not any(each.name != name and not each.out for each in self._active(now)):
            raise ValueError(f"no other vantage is measuring: without {name} there would be none")
        self._begin(standing, why, by, now)

    def order_back(self, name: str, by: str, now: float) -> None:
        """End a quarantine, whoever began it. ValueError where there is none."""
        standing = self._known(name)
        if not standing.out:
            raise ValueError(f"vantage {name} is not in quarantine")
        self._end(standing, f"{by} says so", now)
        standing.flaps = 0

    def told(self, now: float) -> dict[str, Any]:
        """As `GET /v1/vantages` gives it."""
        return {
            "at": now,
            "outvoted": self.outvoted,
            "capped": self.capped,
            "kept_out": self.kept_out,
            "vantages": [_told(self.standings[name]) for name in sorted(self.standings)],
        }

    def to_sections(self) -> Sections:
        """What is known of each vantage, for the next process; what they see is measured anew."""
        return {"standings": pack_json([asdict(each) for each in self.standings.values()])}

    @classmethod
    def from_sections(cls, sections: Sections) -> Vantages:
        """What `to_sections` wrote; SourceError when it is not that."""
        try:
            standings = [Standing(**each) for each in unpack_json(sections, "standings")]
            return cls({str(each.name): each for each in standings})
        except TypeError as error:
            raise SourceError(f"what is stored of vantages can't be read: {error}") from error

    def _standing(self, name: str) -> Standing:
        if name not in self.standings and len(self.standings) >= VANTAGES_KEPT:
            oldest = min(self.standings.values(), key=lambda each: (bool(each.by), each.seen_at))
            del self.standings[oldest.name]
        return self.standings.setdefault(name, Standing(name))

    def _known(self, name: str) -> Standing:
        if name not in self.standings:
            raise ValueError(f"there is no vantage {name[:80]!r}")
        return self.standings[name]

    def _active(self, now: float) -> list[Standing]:
        return [each for each in self.standings.values() if now - each.seen_at <= ACTIVE]

    def _tell_losses(self, batch: Batch, codes: Ints, counted: Bools) -> None:
        """Count what was sent and lost on paths that were heard before, and that others hear now."""
        counted = counted & self.views.knows(codes) & self.views.elsewhere(codes)
        pair = batch.vantage[counted] * PROVIDERS + batch.provider[counted]
        size = len(batch.vantages) * PROVIDERS
        sent = np.bincount(pair, minlength=size)
        lost = np.bincount(pair, batch.lost[counted].astype(np.float64), minlength=size)
        for each in np.flatnonzero(sent).tolist():
            tally = self._sent.setdefault((batch.vantages[each // PROVIDERS], batch.providers[each % PROVIDERS]), [0.0, 0.0])
            tally[0] += int(sent[each])
            tally[1] += float(lost[each])

    def _sick(self) -> dict[str, tuple[float, float]]:
        """Of each vantage that sent enough through two providers or more, where it is nearest to the others: (loss, theirs)."""
        losses: dict[str, dict[str, float]] = {}
        for (vantage, provider), (sent, lost) in self._sent.items():
            if sent >= LEAST_SENT:
                losses.setdefault(provider, {})[vantage] = lost / sent
        beside: dict[str, list[tuple[float, float]]] = {}
        for mine in losses.values():
            for vantage, loss in mine.items() if len(mine) > 1 else ():
                others = sorted(other for name, other in mine.items() if name != vantage)
                beside.setdefault(vantage, []).append((loss, others[(len(others) - 1) // 2]))
        return {name: min(pairs, key=lambda pair: pair[0] - pair[1]) for name, pairs in beside.items() if len(pairs) > 1}

    def _weigh(self, standing: Standing, seen: Seen, losses: dict[str, tuple[float, float]], now: float) -> None:
        """How one vantage agrees with the others by what the round brought."""
        standing.shared = seen.shared
        standing.agreement = round(1.0 - seen.outvoted / seen.shared, 3) if seen.shared else None
        loss, theirs = losses.get(standing.name, (0.0, 0.0))
        why = ""
        if seen.sampled >= LEAST_SHARED and seen.odd > ODD_SHARE * seen.sampled:
            why = f"it sees {seen.odd} of {seen.sampled} networks otherwise than the others do"
        elif loss - theirs > LOSS_BEYOND:
            why = f"it loses {loss:.0%} through each provider, where others lose {theirs:.0%}"
        if why:
            standing.odd_for, standing.agrees_since = standing.odd_for + 1, None
            if not standing.out and standing.odd_for >= ROUNDS and self._may_go(now):
                self._begin(standing, why, "", now)
        elif seen.sampled >= LEAST_SHARED or standing.name in losses:
            standing.odd_for, standing.agrees_since = 0, standing.agrees_since or now
            if standing.out and not standing.by and now - standing.agrees_since >= AGREES_FOR * 2.0**standing.flaps:
                self._end(standing, "it agrees with the others again", now)

    def _may_go(self, now: float) -> bool:
        """Whether one more in quarantine is still less than half of those that measure."""
        active = self._active(now)
        return 2 * (sum(each.out for each in active) + 1) < len(active)

    def _begin(self, standing: Standing, why: str, by: str, now: float) -> None:
        if now - standing.ended > FLAPS_KEPT:
            standing.flaps = 0
        standing.since, standing.why, standing.by, standing.agrees_since = now, why, by, None
        self.news.append(f"vantage {standing.name} is in quarantine, none of its samples count: {why}")

    def _end(self, standing: Standing, why: str, now: float) -> None:
        standing.since, standing.why, standing.by, standing.odd_for, standing.agrees_since = None, "", "", 0, None
        standing.flaps, standing.ended = min(standing.flaps + 1, MOST_FLAPS), now
        self.news.append(f"vantage {standing.name} is out of quarantine: {why}")

    def _never_the_last(self, now: float) -> None:
        active = self._active(now)
        if active and all(each.out for each in active):
            for each in active:
                if not each.by:
                    self._end(each, "no other vantage is measuring any more", now)


def within_share(batch: Batch) -> Bools:
    """Which samples may count so that no vantage carries more than half of a (network, provider) that others measured too.

    Those left out lie evenly among those that stay.
    """
    counted = np.ones(len(batch), dtype=np.bool_)
    if len(batch.vantages) < 2:
        return counted
    _, row = np.unique(pack(batch.rows), return_inverse=True)
    arm = (row.reshape(-1)[batch.row] * 2 + (batch.family == 6)) * PROVIDERS + batch.provider
    path = arm * VANTAGES + batch.vantage
    order = np.lexsort((batch.at, path))
    first = starts(path[order])
    count = np.diff(first, append=len(order))
    owner = np.repeat(np.arange(len(first)), count)
    first_arm = starts(arm[order][first])
    whole = np.repeat(np.add.reduceat(count, first_arm), np.diff(first_arm, append=len(first))) if len(first) else count
    most = np.where(whole == count, count, np.maximum(1, ((whole - count) * (SHARE / (1 - SHARE))).astype(np.int64)))
    rank = np.arange(len(order)) - first[owner]
    allowed = np.minimum(most, count)[owner]
    counted[order] = (rank + 1) * allowed // count[owner] > rank * allowed // count[owner]
    return counted


def _told(standing: Standing) -> dict[str, Any]:
    out = {"since": standing.since, "why": standing.why, "by": standing.by or None}
    return {
        "name": standing.name,
        "last_seen": standing.seen_at or None,
        "samples": standing.samples,
        "samples_per_second": standing.rate,
        "loss": standing.loss,
        "clock_offset": standing.offset,
        "shared_networks": standing.shared,
        "agreement": standing.agreement,
        "quarantined": out if standing.out else None,
    }
