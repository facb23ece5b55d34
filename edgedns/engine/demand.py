"""How much is asked from where, by what the workers count: the demand that caps are about. Control process only (numpy).

Queries are counted by network for all names together, and by rule; a rule's queries are spread over the networks that it
reaches as theirs are. Rates are means over the last minutes, so that prices don't follow every gust.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from edgedns.engine.overlay import Spreader
from edgedns.engine.snapshot import View
from edgedns.engine.tally import ANSWERS
from edgedns.model import Failover, Pin, Provider, Wan, Weighted
from edgedns.steer.deciding.decisions import Column, Decisions
from edgedns.steer.space.atoms import Atoms
from edgedns.steer.table.rows import Keys, unpack

HALF_LIFE = 300.0
U32 = npt.NDArray[np.uint32]
U64 = npt.NDArray[np.uint64]
Floats = npt.NDArray[np.float64]
NONE = np.zeros(0)


@dataclass(frozen=True)
class Rates:
    """Decayed sums: queries by network id, counts by cell, and the seconds that they are of. Networks are those of `atoms`."""

    atoms: str = ""
    networks: Floats = field(default_factory=lambda: NONE)
    cells: Floats = field(default_factory=lambda: NONE)
    seconds: float = 0.0
    last_networks: U32 = field(default_factory=lambda: np.zeros(0, np.uint32))
    last_cells: U64 = field(default_factory=lambda: np.zeros(0, np.uint64))

    def after(self, atoms: str, networks: U32, cells: U64, seconds: float) -> Rates:
        """The rates when `seconds` later the counters stand so (u32 by network modulo 2**32, u64 by cell).

        A network counter that seems to go backwards was begun anew: it counts from there.
        """
        if self.atoms != atoms or len(self.last_networks) != len(networks):
            return Rates(atoms, np.zeros(len(networks)), np.zeros(len(cells)), 0.0, networks, cells)
        keep = 0.5 ** (seconds / HALF_LIFE)
        asked = networks - self.last_networks
        asked[asked > np.uint32(1 << 31)] = 0
        counted = cells - np.minimum(_longer(self.last_cells, len(cells)), cells)
        return Rates(
            atoms, self.networks * keep + asked, _longer(self.cells, len(cells)) * keep + counted,
            self.seconds * keep + seconds, networks, cells,
        )  # fmt: skip


def _longer(column: npt.NDArray[np.generic], size: int) -> npt.NDArray[np.generic]:
    return np.concatenate([column, np.zeros(max(0, size - len(column)), column.dtype)])[:size]


def counts_by_network(arrays: Sequence[bytes], size: int) -> U32:
    """The workers' arrays (u32, native order) added up modulo 2**32; one of another size is of other atoms."""
    whole = np.zeros(size, np.uint32)
    for array in arrays:
        if len(array) == 4 * size:
            whole += np.frombuffer(array, np.uint32)
    return whole


@dataclass(frozen=True)
class RuleInForce:
    """One rule of one policy: its columns (A, AAAA), where each provider's answers by it are counted, nobody's last, and what

    part of each network's addresses it is for (None: all of them, or not asked: a rule that isn't wan).
    """

    policy: int
    columns: tuple[Column, Column]
    answers: tuple[int, ...]
    reach: Floats | None


def rules_in_force(view: View, columns: Sequence[Column], atoms: Atoms, every: bool) -> list[RuleInForce]:
    """The rules of a published base, as they stand in this view; with `every` the reach of rules that aren't wan, too."""
    found: list[RuleInForce] = []
    part = _part_of_network(atoms)
    cells = np.frombuffer(view.base.cells, np.uint32)
    for policy, rules in enumerate(view.base.policies):
        start = view.rows[policy] * view.atom_count
        rule = cells[start : start + view.atom_count] >> 8
        for ordinal, one in enumerate(rules):
            mine = None
            if len(rules) > 1 and (every or one.kind == "wan"):
                weights = np.where(rule == ordinal, part, 0.0)
                mine = np.bincount(atoms.network, weights=weights, minlength=len(atoms.net_asn)).astype(np.float64)
            found.append(RuleInForce(policy, (columns[one.columns[0]], columns[one.columns[1]]), one.answers, mine))
    return found


