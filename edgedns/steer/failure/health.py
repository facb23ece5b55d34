"""Failure, told beside WAN and not through it: CUSUM on loss.

A *path* is one (network, family, provider) as one vantage sees it. A loss moves its sum up by log(p1 / p0), a reply down
by log((1 - p1) / (1 - p0)); a burst of five losses in a row crosses the threshold. It is a failure only if, since the
first of them, the same vantage got a reply from the same network through another provider: otherwise the target is dead, or the
vantage. A provider is down where (network, provider) after (network, provider) turns silent and none replies.

Losses reach the histograms only when the path replied again and its siblings were clean meanwhile: an outage is told
here, once, and leaves no mark on the estimate.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from edgedns.errors import SourceError
from edgedns.model import Family, NetworkKey, RttSample
from edgedns.steer.failure.changed import follow_at, hand_over, last_seen, risen, settle, speaking
from edgedns.steer.failure.paths import (
    GROUP,
    PROVIDERS,
    VANTAGES,
    Numbered,
    among,
    levels_above,
    path_code,
    path_parts,
    places,
    siblings,
    waves,
)
from edgedns.steer.failure.shift import LEVEL, Levels, Singles
from edgedns.steer.failure.verdicts import arms, with_levels
from edgedns.steer.probing.doubts import Seen, Want, wants
from edgedns.steer.table.batch import Batch, batch_of
from edgedns.steer.table.rows import (
    KEY,
    Bools,
    Floats,
    Ints,
    Keys,
    Rows,
    Sections,
    lookup,
    nearest,
    pack,
    pack_json,
    pack_keys,
    rows_of,
    starts,
    unpack,
    unpack_json,
    unpack_keys,
)

LOSS_STEP = float(np.log(0.60 / 0.02))
REPLY_STEP = float(np.log(0.40 / 0.98))
PATH_LIMIT = 4.85 * LOSS_STEP
FIRST_LOSS_STEP = float(np.log(0.98 / 0.50))
ANY_REPLY_STEP = float(np.log(0.02 / 0.50))
PROVIDER_LIMIT = 15.5 * FIRST_LOSS_STEP
RECENT = 600.0
SPEAKING = 15.0
HOUR = 3600.0
KEPT = 6 * HOUR
CLEAN = 15.0
HOLD = 10.0
HOLD_ALONE = 90.0
MOST_FLAPS = 3
FLAP_WINDOW = 600.0
BACK_AFTER = 3

_PATH = np.dtype(
    [
        ("cusum", "<f8"), ("replied", "<f8"), ("lost", "<f8"), ("began", "<f8"), ("since", "<f8"), ("asked", "<f8"),
        ("run", "<i4"), ("good", "<i4"), ("flaps", "<i4"), ("down", "?"),
    ]
)  # fmt: skip
_WHOLE = np.dtype([("cusum", "<f8"), ("began", "<f8"), ("since", "<f8"), ("asked", "<f8"), ("flaps", "<i4"), ("down", "?")])

_RUN = np.dtype([("path", "<i8"), ("run", "<i8"), ("began", "<f8"), ("lost", "<f8")])


class Health:
    """The detector's state. `changes` grows whenever something went down or came back: then decide at once."""

    def __init__(self) -> None:
        self.changes = 0
        self.at = 0.0
        self._keys = Numbered(np.zeros(0, dtype=KEY))
        self._providers: tuple[str, ...] = ()
        self._vantages: tuple[str, ...] = ()
        self._codes: Ints = np.zeros(0, dtype=np.int64)
        self._paths: NDArray[np.void] = np.zeros(0, dtype=_PATH)
        self._levels: Levels = np.zeros(0, dtype=LEVEL)
        self._whole: NDArray[np.void] = np.zeros((2, 0), dtype=_WHOLE)
        self._whole_index: Ints = np.zeros(0, dtype=np.int64)
        self._accused: Ints | None = None
        self._shifting: Ints | None = None
        self._probed: Bools = np.zeros((2, 0), dtype=np.bool_)
        self._above: tuple[Keys, list[Ints]] | None = None
        self._verdicts: tuple[int, Keys, Bools] | None = None

    def observe(self, samples: Iterable[RttSample] | Batch) -> list[Batch]:
        """Take a batch of samples (any order inside it); returns what of it, and of losses kept back, histograms count."""
        batch = samples if isinstance(samples, Batch) else batch_of(samples)
        if not len(batch):
            return []
        self._forget(float(batch.at.max()))
        path = self._admit(batch)
        order = np.lexsort((~batch.lost, batch.at, path))
        self.at = max(self.at, float(batch.at.max()))
        ended = []
        for wave in waves(path[order], order):
            ended.append(self._step(path[wave], batch.at[wave], batch.lost[wave]))
            self._follow(path[wave], batch.at[wave], batch.rtt[wave])
        self._settle_providers(path, batch)
        self._settle_paths(path)
        return [batch.take(~batch.lost), *self._released(ended), *self._begun_anew(path)]

    def down(self, rows: Rows, providers: Sequence[str], family: Family) -> Bools:
        """bool[row, provider]: down for that network; a network never probed takes the nearest level's word.

        A level is down where four fifths of the networks probed under it are. A family never probed takes the other's
        word. Whole providers: see `provider_down`.
        """
        _, keys, verdicts = self._verdict_table()
        found = nearest(rows, keys)
        out = np.zeros((len(rows), len(providers)), dtype=np.bool_)
        for i, name in enumerate(providers):
            if name in self._providers and len(keys):
                out[:, i] = verdicts[found, _f(family), self._providers.index(name)] & (found >= 0)
        return out

    def failing(self, providers: Sequence[str], family: Family) -> Keys:
        """The networks, and levels above them, for which one of these providers is down."""
        _, keys, verdicts = self._verdict_table()
        places = [self._providers.index(name) for name in providers if name in self._providers]
        return keys[verdicts[:, _f(family), places].any(axis=1)]

    def slower(self, keys: Keys, providers: Sequence[str], family: Family, since: float) -> Floats:
        """[row, provider]: the RTT in ms to which that network's through it rose at or after `since`, NaN where it did not."""
        total, count = np.zeros((2, len(keys), len(providers)))
        paths = self._risen(since)
        row, of, provider, _ = path_parts(self._codes[paths])
        at, level = lookup(keys, self._keys.keys[row]), self._levels["level"][paths]
        for i, name in enumerate(providers):
            if name in self._providers:
                mine = (at >= 0) & (of == _f(family)) & (provider == self._providers.index(name))
                np.add.at(total[:, i], at[mine], level[mine])
                np.add.at(count[:, i], at[mine], 1.0)
        return np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)

    def any_slower(self, since: float) -> bool:
        """Some network's RTT through some provider rose at or after a time."""
        return len(self._risen(since)) > 0

    def _risen(self, since: float, some: Ints | None = None) -> Ints:
        return risen(self._codes, self._paths, self._levels, since, self.at, RECENT, some)

    def rows_known(self) -> Rows:
        """Every network that was probed, and every level above one."""
        return unpack(self._verdict_table()[1])

    def provider_down(self, provider: str, family: Family) -> bool:
        """True while a provider is silent everywhere though others reply; a family never probed takes the other's word."""
        if provider not in self._providers:
            return False
        place = self._providers.index(provider)
        own = self._probed[_f(family), place]
        return bool(self._whole["down"][_f(family) if own else 1 - _f(family), place])

    def state(self, key: NetworkKey, provider: str, family: Family) -> str:
        """'up', 'suspect' or 'down' for one network, as explain shows it."""
        if self.provider_down(provider, family) or self.down(rows_of([key]), [provider], family)[0, 0]:
            return "down"
        return "suspect" if (self._paths["run"][self._paths_of(key, provider, family)] > 0).any() else "up"

    def lands_elsewhere(self, vantage: str, provider: str, network: NetworkKey, family: Family) -> None:
        """That vantage's probes are answered to another one: it hears nothing any more, and nothing is wrong with the path."""
        paths = self._paths_of(network, provider, family)
        mine = paths[[self._vantages[number] == vantage for number in self._codes[paths] % VANTAGES]]
        for name in ("replied", "run", "cusum"):
            self._paths[name][mine] = 0

    def _paths_of(self, network: NetworkKey, provider: str, family: Family) -> Ints:
        """From whatever vantage."""
        row = int(self._keys.numbers(pack(rows_of([network])))[0])
        if row < 0 or provider not in self._providers:
            return np.zeros(0, dtype=np.int64)
        arm = (row * 2 + _f(family)) * PROVIDERS + self._providers.index(provider)
        return np.arange(*np.searchsorted(self._codes, (arm * VANTAGES, (arm + 1) * VANTAGES)))

    def wants(self, now: float) -> list[Want]:
        """Probes to send now, each asked for once (`doubts.py`)."""
        return wants(self.seen(), now)

    def seen(self) -> Seen:
        """Every path as it stands; not to be kept."""
        index, doubtful = self._whole_index, PROVIDER_LIMIT / 3
        state = (self._codes, self._paths, self._levels, self._whole, index, self._keys.keys)
        return Seen(*state, self._providers, self._vantages, doubtful, RECENT)

    def to_sections(self) -> Sections:
        """The detector's whole state as flat arrays."""
        about = {"providers": self._providers, "vantages": self._vantages, "changes": self.changes, "at": self.at}
        columns = {f"path_{name}": self._paths[name].copy() for name in _PATH.names or ()}
        levels = {f"level_{name}": self._levels[name].copy() for name in LEVEL.names or ()}
        whole = {f"whole_{name}": self._whole[name].copy() for name in _WHOLE.names or ()}
        keys = pack_keys(self._keys.keys)
        return {"about": pack_json(about), "keys": keys, "codes": self._codes, **columns, **levels, **whole}

    @classmethod
    def from_sections(cls, sections: Sections) -> Health:
        """The state that `to_sections` wrote; SourceError when it is not one."""
        about = unpack_json(sections, "about")
        health = cls()
        try:
            health._providers, health._vantages = tuple(about["providers"]), tuple(about["vantages"])
            health.changes, health.at = int(about["changes"]), float(about["at"])
            health._keys, health._codes = Numbered(unpack_keys(sections["keys"])), sections["codes"].astype(np.int64)
            health._paths = np.zeros(len(health._codes), dtype=_PATH)
            health._whole = np.zeros((2, len(health._providers)), dtype=_WHOLE)
            health._levels = np.zeros(len(health._codes), dtype=LEVEL)
            health._index()
            for name in _PATH.names or ():
                health._paths[name] = sections[f"path_{name}"]
            for name in LEVEL.names or ():
                health._levels[name] = sections[f"level_{name}"]
            for name in _WHOLE.names or ():
                health._whole[name] = sections[f"whole_{name}"]
        except (KeyError, TypeError, ValueError) as error:
            raise SourceError(f"stored health can't be read: {error!r}") from error
        return health

    def _admit(self, batch: Batch) -> Ints:
        """Make room for what the batch names; the index in `_paths` of each of its samples."""
        used = np.unique(batch.row)
        row_keys = np.zeros(len(batch.rows), dtype=KEY)
        row_keys[used] = pack(batch.rows[used])
        if self._keys.admit(row_keys[used]):
            self._above = None
        providers = tuple(sorted({*self._providers, *batch.providers}))
        vantages = tuple(sorted({*self._vantages, *batch.vantages}))
        if len(providers) > PROVIDERS or len(vantages) > VANTAGES:
            raise ValueError(f"{len(providers)} providers, {len(vantages)} vantages; at most {PROVIDERS} and {VANTAGES}")
        self._renumber(providers, vantages)
        number = np.zeros(len(batch.rows), dtype=np.int64)
        number[used] = self._keys.numbers(row_keys[used])
        wanted = path_code(
            number[batch.row],
            (batch.family == 6).astype(np.int64),
            places(batch.providers, providers)[batch.provider],
            places(batch.vantages, vantages)[batch.vantage],
        )
        at = np.minimum(np.searchsorted(self._codes, wanted), max(len(self._codes) - 1, 0))
        if len(self._codes) and (self._codes[at] == wanted).all():
            return at
        fresh = np.unique(wanted)
        fresh = fresh[~among(fresh, self._codes)]
        place = np.searchsorted(self._codes, fresh)
        self._codes, self._verdicts = np.insert(self._codes, place, fresh), None
        self._paths = np.insert(self._paths, place, np.zeros(1, dtype=_PATH))
        self._levels = np.insert(self._levels, place, np.zeros(1, dtype=LEVEL))
        self._index()
        return np.searchsorted(self._codes, wanted)

    def leave_out(self, vantages: Sequence[str]) -> None:
        """Forget what these saw, and who is down because of it."""
        if gone := [number for number, name in enumerate(self._vantages) if name in vantages]:
            self._keep(~np.isin(self._codes % VANTAGES, gone))

    def _forget(self, now: float) -> None:
        """Once an hour drop paths that were not probed for six."""
        if now // HOUR > self.at // HOUR:
            self._keep(np.maximum(self._paths["replied"], self._paths["lost"]) >= now - KEPT)

    def _keep(self, kept: Bools) -> None:
        if kept.all():
            return
        row, rest = np.divmod(self._codes[kept], 2 * GROUP)
        used, place = np.unique(row, return_inverse=True)
        self._keys, self._codes = Numbered(self._keys.keys[used]), place.reshape(-1) * (2 * GROUP) + rest
        self._paths, self._levels = self._paths[kept], self._levels[kept]
        self._above = self._verdicts = None
        self._index()

    def _renumber(self, providers: tuple[str, ...], vantages: tuple[str, ...]) -> None:
        if providers == self._providers and vantages == self._vantages:
            return
        row, family, provider, vantage = path_parts(self._codes)
        here = places(self._providers, providers)
        if len(self._codes):
            self._codes = path_code(row, family, here[provider], places(self._vantages, vantages)[vantage])
        whole = np.zeros((2, len(providers)), dtype=_WHOLE)
        whole[:, here] = self._whole
        self._providers, self._vantages, self._whole, self._verdicts = providers, vantages, whole, None
        self._index()

    def _index(self) -> None:
        """What follows from the paths that there are: the provider of each, and which providers were probed at all."""
        size = len(self._providers)
        self._accused = self._shifting = None
        self._whole_index = self._whole_of(self._codes)
        self._probed = np.bincount(self._whole_index, minlength=2 * size).reshape(2, size) > 0

    def _step(self, path: Ints, at: Floats, lost: Bools) -> NDArray[np.void]:
        """One sample for each of these distinct paths. Returns runs of losses that a reply ended: path, run, began, lost."""
        state = self._paths[path]
        known = state["down"] | (at - state["replied"] <= RECENT)
        loss, reply = lost & known, ~lost
        counted = loss & ~state["down"]
        state["began"] = np.where(counted & (state["run"] == 0), at, state["began"])
        over = reply & (state["run"] > 0) & ~state["down"]
        ended = np.zeros(int(over.sum()), dtype=_RUN)
        ended["path"] = path[over]
        for name in ("run", "began", "lost"):
            ended[name] = state[name][over]
        state["run"] = np.where(reply, 0, state["run"] + counted)
        step = np.where(counted, LOSS_STEP, np.where(reply, REPLY_STEP, 0.0))
        state["cusum"] = np.clip(state["cusum"] + step, 0.0, 2 * PATH_LIMIT)
        state["lost"] = np.where(lost, at, state["lost"])
        state["replied"] = np.where(reply, at, state["replied"])
        state["good"] = np.where(loss, 0, state["good"] + (reply & state["down"]))
        self._paths[path] = self._returned(path, state, at)
        return ended

    def _follow(self, path: Ints, at: Floats, rtt: Floats) -> None:
        """Follow the level of each path that replied."""
        heard = np.flatnonzero(~np.isnan(rtt))
        self._levels[path[heard]] = follow_at(self._levels[path[heard]], rtt[heard], at[heard])

    def _begun_anew(self, touched: Ints) -> Iterator[Batch]:
        """The last round trips of arms that are worse than they were."""
        paths, levels = self._paths, self._levels
        if self._shifting is None:
            self._shifting = np.flatnonzero(levels["shifted"] > 0.0)
        waiting = np.union1d(self._shifting, touched[levels["shifted"][touched] > 0.0])
        self._shifting = settle(self._codes, paths, levels, waiting, self.at, RECENT)
        over = hand_over(self._codes, paths, levels, touched, self.at, RECENT)
        rose = self._risen(self.at, np.union1d(waiting, over))
        self.changes += bool(len(over) + len(rose))
        heard = speaking(self._codes, paths, levels, rose, self.at - RECENT)
        if len(heard):
            rtt = last_seen(levels[heard])
            seeds = self._samples_of(np.repeat(heard, rtt.shape[1]), rtt.reshape(-1), np.full(rtt.size, self.at))
            row = seeds.rows[seeds.row]  # what a level above knows is not this path's alone
            yield replace(seeds.take((row["block"] >= 0) & (row["family"] == seeds.family)), anew=True)

    def _returned(self, path: Ints, state: NDArray[np.void], at: Floats) -> NDArray[np.void]:
        """Those are back that replied often enough, and lost nothing for long enough: who fails alone may well flap."""
        due = np.flatnonzero(state["down"] & (state["good"] >= BACK_AFTER))
        whole = self._whole.reshape(-1)[self._whole_index[path[due]]]
        together = whole["down"] | (whole["since"] > state["since"][due])
        held = np.where(together, HOLD, HOLD_ALONE * 2.0 ** np.minimum(state["flaps"][due], MOST_FLAPS))
        back = due[at[due] - np.where(together, state["since"][due], state["lost"][due]) >= held]
        state["down"][back], state["cusum"][back], state["since"][back] = False, 0.0, at[back]
        self.changes += bool(len(back))
        return state

    def _settle_paths(self, touched: Ints) -> None:
        """Paths over the limit are down where a sibling is a witness. Those without wait for one."""
        paths = self._paths
        asked = np.arange(len(paths)) if self._accused is None else np.union1d(touched, self._accused)
        over = ~paths["down"][asked] & (paths["run"][asked] > 0) & (paths["cusum"][asked] >= PATH_LIMIT)
        self._accused = accused = asked[over]
        if not len(accused):
            return
        owner, sibling = siblings(self._codes, accused)
        witness = self._witnesses(sibling, paths["began"][accused][owner], paths["lost"][accused][owner])
        guilty = accused[np.bincount(owner[witness], minlength=len(accused)) > 0]
        again = (paths["since"][guilty] > 0) & (paths["lost"][guilty] - paths["since"][guilty] < FLAP_WINDOW)
        paths["flaps"][guilty] = np.where(again, paths["flaps"][guilty] + 1, 0)
        paths["down"][guilty], paths["since"][guilty] = True, paths["lost"][guilty]
        paths["run"][guilty] = paths["good"][guilty] = 0
        self.changes += bool(len(guilty))

    def _witnesses(self, path: Ints, began: Floats | float, last: Floats | float) -> Bools:
        """Which paths replied since others began to lose, and lost nothing of late when those lost their last."""
        replied, lost = self._paths["replied"][path], self._paths["lost"][path]
        return np.asarray((replied > began) & ((lost < began) | (lost < last - CLEAN)), dtype=np.bool_)

    def _settle_providers(self, path: Ints, batch: Batch) -> None:
        """First losses against replies, provider by provider; then who is down, who is back."""
        began = self._paths["began"][path]
        first = batch.lost & (batch.at == began) & ~self._paths["down"][path]
        whole = self._whole_of(self._codes[path])
        news = np.flatnonzero(first | ~batch.lost)
        if not len(news):
            return
        news = news[np.lexsort((~batch.lost[news], batch.at[news], whole[news]))]
        for mine in np.split(news, starts(whole[news])[1:]):
            which, lost = int(whole[mine[0]]), batch.lost[mine]
            self._accumulate(which, batch.at[mine], lost)
            self._judge(which, bool((~lost).any()), bool((~lost & ~self._paths["down"][path[mine]]).any()))

    def _accumulate(self, which: int, at: Floats, lost: Bools) -> None:
        state = self._whole.reshape(-1)[which : which + 1]
        walk = np.concatenate(([state["cusum"][0]], np.where(lost, FIRST_LOSS_STEP, ANY_REPLY_STEP))).cumsum()
        reflected = walk - np.minimum(np.minimum.accumulate(walk), 0.0)
        idle = np.flatnonzero(reflected[:-1] <= 0.0)
        if len(idle):
            state["began"] = at[idle[-1]]
        state["cusum"] = min(float(reflected[-1]), 2 * PROVIDER_LIMIT)

    def _judge(self, which: int, heard: bool, well: bool) -> None:
        """Is the provider down, or back? heard: it replied just now; well: so did a path of it that isn't down."""
        state = self._whole.reshape(-1)[which : which + 1]
        doubted = state["cusum"][0] >= PROVIDER_LIMIT
        if state["down"][0]:
            if heard:
                self._judge_return(state, np.flatnonzero(self._whole_index == which))
            return
        if well and not doubted:
            return
        paths, mine = self._paths, np.flatnonzero(self._whole_index == which)
        fresh = mine[paths["replied"][mine] > self.at - RECENT]
        silent = self._rows_in(fresh) >= 2 and bool(paths["down"][fresh].all())
        if silent or (doubted and self._others_alive(which, float(state["began"][0]))):
            again = state["since"][0] > 0 and self.at - state["since"][0] < FLAP_WINDOW
            state["flaps"], state["down"], state["since"] = state["flaps"] + 1 if again else 0, True, self.at
            self.changes += 1

    def _others_alive(self, which: int, since: float) -> bool:
        """Three networks replied through others over the same family, to vantages of half at least of the paths that lost."""
        size = len(self._providers)
        others = np.flatnonzero((self._whole_index // size == which // size) & (self._whole_index != which))
        heard = others[self._witnesses(others, since, self.at)]
        counted = (self._paths["run"] > 0) | self._paths["down"]
        losing = np.flatnonzero((self._whole_index == which) & counted & (self._paths["lost"] >= since))
        believed = np.isin(self._codes[losing] % VANTAGES, self._codes[heard] % VANTAGES)
        enough = self._rows_in(heard) >= 3 and 2 * int(believed.sum()) >= len(losing)
        return enough and self._most_accuse(which, losing, since)

    def _most_accuse(self, which: int, losing: Ints, since: float) -> bool:
        """One vantage, one vote: more than half of those that speak and heard the provider of late lose more than they hear."""
        paths, vantage = self._paths, self._codes % VANTAGES
        mine, last = self._whole_index == which, np.maximum(paths["replied"], paths["lost"])
        heard = np.flatnonzero(mine & (paths["replied"] > since) & (paths["run"] == 0))
        counts = (np.bincount(vantage[some], minlength=len(self._vantages)) for some in (losing, heard))
        accuses = np.greater(*counts)
        speaks = np.intersect1d(vantage[last > self.at - SPEAKING], vantage[mine & (paths["replied"] > self.at - RECENT)])
        return 2 * int(accuses[speaks].sum()) > len(speaks)

    def _judge_return(self, state: NDArray[np.void], mine: Ints) -> None:
        since = float(state["since"][0])
        rows = self._rows_in(mine)
        replying = self._rows_in(mine[self._paths["replied"][mine] > since])
        if replying >= min(3, rows) and self.at - since >= HOLD / 2 * 2.0 ** min(int(state["flaps"][0]), 5):
            state["down"], state["cusum"], state["since"] = False, 0.0, self.at
            self.changes += 1

    def _rows_in(self, which: Ints) -> int:
        """How many networks these paths, in order, are of."""
        return int(np.count_nonzero(np.diff(self._codes[which] // (2 * GROUP), prepend=-1)))

    def _whole_of(self, codes: Ints) -> Ints:
        """Index into the flattened `_whole` of each path."""
        _, family, provider, _ = path_parts(codes)
        return family * len(self._providers) + provider

    def _released(self, ended: list[NDArray[np.void]]) -> Iterator[Batch]:
        """Losses of runs that a reply ended, where a sibling was heard and lost nothing about then."""
        runs = np.concatenate(ended)
        if not len(runs):
            return
        owner, sibling = siblings(self._codes, runs["path"])
        began = runs["began"][owner]
        clean = (self._paths["replied"][sibling] > began - CLEAN) & (self._paths["lost"][sibling] < began - CLEAN)
        kept = runs[np.bincount(owner[clean], minlength=len(runs)) > 0]
        repeated = np.repeat(np.arange(len(kept)), kept["run"])
        yield self._samples_of(kept["path"][repeated], np.full(len(repeated), np.nan), kept["lost"][repeated])

    def _samples_of(self, path: Ints, rtt: Floats | Singles, at: Floats) -> Batch:
        """Samples of paths; `rtt` in ms, NaN lost."""
        row, family, provider, vantage = path_parts(self._codes[path])
        used, place = np.unique(row, return_inverse=True)
        rows, family = unpack(self._keys.keys[used]), np.where(family == 1, 6, 4)
        rtts = rtt.astype(np.float64)
        return Batch(rows, self._providers, self._vantages, place.reshape(-1), provider, vantage, family, rtts, at)

    def _verdict_table(self) -> tuple[int, Keys, Bools]:
        """(changes, keys, bool[key, family, provider]) of networks and all levels above them."""
        if self._verdicts is None or self._verdicts[0] != self.changes:
            if self._above is None:
                self._above = levels_above(self._keys.keys)
            every, above = self._above
            shape = (len(self._keys), 2, len(self._providers))
            told = arms(self._codes, self._paths, self._levels, shape, self.at - RECENT)
            self._verdicts = (self.changes, every, with_levels(*told, len(every), above))
        return self._verdicts


def _f(family: Family) -> int:
    return 0 if family == 4 else 1
