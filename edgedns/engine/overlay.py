"""Decisions -> an overlay file: which ranking each network gets in each column. Control process only (numpy).

A column is either one ranking for everyone or a u16 a network; networks without a decision of their own take that of the
nearest level above them that has one, else the column's default.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgedns.engine import flat
from edgedns.engine.snapshot import NONE, RANKING, SPLIT_SLOTS
from edgedns.errors import PublishRefused
from edgedns.model import Reason
from edgedns.steer.deciding.decisions import Column, Decisions, Ranking
from edgedns.steer.space.atoms import Atoms
from edgedns.steer.table.rows import Rows, level_of

Words = npt.NDArray[np.uint64]
Ints = npt.NDArray[np.int64]
DOWN = {"": 0, "nodata": 1, "servfail": 2}
TARGETS_MAX = RANKING - 4
RANKINGS_MAX = 0xFFFF


@dataclass(frozen=True)
class Spreader:
    """Spreads decisions by row over the networks of a set of atoms."""

    atoms: Atoms
    level_pairs: Words
    keys: Words
    order: Ints

    @classmethod
    def of(cls, atoms: Atoms) -> Spreader:
        pairs = _pairs(atoms.level_asncc_asn, atoms.level_asncc_country)
        keys = _network_words(_pairs(atoms.net_asn, atoms.net_country), atoms.net_family, atoms.net_block)
        return cls(atoms, pairs, keys, np.argsort(keys, kind="stable"))

    def spread(self, rows: Rows, values: Ints, fallback: int) -> Ints:
        """One value a network: its own row's, else that of the nearest level above it in `rows`, else `fallback`.

        Unmapped space has no levels; neither has a public resolver's own address.
        """
        atoms, level = self.atoms, level_of(rows)
        spread = np.full(len(atoms.net_asn), fallback, np.int64)
        everyone = values[level == 4]
        if len(everyone):
            spread[atoms.net_asn_ix >= 0] = everyone[0]
        pairs = _pairs(rows["asn"], rows["country"])
        for number, known, wanted, place in (
            (3, atoms.level_asn.astype(np.uint64), rows["asn"].astype(np.uint64), atoms.net_asn_ix),
            (2, _pairs(0, atoms.level_country), _pairs(0, rows["country"]), atoms.net_cc_ix),
            (1, self.level_pairs, pairs, atoms.net_asncc),
        ):
            mine = level == number
            _lay(spread, known, wanted[mine], values[mine], place)
        mine = level == 0
        self._lay_own(spread, _network_words(pairs, rows["family"], rows["block"])[mine], values[mine])
        return spread

    def _lay_own(self, spread: Ints, wanted: Words, values: Ints) -> None:
        """The networks' own rows; a public network and its twin share a key, so each may hit two."""
        ordered = self.keys[self.order]
        for at in (np.searchsorted(ordered, wanted, "left"), np.searchsorted(ordered, wanted, "right") - 1):
            at = np.clip(at, 0, len(ordered) - 1)
            hit = ordered[at] == wanted
            spread[self.order[at[hit]]] = values[hit]


def _lay(spread: Ints, known: Words, wanted: Words, values: Ints, place: npt.NDArray[np.int32]) -> None:
    """Give `values` to the networks whose level (`place` in the sorted column `known`) is `wanted`."""
    if not len(wanted) or not len(known):
        return
    at = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
    hit = known[at] == wanted
    by_level = np.full(len(known) + 1, -1, np.int64)
    by_level[at[hit]] = values[hit]
    laid = by_level[place]  # place -1 is the last entry, which nothing is laid on
    np.copyto(spread, laid, where=laid >= 0)


def _pairs(asn: npt.ArrayLike, country: npt.NDArray[np.bytes_]) -> Words:
    """(ASN, country) as one word that sorts like the pair."""
    letters = np.ascontiguousarray(country, "S2").view(">u2").astype(np.uint64)
    return np.asarray(asn).astype(np.uint64) << np.uint64(16) | letters


def _network_words(pairs: Words, family: npt.ArrayLike, block: npt.ArrayLike) -> Words:
    """A word for a network's key. 80 bits are mixed into 64: among a million networks two meet once in 40 million tables."""
    where = np.asarray(family).astype(np.uint64) << np.uint64(32) | np.asarray(block).astype(np.uint64)
    mixed = (pairs ^ pairs >> np.uint64(29)) * np.uint64(0xBF58476D1CE4E5B9)
    return (mixed ^ mixed >> np.uint64(32)) * np.uint64(0x94D049BB133111EB) + where * np.uint64(0x9E3779B97F4A7C15)


