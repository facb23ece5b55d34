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
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import NamedTuple, TypeVar

from edgedns.errors import EdgednsError
from edgedns.model import Family
from edgedns.probe.budget import Budget, burst_for, period_for
from edgedns.probe.measure import Line, Method, Token, open_line
from edgedns.probe.targets import Target

K = TypeVar("K")
JITTER_SHARE = 0.1
STEP_LIMIT = 64
SILENT_EVERY = 6  # periods


@dataclass(frozen=True, slots=True)
class Plan:
    """How one agent probes; seconds. `per_address` and `ceiling` are packets a second, one host's and all."""

    vantage: str
    every: float = 10.0
    timeout: float = 1.0
    burst: int = 3
    gap: float = 0.05
    confirmations: int = 4
    confirm_gap: float = 0.2
    per_address: float = 1.0
    ceiling: float = 1000.0


class Source(NamedTuple):
    """The address of ours that a provider alone announces."""

    provider: str
    address: str

    @property
    def family(self) -> Family:
        return 6 if ":" in self.address else 4


class Sample(NamedTuple):
    """What one probe found; `at` in Unix seconds, `rtt_ms` None where it was lost."""

    at: float
    vantage: str
    provider: str
    target: Target
    rtt_ms: float | None

    def line(self) -> bytes:
        """One line for POST /v1/samples, without its newline."""
        fields: dict[str, object] = {"at": round(self.at, 3), "vantage": self.vantage, "provider": self.provider}
        if self.target.address:
            fields["address"] = self.target.address
        else:
            fields |= {"asn": self.target.asn, "family": self.target.family}
        if self.target.zone:
            fields["name"] = self.target.zone
        if self.rtt_ms is None:
            fields["lost"] = True
        else:
            fields["rtt_ms"] = round(self.rtt_ms, 3)
        return json.dumps(fields, separators=(",", ":")).encode()


@dataclass(slots=True)
class Counts:
    """Plain sums. probes = replied + lost + unsent + those under way; packets held back or refused are beside it."""

    probes: int = 0
    replied: int = 0
    lost: int = 0
    unsent: int = 0
    confirmations: int = 0
    packets: int = 0
    packets_held: int = 0
    packets_failed: int = 0
    behind: int = 0

    def since(self, before: Counts) -> Counts:
        return Counts(*(getattr(self, name) - getattr(before, name) for name in self.__slots__))

    def copy(self) -> Counts:
        return self.since(Counts())


@dataclass(frozen=True, slots=True, eq=False)
class Path:
    """One provider to one target."""

    target: Target
    provider: str
    line: Line
    burst: int

    @property
    def arm(self) -> tuple[str, str]:
        return self.target.network, self.provider


@dataclass(slots=True, eq=False)
class _Probe:
    path: Path
    scheduled: bool
    at: float
    wanted: int
    best: float | None = None
    replies: int = 0
    tokens: list[Token] = field(default_factory=list)
    timers: list[asyncio.TimerHandle] = field(default_factory=list)


