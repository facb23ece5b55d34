"""What a TCP connection's opening says of its peer."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import pytest

from edgedns.probe.connect import Attempt
from edgedns.probe.measure import Endpoint
from edgedns.probe.source import Source

SOURCE = Source("alder", "127.0.0.1")


@pytest.fixture
def silent() -> Iterator[tuple[str, int]]:
    """A host that answers no SYN: those who wait to be accepted are too many already."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.socket())
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        for _ in range(3):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(server.getsockname())
        yield server.getsockname()


def test_to_be_woken_without_a_word_is_no_reply(silent: tuple[str, int]) -> None:
    """An ICMP error wakes who waits before the socket has it: for a moment there is neither a connection nor an error."""

    async def main() -> None:
        told: list[float | None] = []
        attempt = Attempt(SOURCE, Endpoint(*silent), lambda _, rtt_ms: told.append(rtt_ms))
        await asyncio.sleep(0.05)
        assert told == []
        attempt._settle()
        assert told == [None]
        assert not attempt.open
        attempt.close()

    asyncio.run(main())