def compile_overlay(
    columns: Sequence[Column],
    decisions: Decisions,
    providers: Sequence[str],
    spreader: Spreader,
    salt: int,
    nominal: bool = False,
) -> bytes:
    """The overlay that serves `decisions`; with `nominal`, what holds once nothing fresh is known (law 4)."""
    book = _Rankings(providers, salt)
    heads, parts, offset = array("I"), [], 0
    for column in columns:
        made = decisions.columns[column]
        if nominal or not len(made.keys):
            heads.extend((book.number(made.nominal if nominal else made.default), 0))
            continue
        numbers = np.array([book.number(ranking) for ranking in made.rankings], np.int64)
        spread = spreader.spread(made.rows, numbers[made.ranking], book.number(made.default))
        parts.append(spread.astype(np.uint16))
        heads.extend((NONE, offset))
        offset += len(spread)
    return flat.pack(
        {
            "meta": ("B", json.dumps({"nominal": nominal}).encode()),
            "column": ("I", heads),
            "ranking_of": ("H", np.concatenate(parts).data.cast("B") if parts else b""),
            "ranking": ("H", book.rows),
            "split": ("B", b"".join(book.splits)),
        }
    )


class _Rankings:
    """The rankings of one overlay, each stored once, cut to what an answer can need."""

    def __init__(self, providers: Sequence[str], salt: int) -> None:
        self.rows = array("H")
        self.splits: list[bytes] = []
        self._place = {name: index for index, name in enumerate(providers)}
        self._providers = providers
        self._salt = salt
        self._known: dict[tuple[object, ...], int] = {}
        self._split_known: dict[tuple[object, ...], int] = {}

    def number(self, ranking: Ranking) -> int:
        targets = tuple(self._place[name] for name in ranking.targets if name in self._place)
        shares = ranking.shares if len(targets) == len(ranking.targets) else ()
        kept = targets[:TARGETS_MAX] if shares else targets[:3]
        split = self._split(targets, shares, ranking.reasons) if len(shares) > 1 else 0
        down = DOWN[ranking.down] if targets or ranking.down else DOWN["nodata"]
        if split and ranking.reasons:
            kept = tuple(target | 1 + reason << 8 for target, reason in zip(kept, ranking.reasons, strict=False))
        row = (down, int(ranking.reason), len(kept), split, *kept)
        number = self._known.get(row)
        if number is None:
            number = self._known[row] = len(self._known)
            if number >= RANKINGS_MAX:
                raise PublishRefused(f"more than {RANKINGS_MAX} different rankings in one round")
            self.rows.extend((*row, *[0] * (RANKING - len(row))))
        return number

    def _split(self, targets: tuple[int, ...], shares: tuple[float, ...], reasons: tuple[Reason, ...]) -> int:
        held = reasons.index(Reason.HOLDOUT) if Reason.HOLDOUT in reasons else None
        key = (targets, shares, held)
        if key not in self._split_known:
            members = [(self._providers[t], t, share) for t, share in zip(targets, shares, strict=True)]
            _, index, share = members.pop(held) if held is not None else ("", 0, 0.0)
            self.splits.append(split_table(members, self._salt, (index, share)))
            self._split_known[key] = len(self.splits)
        return self._split_known[key]


def split_table(members: Sequence[tuple[str, int, float]], salt: int, held: tuple[int, float] = (0, 0.0)) -> bytes:
    """Weighted rendezvous (Thaler & Ravishankar 1998) over 4,096 places: who leaves moves only what was its own.

    `members` are (name, index, weight). A place goes to the member with the least -ln(u)/weight, u a hash of (place, name).
    `held` (index, share) takes that share of all places first: the same ones in every table, and more of them as it grows,
    so that a client held out stays so whoever serves.
    """
    best = np.full(SPLIT_SLOTS, np.inf)
    table = np.zeros(SPLIT_SLOTS, np.uint8)
    for name, index, weight in members:
        if weight <= 0:
            continue
        cost = -np.log(_uniform(f"{salt}/{name}")) / weight
        table[cost < best] = index
        best = np.minimum(best, cost)
    index, share = held
    if share > 0:
        table[np.argsort(_uniform(f"{salt}//holdout"), kind="stable")[: round(share * SPLIT_SLOTS)]] = index
    return table.tobytes()


def _uniform(label: str) -> npt.NDArray[np.float64]:
    """4,096 numbers in (0, 1) that depend on the label alone."""
    raw = hashlib.shake_128(label.encode()).digest(8 * SPLIT_SLOTS)
    return (np.frombuffer(raw, "<u8").astype(np.float64) + 0.5) / 2.0**64