class Agent:
    """Probes from `start` until `stop`, giving each sample to `on_sample`. Create it in the running event loop.

    Raises NotPossible where a source or method can't be used, EdgednsError where no source suits any target.
    `clock` gives Unix seconds, `dice` the jitter, `key` the secret of the payloads (16 to 64 bytes).
    """

    def __init__(
        self,
        plan: Plan,
        sources: Sequence[Source],
        targets: Sequence[Target],
        on_sample: Callable[[Sample], None],
        clock: Callable[[], float],
        dice: Random,
        key: bytes,
    ) -> None:
        self.plan = plan
        self.counts = Counts()
        self._on_sample = on_sample
        self._clock = clock
        self._dice = dice
        self._loop = asyncio.get_running_loop()
        self._budget = Budget(plan.per_address, plan.ceiling)
        layout = _layout(plan, sources, _shuffled(targets, dice))
        self.period = layout.period
        self.unreachable = len(targets) - len({id(target) for target, _, _ in layout.arms})
        self._lines: dict[tuple[Method, Source], Line] = {}
        try:
            self.paths = tuple(
                Path(target, source.provider, self._line(target.method, source, key), burst)
                for target, source, burst in layout.arms
            )
        except EdgednsError:
            self._close_lines()
            raise
        self._network_paths = _by(self.paths, lambda path: path.arm)
        self._target_paths = _by(self.paths, lambda path: path.target)
        self._confirming: dict[tuple[str, str], float] = {}
        self._answered: set[tuple[str, str]] = set()
        self._under_way: set[_Probe] = set()
        self._waiting: set[asyncio.TimerHandle] = set()
        self._walk: asyncio.TimerHandle | None = None
        self._next = self._round = 0
        self._round_at = self._due = 0.0
        self._rounds_left: int | None = None
        self.idle = asyncio.Event()

    @property
    def strays(self) -> int:
        """Packets that came to our sockets and answered nothing of ours."""
        return sum(line.strays for line in self._lines.values())

    @property
    def burst(self) -> int:
        """The packets of the thinnest probe: less than asked for where the budget is short."""
        return min(path.burst for path in self.paths)

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
        self._close_lines()

    def _close_lines(self) -> None:
        for line in self._lines.values():
            line.close()

    def _line(self, method: Method, source: Source, key: bytes) -> Line:
        line = self._lines.get((method, source))
        if line is None:
            line = open_line(method, source.address, self.plan.vantage, source.provider, key)
            self._lines[method, source] = line
        return line

    # The schedule: slot i of n lies at i/n of the period, each probe at a random point near its slot's start.

    def _due_of(self, index: int) -> float:
        slot = self.period / len(self.paths)
        return self._round_at + slot * index + min(slot, JITTER_SHARE * self.period) * self._dice.random()

    def _step(self) -> None:
        """Begin what is due; a few at a time, so that replies are read in between."""
        self._walk = None
        now = self._loop.time()
        for _ in range(STEP_LIMIT):
            if self._due > now:
                break
            if self._is_wanted(self._next):
                self._begin(self.paths[self._next], scheduled=True)
            if not self._advance(now):
                return
        self._walk = self._loop.call_at(self._due, self._step)

    def _is_wanted(self, index: int) -> bool:
        """In the first periods all are; then the silent ones in turn, so that none is forgotten."""
        if self._round < 2 or self.paths[index].arm in self._answered:
            return True
        return (self._round + index) % SILENT_EVERY == 0

    def _advance(self, now: float) -> bool:
        self._next += 1
        if self._next == len(self.paths):
            if self._rounds_left is not None:
                self._rounds_left -= 1
                if self._rounds_left == 0:
                    return False
            self._next = 0
            self._round += 1
            self._round_at += self.period
            if now - self._round_at > self.period:  # the machine slept or is too slow: don't catch up by a flood
                self._round_at = now
                self.counts.behind += 1
        self._due = self._due_of(self._next)
        return True

    # One probe.

    def _begin(self, path: Path, scheduled: bool) -> None:
        wanted = path.burst if scheduled else 1
        probe = _Probe(path, scheduled, self._clock(), wanted)
        self._under_way.add(probe)
        self.counts.probes += 1
        self.counts.confirmations += not scheduled
        self._send(probe)
        now = self._loop.time()
        for number in range(1, wanted):
            probe.timers.append(self._loop.call_at(now + number * self.plan.gap, self._send, probe))
        last = now + (wanted - 1) * self.plan.gap
        probe.timers.append(self._loop.call_at(last + self.plan.timeout, self._end, probe))

    def _send(self, probe: _Probe) -> None:
        endpoint = probe.path.target.endpoint
        if not self._budget.take(endpoint.host, self._loop.time()):
            self.counts.packets_held += 1
            return
        try:
            probe.tokens.append(probe.path.line.send(endpoint, lambda rtt_ms: self._replied(probe, rtt_ms)))
            self.counts.packets += 1
        except OSError:  # nothing left this machine, so nothing is known of the path
            self.counts.packets_failed += 1

    def _replied(self, probe: _Probe, rtt_ms: float) -> None:
        self._answered.add(probe.path.arm)
        probe.best = rtt_ms if probe.best is None else min(probe.best, rtt_ms)
        probe.replies += 1
        if probe.replies == probe.wanted:
            self._end(probe)

    def _end(self, probe: _Probe) -> None:
        self._clear(probe)
        if not probe.tokens:
            self.counts.unsent += 1
        else:
            self._on_sample(Sample(probe.at, self.plan.vantage, probe.path.provider, probe.path.target, probe.best))
            if probe.best is not None:
                self.counts.replied += 1
            else:
                self.counts.lost += 1
                if probe.scheduled and probe.path.arm in self._answered:
                    self._look_into(probe.path)
        self._tell_idle()

    def _clear(self, probe: _Probe) -> None:
        self._under_way.discard(probe)
        for timer in probe.timers:
            timer.cancel()
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
        paths = self._network_paths[path.arm]
        at = paths.index(path)
        for number in range(1, self.plan.confirmations + 1):
            self._later(number * self.plan.confirm_gap, paths[(at + number) % len(paths)])
        witness = self._witness(path)
        if witness is not None:
            self._begin(witness, scheduled=False)

    def _witness(self, path: Path) -> Path | None:
        """The same target through another provider that has answered."""
        others = (each for each in self._target_paths[path.target] if each is not path and each.arm in self._answered)
        return next(others, None)

    def _later(self, delay: float, path: Path) -> None:
        def begin() -> None:
            self._waiting.discard(handle)
            self._begin(path, scheduled=False)

        handle = self._loop.call_later(delay, begin)
        self._waiting.add(handle)


