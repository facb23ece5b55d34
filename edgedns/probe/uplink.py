"""Samples to the collector: batches by HTTP, and a bounded backlog while it is away, on disk where there is a spool.

Fresh samples go first: what is kept follows once a second, the oldest first, a batch at a time. What the collector would refuse
for its age is not sent at all.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import Any

import aiohttp

from edgedns.probe.lines import MAX_AGE
from edgedns.probe.spool import Spool

BATCH_EVERY = 0.5
BATCH_LINES = 5000
BACKLOG_LIMIT = 100_000
KEPT_EVERY = 1.0
PAUSE_MOST = 5.0
WAIT_MOST = 60.0
POST_TIMEOUT = 10.0
REPLY_LIMIT = 64 * 1024
SENT = "Edgedns-Sent"


class Uplink:
    """Keeps lines until the collector has taken them; the oldest are lost first, and counted.

    lines added, and found in the spool = accepted + rejected + dropped + expired + backlog (and one batch while it is under
    way). `say` gets a sentence when the collector goes away, comes back, or rejects lines. A batch whose reply was lost is
    sent again as it was, so that the collector knows it.
    """

    def __init__(
        self,
        collector: str,
        token: str,
        say: Callable[[str], None],
        limit: int = BACKLOG_LIMIT,
        spool: Spool | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.url = collector.rstrip("/") + "/v1/samples"
        self.added = self.accepted = self.rejected = 0
        self._dropped = 0
        self._headers = {"Content-Type": "application/x-ndjson"}
        if token:
            self._headers["Authorization"] = f"Bearer {token}"
        self._say = say
        self._limit = limit
        self._spool = spool
        self._clock = clock
        self._backlog: deque[bytes] = deque()
        self._again: list[bytes] = []
        self._unwritten: list[bytes] = []  # what is in memory and not in the spool's journal
        self._batch = BATCH_LINES
        self._away = False
        self._not_before = 0.0
        self._spool_broken = False

    @property
    def backlog(self) -> int:
        return len(self._again) + len(self._backlog) + (self._spool.waiting if self._spool else 0)

    @property
    def dropped(self) -> int:
        return self._dropped + (self._spool.lost if self._spool else 0)

    @property
    def expired(self) -> int:
        """Lines that were kept until the collector would have refused them for their age."""
        return self._spool.expired if self._spool else 0

    def add(self, line: bytes) -> None:
        self.added += 1
        self._backlog.append(line)
        if self._spool is not None:
            self._unwritten.append(line)
        self._trim()

    def _trim(self) -> None:
        while self._backlog and len(self._again) + len(self._backlog) > self._limit:
            self._backlog.popleft()
            self._dropped += 1

    async def run(self) -> None:
        """Post what there is every half second, slower while the collector is away; until cancelled."""
        async with asyncio.TaskGroup() as both:
            both.create_task(self._run_posts())
            if self._spool is not None:
                both.create_task(self._run_journal(self._spool))

    async def _run_journal(self, spool: Spool) -> None:
        """Whatever posting waits for: no line is in memory alone for longer than half a second."""
        while True:
            await asyncio.sleep(BATCH_EVERY)
            lines, self._unwritten = self._unwritten, []
            try:
                spool.journal(lines)
            except OSError as error:
                self._lament(error)

    async def _run_posts(self) -> None:
        pause, kept_at = BATCH_EVERY, 0.0
        loop = asyncio.get_running_loop()
        async with self._session() as session:
            while True:
                await asyncio.sleep(BATCH_EVERY)
                now = loop.time()
                if self._away:
                    self._keep()
                if now < self._not_before:
                    continue
                if self._away:
                    pause = min(pause * 2, PAUSE_MOST)
                    self._not_before = max(self._not_before, now + pause)
                    await self._try_again(session)
                else:
                    pause = BATCH_EVERY
                    await self._send_fresh(session)
                    if self._spool is not None and not self._away and now - kept_at >= KEPT_EVERY:
                        kept_at = now
                        await self._send_kept(session)

    async def finish(self, within: float) -> None:
        """One more try to hand over what is left, for at most `within` seconds; the rest is kept. After `run` was cancelled."""
        try:
            async with asyncio.timeout(within), self._session() as session:
                await self._send_fresh(session)
        except TimeoutError:
            pass
        self._keep()

    def _session(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=POST_TIMEOUT), headers=self._headers)

    async def _try_again(self, session: aiohttp.ClientSession) -> None:
        """Is the collector back? What it may have had already is what it is asked with."""
        if self._spool is not None and self._spool.waiting and not self._again:
            await self._send_kept(session)
        else:
            await self._send_fresh(session)
        if not self._away:
            self._not_before = 0.0

    async def _send_fresh(self, session: aiohttp.ClientSession) -> None:
        """All that is in memory, until something must be tried again later."""
        while self._again or self._backlog:
            if not self._again:
                self._again = list(islice(self._backlog, self._batch))
                for _ in self._again:
                    self._backlog.popleft()
            if not await self._post(session, self._again):
                return
            self._again = []
        self._clear()

    def _clear(self) -> None:
        """Nothing is in memory any more."""
        self._unwritten = []
        if self._spool is not None:
            self._spool.clear()

    async def _send_kept(self, session: aiohttp.ClientSession) -> None:
        """One batch of what is on disk."""
        if self._spool is None:
            return
        try:
            batch = self._spool.head(self._batch, self._clock() - MAX_AGE)
            if batch and await self._post(session, batch):
                self._spool.done()
        except OSError as error:
            self._lament(error)

    def _keep(self) -> None:
        """What is in memory goes to the disk, if there is a spool."""
        if self._spool is None or not (self._again or self._backlog):
            return
        again, self._again = self._again, []
        fresh, self._backlog = list(self._backlog), deque()
        try:
            self._spool.add(again, alone=True)
            again = []
            self._spool.add(fresh)
            self._clear()
            self._spool_broken = False
        except OSError as error:
            self._backlog.extend([*again, *fresh])
            self._trim()
            self._lament(error)

    def _lament(self, error: OSError) -> None:
        if not self._spool_broken:
            self._spool_broken = True
            self._say(f"the spool can't be used, samples stay in memory: {error}")

    async def _post(self, session: aiohttp.ClientSession, batch: list[bytes]) -> bool:
        """Hand over one batch; False where it must be tried again later."""
        headers = {SENT: f"{self._clock():.3f}"}
        try:
            body = b"\n".join(batch) + b"\n"
            async with session.post(self.url, data=body, headers=headers, allow_redirects=False) as response:
                self._wait_for(response.headers.get("Retry-After", ""))
                return self._judge(response.status, await _text(response), batch)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            self._gone(str(error) or type(error).__name__)
            return False

    def _wait_for(self, seconds: str) -> None:
        """Retry-After, in seconds: the collector knows best when it has room."""
        if re.fullmatch(r"[0-9]{1,6}", seconds):
            self._not_before = asyncio.get_running_loop().time() + min(float(seconds), WAIT_MOST)

    def _judge(self, status: int, text: bytes, batch: list[bytes]) -> bool:
        if status == 413:
            return self._halve(batch)
        if status != 200:
            self._gone(f"it answers {status}: {text[:200].decode('utf-8', 'replace')!a}")
            return False
        if self._away:
            self._away = False
            self._say(f"collector is back, {self.backlog} samples were waiting")
        self._count(text, len(batch))
        return True

    def _halve(self, batch: list[bytes]) -> bool:
        """Too large for the collector; a line that is so by itself is given up."""
        self._batch = max(1, len(batch) // 2)
        if len(batch) == 1:
            self.rejected += 1
            return True
        if batch is self._again:
            self._backlog.extendleft(reversed(batch))
            self._again = []
        elif self._spool is not None:
            self._spool.put_back()
        return False

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
