"""Who probes, said where one looks: a Probe Description File (RFC 9511 section 2) over HTTP, at the addresses of probes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

from edgedns.probe.layout import Plan
from edgedns.probe.source import Source

AT_ONCE = 32
REQUEST_LIMIT = 8192
REQUEST_SECONDS = 5.0
VALID = timedelta(days=30)
WELL_KNOWN = "/.well-known/probing.txt"

PAGE = """\
# This host measures round trip times: single packets (ICMP echo, UDP, DNS, TCP or HTTP) from {sources}.
# It sends at most {per_address:g} packets a second to one address and {per_network:g} to one network, averaged over ten
# seconds, and {ceiling:g} in all. Addresses are not scanned: it probes those that ask our name servers, and lists of targets.
# To opt out, write to the contact and name your addresses or prefixes: they are never probed again.
{canonical}Contact: {about}
Expires: {expires}
Preferred-Languages: en
Description: Round trip times from vantage {vantage}, by which a DNS server answers each network with the nearest address
"""


def page(plan: Plan, sources: Sequence[Source], about: str, now: float) -> str:
    """The file, in the form of RFC 9116 section 4; `about` is a URI, `now` Unix seconds."""
    addresses = ", ".join(dict.fromkeys(source.address for source in sources))
    expires = datetime.fromtimestamp(now, UTC).replace(microsecond=0) + VALID
    canonical = f"Canonical: {about}\n" if about.startswith("https:") and about.endswith(WELL_KNOWN) else ""
    return PAGE.format(
        vantage=plan.vantage, about=about, sources=addresses, canonical=canonical, expires=expires.isoformat(),
        per_address=plan.per_address, per_network=plan.of_network, ceiling=plan.ceiling,
    )  # fmt: skip


class Page:
    """Answers each request with what `text` gives, and closes. A few connections at once, and none for long."""

    def __init__(self, text: Callable[[], str]) -> None:
        self._text = text
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

    def _reply(self, to: bytes) -> bytes:
        body = self._text().encode()
        head = f"HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {len(body)}\r\n"
        head += "Connection: close\r\nX-Content-Type-Options: nosniff\r\n\r\n"
        return head.encode() + (b"" if to.startswith(b"HEAD ") else body)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open += 1
        try:
            if self._open <= AT_ONCE:
                async with asyncio.timeout(REQUEST_SECONDS):
                    writer.write(self._reply(await reader.readuntil(b"\r\n\r\n")))
                    await writer.drain()
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # it is nobody's loss but theirs
        finally:
            self._open -= 1
            writer.close()