class _Layout(NamedTuple):
    """The probes of one period in their order, with the packets that the budget leaves each."""

    period: float
    arms: list[tuple[Target, Source, int]]


def _layout(plan: Plan, sources: Sequence[Source], targets: Sequence[Target]) -> _Layout:
    pairs = _spread([(target, _of_family(sources, target)) for target in targets])
    if not pairs:
        raise EdgednsError("no target can be probed: no source has the address family of any target's endpoint")
    paths_of = Counter(target.endpoint.host for target, _ in pairs)
    kept = plan.confirmations + 1  # and a witness
    each = plan.every, plan.per_address, plan.burst, kept
    burst_of = {host: burst_for(paths, *each) for host, paths in paths_of.items()}
    arms = [(target, source, burst_of[target.endpoint.host]) for target, source in pairs]
    packets = sum(burst for _, _, burst in arms)
    return _Layout(period_for(paths_of, packets, plan.every, plan.per_address, plan.ceiling), arms)


def _of_family(sources: Sequence[Source], target: Target) -> list[Source]:
    family = 6 if ":" in target.endpoint.host else 4
    return [source for source in sources if source.family == family]


def _shuffled(targets: Sequence[Target], dice: Random) -> list[Target]:
    return dice.sample(targets, len(targets))


def _spread(arms: Sequence[tuple[Target, list[Source]]]) -> list[tuple[Target, Source]]:
    """The order of one period: the probes of one target lie far apart, and each short stretch meets every provider."""
    placed: list[tuple[int, int, Target, Source]] = []
    for number, (target, sources) in enumerate(arms):
        for arm, source in enumerate(sources):
            turn = (number + arm * len(arms) // len(sources)) % len(arms)
            placed.append((turn, arm, target, source))
    placed.sort(key=lambda place: place[:2])
    return [(target, source) for _, _, target, source in placed]


def _by(paths: Sequence[Path], key: Callable[[Path], K]) -> Mapping[K, list[Path]]:
    found: dict[K, list[Path]] = {}
    for path in paths:
        found.setdefault(key(path), []).append(path)
    return found
