"""Samples to the collector: batches by HTTP, and a bounded backlog while it is away."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import Any

import aiohttp

BATCH_EVERY = 0.5
BATCH_LINES = 5000
BACKLOG_LIMIT = 100_000
PAUSE_MOST = 5.0
POST_TIMEOUT = 10.0
REPLY_LIMIT = 64 * 1024


class Uplink:
    """Keeps lines until the collector has taken them; the oldest are lost first, and counted.

    lines added = accepted + rejected + dropped + backlog (and one batch while it is under way).
    `say` gets a sentence when the collector goes away, comes back, or rejects lines.
    """

    def __init__(self, collector: str, token: str, say: Callable[[str], None], limit: int = BACKLOG_LIMIT) -> None:
        self.url = collector.rstrip("/") + "/v1/samples"
        self.added = self.accepted = self.rejected = self.dropped = 0
        self._headers = {"Content-Type": "application/x-ndjson"}
        if token:
            self._headers["Authorization"] = f"Bearer {token}"
        self._say = say
        self._limit = limit
        self._backlog: deque[bytes] = deque()
        self._batch = BATCH_LINES
        self._away = False

    @property
    def backlog(self) -> int:
        return len(self._backlog)

    def add(self, line: bytes) -> None:
        self.added += 1
        self._backlog.append(line)
        self._trim()

    def _trim(self) -> None:
        while len(self._backlog) > self._limit:
            self._backlog.popleft()
            self.dropped += 1

    async def run(self) -> None:
        """Post what there is every half second, slower while the collector is away; until cancelled."""
        pause = BATCH_EVERY
        async with self._session() as session:
            while True:
                await asyncio.sleep(pause)
                while self._backlog and await self._post(session):
                    pass
                pause = min(pause * 2, PAUSE_MOST) if self._away else BATCH_EVERY

    async def finish(self, within: float) -> None:
        """One more try to hand over what is left, for at most `within` seconds. After `run` was cancelled."""
        try:
            async with asyncio.timeout(within), self._session() as session:
                while self._backlog and await self._post(session):
                    pass
        except TimeoutError:
            pass

    def _session(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=POST_TIMEOUT), headers=self._headers)

    async def _post(self, session: aiohttp.ClientSession) -> bool:
        """Hand over one batch; False where it must be tried again later."""
        batch = list(islice(self._backlog, self._batch))
        for _ in batch:
            self._backlog.popleft()
        taken = False
        try:
            body = b"\n".join(batch) + b"\n"
            async with session.post(self.url, data=body, allow_redirects=False) as response:
                taken = self._judge(response.status, await _text(response), batch)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            self._gone(str(error) or type(error).__name__)
        finally:  # a cancelled post is put back too
            if not taken:
                self._backlog.extendleft(reversed(batch))
                self._trim()
        return taken

    def _judge(self, status: int, text: bytes, batch: list[bytes]) -> bool:
        if status == 413:
            self._batch = max(1, len(batch) // 2)
            self.rejected += len(batch) == 1
            return len(batch) == 1
        if status != 200:
            self._gone(f"it answers {status}: {text[:200].decode('utf-8', 'replace')!a}")
            return False
        if self._away:
            self._away = False
            self._say(f"collector is back, {self.backlog + len(batch)} samples were waiting")
        self._count(text, len(batch))
        return True

    def _count(self, text: bytes, lines: int) -> None:
        rejected, first = _rejections(text)
        rejected = min(rejected, lines)
        self.rejected += rejected
        self.accepted += lines - rejected
        if rejected:
            self._say(f"collector rejected {rejected} of {lines} samples, the first: {first}")

    def _gone(self, why: str) -> None:
        if not self._away:
            self._away = True
            self._say(f"collector at {self.url} takes no samples, keeping them: {why}")


async def _text(response: aiohttp.ClientResponse) -> bytes:
    """The reply's body, or the first REPLY_LIMIT bytes and a little of it."""
    text = b""
    async for chunk in response.content.iter_chunked(REPLY_LIMIT):
        text += chunk
        if len(text) > REPLY_LIMIT:
            response.close()
            break
    return text


def _rejections(text: bytes) -> tuple[int, str]:
    """How many lines a collector's reply rejects, and why the first."""
    try:
        reply: Any = json.loads(text)
        rejected = reply["rejected"]
        count = len(rejected) + int(reply.get("rejected_more", 0))
        first = str(rejected[0]["error"]) if rejected else ""
    except (ValueError, TypeError, LookupError, AttributeError):
        return 0, ""
    return count, ascii(first[:200])
