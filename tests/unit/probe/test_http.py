"""Probes by HTTP and HTTPS: what is timed, from where, whom they believe; and servers that misbehave. On real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path

import pytest

from edgedns.probe import tls as probe_tls
from edgedns.probe.connect import OPEN_LIMIT
from edgedns.probe.http import HEAD_LIMIT, HTTP_TIMES, HttpLine, HttpTime
from edgedns.probe.measure import Endpoint, exchange
from edgedns.probe.source import Source

SOURCE = Source("alder", "127.1.0.1")
NAME = "www.example.com"
OK = b"HTTP/1.1 200 OK\r\nServer: x\r\n\r\n"
SLOW = 0.15


class Server:
    """Answers each request by `replies`, one after the other, the last one again and again; `b""` ends the connection."""

    def __init__(self, *replies: bytes, thinks: float = 0.0) -> None:
        self.replies = list(replies)
        self.thinks = thinks
        self.requests: list[str] = []
        self.peers: list[tuple[str, int]] = []
        self.port = 0
        self.talks: set[asyncio.Task[None]] = set()

    def meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.talks.add(asyncio.get_running_loop().create_task(self.talk(reader, writer)))

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.peers.append(writer.get_extra_info("peername"))
        with contextlib.suppress(OSError, asyncio.IncompleteReadError), contextlib.closing(writer):
            while True:
                self.requests.append((await reader.readuntil(b"\r\n\r\n")).decode())
                await asyncio.sleep(self.thinks)
                reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
                if not reply:
                    break
                writer.write(reply)
                await writer.drain()


@contextlib.asynccontextmanager
async def serving(server: Server, tls: ssl.SSLContext | None = None) -> AsyncIterator[Endpoint]:
    made = await asyncio.start_server(server.meet, "127.0.0.1", 0, ssl=tls)
    server.port = made.sockets[0].getsockname()[1]
    try:
        yield Endpoint("127.0.0.1", server.port)
    finally:
        made.close()
        await made.wait_closed()
        for talk in server.talks:
            talk.cancel()
        await asyncio.gather(*server.talks, return_exceptions=True)
        await asyncio.sleep(0.01)


async def asked(
    server: Server, times: int = 1, timed: HttpTime = "connect", tls: ssl.SSLContext | None = None, name: str = ""
) -> list[float | None]:
    """The RTTs of so many probes, one after the other."""
    async with serving(server, tls) as endpoint:
        line = HttpLine(SOURCE, tls is not None, "edgedns-probe (+https://noc.example.net/)", timed)
        try:
            return [await exchange(line, endpoint._replace(server=name), 1.0) for _ in range(times)]
        finally:
            line.close()
            await asyncio.sleep(0.05)  # what was let go of ends


def run(test: Callable[[], Coroutine[None, None, None]]) -> None:
    asyncio.run(test())


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, Path]:
    """A server's context with a certificate of its own for NAME, and that certificate."""
    folder = tmp_path_factory.mktemp("tls")
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    command += ["-subj", f"/CN={NAME}", "-addext", f"subjectAltName=DNS:{NAME}", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context, certificate


def test_the_handshake_is_timed_whatever_the_server_thinks() -> None:
    async def test() -> None:
        server = Server(OK, thinks=SLOW)
        found = await asked(server, times=3)
        assert all(rtt is not None and 0 < rtt < SLOW * 500 for rtt in found), found
        assert len(server.peers) == 3
        assert {host for host, _ in server.peers} == {"127.1.0.1"}

    run(test)


def test_the_first_octet_is_timed_on_a_kept_connection_where_asked() -> None:
    async def test() -> None:
        server = Server(OK, thinks=SLOW)
        found = await asked(server, times=3, timed="first-byte")
        assert all(rtt is not None and SLOW * 1000 <= rtt < 900 for rtt in found), found
        assert (len(server.requests), len(server.peers)) == (3, 1)

    run(test)


def test_it_asks_for_little_and_says_who_it_is() -> None:
    async def test() -> None:
        server = Server(OK)
        await asked(server, name=NAME)
        start, *fields = server.requests[0].split("\r\n")
        assert start == "HEAD / HTTP/1.1"
        assert f"Host: {NAME}:{server.port}" in fields
        assert "User-Agent: edgedns-probe (+https://noc.example.net/)" in fields
        assert "Connection: close" in fields

    run(test)


@pytest.mark.parametrize("status", [b"204 No Content", b"301 Moved", b"404 Not Found", b"503 Busy"])
def test_any_status_is_a_reply(status: bytes) -> None:
    async def test() -> None:
        assert await asked(Server(b"HTTP/1.0 " + status + b"\r\n\r\n")) != [None]

    run(test)


@pytest.mark.parametrize("timed", HTTP_TIMES)
def test_a_certificate_is_not_judged_by_an_address_alone(tls: tuple[ssl.SSLContext, Path], timed: HttpTime) -> None:
    async def test() -> None:
        found = await asked(Server(OK), times=2, timed=timed, tls=tls[0])
        assert None not in found

    run(test)


def test_where_a_server_is_named_its_certificate_is(tls: tuple[ssl.SSLContext, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        assert await asked(Server(OK), tls=tls[0], name=NAME) == [None], "nobody here trusts it"
        trusted = ssl.create_default_context(cafile=tls[1])
        monkeypatch.setattr(probe_tls, "judging", lambda: trusted)
        assert await asked(Server(OK), tls=tls[0], name=NAME) != [None]
        assert await asked(Server(OK), tls=tls[0], name="www.example.net") == [None], "that is another's"

    run(test)


def test_a_name_that_no_certificate_can_have_is_no_reply(tls: tuple[ssl.SSLContext, Path]) -> None:
    async def test() -> None:
        assert await asked(Server(OK), tls=tls[0], name="a..b") == [None]

    run(test)


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        b"SSH-2.0-x\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/2.0 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"x" * (2 * HEAD_LIMIT),
        b"\x00" * 1000,
    ],
)
def test_what_is_no_http_is_no_reply(reply: bytes) -> None:
    async def test() -> None:
        server = Server(reply)
        async with serving(server) as endpoint:
            line = HttpLine(SOURCE, False, "edgedns-probe")
            assert await exchange(line, endpoint, 0.3) is None
            line.close()

    run(test)


def test_a_refusal_is_no_reply_and_neither_is_plain_text_where_tls_is_wanted() -> None:
    async def test() -> None:
        async with serving(Server(OK)) as endpoint:
            line = HttpLine(SOURCE, True, "edgedns-probe")
            assert await exchange(line, endpoint, 0.5) is None
            line.close()
        plain = HttpLine(SOURCE, False, "edgedns-probe")
        assert await exchange(plain, endpoint, 0.3) is None
        plain.close()

    run(test)


@pytest.mark.parametrize(
    "reply",
    [
        b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n",
        b"HTTP/1.0 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: y\r\nconnection: Keep-Alive, close\r\n\r\n",
        OK + b"a body, though none was asked for",
    ],
)
def test_a_connection_that_is_to_end_is_not_kept(reply: bytes) -> None:
    async def test() -> None:
        server = Server(reply)
        found = await asked(server, times=2, timed="first-byte")
        assert None not in found
        assert len(server.peers) == 2

    run(test)


def test_a_kept_connection_that_the_server_ends_is_made_anew() -> None:
    async def test() -> None:
        server = Server(OK, b"", OK)
        found = await asked(server, times=2, timed="first-byte")
        assert None not in found
        assert (len(server.peers), len(server.requests)) == (2, 3)

    run(test)


def test_probes_at_once_have_a_connection_each_and_one_is_kept() -> None:
    async def test() -> None:
        server = Server(OK, thinks=SLOW)
        async with serving(server) as endpoint:
            line = HttpLine(SOURCE, False, "edgedns-probe", "first-byte")
            found = await asyncio.gather(*(exchange(line, endpoint, 1.0) for _ in range(3)))
            found.append(await exchange(line, endpoint, 1.0))
            line.close()
        assert None not in found
        assert (len(server.peers), len(server.requests)) == (3, 4)

    run(test)


def test_what_is_forgotten_ends_and_there_is_a_bound() -> None:
    """A server that takes connections and never says a word holds nothing of ours for longer than a probe lasts."""

    async def test() -> None:
        server = Server(OK, thinks=5.0)
        async with serving(server) as endpoint:
            line = HttpLine(SOURCE, False, "edgedns-probe")
            heard: list[float] = []
            tokens = [line.send(endpoint, heard.append) for _ in range(OPEN_LIMIT)]
            with pytest.raises(OSError, match="too many connections under way"):
                line.send(endpoint, heard.append)
            started = time.monotonic()
            for token in tokens:
                line.forget(token)
            line.forget(tokens[0])
            assert time.monotonic() - started < 3.0
            line.forget(line.send(endpoint, heard.append))
            await asyncio.sleep(0.1)
            line.close()
        assert heard == []

    run(test)
