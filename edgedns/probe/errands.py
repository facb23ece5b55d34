"""An agent asks its collector what to probe beside its own schedule, waits for the answer, and does it within its ceilings.

One request is always under way, so that a doubt reaches every vantage at once. A collector that knows nothing of this is
asked again once a minute; while none answers, the schedule goes on as if there were none.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

import aiohttp

from edgedns.errors import EdgednsError
from edgedns.probe.agent import Agent, Sample
from edgedns.probe.targets import Target, target_of
from edgedns.probe.wishes import NotWishes, Wish, parse
from edgedns.special import SPECIAL

WAIT = 20.0
PAUSE_LEAST, PAUSE_MOST = 0.5, 10.0
UNKNOWN_THERE = 60.0
REPLY_LIMIT = 1 << 20
RESULTS_KEPT = 500


@dataclass(slots=True)
class Done:
    """asked = begun + known (looked into already) + unknown (no such target, or no such source) + refused (a person's)."""

    asked: int = 0
    begun: int = 0
    known: int = 0
    unknown: int = 0
    refused: int = 0
    unread: int = 0


class Errands:
    """What one agent does for its collector. `allows` says whether a packed address that is no target may be probed for
    a person; `say` gets a sentence when the collector has no wishes to tell.
    """

    def __init__(
        self,
        agent: Agent,
        collector: str,
        token: str,
        say: Callable[[str], None],
        allows: Callable[[bytes], bool] = lambda address: address not in SPECIAL,
    ) -> None:
        self.done = Done()
        self._agent = agent
        self._url = collector.rstrip("/") + "/v1/wanted"
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._say = say
        self._allows = allows
        self._results: deque[dict[str, Any]] = deque(maxlen=RESULTS_KEPT)
        self._news = asyncio.Event()
        self._silent = False

    async def run(self) -> None:
        """Until cancelled."""
        telling = asyncio.create_task(self._tell())
        try:
            await self._listen()
        finally:
            telling.cancel()

    async def _listen(self) -> None:
        pause = PAUSE_LEAST
        async with self._session() as session:
            while True:
                try:
                    self.obey(await self._post(session, {"wait": WAIT}))
                    self._agent.make_room(True)
                    self._silent, pause = False, PAUSE_LEAST
                    continue
                except _Unknown:
                    pause = UNKNOWN_THERE
                except (aiohttp.ClientError, EdgednsError, TimeoutError, OSError) as error:
                    pause = min(pause * 2, PAUSE_MOST)
                    if isinstance(error, EdgednsError) and not self._silent:  # that it is away others say
                        self._say(f"collector tells us nothing to probe, the schedule is our own: {error}")
                self._silent = True
                self._agent.make_room(False)
                await asyncio.sleep(pause)

    async def _tell(self) -> None:
        """Results for people go at once; those that can't be told are not kept."""
        async with self._session() as session:
            while True:
                await self._news.wait()
                self._news.clear()
                results = [self._results.popleft() for _ in range(len(self._results))]
                try:
                    self.obey(await self._post(session, {"wait": 0, "results": results}))
                except (aiohttp.ClientError, EdgednsError, TimeoutError, OSError):
                    await asyncio.sleep(PAUSE_LEAST)

    def _session(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=WAIT + 10.0), headers=self._headers)

    async def _post(self, session: aiohttp.ClientSession, more: dict[str, Any]) -> bytes:
        agent = self._agent
        sources = [{"provider": provider, "family": family} for provider, family in self._families()]
        body = {"vantage": agent.plan.vantage, "room": agent.room, "sources": sources} | more
        async with session.post(self._url, json=body, allow_redirects=False) as response:
            text = await response.content.read(REPLY_LIMIT)
            if response.status in (404, 405):
                raise _Unknown
            if response.status != 200:
                raise NotWishes(f"it answers {response.status}: {text[:200].decode('utf-8', 'replace')!a}")
            while not response.content.at_eof() and len(text) < REPLY_LIMIT:
                text += await response.content.read(REPLY_LIMIT)
        return text

    def _families(self) -> list[tuple[str, int]]:
        return sorted({(source.provider, source.family) for source in self._agent.sources})

    def obey(self, text: bytes) -> None:
        """Do what a reply wants. NotWishes where it is none."""
        wishes = parse(text)
        self.done.unread += wishes.unread
        if wishes.together:
            self._agent.share(wishes.together)
        for wish in wishes.entries:
            self.done.asked += 1
            if wish.id:
                self._answer(wish)
            else:
                self._probe(wish)

    def _probe(self, wish: Wish) -> None:
        paths = next((found for whom in wish.whom if (found := self._agent.paths_to(whom, wish.provider))), None)
        if paths is None:
            self.done.unknown += 1
        elif self._agent.ask(paths[0], wish.probes, wish.gap):
            self.done.begun += 1
        else:
            self.done.known += 1

    # For people.

    def _answer(self, wish: Wish) -> None:
        try:
            self._ask_once(wish)
            self.done.begun += 1
        except EdgednsError as error:
            self.done.refused += 1
            self._result(wish, why=str(error))

    def _ask_once(self, wish: Wish) -> None:
        """From the provider's source, by the target's own method where it is a target of ours."""
        address = wish.whom[0]
        family = ip_address(address).version
        source = next((each for each in self._agent.sources if (each.provider, each.family) == (wish.provider, family)), None)
        if source is None:
            raise EdgednsError(f"no source of {wish.provider} over IPv{family} here")
        paths = self._agent.paths_to(address, wish.provider)
        if not paths and not self._allows(ip_address(address).packed):
            raise EdgednsError(f"{address} is not to be probed: nobody's network, or somebody who wants to be left alone")
        target = paths[0].target if paths else _target(address, wish.method)
        self._agent.ask_once(target, source, lambda sample: self._found(wish, sample))

    def _found(self, wish: Wish, sample: Sample | None) -> None:
        if sample is None:
            self._result(wish, why="held back: its address had enough packets")
        else:
            self._result(wish, rtt_ms=None if sample.rtt_ms is None else round(sample.rtt_ms, 3))

    def _result(self, wish: Wish, **found: Any) -> None:
        self._results.append({"id": wish.id, "provider": wish.provider, **found})
        self._news.set()


class _Unknown(EdgednsError):
    """The collector is older than this."""


def _target(address: str, method: str) -> Target:
    try:
        return target_of({"address": address, "method": method or "icmp"})
    except ValueError as error:
        raise EdgednsError(str(error)) from None
