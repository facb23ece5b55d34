"""Judges what the watcher got by the truth of the world: wrong answers, switches, and what the answers cost."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .globe import NAMES, PROVIDERS, Arm, World
from .scenario import Scenario

FAR = 30.0  # ms above the best provider that make an answer wrong
LOST_MS = 1000.0  # what a lost answer costs: the initial retransmission timeout of RFC 6298
OF_ADDRESS = {provider.v4: i for i, provider in enumerate(PROVIDERS)} | {p.v6: i for i, p in enumerate(PROVIDERS) if p.v6}


class Answer(NamedTuple):
    """`at`: seconds since the scenario began. provider -1: no answer came, or an empty one."""

    at: float
    network: int
    family: int
    provider: int


class Moved(NamedTuple):
    """Since when (as in Answer) a network's replies to `sent_by` land elsewhere."""

    at: float
    network: str
    provider: str
    sent_by: list[str]
    lands_at: str


def read(path: Path, start: float) -> list[Answer]:
    """What the watcher wrote, with times as the scenario counts them."""
    found = []
    for line in path.read_text().splitlines()[1:]:
        at, network, family, addresses = line.split(",")
        provider = OF_ADDRESS.get(addresses.split("+")[0], -1)
        found.append(Answer(float(at) - start, int(network), int(family), provider))
    return found


@dataclass(frozen=True)
class Verdict:
    """What a scenario came to; `log` is the server's, `moved` what the collector knows of catchments.

    `answers` are the server's, `cached` those of resolvers that honour the TTL.
    """

    scenario: Scenario
    world: World
    answers: list[Answer]
    log: str = ""
    moved: list[Moved] = field(default_factory=list)
    cached: list[Answer] = field(default_factory=list)

    def summary(self) -> dict[str, object]:
        """For people: seconds to the last wrong answer, switches, mean RTTs."""
        wrong = list(self.last_wrong(0.0, self.scenario.lasts).values()) or [0.0]
        kept = self.last_wrong(0.0, self.scenario.lasts, self.cached)
        return {
            "networks": len(self.world.networks),
            "answers": len(self.answers),
            "wrong": len(self.last_wrong(0.0, self.scenario.lasts)),
            "last_wrong_s": {f"p{p}": round(float(np.percentile(wrong, p)), 1) for p in (50, 95, 99, 100)},
            "switches": sum(self.switches().values()),
            "most_switches": max(self.switches().values(), default=0),
            "mean_ms": {name: round(cost, 1) for name, cost in self.costs().items()},
            "cached_last_wrong_s": {number: round(at, 1) for number, at in kept.items()},
            "kept_longest_s": round(self.kept_longest(), 1),
        }

    def cost_of(self, answer: Answer) -> float:
        return self.cost_by(answer, answer.provider)

    def cost_by(self, answer: Answer, provider: int) -> float:
        """The RTT in ms that a network would have had by a provider at that time."""
        path = self.scenario.paths(self.world, max(answer.at, -1.0)).get(Arm(answer.network, provider, answer.family))
        return LOST_MS if path is None or path.dead else path.rtt

    def best(self, answer: Answer) -> float:
        return min(self.cost_by(answer, provider) for provider in range(len(PROVIDERS)))

    def is_wrong(self, answer: Answer) -> bool:
        return answer.provider < 0 or self.cost_of(answer) > self.best(answer) + FAR

    def last_wrong(self, since: float, until: float, answers: list[Answer] | None = None) -> dict[int, float]:
        """Network -> seconds from `since` to its last wrong answer before `until`; those with none are left out."""
        found: dict[int, float] = {}
        for answer in self.answers if answers is None else answers:
            if since <= answer.at < until and self.is_wrong(answer):
                found[answer.network] = answer.at - since
        return found

    def kept_longest(self) -> float:
        """The most seconds that a resolver went on giving a wrong provider after the server had given it for the last time."""
        longest, given = 0.0, defaultdict(list)
        for answer in self.answers:
            given[answer[1:]].append(answer.at)
        for answer in self.cached:
            if answer.at >= 0 and self.is_wrong(answer):
                times = given[answer[1:]]
                longest = max(longest, answer.at - times[bisect_right(times, answer.at) - 1] if times else np.inf)
        return longest

    def empty(self) -> int:
        return sum(answer.provider < 0 for answer in self.answers)

    def share(self, provider: str, family: int, since: float) -> float:
        """Which share of the answers of five seconds gave this provider."""
        then = [answer for answer in self.answers if answer.family == family and since <= answer.at < since + 5.0]
        return sum(answer.provider == NAMES.index(provider) for answer in then) / max(len(then), 1)

    def switches(self, family: int = 4, provider: str = "") -> dict[int, int]:
        """Network -> how often the provider that it was given changed since the scenario began: at all, or to or from one."""
        whom = {NAMES.index(provider)} if provider else set(range(-1, len(NAMES)))
        last: dict[int, int] = {}
        found: dict[int, int] = defaultdict(int)
        for answer in self.answers:
            if answer.at >= 0 and answer.family == family:
                before = last.get(answer.network, answer.provider)
                found[answer.network] += before != answer.provider and bool(whom & {before, answer.provider})
                last[answer.network] = answer.provider
        return dict(found)

    def costs(self) -> dict[str, float]:
        """Mean RTT in ms from the scenario's begin on: ours, plain anycast, the best static provider, the oracle."""
        scored = [answer for answer in self.answers if answer.at >= 0]
        by_provider = [float(np.mean([self.cost_by(answer, p) for answer in scored])) for p in range(len(PROVIDERS))]
        return {
            "edgedns": float(np.mean([self.cost_of(answer) for answer in scored])),
            "anycast": float(np.mean([self.cost_by(answer, self.world.anycast[answer.network]) for answer in scored])),
            "best static": min(by_provider),
            "oracle": float(np.mean([self.best(answer) for answer in scored])),
        }


