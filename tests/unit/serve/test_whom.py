"""GET /v1/targets: the token, the parameters, and nothing sent twice."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest
from aiohttp.test_utils import TestClient, TestServer

from edgedns.serve import whom
from edgedns.serve.admin import make_app
from tests.unit.serve.openapi_check import mismatch
from tests.unit.serve.test_admin import Control

LINES = b'{"address": "8.8.8.8", "method": "icmp"}\n'
TOKEN = "sesame"


class Asked:
    """Gives LINES, and keeps what it was asked."""

    def __init__(self) -> None:
        self.body = LINES
        self.seen: list[tuple[str, int]] = []

    async def give(self, vantage: str, networks: int) -> bytes:
        self.seen.append((vantage, networks))
        return self.body


def get(asked: Asked, path: str, headers: Mapping[str, str]) -> tuple[int, Mapping[str, str], bytes]:
    async def main() -> tuple[int, Mapping[str, str], bytes]:
        app = make_app(Control().services(), TOKEN, whom.routes(asked.give, TOKEN))
        async with TestClient(TestServer(app)) as client, client.get(path, headers=headers) as reply:
            body = await reply.read()
            if reply.status != 304:
                assert mismatch("GET", path, reply.status, reply.content_type, body) == ""
            return reply.status, reply.headers, body

    return asyncio.run(main())


BEARER = {"Authorization": f"Bearer {TOKEN}"}


def test_targets_come_as_a_targets_file() -> None:
    asked = Asked()
    status, headers, body = get(asked, "/v1/targets?vantage=fra1", BEARER)
    assert (status, body, headers["Content-Type"]) == (200, LINES, "application/x-ndjson")
    assert get(asked, "/v1/targets?vantage=ams-2&networks=7", BEARER)[0] == 200
    assert asked.seen == [("fra1", whom.NETWORKS), ("ams-2", 7)]


def test_what_an_agent_has_already_is_not_sent_again() -> None:
    asked = Asked()
    tag = get(asked, "/v1/targets?vantage=fra1", BEARER)[1]["ETag"]
    status, headers, body = get(asked, "/v1/targets?vantage=fra1", {**BEARER, "If-None-Match": tag})
    assert (status, headers["ETag"], body) == (304, tag, b"")
    asked.body = LINES * 2
    status, headers, body = get(asked, "/v1/targets?vantage=fra1", {**BEARER, "If-None-Match": tag})
    assert (status, body) == (200, LINES * 2)
    assert headers["ETag"] != tag


@pytest.mark.parametrize(
    ("query", "error"),
    [
        ("", "'vantage' must be a name"),
        ("?vantage=a%20b", "'vantage' must be a name"),
        ("?vantage=fra1&networks=0", "'networks' must be a number from 1 to 100000"),
        ("?vantage=fra1&networks=100001", "'networks' must be"),
        ("?vantage=fra1&networks=%D9%A3", "'networks' must be"),
        ("?vantage=fra1&limit=3", "unknown parameter 'limit'"),
    ],
)
def test_wrong_parameters_are_named(query: str, error: str) -> None:
    status, _, body = get(Asked(), f"/v1/targets{query}", BEARER)
    assert status == 400
    assert error in body.decode()


def test_without_the_token_nobody_learns_who_asks() -> None:
    asked = Asked()
    assert get(asked, "/v1/targets?vantage=fra1", {})[0] == 401
    assert asked.seen == []
