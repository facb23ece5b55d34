"""Executes the rules' `check:`: one HTTP GET or TCP connection to each address, again and again.

Plain asyncio, since a status line is all that is read. What says nothing about the address (no route from here, no free
descriptor) gives no result: a host without IPv6 must not take every provider's IPv6 down.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import re
import ssl
from collections.abc import Awaitable, Callable, Mapping
from ipaddress import ip_address
from random import Random
from typing import NamedTuple

from edgedns.model import Check
from edgedns.probe import tls
from edgedns.steer.failure.checks import Target

AT_ONCE = 64
LOOK_EVERY = 0.5
JITTER = 0.1
LINE_LIMIT = 8192
OURS = frozenset({
    errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.ENETUNREACH, errno.ENETDOWN, errno.EADDRNOTAVAIL,
    errno.EAFNOSUPPORT, errno.EPERM, errno.EACCES,
})  # fmt: skip
_URL = re.compile(r"(https?)://\{ip\}(?::(\d{1,5}))?(/[!-~]*)?", re.ASCII)
_STATUS = re.compile(rb"HTTP/1\.[01] ([1-5]\d\d)(?: [^\r\n]*)?\r?\n")


class Result(NamedTuple):
    """What came of one check: good, bad, or None where this host could not ask; `note` says it in a few words."""

    good: bool | None
    note: str


class NotHttp(Exception):
    """What answered does not speak HTTP/1."""


Report = Callable[[Target, Result], Awaitable[None]]


async def check_once(check: Check, address: bytes) -> Result:
    """One check of one packed address, over within `check.timeout`; never raises."""
    try:
        async with asyncio.timeout(check.timeout):
            return await (_http(check, address) if check.kind == "http" else _tcp(check, address))
    except TimeoutError:
        return Result(False, f"no answer within {check.timeout:g} s")
    except NotHttp:
        return Result(False, "no HTTP answer")
    except ssl.SSLError as error:
        return Result(False, f"TLS: {getattr(error, 'reason', None) or error}")
    except OSError as error:
        return Result(None if error.errno in OURS else False, os.strerror(error.errno) if error.errno else str(error))
    except Exception as error:  # a fault of ours says nothing about the address
        return Result(None, f"the check itself failed: {error!r}")


async def _tcp(check: Check, address: bytes) -> Result:
    _, writer = await asyncio.open_connection(str(ip_address(address)), check.port)
    await _close(writer)
    return Result(True, f"port {check.port} is open")


async def _http(check: Check, address: bytes) -> Result:
    """2xx and 3xx are good. Redirects are not followed, and a certificate is not judged: it names no address."""
    parts = _URL.fullmatch(check.url)
    if parts is None:
        return Result(None, f"{check.url!r} can't be asked")
    host, secure = str(ip_address(address)), parts[1] == "https"
    port = int(parts[2] or (443 if secure else 80))
    reader, writer = await asyncio.open_connection(host, port, limit=LINE_LIMIT, ssl=tls.trusting() if secure else None)
    try:
        path = (parts[3] or "/").partition("#")[0]
        writer.write(_request(host, parts[2], path))
        status = await _status(reader)
    finally:
        await _close(writer)
    return Result(200 <= status < 400, f"HTTP {status}")


def _request(host: str, port: str | None, path: str) -> bytes:
    name = (f"[{host}]" if ":" in host else host) + (f":{port}" if port else "")
    lines = (f"GET {path} HTTP/1.1", f"Host: {name}", "User-Agent: edgedns-check", "Accept: */*", "Connection: close")
    return "\r\n".join((*lines, "", "")).encode("ascii")


async def _status(reader: asyncio.StreamReader) -> int:
    """The status of the final response; interim ones (RFC 9110 section 15.2) are passed over."""
    try:
        while True:
            line = _STATUS.fullmatch(await reader.readline())
            if line is None:
                raise NotHttp
            if line[1] >= b"200":
                return int(line[1])
            while (await reader.readline()).strip():
                pass
    except ValueError as error:  # a line longer than the limit
        raise NotHttp from error


async def _close(writer: asyncio.StreamWriter) -> None:
    """Let go at once: nothing that could still come is of interest."""
    writer.transport.abort()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


class Checker:
    """Runs the checks that `wanted` names, at most 64 at once, and reports each result, which must not raise.

    An address begins somewhere within its first `every`, and each wait is up to a tenth longer or shorter, so that
    addresses and nodes don't fall into step.
    """

    def __init__(self, wanted: Callable[[], Mapping[Target, Check]], report: Report, dice: Random) -> None:
        self._wanted = wanted
        self._report = report
        self._dice = dice
        self._room = asyncio.Semaphore(AT_ONCE)

    async def run(self) -> None:
        """For ever; follows what `wanted` gives within half a second."""
        running: dict[Target, tuple[Check, asyncio.Task[None]]] = {}
        async with asyncio.TaskGroup() as group:
            while True:
                wanted = self._wanted()
                for target in [one for one, (check, _) in running.items() if wanted.get(one) != check]:
                    running.pop(target)[1].cancel()
                for target in wanted.keys() - running.keys():
                    running[target] = wanted[target], group.create_task(self._repeat(target, wanted[target]))
                await asyncio.sleep(LOOK_EVERY)

    async def _repeat(self, target: Target, check: Check) -> None:
        clock = asyncio.get_running_loop().time
        await asyncio.sleep(self._dice.random() * check.every)
        while True:
            begun = clock()
            async with self._room:
                result = await check_once(check, target.address)
            await self._report(target, result)
            pause = check.every * self._dice.uniform(1 - JITTER, 1 + JITTER)
            await asyncio.sleep(max(0.0, begun + pause - clock()))
