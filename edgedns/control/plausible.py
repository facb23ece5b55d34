"""How much would move if a table were published (law 8): the share of observed queries whose measured answer changes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgedns.model import Reason, Wan
from edgedns.steer.atoms import Atoms
from edgedns.steer.decisions import ColumnDecisions, Decisions, Ranking
from edgedns.steer.rows import ROW, Bools, Ints, Keys, Rows, nearest, pack, unpack

# Moves of fewer networks than this are never too many: a small table would freeze.
FEW = 10
# Observed queries speak when there are so many, from so many networks; before, each row weighs the same.
QUERIES_LEAST = 1000
NETWORKS_LEAST = 20
MEASURED_BEFORE = {Reason.MEASURED, Reason.HELD, Reason.GUARDED}
MEASURED_AFTER = {Reason.MEASURED, Reason.HELD}


class Weights(NamedTuple):
    """Networks that asked, and how often."""

    rows: Rows
    queries: Ints


def observed(counts: Sequence[bytes], atoms: Atoms) -> Weights | None:
    """Queries by network, from the workers' arrays by network id (u32, native order); None where they are too few to speak."""
    size = len(atoms.net_asn)
    total = np.zeros(size, np.int64)
    for array in counts:
        if len(array) == 4 * size:
            total += np.frombuffer(array, np.uint32)
    total[0] = 0  # unmapped space has no measurements
    asked = np.flatnonzero(total)
    if len(asked) < NETWORKS_LEAST or total.sum() < QUERIES_LEAST:
        return None
    rows = np.zeros(len(asked), ROW)
    rows["asn"], rows["country"] = atoms.net_asn[asked], atoms.net_country[asked]
    rows["family"], rows["block"] = atoms.net_family[asked], atoms.net_block[asked]
    return Weights(rows, total[asked])


def moved_share(before: Decisions, after: Decisions, weights: Weights | None) -> float:
    """The share (0 to 1) of queries, over all wan columns, that measurements alone would answer otherwise than before.

    Failures, returns, drains and first measurements are no part of it.
    """
    moved = total = 0.0
    networks: set[bytes] = set()
    for column, now in after.columns.items():
        was = before.columns.get(column)
        if was is None or not isinstance(column.action, Wan) or not (len(was.keys) or len(now.keys)):
            continue
        rows, queries = weights or _each_row_once(was.keys, now.keys)
        changed = _moves_of_measure(was, now)[_ranking_of(was, rows), _ranking_of(now, rows)]
        moved += float(queries[changed].sum())
        total += float(queries.sum())
        networks.update(pack(rows[changed]).tolist())
    return moved / total if len(networks) >= FEW else 0.0


def _each_row_once(was: Keys, now: Keys) -> Weights:
    keys = np.union1d(was, now)
    return Weights(unpack(keys), np.ones(len(keys), np.int64))


def _ranking_of(decided: ColumnDecisions, rows: Rows) -> NDArray[np.int64]:
    """Which ranking each network has; one past the last is the default."""
    return np.append(decided.ranking.astype(np.int64), len(decided.rankings))[nearest(rows, decided.keys)]


def _moves_of_measure(was: ColumnDecisions, now: ColumnDecisions) -> Bools:
    """[ranking before, ranking after]: another first target, by measurement alone."""
    return np.array(
        [[_is_measured_move(a, b) for b in (*now.rankings, now.default)] for a in (*was.rankings, was.default)], np.bool_
    )


def _is_measured_move(before: Ranking, after: Ranking) -> bool:
    by_measure = before.reason in MEASURED_BEFORE and after.reason in MEASURED_AFTER
    return by_measure and before.targets[:1] != after.targets[:1]
