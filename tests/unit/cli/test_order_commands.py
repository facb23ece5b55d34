"""`edgedns drain`, `pin`, `undo`, `orders` against a stand-in for the admin side: what is sent, what is said."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from edgedns.cli import main
from edgedns.serve.orders import override_json, parse_override


class Server(HTTPServer):
    """Keeps what was asked; answers as /v1/overrides does."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[tuple[str, str, Any, str]] = []
        self.refusal: tuple[int, bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self._reply({"overrides": [self._order({"kind": "drain", "provider": "alder", "owner": "noc", "reason": "fibre"})]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append(("POST", self.path, body, self.headers.get("Authorization", "")))
        self._reply(self._order(body), 201)

    def do_DELETE(self) -> None:
        self.server.asked.append(("DELETE", self.path, None, self.headers.get("Authorization", "")))
        self._reply({"removed": self.path.rpartition("/")[2]})

    @staticmethod
    def _order(body: Any) -> dict[str, object]:
        return {**override_json(parse_override(body)), "id": "o1"}

    def _reply(self, content: object, status: int = 200) -> None:
        status, raw = self.server.refusal or (status, json.dumps(content).encode())
        self.send_response(status)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as started:
        thread = threading.Thread(target=started.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield started
        started.shutdown()
        thread.join()


def run(server: Server, *arguments: str, **environment: str) -> Result:
    environ = {"EDGEDNS_TOKEN": "", "http_proxy": "http://192.0.2.1:9", **environment}
    return CliRunner().invoke(main, [*arguments, "--server", server.url], env=environ)


def test_a_drain_is_ordered(server: Server) -> None:
    who = ("--owner", "noc", "--reason", "fibre work")
    result = run(server, "drain", "alder", *who, "--until", "2036-12-05", EDGEDNS_TOKEN="t0")
    assert result.exit_code == 0, result.output
    wanted = {"kind": "drain", "provider": "alder", "owner": "noc", "reason": "fibre work", "until": "2036-12-05"}
    assert server.asked == [("POST", "/v1/overrides", wanted, "Bearer t0")]
    assert result.output == "o1: drain alder, until 2036-12-05 00:00:00Z; take it back with: edgedns undo o1\n"


def test_a_pin_is_ordered_for_some(server: Server, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("sesame\n")
    matches = ("--match", "asn=64500", "--match", "asn=64501", "--match", "country=NO")
    reasons = ("--owner", "noc", "--reason", "x", "--token-file", str(tmp_path / "token"))
    result = run(server, "pin", "www.cdn.example.net", "birch", *matches, *reasons)
    assert result.exit_code == 0, result.output
    [(_, _, body, authorization)] = server.asked
    assert body["match"] == {"asn": ["64500", "64501"], "country": ["NO"]}
    assert authorization == "Bearer sesame"
    assert "pin www.cdn.example.net to birch for asn 64500 or 64501 and country NO; take it back" in result.output


def test_until_may_be_a_length_of_time(server: Server) -> None:
    assert run(server, "drain", "alder", "--owner", "a", "--reason", "b", "--until", "2h").exit_code == 0
    assert server.asked[0][2]["until"] == pytest.approx(time.time() + 7200, abs=60)


def test_an_order_is_taken_back_and_orders_are_listed(server: Server) -> None:
    assert run(server, "undo", "o1").output == "o1 is taken back\n"
    assert server.asked == [("DELETE", "/v1/overrides/o1", None, "")]
    listed = run(server, "orders").output
    assert listed.splitlines()[1].split() == ["o1", "drain", "alder", "noc", "taken", "back", "fibre"]


@pytest.mark.parametrize(
    ("refusal", "wanted"),
    [
        ((400, b'{"error": "there is no provider \'elm\'"}'), "Error: there is no provider 'elm'"),
        ((401, b'{"error": "this needs the token: Authorization: Bearer TOKEN"}'), "Error: this needs the token"),
        ((500, b"oops"), "Error: the server says 500"),
        ((200, b"oops"), "Error: no answer from"),
    ],
)
def test_a_refusal_is_one_sentence(server: Server, refusal: tuple[int, bytes], wanted: str) -> None:
    server.refusal = refusal
    result = run(server, "drain", "elm", "--owner", "a", "--reason", "b")
    assert result.exit_code == 1
    assert result.output.startswith(wanted)
    assert result.output.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (("drain", "alder", "--reason", "x"), "Missing option '--owner'"),
        (("pin", "www", "alder", "--owner", "a", "--reason", "b", "--match", "asn"), "is not KEY=VALUE"),
        (("undo", "../status"), "is not an order's id"),
        (("undo", "o1", "--token-file", "/nonexistent"), "can't be read"),
    ],
)
def test_what_is_wrong_is_not_sent(server: Server, arguments: tuple[str, ...], wanted: str) -> None:
    result = run(server, *arguments)
    assert result.exit_code == 2
    assert wanted in result.output
    assert server.asked == []


def test_nobody_there_is_one_sentence() -> None:
    result = CliRunner().invoke(main, ["undo", "o1", "--server", "http://127.0.0.1:1"])
    assert result.exit_code == 1
    assert "no answer from http://127.0.0.1:1" in result.output
    assert "is `edgedns serve` running there?" in result.output