def hit(scenario: Scenario, world: World) -> list[int]:
    """The networks whose best provider is wrong for them at some time of it."""
    found = set()
    for family in scenario.families:
        for network in world.networks:
            arms = [Arm(network.number, number, family) for number in range(len(PROVIDERS))]
            best = min((arm for arm in arms if arm in world.paths), key=lambda arm: world.paths[arm].rtt)
            away = [scenario.paths(world, turn.at)[best] for turn in scenario.turns]
            if any(path.dead or path.rtt > world.paths[best].rtt + FAR for path in away):
                found.add(network.number)
    return sorted(found)


def draw(verdict: Verdict, path: Path) -> None:
    """Answers by provider over time, and what they cost beside anycast, the best static provider and the oracle."""
    import matplotlib
    from matplotlib.figure import Figure

    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "small Internet", "font.size": 9})
    figure = Figure(figsize=(9.0, 4.6), layout="constrained")
    shares, costs = figure.subplots(2, 1, sharex=True)
    _draw_shares(verdict, shares)
    _draw_costs(verdict, costs)
    shares.set(ylabel="answers, %", ylim=(0, 100), title=verdict.scenario.about)
    costs.set(xlabel="seconds since it happened", ylabel="mean RTT of answers, ms", yscale="log")
    costs.set_yticks(TICKS, [str(tick) for tick in TICKS], minor=False)
    costs.minorticks_off()
    for axes in (shares, costs):
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
        axes.margins(x=0)
        for turn in verdict.scenario.turns:
            axes.axvline(turn.at, color="#444444", linewidth=0.8, linestyle=":")
    figure.savefig(path, metadata={"Date": None})


TICKS = (10, 20, 50, 100, 200, 500)
COLOURS = ("#4477aa", "#ee8866", "#44aa77", "#aa4466", "#111111")


def _seconds(verdict: Verdict) -> tuple[np.ndarray, np.ndarray]:
    """(edges of whole seconds, the second that each answer falls in; those beyond the last edge in one more)."""
    at = np.array([answer.at for answer in verdict.answers])
    edges = np.arange(np.floor(at.min()), verdict.scenario.lasts + 0.5)
    return edges, np.minimum(np.digitize(at, edges), len(edges)) - 1


def _draw_shares(verdict: Verdict, axes: Any) -> None:
    edges, second = _seconds(verdict)
    given = np.array([answer.provider for answer in verdict.answers])
    whom = [provider for provider in (*range(len(PROVIDERS)), -1) if (given == provider).any()]
    stack = np.array([np.bincount(second[given == provider], minlength=len(edges))[:-1] for provider in whom])
    names = [NAMES[provider] if provider >= 0 else "no answer" for provider in whom]
    colours = [COLOURS[provider] for provider in whom]
    axes.stackplot(edges[:-1], 100 * stack / np.maximum(stack.sum(axis=0), 1), labels=names, colors=colours, step="post")


def _draw_costs(verdict: Verdict, axes: Any) -> None:
    edges, second = _seconds(verdict)
    count = np.maximum(np.bincount(second, minlength=len(edges)), 1)
    for (name, cost), style in zip(_lines(verdict).items(), ("-", "--", "-.", ":"), strict=True):
        mean = np.bincount(second, cost, len(edges)) / count
        axes.step(edges[:-1], mean[:-1], style, where="post", label=name, linewidth=2.0 if name == "edgedns" else 1.2)


def _lines(verdict: Verdict) -> dict[str, np.ndarray]:
    answers = verdict.answers
    static = min(range(len(PROVIDERS)), key=lambda p: sum(verdict.cost_by(answer, p) for answer in answers[::7]))
    return {
        "edgedns": np.array([verdict.cost_of(answer) for answer in answers]),
        "anycast": np.array([verdict.cost_by(answer, verdict.world.anycast[answer.network]) for answer in answers]),
        f"best static ({PROVIDERS[static].name})": np.array([verdict.cost_by(answer, static) for answer in answers]),
        "oracle": np.array([verdict.best(answer) for answer in answers]),
    }
