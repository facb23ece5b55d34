"""The schedule of one vantage: every provider to every target once a period, spread evenly, jittered, within budget.

A probe is a burst of up to three packets and gives one sample: the least RTT, or lost. A lost one is looked into at
once: four more single probes at 200 ms, over the targets of the same network, and one through another provider, which
tells whether the target is alive at all.
A network that has never answered through a provider lies in another PoP's catchment: its replies land there. It is
asked in each sixth period only, and its losses are nothing to look into.
All on the running asyncio loop; the loop's delays touch when packets leave, not what is measured (`measure.py`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from random import Random

from edgedns.errors import EdgednsError
from edgedns.model import Method
from edgedns.probe.after import After
from edgedns.probe.budget import Budget, sustained
from edgedns.probe.catchment import Landing, Landings
from edgedns.probe.layout import Arm, Plan, laid_out
from edgedns.probe.measure import Line, Token
from edgedns.probe.methods import DATAGRAMS, Voice, open_line
from edgedns.probe.paths import Counts, Path, Paths, Sample
from edgedns.probe.source import NotPossible, Source
from edgedns.probe.targets import Target
from edgedns.probe.wire import Stamp
from edgedns.special import Prefixes

__all__ = ["Agent", "Counts", "Path", "Plan", "Sample", "Source", "Voice"]
JITTER_SHARE = 0.1
STEP_LIMIT = 64
SLACK = 0.005
SILENT_EVERY = 6  # periods


@dataclass(slots=True, eq=False)
class _Probe:
    path: Path
    scheduled: bool
    at: float
    wanted: int
    asked: Callable[[Sample | None], None] | None
    best: float | None = None
    replies: int = 0
    tries: int = 0
    ended: bool = False
    tokens: list[Token] = field(default_factory=list)


class Agent:
    """Probes from `start` until `stop`, giving each sample to `on_sample`. Create it in the running event loop.

    Raises NotPossible where a source or method can't be used, EdgednsError where no source suits any target.
    `clock` gives Unix seconds, `dice` the jitter. An agent whose `voice` has a fleet's port listens at all its sources for
    replies to the others, and tells `on_landing` of them; `deaf` says where it can't. To hosts in `never` no packet goes.
    """

    def __init__(
        self,
        plan: Plan,
        sources: Sequence[Source],
        targets: Sequence[Target],
        on_sample: Callable[[Sample], None],
        clock: Callable[[], float],
        dice: Random,
        voice: Voice,
        on_landing: Callable[[Landing], None] = lambda landing: None,
        never: Prefixes | None = None,
    ) -> None:
        self.plan = plan
        self.counts = Counts()
        self._on_sample = on_sample
        self._clock = clock
        self._dice = dice
        self._loop = asyncio.get_running_loop()
        self._sources = sources
        self._voice = voice
        self._on_landing = on_landing
        self.landings = Landings(clock)
        self.deaf: list[str] = []
        self._budget = Budget(plan.per_address, plan.ceiling, plan.of_network)
        self._lines: dict[tuple[Method, Source], Line] = {}
        self._places: dict[Target, float] = {}
        self._targets = targets
        self._never = never or Prefixes()
        self._laying = asyncio.Lock()
        self._next = self._round = self._together = 0
        try:
            self._paths = self._laid(targets, self._round)
            if self._paths.unreachable and not self._paths.all:
                raise EdgednsError("no target can be probed: no source has the address family of any target's endpoint")
            self._listen()
        except EdgednsError:
            self._close_lines()
            raise
        self._coming: Paths | None = None
        self._confirming: dict[tuple[str, str], float] = {}
        self._answered: set[tuple[str, str]] = set()
        self._under_way: set[_Probe] = set()
        self._waiting: set[asyncio.TimerHandle] = set()
        self._walk: asyncio.TimerHandle | None = None
        self._again = After(self._loop, plan.gap, self._send_again, SLACK)
        lasts = {burst: (burst - 1) * plan.gap + plan.timeout for burst in range(1, max(1, plan.burst) + 1)}
        self._ends = {burst: After(self._loop, last, self._end, is_over=_is_over) for burst, last in lasts.items()}
        self._round_at = self._due = 0.0
        self._rounds_left: int | None = None
        self._makes_room = False
        self.idle = asyncio.Event()

    @property
    def strays(self) -> int:
        """Packets that came to our sockets and answered nothing of ours."""
        return sum(line.strays for line in self._lines.values())

    @property
    def ways(self) -> list[str]:
        """The methods in use, and how the system lets them be done."""
        return sorted({method + (f" ({line.way})" if line.way else "") for (method, _), line in self._lines.items()})

    @property
    def paths(self) -> tuple[Path, ...]:
        return self._paths.all

    @property
    def period(self) -> float:
        """Seconds: as planned, or longer to keep the ceilings and to make room."""
        return self._paths.period * (2.0 if self._makes_room and self.room else 1.0)

    @property
    def room(self) -> float:
        """Packets a second for what the collector asks: half of the ceiling, where that can't cover every path each period."""
        most = sustained(self.plan.ceiling)
        short = self._paths.period > self.plan.every and self._paths.packets >= 0.99 * most * self._paths.period
        return most / 2 if short else 0.0

    @property
    def sources(self) -> Sequence[Source]:
        return self._sources

    @property
    def reached(self) -> int:
        """Targets that are probed."""
        return len(self._paths.of_target)

    @property
    def unreachable(self) -> int:
        """Targets of a family that no source has."""
        return self._paths.unreachable

    @property
    def burst(self) -> int:
        """The packets of the thinnest probe: less than asked for where the budget is short."""
        return min((path.burst for path in self.paths), default=self.plan.burst)

    @property
    def turns(self) -> int:
        """Periods until the targets of the fullest network have all had their turn."""
        return max((path.turns for path in self.paths), default=1)

    def start(self, rounds: int | None = None) -> None:
        """Begin; after `rounds` periods (None: never) no more are scheduled, and `idle` is set when all have ended."""
        self._rounds_left = rounds
        self._round_at = self._loop.time()
        self._due = self._due_of(0)
        self._walk = self._loop.call_at(self._due, self._step)

    def stop(self) -> None:
        """End at once: what is under way gives no sample."""
        if self._walk is not None:
            self._walk.cancel()
        for handle in self._waiting:
            handle.cancel()
        for probe in list(self._under_way):
            self._clear(probe)
        for queue in (self._again, *self._ends.values()):
            queue.stop()
        self._close_lines()

    # Whom: what is known of paths that stay is kept, and so is their place in the order.

    def retarget(self, targets: Sequence[Target]) -> None:
        """Probe these from the next period on, and those that are not among them no more, at once.

        NotPossible, and nothing changes, where a method can't be used.
        """
        self._take_up(targets, self._laid(targets, self._round + 1))

    async def retarget_beside(self, targets: Sequence[Target] | None = None) -> None:
        """As `retarget` (None: to the same), laid out in a thread: many take seconds, in which replies are to be read."""
        async with self._laying:
            wanted = self._targets if targets is None else targets
            self._open_lines(wanted)
            while True:
                never, together = self._never, self._together
                coming = await asyncio.to_thread(self._laid, wanted, self._round + 1)
                if self._never is never and self._together == together:  # else they changed meanwhile
                    break
            self._take_up(wanted, coming)

    def _open_lines(self, targets: Sequence[Target]) -> None:
        """Sockets are opened by the thread that reads them."""
        for method, six in {(target.method, ":" in target.endpoint.host) for target in targets}:
            for source in self._sources:
                if (source.family == 6) == six:
                    self._line(method, source)

    def _take_up(self, targets: Sequence[Target], coming: Paths) -> None:
        self._targets = targets
        for path in self._paths.all:
            path.gone = path.target not in coming.of_target
        self._coming = coming
        if not self._paths.all and self._walk is not None:  # nothing to wait for
            self._walk.cancel()
            self._round_at = self._loop.time()
            self._begin_round()
            self._walk = self._loop.call_at(self._due, self._step)

    def share(self, together: int) -> None:
        """How many probes of all agents reach one address in a period, at most: the schedule is one for them all."""
        if together == self._together:
            return
        most = max(self._together, together)
        self._together = together
        if self._paths.crowd < most:  # else each of our own addresses has more, whatever others do
            self.retarget(self._targets)

    async def bar(self, never: Prefixes) -> None:
        """To hosts in these no packet goes any more, whoever asks for it; others than before may be probed again."""
        self._never = never
        for target, paths in self._paths.of_target.items():
            if self.is_barred(target):
                for path in paths:
                    path.gone = True
        await self.retarget_beside()

    def is_barred(self, target: Target) -> bool:
        return ip_address(target.endpoint.host).packed in self._never

    def _laid(self, targets: Sequence[Target], since: int) -> Paths:
        """The targets that are not barred in an order by dice, each where it stood before."""
        allowed = [target for target in targets if not self.is_barred(target)] if len(self._never) else targets
        places = {target: self._places.get(target) or self._dice.random() for target in allowed}
        layout = laid_out(self.plan, self._sources, sorted(places, key=places.__getitem__), self._together)
        laid = Paths(layout, tuple(self._path(arm, since) for arm in layout.arms), len(places))
        self._places = places
        return laid

    def _path(self, arm: Arm, since: int) -> Path:
        target, provider = arm.target, arm.source.provider
        line = self._line(target.method, arm.source)
        return Path(target, provider, target.network, line, arm.burst, arm.turn, arm.turns, since)

    def _adopt(self, coming: Paths) -> None:
        known = {(path.target, path.provider): path.since for path in self._paths.all}
        for path in coming.all:
            path.since = known.get((path.target, path.provider), path.since)
        self._paths, self._coming = coming, None
        self._answered &= coming.of_arm.keys()
        self._confirming = {arm: until for arm, until in self._confirming.items() if arm in coming.of_arm}
        self._budget.forget(self._loop.time())

    def _close_lines(self) -> None:
        for line in self._lines.values():
            line.close()

    def _line(self, method: Method, source: Source) -> Line:
        line = self._lines.get((method, source))
        if line is None:
            line = open_line(method, source, self.plan.vantage, self._voice, self._landed)
            self._lines[method, source] = line
        return line

    # What the collector asks for beside the schedule; the ceilings hold for it as for all else.

    def make_room(self, wanted: bool) -> None:
        """Whether a collector asks: then the schedule takes half of a ceiling that is too low for it."""
        at = self._round_at + self.period / max(1, len(self.paths)) * self._next
        self._makes_room = wanted
        self._round_at = at - self.period / max(1, len(self.paths)) * self._next

    def paths_to(self, whom: str, provider: str) -> list[Path]:
        """To those who speak for that (`Target.whom`)."""
        targets = self._paths.of_whom.get(whom, ())
        return [path for target in targets for path in self._paths.of_target[target] if path.provider == provider]

    def ask(self, path: Path, probes: int, gap: float) -> bool:
        """So many single probes `gap` seconds apart over its network's targets; False where it is looked into already."""
        if probes > 1:
            now = self._loop.time()
            if self._confirming.get(path.arm, 0.0) > now:
                return False
            self._confirming[path.arm] = now + probes * gap
        self._spread_out(path, range(probes), gap)
        return True

    def ask_once(self, target: Target, source: Source, tell: Callable[[Sample | None], None]) -> None:
        """One packet for a person, to anybody; `tell` alone gets what it finds, None where nothing could be sent.

        NotPossible where it can't be done from there.
        """
        if self.is_barred(target):
            raise NotPossible(f"{target.endpoint.host} is not to be probed: it is on the opt-out list")
        path = Path(target, source.provider, target.network, self._line(target.method, source), 1, 0, 1, self._round)
        self._begin(path, scheduled=False, asked=tell)

    # Replies to other agents of the fleet.

    def _listen(self) -> None:
        for source in self._sources if self._voice.port else ():
            for method in DATAGRAMS:
                try:
                    self._line(method, source)
                except NotPossible as error:
                    self.deaf.append(str(error))

    def _landed(self, stamp: Stamp, host: str) -> None:
        """Replies from there come here, whoever asks: so this vantage measures that path from now on."""
        path = self._paths.of_host.get((host, stamp.provider))
        if not self.landings.is_news(stamp, host):
            return
        target = path.target if path is not None else None
        self._on_landing(Landing(self._clock(), self.plan.vantage, stamp.provider, target, host, stamp.vantage))
        if path is not None and path.arm not in self._answered:
            self._begin(path, scheduled=False)

    # The schedule: slot i of n lies at i/n of the period, each probe at a random point near its slot's start.

    def _due_of(self, index: int) -> float:
        slot = self.period / max(1, len(self.paths))
        return self._round_at + slot * index + min(slot, JITTER_SHARE * self.period) * self._dice.random()

    def _step(self) -> None:
        """Begin what is due; a few at a time, so that replies are read in between."""
        self._walk = None
        now = self._loop.time()
        for _ in range(STEP_LIMIT):
            if self._due > now:
                break
            if self._next < len(self.paths) and self._is_wanted(self._next):
                self._begin(self.paths[self._next], scheduled=True)
            if not self._advance(now):
                self._tell_idle()
                return
        self._walk = self._loop.call_at(self._due, self._step)

    def _is_wanted(self, index: int) -> bool:
        """When it has its turn; its first two are for all, then the silent ones' in rotation, so that none is forgotten."""
        path = self.paths[index]
        rotation, turn = divmod(self._round - path.since, path.turns)
        if turn != path.turn:
            return False
        return rotation < 2 or path.arm in self._answered or (rotation + index) % SILENT_EVERY == 0

    def _advance(self, now: float) -> bool:
        self._next += 1
        if self._next >= len(self.paths):
            if self._rounds_left is not None:
                self._rounds_left -= 1
                if self._rounds_left == 0:
                    return False
            self._round_at += self.period
            if now - self._round_at > self.period:  # the machine slept or is too slow: don't catch up by a flood
                self._round_at = now
                self.counts.behind += 1
            self._begin_round()
            return True
        self._due = self._due_of(self._next)
        return True

    def _begin_round(self) -> None:
        self._next = 0
        self._round += 1
        if self._coming is not None:
            self._adopt(self._coming)
        self._due = self._due_of(self._next)

    # One probe.

    def _begin(self, path: Path, scheduled: bool, asked: Callable[[Sample | None], None] | None = None) -> None:
        if path.gone:
            self._tell_idle()
            return
        wanted = path.burst if scheduled else 1
        probe = _Probe(path, scheduled, self._clock(), wanted, asked)
        self._under_way.add(probe)
        self.counts.probes += 1
        self.counts.confirmations += not scheduled
        self._send(probe)
        if wanted > 1:
            self._again.add(probe)
        self._ends[wanted].add(probe)

    def _send_again(self, probe: _Probe) -> None:
        self._send(probe)
        if probe.tries < probe.wanted:
            self._again.add(probe)

    def _send(self, probe: _Probe) -> None:
        probe.tries += 1
        path, endpoint = probe.path, probe.path.target.endpoint
        if path.gone or not self._budget.take(endpoint.host, self._loop.time(), path.network):
            self.counts.packets_held += 1
            return
        try:
            probe.tokens.append(path.line.send(endpoint, lambda rtt_ms: self._replied(probe, rtt_ms)))
            self.counts.packets += 1
        except OSError:  # nothing left this machine, so nothing is known of the path
            self.counts.packets_failed += 1

    def _replied(self, probe: _Probe, rtt_ms: float) -> None:
        if probe.path.arm in self._paths.of_arm:
            self._answered.add(probe.path.arm)
        probe.best = rtt_ms if probe.best is None else min(probe.best, rtt_ms)
        probe.replies += 1
        if probe.replies == probe.wanted:
            self._end(probe)

    def _end(self, probe: _Probe) -> None:
        if probe.ended:
            return
        self._clear(probe)
        if not probe.tokens:
            self.counts.unsent += 1
            if probe.asked is not None:
                probe.asked(None)
        else:
            tell = probe.asked or self._on_sample
            tell(Sample(probe.at, self.plan.vantage, probe.path.provider, probe.path.target, probe.best))
            if probe.best is not None:
                self.counts.replied += 1
            else:
                self.counts.lost += 1
                if probe.scheduled and probe.path.arm in self._answered:
                    self._look_into(probe.path)
        self._tell_idle()

    def _clear(self, probe: _Probe) -> None:
        probe.ended = True
        self._under_way.discard(probe)
        for token in probe.tokens:
            probe.path.line.forget(token)

    def _tell_idle(self) -> None:
        if self._rounds_left == 0 and not self._under_way and not self._waiting:
            self.idle.set()

    def _look_into(self, path: Path) -> None:
        """A probe was lost: more at 200 ms, over the network's targets, the one that lost it last; and a witness at once."""
        now = self._loop.time()
        if self._confirming.get(path.arm, 0.0) > now:
            return
        self._confirming[path.arm] = now + self.plan.confirmations * self.plan.confirm_gap
        self._spread_out(path, range(1, self.plan.confirmations + 1), self.plan.confirm_gap)
        witness = self._witness(path)
        if witness is not None:
            self._begin(witness, scheduled=False)

    def _spread_out(self, path: Path, numbers: range, gap: float) -> None:
        """A probe each, `gap` seconds apart, to the network's targets in turn; number 0 is this path's own, at once."""
        paths = self._paths.of_arm.get(path.arm, [])
        at = next((place for place, each in enumerate(paths) if each.target == path.target), 0)
        for number in numbers if paths else ():
            self._later(number * gap, paths[(at + number) % len(paths)])

    def _witness(self, path: Path) -> Path | None:
        """The same target through another provider that has answered."""
        others = (each for each in self._paths.of_target.get(path.target, ()) if each.provider != path.provider)
        return next((each for each in others if each.arm in self._answered), None)

    def _later(self, delay: float, path: Path) -> None:
        def begin() -> None:
            self._waiting.discard(handle)
            self._begin(path, scheduled=False)

        handle = self._loop.call_later(delay, begin)
        self._waiting.add(handle)


def _is_over(probe: _Probe) -> bool:
    return probe.ended