def _part_of_network(atoms: Atoms) -> Floats:
    """By atom: what part of its network's addresses it holds."""
    size = np.exp2(-atoms.length.astype(np.float64))
    whole = np.bincount(atoms.network, weights=size, minlength=len(atoms.net_asn))
    return np.asarray(size / whole[atoms.network])


@dataclass(frozen=True)
class Demand:
    """By second. columns[column][network] where prices decide; `fixed` by (column, whole) for all other rules."""

    columns: Mapping[Column, Floats]
    fixed: Sequence[tuple[Column, float]]
    total: float

    def rows(self, decisions: Decisions, spreader: Spreader) -> dict[Column, Floats]:
        """The demand by row of each wan column's offer."""
        return {
            column: _by_row(self.columns[column], decided.offer.keys, spreader)
            for column, decided in decisions.columns.items()
            if decided.offer is not None and column in self.columns
        }

    def fixed_load(self, providers: Mapping[str, Provider], up: frozenset[str]) -> Floats:
        """By provider, what rules other than wan give it when these are up."""
        load = dict.fromkeys(providers, 0.0)
        for column, whole in self.fixed:
            for name, share in _given(column, providers, up):
                load[name] += share * whole
        return np.array(list(load.values()), np.float64)


def _by_row(demand: Floats, keys: Keys, spreader: Spreader) -> Floats:
    rows = len(keys) - 1
    row = spreader.spread(unpack(keys[:rows]), np.arange(rows), rows)
    return np.bincount(row, weights=demand, minlength=rows + 1).astype(np.float64)


def _given(column: Column, providers: Mapping[str, Provider], up: frozenset[str]) -> list[tuple[str, float]]:
    """(provider, share) of a pin, weighted or failover rule."""
    action = column.action
    if isinstance(action, Pin):
        named = {action.provider: 1.0}
    elif isinstance(action, Weighted):
        named = {name: share for name, share in action.shares if share > 0}
    else:
        named = dict.fromkeys(action.order if isinstance(action, Failover) else (), 1.0)
    able = [name for name in named if name in providers and providers[name].addresses(column.family)]
    able = [name for name in able if name in up] or able
    if not isinstance(action, Weighted):
        able = able[:1]
    whole = sum(named[name] for name in able)
    return [(name, named[name] / whole) for name in able]


def demand_of(rules: Sequence[RuleInForce], rates: Rates, v6: float) -> Demand:
    """The demand by these rates; `v6` is the share of AAAA among what is asked."""
    seconds = max(rates.seconds, 1e-9)
    sharers = [rule.answers for rule in rules]
    wholes = [answered(rule, rates.cells) / seconds / sharers.count(rule.answers) for rule in rules]
    return _spread(rules, wholes, rates.networks, v6)


def demand_given(rules: Sequence[RuleInForce], networks: Floats, v6: float) -> Demand:
    """The demand where a file says it by network: the same for each policy, together that."""
    policies = len({rule.policy for rule in rules})
    wholes = [float((networks if rule.reach is None else networks * rule.reach).sum()) / policies for rule in rules]
    return _spread(rules, wholes, networks, v6)


def _spread(rules: Sequence[RuleInForce], wholes: Sequence[float], networks: Floats, v6: float) -> Demand:
    """Each rule's whole over the networks that it reaches, as much as they ask, and over A and AAAA."""
    columns: dict[Column, Floats] = {}
    fixed: list[tuple[Column, float]] = []
    for rule, whole in zip(rules, wholes, strict=True):
        weight = networks if rule.reach is None else networks * rule.reach
        part = whole / max(float(weight.sum()), 1e-300)
        for column, share in zip(rule.columns, (1.0 - v6, v6), strict=True):
            if isinstance(column.action, Wan):
                columns[column] = columns.get(column, 0.0) + weight * (part * share)
            else:
                fixed.append((column, whole * share))
    return Demand(columns, fixed, sum(wholes))


def answered(rule: RuleInForce, cells: Floats) -> float:
    """How many answers a rule gave, whoever they named."""
    return float(sum(cells[at : at + ANSWERS].sum() for at in rule.answers))


def answers_by_provider(rules: Sequence[RuleInForce], cells: Floats, names: Sequence[str]) -> dict[str, float]:
    """How many answers gave each provider; blocks that rules share are counted once."""
    blocks = {rule.answers for rule in rules}
    return {name: float(sum(cells[at[i] : at[i] + ANSWERS].sum() for at in blocks)) for i, name in enumerate(names)}
