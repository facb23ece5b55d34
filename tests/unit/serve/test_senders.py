"""Whose samples these are: the admin token's, or one vantage's own; and how fast they may come."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession

from edgedns.config import Address
from edgedns.errors import SourceError
from edgedns.serve import admin, vantages
from edgedns.serve.guard import Refused
from edgedns.serve.inflow import WAITING_MOST, Inflow
from edgedns.serve.senders import (
    LARGEST,
    SENT,
    Sender,
    VantageTokens,
    parse_tokens,
    read_tokens,
    require_speaks_for,
)
from tests.unit.serve.test_admin import BEARER, TOKEN, Control

FRA, AMS = "fra1-0123456789abcdef", "ams1-0123456789abcdef"
NDJSON = {"Content-Type": "application/x-ndjson"}


def bearer(token: str, **more: str) -> dict[str, str]:
    return {**NDJSON, "Authorization": f"Bearer {token}", **more}


def tokens_file(folder: Path, text: str = f"# ours\nfra1: {FRA}\nams1: {AMS}\n", mode: int = 0o600) -> Path:
    path = folder / "tokens"
    path.write_text(text)
    path.chmod(mode)
    return path


def posted(
    control: Control, headers: Mapping[str, str], tokens: VantageTokens, token: str = TOKEN, inflow: Inflow | None = None
) -> tuple[int, Any, Mapping[str, str]]:
    async def main() -> tuple[int, Any, Mapping[str, str]]:
        app = admin.make_app(control.services(), token, tokens=tokens, inflow=inflow)
        runner, address = await admin.start(app, admin.listen(Address("127.0.0.1", 0), token))
        try:
            url = f"http://{address}/v1/samples"
            async with ClientSession() as session, session.post(url, data=b"{}\n", headers=headers) as reply:
                return reply.status, await reply.json(), dict(reply.headers)
        finally:
            await runner.cleanup()

    return asyncio.run(main())


def test_each_token_speaks_for_its_own(tmp_path: Path) -> None:
    control, tokens = Control(), VantageTokens(tokens_file(tmp_path))
    for headers in (bearer(FRA), bearer(AMS), {**NDJSON, **BEARER}):
        assert posted(control, headers, tokens)[0] == 200
    assert [sender.vantage for sender in control.senders] == ["fra1", "ams1", None]


@pytest.mark.parametrize("token", ["", "no", FRA[:-1], FRA + " ", "\u00fc" * 20])
def test_nobody_else_is_let_in(tmp_path: Path, token: str) -> None:
    status = posted(Control(), bearer(token), VantageTokens(tokens_file(tmp_path)))[0]
    assert status == (200 if token.strip() == FRA else 401)


def test_with_no_admin_token_a_vantages_token_still_binds(tmp_path: Path) -> None:
    control, tokens = Control(), VantageTokens(tokens_file(tmp_path))
    assert posted(control, bearer(FRA), tokens, token="")[0] == 200
    assert posted(control, NDJSON, tokens, token="")[0] == 200
    assert [sender.vantage for sender in control.senders] == ["fra1", None]


def test_a_digest_stands_for_a_token(tmp_path: Path) -> None:
    path = tokens_file(tmp_path, f"fra1: sha256:{hashlib.sha256(FRA.encode()).hexdigest()}\nfra1: {AMS}\n")
    tokens = VantageTokens(path)
    assert [tokens.vantage_of(one.encode()) for one in (FRA, AMS, TOKEN)] == ["fra1", "fra1", None]


def test_what_is_wrong_with_a_file_is_said_and_no_token_is(tmp_path: Path) -> None:
    for text, error in (
        ("fra1 " + FRA, "t:1: expected `VANTAGE: TOKEN`"),
        ("\nfra1: short", "t:2: a token is at least 16"),
        (f"fra1: {FRA}\nams1: {FRA}", "t:2: ams1 has the same token as fra1"),
        ("fra1: sha256:12", "t:1: after sha256: come 64"),
        (f"-x: {FRA}", "t:1: expected"),
    ):
        with pytest.raises(SourceError) as caught:
            parse_tokens(text, "t")
        assert error in str(caught.value)
        assert FRA not in str(caught.value)
    with pytest.raises(SourceError, match="chmod o-rwx"):
        read_tokens(tokens_file(tmp_path, mode=0o644))
    with pytest.raises(SourceError, match="No such file"):
        VantageTokens(tmp_path / "none")
    assert FRA not in repr(VantageTokens(tokens_file(tmp_path)))


def test_no_part_of_a_file_that_is_too_long_is_taken(tmp_path: Path) -> None:
    line = f"fra1: {FRA}\n"
    path = tokens_file(tmp_path, line + "#" * (LARGEST - len(line)))
    assert VantageTokens(path).vantage_of(FRA.encode()) == "fra1"
    with path.open("a") as file:
        file.write("\nams1: " + AMS)
    with pytest.raises(SourceError, match=f"longer than {LARGEST} octets"):
        VantageTokens(path)


def test_the_file_is_followed_and_a_bad_one_changes_nothing(tmp_path: Path) -> None:
    said: list[str] = []
    tokens = VantageTokens(tokens_file(tmp_path), said.append)
    tokens.follow()
    assert said == []
    tokens_file(tmp_path, f"ams1: {FRA}-2\n")
    tokens.follow()
    assert tokens.vantage_of(f"{FRA}-2".encode()) == "ams1"
    assert tokens.vantage_of(FRA.encode()) is None
    tokens_file(tmp_path, "what?\n")
    tokens.follow()
    tokens.follow()
    assert tokens.vantage_of(f"{FRA}-2".encode()) == "ams1"
    assert said[0].endswith(": tokens of 1 vantages")
    assert len(said) == 2
    assert said[1].endswith("the vantages' tokens stay as they were")


def test_a_senders_clock_is_told() -> None:
    control = Control()
    headers = {**NDJSON, **BEARER}
    assert posted(control, {**headers, SENT: f"{time.time() - 100:.3f}"}, VantageTokens())[0] == 200
    (sender,) = control.senders
    assert sender.ahead is not None
    assert -130 < sender.ahead < -99
    assert posted(control, {**headers, SENT: "soon"}, VantageTokens())[0] == 400
    assert posted(control, {**headers, SENT: "nan"}, VantageTokens())[0] == 400


def test_what_waits_to_be_taken_in_is_bounded() -> None:
    inflow = Inflow(waiting=WAITING_MOST, took=0.4)
    status, reply, headers = posted(Control(), {**NDJSON, **BEARER}, VantageTokens(), inflow=inflow)
    assert (status, headers["Retry-After"]) == (503, "4")
    assert reply["error"] == "samples come faster than they can be taken in; try again in 4 s"


def test_bodies_leave_the_queue_however_they_end() -> None:
    clock = iter([0.0, 4.0, 4.0, 4.0])
    inflow = Inflow(clock=lambda: next(clock))
    with inflow.taking():
        assert inflow.waiting == 1
    with pytest.raises(RuntimeError), inflow.taking():
        raise RuntimeError
    assert inflow.waiting == 0
    assert 0 < inflow.took < 4


def test_a_token_in_another_vantages_name_is_refused() -> None:
    require_speaks_for(Sender(None), "ams1")
    require_speaks_for(Sender("ams1"), "ams1")
    with pytest.raises(Refused, match="this token speaks for vantage 'fra1', not 'ams1'"):
        require_speaks_for(Sender("fra1"), "ams1")


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"{", "not JSON"),
        (b"[]", "'quarantine' must be true or false"),
        (b'{"quarantine": 1}', "'quarantine' must be true or false"),
        (b'{"quarantine": true, "owner": "noc"}', "'reason' must be"),
        (b'{"quarantine": false}', "'owner' must be"),
        (b'{"quarantine": false, "owner": "a\\nb"}', "'owner' must be"),
        (b'{"quarantine": true, "owner": "noc", "reason": "x", "until": 1}', "unknown key 'until'"),
    ],
)
def test_an_order_that_is_wrong_is_named(body: bytes, error: str) -> None:
    with pytest.raises(Refused, match=error):
        vantages.parse_order("fra1", body)


def test_an_order() -> None:
    body = b'{"quarantine": true, "owner": "noc", "reason": "uplink"}'
    assert vantages.parse_order("fra1", body) == vantages.Order("fra1", True, "noc", "uplink")
    assert not vantages.parse_order("fra1", b'{"quarantine": false, "owner": "noc"}').quarantine


def test_the_routes() -> None:
    ordered: list[vantages.Order] = []

    async def told() -> Mapping[str, object]:
        return {"vantages": []}

    async def order(one: vantages.Order) -> Mapping[str, object]:
        ordered.append(one)
        return {"vantages": []}

    async def main() -> list[int]:
        app = admin.make_app(Control().services(), TOKEN, vantages.routes(told, order, TOKEN))
        runner, address = await admin.start(app, admin.listen(Address("127.0.0.1", 0), TOKEN))
        found = []
        try:
            async with ClientSession() as session:
                for method, path, headers in (("GET", "", {}), ("POST", "/fra1", {}), ("POST", "/fra1", BEARER)):
                    content = {"quarantine": False, "owner": "noc"}
                    url = f"http://{address}/v1/vantages{path}"
                    async with session.request(method, url, json=content, headers=headers) as reply:
                        found.append(reply.status)
        finally:
            await runner.cleanup()
        return found

    assert asyncio.run(main()) == [200, 401, 200]
    assert ordered == [vantages.Order("fra1", False, "noc", "")]
