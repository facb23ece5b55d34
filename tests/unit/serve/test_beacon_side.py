"""What faces web pages: CORS, whose address counts, limits; each reply is as its OpenAPI file describes it."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from edgedns.config import Address
from edgedns.serve import beacon
from edgedns.serve.admin import start
from edgedns.serve.beacon import OPENAPI, REPORT_LIMIT, Terms, make_app, networks
from edgedns.serve.guard import Refused
from tests.unit.serve.openapi_check import mismatch

DOCUMENT = json.loads(OPENAPI.read_text())
OBJECTS = {"alder": "https://alder.example.net/1x1", "birch": 'https://birch.example.net/</script>"{share}"'}
ORIGIN = "https://www.example.net"
TERMS = Terms(OBJECTS, 0.01, frozenset({ORIGIN}), networks(("127.0.0.0/8", "2001:db8:1::/48")))
FROM_US = {"Origin": ORIGIN, "Content-Type": "application/json"}


class Taken:
    """What got through."""

    def __init__(self) -> None:
        self.reports: list[tuple[bytes, bytes]] = []
        self.refusal: Refused | None = None

    def take(self, body: bytes, client: bytes) -> None:
        if self.refusal:
            raise self.refusal
        self.reports.append((body, client))


@pytest.fixture
def taken() -> Taken:
    return Taken()


def asked(
    taken: Taken, method: str, path: str, headers: Mapping[str, str] | None = None, content: bytes | None = None,
    terms: Terms = TERMS,
) -> tuple[int, Mapping[str, str], bytes]:  # fmt: skip
    """(status, headers, body), which are as described."""

    async def run() -> tuple[int, Mapping[str, str], bytes]:
        async with (
            TestClient(TestServer(make_app(terms, taken.take))) as client,
            client.request(method, path, headers=headers, data=content) as reply,
        ):
            return reply.status, reply.headers.copy(), await reply.read()

    status, got, octets = asyncio.run(run())
    kind = got.get("Content-Type", "").partition(";")[0] if octets else ""
    assert mismatch(method, path, status, kind, octets, DOCUMENT) == ""
    return status, got, octets


def report(taken: Taken, headers: Mapping[str, str] | None = None, content: bytes = b"{}", **more: Any) -> tuple[int, str]:
    status, got, octets = asked(taken, "POST", "/v1/beacon", {**FROM_US, **(headers or {})}, content, **more)
    assert got["Vary"] == "Origin"
    return status, json.loads(octets)["error"] if octets else ""


def test_a_page_of_ours_may_report(taken: Taken) -> None:
    status, headers, _ = asked(taken, "OPTIONS", "/v1/beacon", {"Origin": ORIGIN, "Access-Control-Request-Method": "POST"})
    assert status == 204
    assert headers["Access-Control-Allow-Origin"] == ORIGIN
    assert headers["Access-Control-Allow-Headers"] == "content-type"
    assert "Access-Control-Allow-Credentials" not in headers
    assert report(taken, content=b"a report") == (204, "")
    assert taken.reports == [(b"a report", bytes([127, 0, 0, 1]))]


@pytest.mark.parametrize("origin", ["", "null", "https://example.net", "https://www.example.net.evil.example", "*"])
def test_pages_elsewhere_may_not(taken: Taken, origin: str) -> None:
    for method in ("OPTIONS", "POST"):
        status, headers, _ = asked(taken, method, "/v1/beacon", {**FROM_US, "Origin": origin}, b"{}")
        assert status == 403
        assert "Access-Control-Allow-Origin" not in headers
    assert not taken.reports


@pytest.mark.parametrize(
    ("hops", "client"),
    [
        (["203.0.113.9"], "cb007109"),
        (["198.51.100.1, 203.0.113.9"], "cb007109"),  # what a client claims comes before what our proxy saw
        (["198.51.100.1", "203.0.113.9, 127.0.0.5"], "cb007109"),
        (["::ffff:203.0.113.9"], "cb007109"),
        (["2001:db8:9::1, 2001:db8:1::7"], "20010db8000900000000000000000001"),
    ],
)
def test_a_client_is_whom_our_proxies_saw(taken: Taken, hops: list[str], client: str) -> None:
    assert report(taken, {"X-Forwarded-For": ", ".join(hops)}) == (204, "")
    assert taken.reports[0][1].hex() == client


def test_others_claims_are_not_believed(taken: Taken) -> None:
    terms = Terms(OBJECTS, 1.0, frozenset({ORIGIN}))
    assert report(taken, {"X-Forwarded-For": "203.0.113.9"}, terms=terms) == (204, "")
    assert taken.reports[0][1] == bytes([127, 0, 0, 1])
    assert report(taken, {"X-Forwarded-For": "unknown"})[0] == 400


def test_limits(taken: Taken) -> None:
    assert report(taken, content=b"x" * (REPORT_LIMIT + 1)) == (413, f"the body is longer than {REPORT_LIMIT} octets")
    assert report(taken, {"Content-Type": "text/plain"})[0] == 415
    taken.refusal = Refused(429, "too many reports", {"Retry-After": "5"})
    status, headers, _ = asked(taken, "POST", "/v1/beacon", FROM_US, b"{}")
    assert (status, headers["Retry-After"], headers["Access-Control-Allow-Origin"]) == (429, "5", ORIGIN)


@pytest.mark.parametrize(
    ("method", "path", "expected"), [("GET", "/v1/beacon", 405), ("PUT", "/beacon.js", 405), ("GET", "/", 404)]
)
def test_other_methods_and_paths(taken: Taken, method: str, path: str, expected: int) -> None:
    async def run() -> tuple[int, Mapping[str, str]]:
        async with TestClient(TestServer(make_app(TERMS, taken.take))) as client, client.request(method, path) as reply:
            return reply.status, reply.headers.copy()

    status, headers = asyncio.run(run())
    assert status == expected
    assert ("Allow" in headers) == (expected == 405)


def test_the_tiny_object_may_be_timed_by_any_page(taken: Taken) -> None:
    status, headers, octets = asked(taken, "GET", "/1x1?r=abc")
    assert (status, octets) == (204, b"")
    assert headers["Timing-Allow-Origin"] == headers["Access-Control-Allow-Origin"] == "*"
    assert headers["Cache-Control"] == "no-store"


def test_the_script_has_its_constants(taken: Taken, tmp_path: Path) -> None:
    status, headers, octets = asked(taken, "GET", "/beacon.js")
    assert status == 200
    assert headers["Cache-Control"] == "public, max-age=3600"
    text = octets.decode()
    assert f"const OBJECTS = {json.dumps(OBJECTS)};" in text
    assert "const SHARE = 0.01;" in text
    if node := shutil.which("node"):
        (tmp_path / "beacon.js").write_text(text)
        subprocess.run([node, "--check", str(tmp_path / "beacon.js")], check=True)


def test_a_slow_body_is_not_waited_for(taken: Taken, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beacon, "BODY_SECONDS", 0.05)

    async def slow() -> Any:
        yield b"{"
        await asyncio.sleep(1)

    async def run() -> int:
        async with (
            TestClient(TestServer(make_app(TERMS, taken.take))) as client,
            client.post("/v1/beacon", headers=FROM_US, data=slow()) as reply,
        ):
            return reply.status

    assert asyncio.run(run()) == 408


def test_what_is_no_http_fills_no_log(taken: Taken, caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> bytes:
        runner, address = await start(make_app(TERMS, taken.take), beacon.listen(Address("127.0.0.1", 0)))
        try:
            reader, writer = await asyncio.open_connection(address.host, address.port)
            writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Odd: \x00\r\n\r\n")
            reply = await reader.read()
            writer.close()
            return reply
        finally:
            await runner.cleanup()

    assert asyncio.run(run()).startswith(b"HTTP/1.0 400")
    assert caplog.records == []


def test_healthz_and_description(taken: Taken) -> None:
    assert json.loads(asked(taken, "GET", "/healthz")[2]) == {"status": "ok"}
    assert json.loads(asked(taken, "GET", "/v1/openapi.json")[2]) == DOCUMENT


def test_every_route_is_described_and_every_description_has_a_route(taken: Taken) -> None:
    routes = make_app(TERMS, taken.take).router.routes()
    served = {(route.method, route.resource.canonical) for route in routes if route.resource and route.method != "HEAD"}
    assert served == {(method.upper(), path) for path, operations in DOCUMENT["paths"].items() for method in operations}
