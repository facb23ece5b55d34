"""Each round: which arms agents with room are to probe beside their schedules, by `steer.worth`, and which of them does it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgedns.control.plausible import Weights
from edgedns.control.schedule import Force
from edgedns.control.wanted import Wanted
from edgedns.model import Family, NetworkKey, Wan
from edgedns.steer.deciding.decisions import ColumnDecisions, Decisions
from edgedns.steer.failure.paths import path_parts
from edgedns.steer.probing.doubts import Seen
from edgedns.steer.probing.worth import Field, chosen
from edgedns.steer.table.rows import Floats, Ints, Keys, key_of, lookup, nearest, pack, unpack

FAMILIES: tuple[Family, Family] = (4, 6)
Arm = tuple[NetworkKey, Family, str]


@dataclass(frozen=True, slots=True)
class Ways:
    """Which vantage hears which arm, and when it was probed last: a row each, sorted by arm.

    An arm is the index of its network in `keys` (sorted) times the providers, plus the provider's.
    """

    keys: Keys
    arm: Ints
    vantage: Ints
    last: Floats


def pick(wanted: Wanted, seen: Seen, force: Force, asked: Callable[[], Weights | None], now: float) -> None:
    """Plan the next round for every vantage that has room; nothing where none has."""
    rooms = {name: wanted.vantages[name].room for name in wanted.present(now) if wanted.vantages[name].room > 0}
    if not rooms or not len(seen.codes):
        return
    period, weights = force.world.rules.round, asked()
    plans: dict[str, list[Arm]] = {name: [] for name in rooms}
    left = {name: max(1, int(room * period)) for name, room in rooms.items()}
    for number, family in enumerate(FAMILIES):
        ways = _ways(seen, number, rooms, now)
        if len(ways.arm):
            arms = chosen(_field(ways, seen, force, weights, family), now, sum(left.values()))
            _share_out(ways, seen, arms, family, left, plans)
    for name, arms_of in plans.items():
        wanted.plan(name, arms_of, now, period)


def _ways(seen: Seen, family: int, able: Collection[str], now: float) -> Ways:
    """Of one family: paths from vantages that are able, which replied of late and are not down."""
    row, of, provider, vantage = path_parts(seen.codes)
    paths = seen.paths
    keys = seen.keys[row]
    mine = np.array([name in able for name in seen.vantages])[vantage]
    heard = mine & (of == family) & (paths["replied"] > now - seen.recent) & ~paths["down"]
    used = np.unique(keys[heard])
    arm = lookup(used, keys[heard]) * len(seen.providers) + provider[heard]
    order = np.argsort(arm, kind="stable")
    last = np.maximum(paths["replied"], paths["lost"])[heard]
    return Ways(used, arm[order], vantage[heard][order], last[order])


def _field(ways: Ways, seen: Seen, force: Force, asked: Weights | None, family: Family) -> Field:
    table = force.table
    shape = (len(ways.keys), len(seen.providers))
    last = np.zeros(shape)
    np.maximum.at(last.reshape(-1), ways.arm, ways.last)
    heard = last > 0.0
    own, f = lookup(table.keys, ways.keys), FAMILIES.index(family)
    known = [name in table.providers for name in seen.providers]
    columns = [table.providers.index(name) if there else 0 for name, there in zip(seen.providers, known, strict=True)]
    there = (own >= 0)[:, None] & np.array(known)
    samples = np.where(there, table.samples[own][:, f][:, columns], 0.0) if len(table.keys) else np.zeros(shape)
    typical = np.where(there, table.typical[own][:, f][:, columns], np.nan) if len(table.keys) else np.full(shape, np.nan)
    serving = _serving(force.decisions, ways.keys, seen.providers, family)
    return Field(samples.astype(np.float64), typical.astype(np.float64), serving, _weight(ways.keys, asked), heard, last)


def _weight(keys: Keys, asked: Weights | None) -> Floats:
    """Queries of each network; all weigh the same where nobody knows."""
    if asked is None:
        return np.ones(len(keys))
    of = pack(asked.rows)
    order = np.argsort(of, kind="stable")
    at = lookup(of[order], keys)
    return np.where(at >= 0, asked.queries[order][at], 0.0).astype(np.float64)


def _serving(decisions: Decisions, keys: Keys, providers: Sequence[str], family: Family) -> Ints:
    """Who serves each network in the first wan column of the family, -1 where nobody among `providers` does."""
    column = next((one for one in decisions.columns.values() if _is_wan(one) and one.column.family == family), None)
    if column is None:
        return np.full(len(keys), -1, dtype=np.int64)
    numbers = {name: i for i, name in enumerate(providers)}
    first = [numbers.get(ranking.targets[0], -1) if ranking.targets else -1 for ranking in (*column.rankings, column.default)]
    index = np.append(column.ranking, len(column.rankings))[nearest(unpack(keys), column.keys)]
    return np.asarray(np.array(first, dtype=np.int64)[index], dtype=np.int64)


def _is_wan(column: ColumnDecisions) -> bool:
    return isinstance(column.column.action, Wan)


def _share_out(
    ways: Ways, seen: Seen, arms: Ints, family: Family, left: dict[str, int], plans: Mapping[str, list[Arm]]
) -> None:
    """Each arm to the vantage that hears it and has most room left, so that they share."""
    first, last = np.searchsorted(ways.arm, arms), np.searchsorted(ways.arm, arms + 1)
    keys = [key_of(key) for key in unpack(ways.keys[arms // len(seen.providers)])]
    for arm, key, begin, end in zip(arms.tolist(), keys, first.tolist(), last.tolist(), strict=True):
        able = [name for v in ways.vantage[begin:end] if left.get(name := seen.vantages[v], 0) > 0]
        if able:
            name = max(able, key=lambda each: left[each])
            left[name] -= 1
            plans[name].append((key, family, seen.providers[arm % len(seen.providers)]))
