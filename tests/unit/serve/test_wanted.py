"""What agents and people send to /v1/wanted and /v1/probes: read strictly, and answered as the OpenAPI file says."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from edgedns.serve import wanted
from edgedns.serve.guard import Refused, errors_as_json
from edgedns.serve.senders import TOKENS, VantageTokens
from edgedns.serve.wanted import Asked, Asking, Calls, Result, parse_asked, parse_asking, routes
from tests.unit.serve.openapi_check import mismatch

WISH = {"addresses": ["203.0.113.7"], "provider": "alder", "probes": 4, "gap": 0.2, "why": "doubt"}
CELL = {"vantage": "fra1", "provider": "alder", "asked": 1, "rtts": [12.5], "lost": 0, "refused": 0}
TOLD = {"id": "a-1", "address": "203.0.113.7", "method": "icmp", "rounds": 1, "name": None, "provider": None, "reason": None,
        "done": True, "cells": [CELL]}  # fmt: skip


async def hand_out(asking: Asking) -> Mapping[str, Any]:
    return {"wanted": [WISH], "together": 1}


async def ask(asked: Asked) -> Mapping[str, Any]:
    if asked.address == "192.0.2.1":
        raise Refused(409, "192.0.2.1 is on the opt-out list")
    return TOLD


async def look(number: str) -> Mapping[str, Any] | None:
    return TOLD if number == "a-1" else None


def talk(*requests: tuple[str, str, Any], tokens: Path | None = None, token: str = "") -> list[tuple[int, Any]]:
    """Each reply's (status, JSON); all of them as described."""

    async def main() -> list[tuple[int, Any]]:
        app = web.Application(middlewares=[errors_as_json])
        app.add_routes(routes(Calls(hand_out, ask, look), ""))
        app[TOKENS] = VantageTokens(tokens)
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        found = []
        async with TestClient(TestServer(app)) as client:
            for method, path, body in requests:
                async with client.request(method, path, json=body, headers=headers) as reply:
                    content = await reply.read()
                    wrong = mismatch(method, path, reply.status, reply.content_type, content)
                    assert wrong == "", wrong
                    found.append((reply.status, json.loads(content)))
        return found

    return asyncio.run(main())


def test_the_replies_are_as_described() -> None:
    replies = talk(
        ("POST", "/v1/wanted", {"vantage": "fra1"}),
        ("POST", "/v1/probes", {"address": "203.0.113.7"}),
        ("POST", "/v1/probes", {"address": "192.0.2.1"}),
        ("GET", "/v1/probes/a-1", None),
        ("GET", "/v1/probes/a-2", None),
    )
    assert [status for status, _ in replies] == [200, 201, 409, 200, 404]
    assert replies[0][1]["wanted"] == [WISH]


def test_a_vantages_token_asks_for_that_vantage_alone(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("fra1: the-token-of-fra1\n")
    tokens.chmod(0o600)
    both = ("POST", "/v1/wanted", {"vantage": "fra1"}), ("POST", "/v1/wanted", {"vantage": "sin1"})
    replies = talk(*both, tokens=tokens, token="the-token-of-fra1")
    assert [status for status, _ in replies] == [200, 403]


def test_what_an_agent_sends() -> None:
    result = {"id": "a-1", "provider": "alder", "rtt_ms": 1.5}
    sent = {"vantage": "fra1", "room": 3, "sources": [{"provider": "alder", "family": 6, "new": 1}], "wait": 90, "newer": {}}
    asking = parse_asking(sent | {"results": [result, {"id": "a-1", "provider": "birch", "why": "x\x07y"}]})
    results = (Result("a-1", "alder", 1.5, ""), Result("a-1", "birch", None, "x?y"))
    assert asking == Asking("fra1", 3.0, (("alder", 6),), wanted.WAIT_MOST, results)


@pytest.mark.parametrize(
    "wrong",
    [
        {}, {"vantage": ""}, {"vantage": "a b"}, {"vantage": 7}, {"vantage": "f", "room": -1},
        {"vantage": "f", "room": float("inf")}, {"vantage": "f", "room": True},
        {"vantage": "f", "wait": "long"}, {"vantage": "f", "sources": {}},
        {"vantage": "f", "sources": ["alder"]}, {"vantage": "f", "sources": [{"provider": "alder", "family": True}]},
        {"vantage": "f", "sources": [{"provider": "alder", "family": 5}]}, {"vantage": "f", "results": [1]},
        {"vantage": "f", "results": [{"id": "a", "provider": "b", "rtt_ms": "1"}]},
        {"vantage": "f", "results": [{"id": "a", "provider": "b", "why": 1}]},
        {"vantage": "f", "results": [{"id": "a", "provider": "b"}] * 501},
        {"vantage": "f", "sources": [{"provider": "b", "family": 4}] * 513},
    ],
)  # fmt: skip
def test_what_is_wrong_with_an_agents_body_is_said(wrong: dict[str, Any]) -> None:
    with pytest.raises(Refused) as refused:
        parse_asking(wrong)
    assert refused.value.status == 400


def test_what_a_person_asks() -> None:
    assert parse_asked({"address": "::ffff:203.0.113.7"}) == Asked("203.0.113.7", "icmp", 3, "")
    asked = {"address": "2001:DB8::7", "method": "tcp", "rounds": 20, "name": "www.example.net"}
    assert parse_asked(asked) == Asked("2001:db8::7", "tcp", 20, "www.example.net")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({}, "is not an IP address"), ({"address": "fe80::1%eth0"}, "is not an IP address"), ({"address": 7}, "is not an IP"),
        ({"address": "192.0.2.1", "method": "ping"}, "'method' must be one of"),
        ({"address": "192.0.2.1", "rounds": 21}, "1 to 20"), ({"address": "192.0.2.1", "rounds": True}, "1 to 20"),
        ({"address": "192.0.2.1", "count": 3}, "unknown key 'count'"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_question_is_said(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(Refused, match=said):
        parse_asked(wrong)
