"""Targets from the collector: asked for at the start and each minute, and let go when nobody has confirmed them for an hour."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from ipaddress import ip_address
from typing import NamedTuple

import aiohttp

from edgedns.model import Method
from edgedns.probe.targets import TARGETS_LIMIT, Target, target_of
from edgedns.special import SPECIAL

FETCH_EVERY = 60.0
SOON = 5.0  # while there are none, or the collector is away
CONFIRMED_FOR = 3600.0
FETCH_TIMEOUT = 30.0
BODY_LIMIT = 64 << 20
LINE_LIMIT = 4096


class Given(NamedTuple):
    """What a collector gave; `left_out` counts lines that can't be used, and addresses that are no network's."""

    targets: tuple[Target, ...]
    left_out: int


def read(body: bytes, method: Method) -> Given:
    """A collector's targets, `method` for those that name none. It may be wrong: what it must not ask for is left out."""
    targets: list[Target] = []
    lines = [line for line in body.split(b"\n") if line and not line.isspace()]
    for line in lines[:TARGETS_LIMIT]:
        try:
            target = target_of(json.loads(line[:LINE_LIMIT]), method)
        except (ValueError, RecursionError):
            continue
        if ip_address(target.endpoint.host).packed not in SPECIAL:
            targets.append(target)
    return Given(tuple(targets), len(lines) - len(targets))


class Feed:
    """Asks the collector at `url` for a vantage's targets, those of so many networks, and hands each new body to `take`.

    `take` gets b"" when they are let go. `say` gets a sentence when the collector goes away and when it is back.
    """

    def __init__(
        self,
        url: str,
        token: str,
        vantage: str,
        networks: int,
        take: Callable[[bytes], Awaitable[None]],
        say: Callable[[str], None],
    ) -> None:
        self.url = url.rstrip("/") + "/v1/targets"
        self._query = {"vantage": vantage, "networks": str(networks)}
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._take = take
        self._say = say
        self._tag = ""
        self._empty = True
        self._away = False
        self._confirmed_at = time.monotonic()

    async def run(self) -> None:
        """Until cancelled."""
        timeout = aiohttp.ClientTimeout(total=FETCH_TIMEOUT)
        async with aiohttp.ClientSession(timeout=timeout, headers=self._headers) as session:
            while True:
                await self._look(session)
                await asyncio.sleep(SOON if self._empty or self._away else FETCH_EVERY)

    async def _look(self, session: aiohttp.ClientSession) -> None:
        try:
            known = {"If-None-Match": self._tag} if self._tag else {}
            async with session.get(self.url, params=self._query, headers=known, allow_redirects=False) as reply:
                body = await _body(reply)
                if reply.status not in (200, 304):
                    await self._gone(f"it answers {reply.status}: {body[:200].decode('utf-8', 'replace')!a}")
                    return
                tag = reply.headers.get("ETag", "")
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            await self._gone(str(error) or type(error).__name__)
            return
        if self._away:
            self._away = False
            self._say("collector is back and gives targets")
        self._confirmed_at = time.monotonic()
        if reply.status == 200:
            await self._hand_over(body, tag)

    async def _hand_over(self, body: bytes, tag: str) -> None:
        self._tag, self._empty = tag, not body
        await self._take(body)

    async def _gone(self, why: str) -> None:
        if not self._away:
            self._away = True
            self._say(f"collector at {self.url} gives no targets: {why}")
        if not self._empty and time.monotonic() - self._confirmed_at >= CONFIRMED_FOR:
            self._say(f"nobody has confirmed the targets for {CONFIRMED_FOR / 60:.0f} minutes: they are let go")
            await self._hand_over(b"", "")


async def _body(reply: aiohttp.ClientResponse) -> bytes:
    """The body; ClientPayloadError where it is longer than BODY_LIMIT."""
    parts, length = [], 0
    async for part in reply.content.iter_chunked(1 << 16):
        length += len(part)
        if length > BODY_LIMIT:
            raise aiohttp.ClientPayloadError(f"more than {BODY_LIMIT >> 20} MiB of targets")
        parts.append(part)
    return b"".join(parts)
