"""What steering gains over nominal, kept over restarts and told per rule and per network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from edgedns.control.measured import restored
from edgedns.control.plausible import Weights
from edgedns.control.schedule import Force
from edgedns.engine.moved import users_of_columns
from edgedns.model import Wan
from edgedns.steer.deciding.decisions import Column, ColumnDecisions, Decisions
from edgedns.steer.deciding.losing import losing
from edgedns.steer.deciding.uplift import HALF_LIFE, NINETY, Gains, Interval, Uplift, choice_of, choices, interval, is_worse
from edgedns.steer.table.batch import Batch
from edgedns.steer.table.rows import Floats, Keys, key_of, lookup, nearest, pack, unpack
from edgedns.store.local import LocalStore

FILE = "uplift"
LOOK_EVERY = 60.0  # seconds between two looks at where steering loses: samples of an hour speak, and reading them takes time
Losing = dict[Column, Keys]


class Gained:
    """The uplift of the rules in force."""

    def __init__(self, store: LocalStore, log: Callable[[str], None]) -> None:
        self.uplift = Uplift()
        self.losing: Losing | None = None  # what was found by the last look; None: leave it as it is
        self._looked_at = 0.0
        self._store = store
        self._log = log

    def restore(self) -> None:
        """Take up what was saved; what can't be read begins anew."""
        sections = restored(FILE, lambda: self._store.load_arrays(FILE), self._log)
        if sections is not None:
            self.uplift = restored(FILE, lambda: Uplift.from_sections(sections), self._log) or self.uplift

    def save(self) -> None:
        self._store.save_arrays(FILE, self.uplift.to_sections())

    def take(self, samples: Batch, decisions: Decisions) -> None:
        """Take samples that came while these decisions were in force."""
        self.uplift.observe(samples, decisions)

    def close_round(self, force: Force, now: float, vet: Callable[[Batch], Batch] = lambda batch: batch) -> None:
        """Count the round that ends, as much as `vet` gives back."""
        period = force.world.rules.round
        if self.uplift.round_seconds != period:  # what was counted in other rounds can't be gone on with
            self.uplift = Uplift(period)
        columns = force.decisions.columns
        self.uplift.close_round(columns, now, vet)
        self.losing = None
        if abs(now - self._looked_at) >= LOOK_EVERY:
            self._looked_at = now
            self.losing = {
                column: losing(self.uplift.gains(column), decided.off)
                for column, decided in columns.items()
                if isinstance(column.action, Wan)
            }

    def told(self, force: Force, weights: Weights | None, limit: int, now: float) -> dict[str, Any]:
        """As `GET /v1/uplift` gives it, at most `limit` networks a rule, those with most weight first."""
        users = users_of_columns(force.world.rules)
        columns = [
            self._column(decided, [user.text for user in users[column]], force, weights, limit)
            for column, decided in force.decisions.columns.items()
            if isinstance(column.action, Wan) and column in users
        ]
        return {"at": now, "half_life": HALF_LIFE, "weighted_by": "queries" if weights else "networks", "columns": columns}

    def _column(
        self, decided: ColumnDecisions, rules: list[str], force: Force, weights: Weights | None, limit: int
    ) -> dict[str, Any]:
        column = decided.column
        gains = self.uplift.gains(column)
        keys, queries = _weights(decided, gains, weights)
        weight = np.append(queries, 0.0)[lookup(keys, pack(gains.rows))]
        worse = is_worse(gains)
        return {
            "rules": rules,
            "holdout": _holdout(column),
            "overall": _told(interval(gains, weight, float(queries.sum()))),
            "moved": _told(interval(gains, weight, float(weight.sum()))),
            "networks": len(keys),
            "measured": int((weight > 0).sum()),
            "worse": int(worse.sum()),
            "off": _off(gains, decided, limit),
            "rows": _rows(gains, weight, decided, force, limit),
        }


def _weights(decided: ColumnDecisions, gains: Gains, weights: Weights | None) -> tuple[Keys, Floats]:
    """Every network that counts, sorted, and its weight: its queries, or 1 for each network that was measured."""
    if weights is not None:
        keys = pack(weights.rows)
        order = np.argsort(keys)
        return keys[order], weights.queries[order].astype(np.float64)
    own = decided.keys[unpack(decided.keys)["block"] >= 0]
    keys = np.union1d(own, pack(gains.rows))
    return keys, np.ones(len(keys))


def _off(gains: Gains, decided: ColumnDecisions, limit: int) -> list[str]:
    """Networks that steering is switched off for, those with samples first, of these the one that lost most."""
    at = lookup(pack(gains.rows), decided.off)
    ms = np.where(at >= 0, np.append(gains.ms, np.inf)[at], np.inf)
    order = np.argsort(ms, kind="stable")[:limit]
    return [key_of(row).text for row in unpack(decided.off[order])]


def _holdout(column: Column) -> float:
    return column.action.holdout if isinstance(column.action, Wan) else 0.0


def _told(found: Interval) -> dict[str, Any]:
    return {"ms": round(found.ms, 3), "low": round(found.low, 3), "high": round(found.high, 3)}


def _rows(gains: Gains, weight: Floats, decided: ColumnDecisions, force: Force, limit: int) -> list[dict[str, Any]]:
    """The heaviest networks; `provider` and `nominal` as they are given now, null where measurement chooses no other now."""
    order = np.argsort(-weight, kind="stable")[:limit]
    pairs = [*choices(decided), ("", "")]
    number = choice_of(decided, nearest(gains.rows[order], decided.keys))
    names, told = force.world.table.names, []
    for i, pair in zip(order.tolist(), number.tolist(), strict=True):
        key = key_of(gains.rows[i])
        ms, error = float(gains.ms[i]), float(gains.error[i])
        told.append(
            {
                "network": key.text,
                "as_name": names.get(key.asn),
                "provider": pairs[pair][0] or None,
                "nominal": pairs[pair][1] or None,
                **_told(Interval(ms, ms - NINETY * error, ms + NINETY * error)),
                "samples": [round(float(count), 1) for count in gains.samples[i]],
                "weight": round(float(weight[i]), 3),
            }
        )
    return told
