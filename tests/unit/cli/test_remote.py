"""Speaking to the admin side: the token goes to the server that was named, and to nobody else."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import click
import pytest

from edgedns.cli.remote import Remote


class Redirecting(BaseHTTPRequestHandler):
    """Sends everybody on to /elsewhere of the same server under another name, and keeps what comes there."""

    came: list[str]

    def do_GET(self) -> None:
        if self.path == "/elsewhere":
            self.came.append(self.headers.get("Authorization", ""))
        self.send_response(302)
        self.send_header("Location", f"http://localhost:{self.connection.getsockname()[1]}/elsewhere")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_POST(self) -> None:
        self.do_GET()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def remote() -> Iterator[Remote]:
    Redirecting.came = []
    with HTTPServer(("127.0.0.1", 0), Redirecting) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield Remote(f"http://127.0.0.1:{server.server_port}", "secret")
        server.shutdown()
        thread.join()


def test_who_is_sent_on_does_not_go_there(remote: Remote) -> None:
    asking: list[Callable[[], object]] = [lambda: remote.get("/v1/status"), lambda: remote.post("/v1/reload", {})]
    for ask in asking:
        with pytest.raises(click.ClickException, match="the server says 302"):
            ask()
    assert Redirecting.came == []
