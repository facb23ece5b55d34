"""The holdout: a share of hash units that keep the nominal answer where measurements chose another.

The last step of deciding, over rankings and not rows: whoever serves, and whoever stands in, was decided before. A ranking
that a failure or a cap made holds nobody out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from edgedns.model import Reason
from edgedns.steer.deciding.decisions import ColumnDecisions, Ranking

MEASURED = frozenset({Reason.MEASURED, Reason.HELD, Reason.GUARDED})


def held_out(decided: ColumnDecisions, share: float) -> ColumnDecisions:
    """A wan column's decisions with `share` (0 to 1) of the hash units held out; `arms` of the column are in nominal order."""
    if share <= 0:
        return decided
    return replace(decided, rankings=tuple(_split(ranking, decided.arms, share) for ranking in decided.rankings))


def _split(ranking: Ranking, arms: Sequence[str], share: float) -> Ranking:
    nominal = next((name for name in arms if name in ranking.targets), "")
    if ranking.reason not in MEASURED or ranking.shares or nominal in ("", ranking.targets[0]):
        return ranking
    targets, reasons = (ranking.targets[0], nominal), (ranking.reason, Reason.HOLDOUT)
    return Ranking(targets, ranking.reason, (1.0 - share, share), reasons=reasons)
