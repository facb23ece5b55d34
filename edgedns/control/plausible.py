"""How much would move if a table were published (law 8): the share of observed queries whose measured answer changes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgedns.control.schedule import Force
from edgedns.model import Reason, Wan
from edgedns.publish import Facts
from edgedns.steer.deciding.decisions import Column, ColumnDecisions, Decisions, Ranking
from edgedns.steer.space.atoms import Atoms
from edgedns.steer.table.rows import KEY, ROW, Bools, Ints, Keys, Rows, nearest, unpack

# Moves of fewer networks than this are never too many: a small table would freeze.
FEW = 10
# Observed queries speak when there are so many, from so many networks; before, each row weighs the same.
QUERIES_LEAST = 1000
NETWORKS_LEAST = 20
BY_MEASUREMENT = {Reason.MEASURED, Reason.HELD, Reason.GUARDED}


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


def facts(force: Force, wished: Force, asked: Callable[[], Weights | None]) -> Facts:
    """What law 8 looks at; compared with the last table only while that is fresh, or nothing could ever come after it.

    All moves since the last round count together: paths get slower one by one.
    """
    rules, before = force.world.rules, force.closed or force.decisions
    comparable = 0 <= wished.taken_at - force.taken_at < rules.fresh_for
    return Facts(
        measured_at=wished.table.at,
        rows=len(wished.table.keys),
        last_rows=len(force.table.keys) if comparable else 0,
        moved=moved_share(before, wished.decisions, asked()) if comparable else 0.0,
        limit=rules.max_moved_share,
        oldest=rules.fresh_for,
    )


def moved_share(before: Decisions, after: Decisions, weights: Weights | None) -> float:
    """The share (0 to 1) of queries that measurements alone would answer otherwise than before, in the column where most do.

    Failures, returns, drains and first measurements are no part of it. Without weights each measured network counts once.
    """
    pairs = [(was, now) for column, now in after.columns.items() if (was := _wan(before, column))]
    rows, queries = weights or _measured_networks([one for pair in pairs for one in pair])
    share, networks = 0.0, np.zeros(len(rows), np.bool_)
    for was, now in pairs:
        changed = _moves_of_measure(was, now)[_ranking_of(was, rows), _ranking_of(now, rows)] & ~_first_of_own(was, now, rows)
        share = max(share, float(queries[changed].sum()) / max(1, int(queries.sum())))
        networks |= changed
    return share if networks.sum() >= FEW else 0.0


def _wan(decisions: Decisions, column: Column) -> ColumnDecisions | None:
    return decisions.columns.get(column) if isinstance(column.action, Wan) else None


def _measured_networks(columns: Sequence[ColumnDecisions]) -> Weights:
    """Each network with a row once, without the levels above, which speak for others; these where there is nothing else."""
    keys: Keys = np.unique(np.concatenate([one.keys for one in columns])) if columns else np.zeros(0, KEY)
    rows = unpack(keys)
    own = rows[rows["block"] >= 0]
    rows = own if len(own) else rows
    return Weights(rows, np.ones(len(rows), np.int64))


def _ranking_of(decided: ColumnDecisions, rows: Rows) -> NDArray[np.int64]:
    """Which ranking each network has; one past the last is the default."""
    return np.append(decided.ranking.astype(np.int64), len(decided.rankings))[nearest(rows, decided.keys)]


def _first_of_own(was: ColumnDecisions, now: ColumnDecisions, rows: Rows) -> Bools:
    """Networks that a level above spoke for, and that are measured themselves now, or by a nearer level.

    The first table after a start knows a few networks and speaks for all: it is no reason to refuse the next ones.
    """
    before, after = (np.append(one.keys, KEY.type())[nearest(rows, one.keys)] for one in (was, now))
    return np.asarray(after > before, np.bool_)  # a level's key sorts before those under it


def _moves_of_measure(was: ColumnDecisions, now: ColumnDecisions) -> Bools:
    """[ranking before, ranking after]: another first target, by measurement alone."""
    return np.array(
        [[_is_measured_move(a, b) for b in (*now.rankings, now.default)] for a in (*was.rankings, was.default)], np.bool_
    )


def _is_measured_move(before: Ranking, after: Ranking) -> bool:
    by_measure = before.reason in BY_MEASUREMENT and after.reason in BY_MEASUREMENT
    return by_measure and before.targets[:1] != after.targets[:1]
