"""Steering switched off where it loses: networks that were slower with it than with nominal.

A step over rankings, like the holdout: who would serve is decided as ever, and its samples go on being set against nominal's
(uplift.py). So a network comes back as soon as they no longer say that steering loses.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from edgedns.model import NetworkKey, Reason
from edgedns.steer.deciding.decisions import ColumnDecisions, Ranking
from edgedns.steer.deciding.holdout import MEASURED
from edgedns.steer.deciding.uplift import Gains, is_worse
from edgedns.steer.table.rows import Floats, Keys, lookup, pack

ENOUGH = 20.0  # decayed samples of each role before steering is switched off


def losing(gains: Gains, off: Keys) -> Keys:
    """The networks where steering loses, sorted; `off` are those where it was found to.

    It does where the 90 % interval of its gain lies below zero, and stays so until the gain itself is no longer below.
    """
    keys = pack(gains.rows)
    was = lookup(off, keys) >= 0
    enough = (gains.samples >= ENOUGH).all(axis=1)
    return np.sort(keys[(is_worse(gains) & enough) | (was & (gains.ms < 0.0))])


def switched_off(decided: ColumnDecisions, off: Keys, before: ColumnDecisions | None, now: float) -> ColumnDecisions:
    """A wan column's decisions with these rows given the nominal order where measurement chose another."""
    if not len(off):
        return decided
    rows = lookup(decided.keys, off)
    rows = rows[rows >= 0]
    rankings, ranking = list(decided.rankings), decided.ranking.copy()
    for number in np.unique(decided.ranking[rows]).tolist():
        nominal = _nominal(decided.rankings[number], decided.arms)
        if nominal is not None:
            ranking[rows[decided.ranking[rows] == number]] = len(rankings)
            rankings.append(nominal)
    moved = np.sort(rows[ranking[rows] != decided.ranking[rows]])
    keys, since = decided.keys[moved], decided.since.copy()
    since[moved] = _since(keys, before, now)
    return replace(decided, ranking=ranking, rankings=tuple(rankings), since=since, off=keys)


def is_off(decided: ColumnDecisions, network: NetworkKey) -> bool:
    """Steering is switched off for this network."""
    row = decided.index(network)
    return row >= 0 and bool(lookup(decided.off, decided.keys[row : row + 1])[0] >= 0)


def _since(keys: Keys, before: ColumnDecisions | None, now: float) -> Floats:
    """When steering was switched off for each of these rows: now, or as it was."""
    if before is None or not len(before.off):
        return np.full(len(keys), now)
    was = (lookup(before.off, keys) >= 0) & (lookup(before.keys, keys) >= 0)
    return np.where(was, before.since[lookup(before.keys, keys)], now)


def _nominal(ranking: Ranking, arms: tuple[str, ...]) -> Ranking | None:
    """Nominal's first target first, then who would serve; None where steering changes nothing, or not by measurement."""
    first = next((name for name in arms if name in ranking.targets), "")
    if ranking.reason not in MEASURED or ranking.shares or first in ("", ranking.targets[0]):
        return None
    rest = tuple(name for name in ranking.targets if name != first)
    return Ranking((first, *rest), Reason.GUARDED)
