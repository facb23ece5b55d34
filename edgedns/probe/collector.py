"""Samples in: newline-delimited JSON -> samples, each bad line named and skipped.

Pure: the admin side reads the body and checks the token; what an address's network is and which providers
exist are callables, and time is an argument. What a line may hold: `lines.py`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgedns.model import LandedReply, RttSample
from edgedns.probe.bucket import Bucket
from edgedns.probe.columns import Columns, Places, read
from edgedns.probe.lines import (
    LINE_LIMIT,
    MAX_AGE,
    MAX_AHEAD,
    MAX_SKEW,
    NetworkOf,
    NetworkOfAsn,
    Refused,
    World,
    read_line,
)
from edgedns.steer.table.batch import Batch, batch_of, joined

BODY_LIMIT = 16 * 1024 * 1024
LINES_LIMIT = 100_000
NAMED_LIMIT = 100
VANTAGES_LIMIT = 1024
RATE = 10_000.0
BURST = 100_000.0
_BLANK = " \t\r\x0b\x0c"

__all__ = ["BODY_LIMIT", "LINES_LIMIT", "LINE_LIMIT", "MAX_AGE", "MAX_AHEAD", "REASONS", "Collector", "Outcome"]

# Every line that is seen ends as exactly one of these.
REASONS = (
    "accepted",
    "landed",
    "line_too_long",
    "too_many_lines",
    "not_utf8",
    "not_json",
    "bad_field",
    "bad_rtt",
    "bad_time",
    "wrong_vantage",
    "unknown_provider",
    "unknown_zone",
    "unknown_network",
    "over_rate",
)


@dataclass(slots=True)
class Outcome:
    """What became of one body. `rejected` holds (line counted from 1, error), the first NAMED_LIMIT of them.

    Samples that were read one by one lie in `single` (line, sample), all others in `columns`; replies that landed elsewhere
    are no samples. `repeated`: the whole body came before, and counts no second time.
    """

    rejected: list[tuple[int, str]] = field(default_factory=list)
    rejected_total: int = 0
    repeated: bool = False
    columns: Columns | None = None
    landed: list[LandedReply] = field(default_factory=list)
    single: list[tuple[int, RttSample]] = field(default_factory=list)

    @property
    def taken(self) -> int:
        """How many lines were accepted."""
        return len(self.landed) + len(self.single) + (len(self.columns.line) if self.columns else 0)

    @property
    def accepted(self) -> list[RttSample]:
        """All of them, in the order of their lines."""
        if self.columns is None:
            return [sample for _, sample in self.single]
        numbered = [*zip(self.columns.line.tolist(), self.columns.samples(), strict=True), *self.single]
        return [sample for _, sample in sorted(numbered, key=lambda each: each[0])]

    @property
    def others(self) -> list[RttSample]:
        """Those that are no probes."""
        return [sample for _, sample in self.single if sample.kind != "probe"]

    def probes(self) -> Batch:
        """The probes, in no order; networks of ASN 0 are left out."""
        single = batch_of(sample for _, sample in self.single if sample.kind == "probe")
        if self.columns is None:
            return single
        return joined([self.columns.batch(), single]) if len(single) else self.columns.batch()

    def take(self, line: int, told: RttSample | LandedReply) -> None:
        if isinstance(told, LandedReply):
            self.landed.append(told)
        else:
            self.single.append((line, told))

    def refuse(self, line: int, error: str) -> None:
        self.rejected_total += 1
        if len(self.rejected) < NAMED_LIMIT:
            self.rejected.append((line, error))

    def reply(self) -> dict[str, Any]:
        """The JSON body of the answer to POST /v1/samples; `rejected_more` counts those not named."""
        reply: dict[str, Any] = {
            "accepted": self.taken,
            "rejected": [{"line": line, "error": error} for line, error in self.rejected],
        }
        if self.rejected_total > len(self.rejected):
            reply["rejected_more"] = self.rejected_total - len(self.rejected)
        if self.repeated:
            reply["repeated"] = True
        return reply


class Collector:
    """Judges bodies of samples; keeps only counters, one rate bucket per vantage, and where addresses lie.

    `network_of` and `network_of_asn` give None for what they don't know, and are asked anew when `table`
    gives something else; `rate` and `burst` are samples per second and samples, per vantage. Not safe for several threads.
    """

    def __init__(
        self,
        network_of: NetworkOf,
        network_of_asn: NetworkOfAsn,
        knows_provider: Callable[[str], bool],
        knows_zone: Callable[[str], bool] = lambda zone: True,
        rate: float = RATE,
        burst: float = BURST,
        table: Callable[[], Hashable] = lambda: None,
    ) -> None:
        self.world = World(network_of, network_of_asn, knows_provider, knows_zone)
        self.rate = rate
        self.burst = burst
        self.seen = 0
        self.counts: dict[str, int] = dict.fromkeys(REASONS, 0)
        self._table = table
        self._placed_by: Hashable = None
        self._places = Places(self.world)
        self._buckets: dict[str, Bucket] = {}

    def accept(self, body: bytes, now: float, vantage: str | None = None, ahead: float | None = None) -> Outcome:
        """Read one body at Unix time `now`; `vantage` is the only one its token may speak for (None: any).

        ahead: by how many seconds its sender's clock is, if it said so. Never raises for what is in the body. Empty lines are
        not lines.
        """
        lines = body.decode("latin-1").split("\n", LINES_LIMIT)  # each octet a character, whatever they mean
        numbers = [number for number, line in enumerate(lines, 1) if line[:1] == "{" or line.strip(_BLANK)]
        self.seen += len(numbers)
        if ahead is not None and abs(ahead) > MAX_SKEW:
            return self._refuse_clock(numbers, ahead)
        outcome = Outcome(columns=self._read_together(lines, numbers, now, vantage) if body.isascii() else None)
        read = outcome.columns.line.tolist() if outcome.columns is not None else []
        self.counts["accepted"] += len(read)
        for number in sorted(set(numbers).difference(read)) if len(read) < len(numbers) else ():
            self._read_alone(outcome, number, lines[number - 1].encode("latin-1"), now, vantage)
        return outcome

    def _refuse_clock(self, numbers: list[int], ahead: float) -> Outcome:
        outcome = Outcome()
        way = "ahead of" if ahead > 0 else "behind"
        sentence = f"your clock is {abs(ahead):.1f} s {way} ours, and {MAX_SKEW:g} s is the most that is borne: set it by NTP"
        self.counts["bad_time"] += len(numbers)
        for number in numbers:
            outcome.refuse(number, sentence)
        return outcome

    def _read_alone(self, outcome: Outcome, number: int, line: bytes, now: float, vantage: str | None) -> None:
        try:
            if number > LINES_LIMIT:  # all that is left, as one
                raise Refused("too_many_lines", f"more than {LINES_LIMIT} lines in one body, the rest is not read")
            sample = read_line(line, self.world, now, vantage)
            if not self._spend(sample.vantage, 1, now):
                raise Refused("over_rate", f"vantage {sample.vantage!r} sends more than {self.rate:g} samples a second")
        except Refused as refused:
            self.counts[refused.reason] += 1
            outcome.refuse(number, refused.error)
        else:
            outcome.take(number, sample)
            self.counts["landed" if isinstance(sample, LandedReply) else "accepted"] += 1

    def _read_together(self, lines: list[str], numbers: list[int], now: float, vantage: str | None) -> Columns | None:
        """What can be read at once; None where lines must be read one by one, because their order matters."""
        if not numbers or numbers[-1] > LINES_LIMIT:
            return None
        if (table := self._table()) != self._placed_by:
            self._placed_by = table
            self._places = Places(self.world)
        texts = lines if len(numbers) == len(lines) else [lines[number - 1] for number in numbers]
        columns = read(texts, np.array(numbers, dtype=np.int64), self._places, self.world, now, vantage)
        if columns is None:
            return None
        speakers = Counter(columns.vantage)
        if any(self._level(name, now) < len(numbers) for name in speakers):
            return None  # the rate may be exceeded on the way
        for name, count in speakers.items():
            self._spend(name, count, now)
        return columns

    def _level(self, vantage: str, now: float) -> float:
        """How many samples a vantage may send now."""
        bucket = self._buckets.get(vantage)
        if bucket is None:
            if len(self._buckets) >= VANTAGES_LIMIT:
                self._forget_idle(now)
            if len(self._buckets) >= VANTAGES_LIMIT:
                return 0.0
            bucket = self._buckets[vantage] = Bucket(self.rate, self.burst, self.burst, now)
        return bucket.filled(now)

    def _spend(self, vantage: str, samples: int, now: float) -> bool:
        if self._level(vantage, now) < samples:
            return False
        self._buckets[vantage].level -= samples
        return True

    def _forget_idle(self, now: float) -> None:
        """Drop the buckets that would be full by now: a new one is the same."""
        full_after = self.burst / self.rate
        self._buckets = {name: b for name, b in self._buckets.items() if now - b.at < full_after}
