"""The schedule: which arms of which networks are worth a probe now, where not all can be probed in each period.

Uncertainty times traffic: what one more look is expected to better (`explore.py`) times the queries of the network. An arm that
serves is watched: what it may have lost since it was last seen. And an arm of an active network of which little is known is
looked at once a minute at least, from somewhere, as far as half of the budget goes.
Pure: the same table gives the same list on every node.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from edgedns.steer.failure.paths import GROUP
from edgedns.steer.probing.doubts import Seen
from edgedns.steer.probing.explore import SPREAD, expected_gain
from edgedns.steer.table.rows import Bools, Floats, Ints

FEW = 5.0
STARVING = 60.0
SILENT_EVERY = 6.0  # periods, in which an agent asks once where it never hears
LASTS = 3600.0  # seconds that a path stays as it is, on average


@dataclass(frozen=True, slots=True)
class Field:
    """Networks and their arms, [row] or [row, arm]; `serving` -1 where nobody does, `last` the Unix time of the last probe.

    `heard`: somebody gets replies through that arm, so that it can be probed at all.
    """

    samples: Floats
    typical: Floats
    serving: Ints
    weight: Floats
    heard: Bools
    last: Floats


def worth(field: Field, now: float) -> Floats:
    """[row, arm]: what a probe is worth, in ln(ms) times queries; 0 where it is worth none or can't be done."""
    gain = expected_gain(field.samples, field.typical, field.serving)
    rows = np.flatnonzero(field.serving >= 0)
    at = field.serving[rows]
    gain[rows, at] = SPREAD * -np.expm1(-np.maximum(now - field.last[rows, at], 0.0) / LASTS)
    rank = (-gain).argsort(axis=1, kind="stable").argsort(axis=1, kind="stable")
    return np.where(field.heard, gain * field.weight[:, None] / (1.0 + rank), 0.0)


def chosen(field: Field, now: float, budget: int) -> Ints:
    """At most `budget` arms, the most urgent first, by index into the flattened [row, arm]."""
    value = worth(field, now).reshape(-1)
    starving = (field.samples < FEW) & (now - field.last > STARVING) & field.heard & (field.weight > 0.0)[:, None]
    weight = np.broadcast_to(field.weight[:, None], field.heard.shape).reshape(-1)
    first = _best(np.where(starving.reshape(-1), weight, 0.0), budget // 2)
    value[first] = 0.0
    return np.concatenate([first, _best(value, budget - len(first))])


def together(seen: Seen, now: float, before: int) -> int:
    """How many probes of all agents reach one address in a period, at most; as `before` while that is a little too many.

    Each target of a network is probed through every arm in each period by who hears it, by others in each sixth.
    """
    recent = np.maximum(seen.paths["replied"], seen.paths["lost"]) > now - seen.recent
    heard = seen.paths["replied"] > now - seen.recent
    arms = np.bincount(seen.codes // GROUP, np.where(heard, 1.0, recent / SILENT_EVERY))
    found = max(1, math.ceil(arms.max(initial=1.0) - 1e-9))
    return before if 0.8 * before <= found <= before else found


def _best(value: Floats, count: int) -> Ints:
    """Where the greatest of the values above 0 are, in order."""
    found = np.flatnonzero(value > 0.0)
    return found[np.argsort(-np.round(value[found], 9), kind="stable")[:count]]
