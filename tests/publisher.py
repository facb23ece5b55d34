"""A publisher of ASN tables on this machine: HTTPS with a certificate of its own, and every way of serving a file badly."""

from __future__ import annotations

import contextlib
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from edgedns.store.update import known
from tests.small import NETWORKS

DAY = 86400.0
NOW = 1_795_305_600.0  # 2026-11-22

Play = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    """Plays what its publisher has for the path, and keeps what was asked."""

    protocol_version = "HTTP/1.1"
    publisher: Publisher

    def do_GET(self) -> None:
        self.publisher.asked.append((self.path, dict(self.headers)))
        play = self.publisher.plays.get(self.path)
        if play is None:
            reply(404)(self)
        else:
            with contextlib.suppress(OSError):  # whoever asked had enough
                play(self)
        self.close_connection = True

    def head(self, status: int, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


class Silent(ThreadingHTTPServer):
    """Clients that hang up are what is tested."""

    def handle_error(self, *_: object) -> None:
        pass


class Publisher:
    """`plays` by path; `asked` has (path, headers) of each request."""

    def __init__(self, top: Path) -> None:
        self.plays: dict[str, Play] = {}
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.ca = top / "localhost.pem"
        key = top / "localhost.key"
        names = "subjectAltName=IP:127.0.0.1,DNS:localhost"
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        command += ["-keyout", str(key), "-out", str(self.ca), "-days", "2", "-subj", "/CN=localhost", "-addext", names]
        subprocess.run(command, check=True, capture_output=True)
        self._server = Silent(("127.0.0.1", 0), type("Own", (Handler,), {"publisher": self}))
        self._server.daemon_threads = True
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.ca, key)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"https://{host}:{self._server.server_port}{path}"

    def publish(self, content: bytes, path: str = "/table", *, at: float | None = NOW, etag: str = "") -> str:
        """A file as good servers have them, and its URL."""
        self.plays[path] = good(content, at, etag)
        return self.url(path)

    def play(self, play: Play, path: str = "/table") -> str:
        self.plays[path] = play
        return self.url(path)

    def __enter__(self) -> Publisher:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


# -- ways to serve a file


def good(content: bytes, at: float | None = None, etag: str = "") -> Play:
    def play(to: Handler) -> None:
        headers = {"ETag": etag} if etag else {}
        if etag and etag in to.headers.get("If-None-Match", ""):
            to.head(304, **headers)
            return
        if at is not None:
            headers["Last_Modified"] = formatdate(at, usegmt=True)
        to.head(200, Content_Length=str(len(content)), **headers)
        to.wfile.write(content)

    return play


def reply(status: int, **headers: str) -> Play:
    return lambda to: to.head(status, Content_Length="0", **headers)


def truncated(content: bytes) -> Play:
    def play(to: Handler) -> None:
        to.head(200, Content_Length=str(len(content)))
        to.wfile.write(content[: len(content) // 2])

    return play


def without_length(content: bytes) -> Play:
    def play(to: Handler) -> None:
        to.head(200)
        to.wfile.write(content)

    return play


def endless(to: Handler) -> None:
    """Chunks without an end, bounded all the same: 64 MiB."""
    to.head(200, Transfer_Encoding="chunked")
    for _ in range(1024):
        to.wfile.write(b"10000\r\n" + bytes(65536) + b"\r\n")


def slow(to: Handler) -> None:
    """An octet every 50 ms for ten seconds."""
    to.head(200, Content_Length="100000")
    for _ in range(200):
        to.wfile.write(b"x")
        to.wfile.flush()
        time.sleep(0.05)


# -- tables


def table(networks: Iterator[int] | range = range(NETWORKS), asns: dict[int, int] | None = None, country: str = "DE") -> bytes:
    """An iptoasn TSV: one /16 and one /48 a network (AS 64512 + number, or as in `asns`), and the well-known addresses."""
    rows = [f"{address}\t{address}\t{asn}\tUS\tknown\n" for address, asn in known()]
    for n in networks:
        asn = (asns or {}).get(n, 64512 + n)
        rows.append(f"10.{n}.0.0\t10.{n}.255.255\t{asn}\t{country}\tNetwork {n}\n")
        rows.append(f"2001:db8:{n:x}::\t2001:db8:{n:x}:ffff:ffff:ffff:ffff:ffff\t{asn}\t{country}\tNetwork {n}\n")
    return "".join(rows).encode()


@lru_cache(maxsize=4)
def changed(moved: int) -> bytes:
    """The table with the first `moved` networks in other ASNs."""
    return table(asns={n: 65000 + n for n in range(moved)})
