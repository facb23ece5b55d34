"""Who probes, said where one looks: one page of plain text over HTTP, at the addresses that probes come from."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from edgedns.probe.layout import Plan
from edgedns.probe.source import Source

AT_ONCE = 32
REQUEST_LIMIT = 8192
REQUEST_SECONDS = 5.0

PAGE = """\
You are looking at a host that measures round trip times.

Who:       vantage {vantage}; {about}
What:      single packets (ICMP echo, UDP, DNS, TCP or HTTP) from {sources}
Why:       a DNS server answers each network with the address that is fastest from there, and measures which one that is
How often: this host sends at most {per_address:g} packets a second to one address and {per_network:g} to one network,
           averaged over ten seconds, and {ceiling:g} in all. Addresses are not scanned: it probes those that ask our
           name servers, and lists of targets.
Opt out:   write to the above and name your addresses or prefixes; they are never probed again.
"""


def page(plan: Plan, sources: Sequence[Source], about: str) -> str:
    """What is said; `about` is a URL, a mail address or a name."""
    addresses = ", ".join(dict.fromkeys(source.address for source in sources))
    return PAGE.format(
        vantage=plan.vantage, about=about, sources=addresses,
        per_address=plan.per_address, per_network=plan.of_network, ceiling=plan.ceiling,
    )  # fmt: skip


class Page:
    """Answers each request with the same text and closes. A few connections at once, and none for long."""

    def __init__(self, text: str) -> None:
        body = text.encode()
        head = f"HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {len(body)}\r\n"
        self._head = head.encode() + b"Connection: close\r\nX-Content-Type-Options: nosniff\r\n\r\n"
        self._body = body
        self._open = 0
        self._servers: list[asyncio.Server] = []

    async def listen(self, host: str, port: int) -> int:
        """Answer there, too; the port. OSError where that can't be."""
        server = await asyncio.start_server(self._answer, host, port, limit=REQUEST_LIMIT)
        self._servers.append(server)
        return int(server.sockets[0].getsockname()[1])

    def close(self) -> None:
        for server in self._servers:
            server.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open += 1
        try:
            if self._open <= AT_ONCE:
                async with asyncio.timeout(REQUEST_SECONDS):
                    request = await reader.readuntil(b"\r\n\r\n")
                    writer.write(self._head if request.startswith(b"HEAD ") else self._head + self._body)
                    await writer.drain()
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # it is nobody's loss but theirs
        finally:
            self._open -= 1
            writer.close()
