"""Checks over real sockets on loopback: each way that an address can answer, and the schedule."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from ipaddress import ip_address
from random import Random

import pytest

from edgedns.model import Check
from edgedns.probe import check as checking
from edgedns.probe.check import Checker, Result, check_once
from edgedns.steer.failure.checks import Target
from tests.driven import Driven

LOOPBACK = ip_address("127.0.0.9").packed
LOOPBACK6 = ip_address("::1").packed
TIMEOUT = 0.3
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def listening(serve: Serve, host: str = "127.0.0.9") -> AsyncIterator[int]:
    """A server on a free port; its connections are done with when it ends."""
    open_now: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        open_now.add(task)
        try:
            await serve(reader, writer)
        except ConnectionError:
            pass
        finally:
            writer.transport.abort()
            open_now.discard(task)

    server = await asyncio.start_server(connected, host, 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in open_now:
            task.cancel()
        await asyncio.gather(*open_now, return_exceptions=True)


def saying(reply: bytes, linger: float = 0.0) -> Serve:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(reply)
        await writer.drain()
        await asyncio.sleep(linger)

    return serve


async def http(serve: Serve, host: str = "127.0.0.9", path: str = "/healthz") -> Result:
    async with listening(serve, host) as port:
        check = Check("http", url=f"http://{{ip}}:{port}{path}", timeout=TIMEOUT)
        return await check_once(check, ip_address(host).packed)


HEAD = b"Content-Length: 0\r\n\r\n"


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (b"HTTP/1.1 200 OK\r\n" + HEAD, Result(True, "HTTP 200")),
        (b"HTTP/1.0 204 \r\n\r\n", Result(True, "HTTP 204")),
        (b"HTTP/1.1 200\r\n" + HEAD, Result(True, "HTTP 200")),
        (b"HTTP/1.1 301 Moved\r\nLocation: http://192.0.2.1/\r\n" + HEAD, Result(True, "HTTP 301")),
        (b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\n" + HEAD, Result(True, "HTTP 200")),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 503 Busy\r\n" + HEAD, Result(False, "HTTP 503")),
        (b"HTTP/1.1 500 Internal Server Error\r\n" + HEAD, Result(False, "HTTP 500")),
        (b"HTTP/1.1 404 Not Found\r\n" + HEAD, Result(False, "HTTP 404")),
        (b"", Result(False, "no HTTP answer")),
        (b"\0" * 100_000, Result(False, "no HTTP answer")),
        (b"SSH-2.0-OpenSSH_9.2\r\n", Result(False, "no HTTP answer")),
        (b"HTTP/1.1 200 " + b"x" * 100_000, Result(False, "no HTTP answer")),
        (b"HTTP/1.1 2oo OK\r\n\r\n", Result(False, "no HTTP answer")),
        (b"HTTP/1.1 999 Odd\r\n\r\n", Result(False, "no HTTP answer")),
        (b"HTTP/2 200\r\n\r\n", Result(False, "no HTTP answer")),
        (b"HTTP/1.1 100 Continue\r\n\r\n", Result(False, "no HTTP answer")),
    ],
)
def test_what_is_answered(reply: bytes, expected: Result) -> None:
    assert asyncio.run(http(saying(reply))) == expected


def test_only_the_status_is_waited_for() -> None:
    assert asyncio.run(http(saying(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", linger=5))).good is True


@pytest.mark.parametrize("reply", [b"", b"HTTP/1.1 200", b"HTTP/1.1 102 Processing\r\nX: y"])
def test_too_slow_is_a_failure(reply: bytes) -> None:
    assert asyncio.run(http(saying(reply, linger=5))) == Result(False, "no answer within 0.3 s")


def test_interim_answers_without_end_end_at_the_timeout() -> None:
    async def drip(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(b"HTTP/1.1 102 Processing\r\n\r\n")
            await writer.drain()
            await asyncio.sleep(0.01)

    assert asyncio.run(http(drip)) == Result(False, "no answer within 0.3 s")


def test_the_request_as_it_is_sent() -> None:
    asked = []

    async def note(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\n" + HEAD)

    assert asyncio.run(http(note, path="/ok?deep=1#part")).good
    assert asyncio.run(http(note, host="::1", path="")).good
    assert asked[0].startswith(b"GET /ok?deep=1 HTTP/1.1\r\nHost: 127.0.0.9:")
    assert b"\r\nConnection: close\r\n" in asked[0]
    assert asked[1].startswith(b"GET / HTTP/1.1\r\nHost: [::1]:")


async def tcp(port: int, address: bytes = LOOPBACK) -> Result:
    return await check_once(Check("tcp", port=port, timeout=TIMEOUT), address)


def closed_port(host: str) -> int:
    with socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET) as sock:
        return int(sock.getsockname()[1])


@pytest.mark.parametrize(("host", "address"), [("127.0.0.9", LOOPBACK), ("::1", LOOPBACK6)])
def test_tcp(host: str, address: bytes) -> None:
    async def ask() -> Result:
        async with listening(saying(b""), host) as port:
            return await tcp(port, address)

    assert asyncio.run(ask()).good is True
    assert asyncio.run(tcp(closed_port(host), address)) == Result(False, "Connection refused")
    refused = Check("http", url=f"http://{{ip}}:{closed_port(host)}/", timeout=TIMEOUT)
    assert asyncio.run(check_once(refused, address)) == Result(False, "Connection refused")


def test_a_listener_that_accepts_nobody_times_out() -> None:
    """The queue of connections is full: the kernel answers no more of them."""
    with socket.socket() as sock, socket.socket() as first, socket.socket() as second:
        sock.bind(("127.0.0.9", 0))
        sock.listen(0)
        for each in (first, second):
            each.setblocking(False)
            each.connect_ex(sock.getsockname())
        assert asyncio.run(tcp(sock.getsockname()[1])) == Result(False, "no answer within 0.3 s")


def test_tls_that_is_none() -> None:
    async def ask() -> Result:
        async with listening(saying(b"HTTP/1.1 200 OK\r\n\r\n")) as port:
            return await check_once(Check("http", url=f"https://{{ip}}:{port}/", timeout=TIMEOUT), LOOPBACK)

    assert asyncio.run(ask()).good is False


@pytest.mark.parametrize("number", sorted(checking.OURS))
def test_what_is_our_own_trouble_says_nothing(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    async def broken(*_: object, **__: object) -> None:
        raise OSError(number, "made")

    monkeypatch.setattr(asyncio, "open_connection", broken)
    assert asyncio.run(tcp(80)).good is None
    assert asyncio.run(check_once(Check("http", url="http://{ip}/"), LOOPBACK)).good is None


@pytest.mark.parametrize(
    ("error", "good"),
    [
        (OSError(errno.EHOSTUNREACH, "made"), False),
        (ConnectionResetError(errno.ECONNRESET, "made"), False),
        (ssl.SSLError(1, "made"), False),
        (OverflowError("port must be 0-65535"), None),
        (RuntimeError("made"), None),
    ],
)
def test_it_never_raises(monkeypatch: pytest.MonkeyPatch, error: Exception, good: bool | None) -> None:
    async def broken(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(asyncio, "open_connection", broken)
    assert asyncio.run(tcp(80)).good is good


def test_an_odd_url_or_port_says_nothing() -> None:
    assert asyncio.run(check_once(Check("http", url="ftp://{ip}/"), LOOPBACK)).good is None
    assert asyncio.run(check_once(Check("http", url="http://{ip}:99999/"), LOOPBACK)).good is None


class TestChecker:
    """Its schedule, with checks that take no socket, on a driven clock."""

    def run(
        self, monkeypatch: pytest.MonkeyPatch, wanted: dict[Target, Check], seconds: float,
        change: Callable[[], None] | None = None, takes: float = 0.0,
    ) -> Counter[Target]:  # fmt: skip
        self.seen: list[tuple[float, Target]] = []
        self.most = self.open = 0

        async def asked(check: Check, address: bytes) -> Result:
            self.open += 1
            self.most = max(self.most, self.open)
            await asyncio.sleep(takes)
            self.open -= 1
            return Result(True, "made")

        async def told(target: Target, _: Result) -> None:
            self.seen.append((asyncio.get_running_loop().time(), target))

        async def all_of_it() -> None:
            task = asyncio.create_task(Checker(lambda: wanted, told, Random(3)).run())
            await asyncio.sleep(seconds)
            if change is not None:
                change()
                self.seen.clear()
                await asyncio.sleep(seconds)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert task.cancelled()

        monkeypatch.setattr(checking, "check_once", asked)
        monkeypatch.setattr(checking, "LOOK_EVERY", 0.02)
        with asyncio.Runner(loop_factory=Driven) as runner:
            runner.run(all_of_it())
        return Counter(target for _, target in self.seen)

    def test_each_address_in_its_own_time(self, monkeypatch: pytest.MonkeyPatch) -> None:
        fast, slow = Target("alder", LOOPBACK), Target("alder", LOOPBACK6)
        wanted = {fast: Check("tcp", port=1, every=0.05), slow: Check("tcp", port=1, every=0.3)}
        counts = self.run(monkeypatch, wanted, 1.2)
        assert 15 <= counts[fast] <= 28
        assert 3 <= counts[slow] <= 5

    def test_the_rules_are_followed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        gone, stays, comes = (Target(name, LOOPBACK) for name in ("gone", "stays", "comes"))
        quick = Check("tcp", port=1, every=0.05)
        wanted = {gone: quick, stays: quick}

        def change() -> None:
            del wanted[gone]
            wanted[comes] = quick

        counts = self.run(monkeypatch, wanted, 0.5, change)
        assert counts[gone] <= 1
        assert counts[stays] > 4
        assert counts[comes] > 4

    def test_they_are_spread_and_bounded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        wanted = {Target("alder", bytes((127, 0, 1, i))): Check("tcp", port=1, every=0.5) for i in range(200)}
        self.run(monkeypatch, wanted, 0.5)
        times = [at for at, _ in self.seen]
        assert max(times) - min(times) > 0.3
        self.run(monkeypatch, wanted, 0.5, takes=0.3)
        assert self.most == checking.AT_ONCE
