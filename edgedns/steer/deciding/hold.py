"""When a wan row changes its provider: hold, dwell, margin, failure and guard.

Each row has a *home*, the provider that it has settled on, and *serving*, which differs from home only while home is down.
So a failure acts at once and its end too, whatever hysteresis says, and nothing has to be learnt again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgedns.model import Reason, Wan
from edgedns.steer.table.rows import Bools, Floats, Ints

Hold = NDArray[np.void]


@dataclass(frozen=True)
class Pace:
    """How quick decisions are. Times in seconds; `now`, `ttl` and `fresh` (a new round's table) are of one call.

    gain: how much score less mean a challenger needs, for `rounds` rounds; where one of the two has less than `enough`
    samples it needs a typical RTT lower by `doubt` / sqrt(samples), in ln(ms), instead; and with less than `few` no waiting.
    churn: the share of weight that may move in one round for a better measurement; so many rows as `freely` always may.
    sudden: away from an arm that has just got slower, between rounds too, and beside that share.
    objective: what value means: WAN, or ln of the typical RTT, for comparison.
    """

    objective: str = "graded"
    gain: float = 0.05
    rounds: int = 2
    enough: float = 12.0
    few: float = 5.0
    doubt: float = 0.25
    dwell_ttls: float = 2.0
    churn: float = 0.25
    freely: int = 10
    watch: float = 300.0
    worse: float = 1.05
    guard_for: float = 600.0
    now: float = 0.0
    ttl: float = 0.0
    fresh: bool = True
    sudden: bool = False

    def at(self, now: float, ttl: float, fresh: bool, sudden: bool = False) -> Pace:
        return replace(self, now=now, ttl=ttl, fresh=fresh, sudden=sudden)


@dataclass(frozen=True)
class Evidence:
    """What speaks for each arm in each row: [row, arm].

    candidate: may serve. value: belief, cautious: the same less doubt. typical: RTT in ms, NaN unknown. samples: decayed.
    known[row]: something was measured for the row or above it. weight[row]: its share of traffic in any unit. worse: its RTT
    shifted upwards within the last two rounds, or since the last table; then value and typical are by what it is now.
    """

    candidate: Bools
    value: Floats
    cautious: Floats
    typical: Floats
    samples: Floats
    known: Bools
    weight: Floats
    worse: Bools


def step(action: Wan, evidence: Evidence, held: Hold, pace: Pace) -> tuple[Hold, Ints]:
    """The next switching state of each row, and its Reason."""
    hold = held.copy()
    every = np.arange(len(hold))
    well = evidence.candidate[every, hold["home"]]
    current = _current(evidence, hold, well, every)
    if pace.fresh:
        sent_back = _guard(action, evidence, hold, current, well, pace)
        current = np.where(sent_back, hold["home"], current)
    guarded = well & (pace.now < hold["guard_until"])
    best, better, hasty = _challenger(evidence, hold, current, pace)
    wanted = ~guarded & better & _saves(action, evidence, current, best)
    ready = _ready(evidence, hold, wanted, hasty, current, best, pace)
    _note(hold, wanted, best, pace)
    _watch(hold, ready & well, current, evidence, pace)
    serving = np.where(ready, best, current)
    hold["home"] = np.where(ready & well, best, hold["home"])
    hold["moved"] = np.where(ready, pace.now, hold["moved"])
    hold["pending"] = np.where(ready, -1, hold["pending"])
    hold["settled"] |= pace.fresh & evidence.known & ~(wanted & ~ready)
    hold["serving"] = serving
    hold["second"] = _second(evidence, hold["second"], serving, pace)
    return hold, _reasons(evidence, wanted & ~ready, guarded, well)


def _current(evidence: Evidence, hold: Hold, well: Bools, every: Ints) -> Ints:
    """Home while it is well; else whoever stood in, the second, or the best."""
    best = _best(evidence.cautious, evidence.candidate)
    second = hold["second"]
    second = np.where((second >= 0) & evidence.candidate[every, second], second, best)
    stands_in = np.where(evidence.candidate[every, hold["serving"]], hold["serving"], second)
    return np.asarray(np.where(well, hold["home"], stands_in), dtype=np.int64)


def _best(score: Floats, candidate: Bools) -> Ints:
    """The highest score; of equals the first in nominal order, on every node."""
    return np.asarray(np.where(candidate, np.round(score, 6), -np.inf).argmax(axis=1), dtype=np.int64)


def _challenger(evidence: Evidence, hold: Hold, current: Ints, pace: Pace) -> tuple[Ints, Bools, Bools]:
    """(who could replace the current arm, whether it beats it clearly enough, whether it need not wait).

    By the graded score where both arms have samples enough. Below that wins say little (of two arms measured once, one
    wins always, by however much): there typical RTTs are compared, by a margin that shrinks as samples come. A new row has
    nothing to hold on to: it takes the best.
    """
    every = np.arange(len(current))
    typical = np.where(evidence.samples > 0, -np.log(evidence.typical), -np.inf)
    likely = _best(typical, evidence.candidate)
    likely = np.where(evidence.samples[every, likely] > 0, likely, current)
    least = np.minimum(evidence.samples[every, likely], evidence.samples[every, current])
    by_rtt = least < pace.enough
    new = ~hold["settled"]
    winner = np.where(new, _best(evidence.value, evidence.candidate), _best(evidence.cautious, evidence.candidate))
    best = np.where(by_rtt, likely, winner)
    gain = evidence.cautious[every, best] - evidence.value[every, current]
    saving = np.log(evidence.typical[every, current] / evidence.typical[every, best])
    doubt = pace.doubt / np.sqrt(np.maximum(least, 0.3))
    clear = new | np.where(by_rtt, np.isnan(saving) | (saving > doubt), gain > pace.gain)
    return best, np.asarray((best != current) & clear, dtype=np.bool_), np.asarray((least < pace.few) | new, dtype=np.bool_)


def _saves(action: Wan, evidence: Evidence, current: Ints, best: Ints) -> Bools:
    """Enough milliseconds and enough per cent, as the rule asks; an unknown RTT argues for nobody."""
    every = np.arange(len(current))
    now, then = evidence.typical[every, current], evidence.typical[every, best]
    least = np.maximum(action.margin_ms, now * action.margin_percent / 100.0)
    return np.asarray(np.isnan(now) | np.isnan(then) | (now - then >= least), dtype=np.bool_)


def _ready(evidence: Evidence, hold: Hold, wanted: Bools, hasty: Bools, current: Ints, best: Ints, pace: Pace) -> Bools:
    """Wanted for long enough, or at once where little is known; settled for two TTLs; within the churn budget.

    Where the current one's own RTT shifted upwards there is nothing left to wait for, nor to dwell on. First measurements
    are no churn.
    """
    every = np.arange(len(hold))
    shifted = evidence.worse[every, current]
    if not pace.fresh:
        return wanted & shifted & pace.sudden
    waited = np.where(hold["pending"] == best, hold["waited"] + 1, 1)
    dwelt = shifted | (pace.now - hold["moved"] >= pace.dwell_ttls * pace.ttl)
    ready = wanted & (hasty | shifted | (waited >= pace.rounds)) & dwelt
    saved = np.nan_to_num(evidence.typical[every, current] - evidence.typical[every, best])
    settled = hold["settled"]
    kept = _within_budget(ready & settled, saved * evidence.weight, evidence.weight, pace)
    return np.asarray(kept | (ready & ~settled), dtype=np.bool_)


def _within_budget(ready: Bools, worth: Floats, weight: Floats, pace: Pace) -> Bools:
    """The moves worth most, up to a share of all weight; rows from which nobody asks move freely."""
    rows = np.flatnonzero(ready & (weight > 0))
    if pace.churn >= 1.0 or len(rows) <= pace.freely:
        return ready
    rows = rows[np.lexsort((-weight[rows], -np.round(worth[rows], 9)))]
    within = int(np.searchsorted(np.cumsum(weight[rows]), pace.churn * weight.sum(), side="right"))
    kept = ready & (weight <= 0)
    kept[rows[: max(pace.freely, within, 1)]] = True
    return kept


def _note(hold: Hold, wanted: Bools, best: Ints, pace: Pace) -> None:
    """Remember who waits, and for how many rounds."""
    if not pace.fresh:
        return
    again = wanted & (hold["pending"] == best)
    hold["waited"] = np.where(wanted, np.where(again, np.minimum(hold["waited"] + 1, 200), 1), 0)
    hold["pending"] = np.where(wanted, best, -1)


def _watch(hold: Hold, moving: Bools, left: Ints, evidence: Evidence, pace: Pace) -> None:
    """From a move on, remember what the row had before."""
    rtt = evidence.typical[np.arange(len(hold)), left]
    hold["left"] = np.where(moving, left, hold["left"])
    hold["guard_rtt"] = np.where(moving, rtt, hold["guard_rtt"])
    hold["worse"] = np.where(moving, 0, hold["worse"])


def _guard(action: Wan, evidence: Evidence, hold: Hold, current: Ints, well: Bools, pace: Pace) -> Bools:
    """Rows whose RTT got worse by a move, two rounds in a row, and better where they came from: back, and stay a while."""
    every = np.arange(len(hold))
    watched = (hold["left"] >= 0) & (pace.now - hold["moved"] <= pace.watch) & well
    rtt, limit = evidence.typical[every, current], hold["guard_rtt"] * pace.worse + action.margin_ms
    regret = evidence.value[every, hold["left"]] > evidence.value[every, current]
    worse = watched & (rtt > limit) & regret
    hold["worse"] = np.where(worse, hold["worse"] + 1, 0)
    back = (hold["worse"] >= 2) & evidence.candidate[every, hold["left"]]
    hold["home"] = np.where(back, hold["left"], hold["home"])
    hold["guard_until"] = np.where(back, pace.now + pace.guard_for, hold["guard_until"])
    hold["moved"] = np.where(back, pace.now, hold["moved"])
    hold["left"] = np.where(back | ~watched, -1, hold["left"])
    return np.asarray(back, dtype=np.bool_)


def _second(evidence: Evidence, second: NDArray[Any], serving: Ints, pace: Pace) -> Ints:
    """Who is next in line, as sticky as who serves; -1 when there is nobody."""
    every = np.arange(len(serving))
    others = evidence.candidate.copy()
    others[every, serving] = False
    best = _best(evidence.cautious, others)
    gain = evidence.cautious[every, best] - evidence.value[every, second]
    stays = (second >= 0) & others[every, second] & ((gain <= pace.gain) | (not pace.fresh))
    return np.where(others.any(axis=1), np.where(stays, second, best), -1)


def _reasons(evidence: Evidence, held: Bools, guarded: Bools, well: Bools) -> Ints:
    reason = np.where(evidence.known, int(Reason.MEASURED), int(Reason.NOMINAL))
    reason = np.where(held, int(Reason.HELD), reason)
    reason = np.where(guarded, int(Reason.GUARDED), reason)
    return np.where(well, reason, int(Reason.FAILED_OVER))
