"""The admin side over real HTTP on loopback, with stand-ins for what control hands over."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession

from edgedns import metrics
from edgedns.config import Address
from edgedns.errors import EdgednsError
from edgedns.model import Match, Override
from edgedns.serve import admin
from edgedns.serve.admin import Question, Services, make_app
from edgedns.serve.guard import Refused
from edgedns.serve.inflow import BODIES_AT_ONCE, Inflow
from edgedns.serve.loads import parse_loads
from edgedns.serve.senders import Sender
from edgedns.steer.caps.loads import Load
from tests.unit.serve.openapi_check import mismatch

TOKEN = "sesame-0123456789"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
ORDER = {"kind": "drain", "provider": "alder", "owner": "noc", "reason": "maintenance", "until": "2036-12-05"}
CAPACITY = {
    "state": "priced", "note": "", "unit": "queries", "total": 900.0,
    "providers": [{"provider": "alder", "cap": None, "load": 1.5, "price_ms": 0.0, "over": 0.0}],
}  # fmt: skip
Reply = tuple[int, Any, Mapping[str, str]]
Ask = Callable[..., Awaitable[Reply]]


class Control:
    """Stands in for the control process: keeps what it was told."""

    def __init__(self) -> None:
        self.serial = 7
        self.asked: list[Question] = []
        self.bodies: list[bytes] = []
        self.senders: list[Sender] = []
        self.wan_asked: list[tuple[int | None, int]] = []
        self.kept = [Override("o1", "pin", "birch", "noc", "test", None, "www.cdn.example.net", Match(frozenset({64500})), 1.0)]
        self.families: list[metrics.Family] = []
        self.loads: list[Load] = []

    def services(self) -> Services:
        return Services(
            serial=lambda: self.serial,
            families=lambda: self.families,
            explain=self.explain,
            samples=self.samples,
            wan=self.wan,
            uplift=self.uplift,
            overrides=self.overrides,
            add_override=self.add,
            remove_override=self.remove,
            status=self.status,
            add_note=self.add_note,
            load=self.load,
            reload=self.reload,
        )

    async def reload(self) -> dict[str, object]:
        return {"changed": ["workers: 1 -> 2"], "kept": [], "restarts": True}

    async def explain(self, question: Question) -> dict[str, object]:
        self.asked.append(question)
        if question.name == "elsewhere.example.":
            raise EdgednsError("elsewhere.example. is in no zone served here")
        if question.name == "broken.example.":
            raise RuntimeError("secret detail")
        return {
            "name": question.name,
            "type": question.type,
            "client": question.client,
            "subnet": None,
            "zone": "cdn.example.net",
            "rcode": "NOERROR",
            "steered": True,
            "network": {"text": "AS64500/NO", "asn": 64500, "country": "NO", "as_name": None},
            "candidates": [{"provider": "alder", "state": "up", "health": "up", "lost_because": "", "wan": 0.1, "w50": None}],
            "answer": ["192.0.2.10"],
            "ttl": 30,
            "scope": 24,
            "serial": self.serial,
        }

    async def samples(self, body: bytes, sender: Sender) -> dict[str, object]:
        self.bodies.append(body)
        self.senders.append(sender)
        return {"accepted": body.count(b"\n"), "rejected": [{"line": 3, "error": "not JSON"}]}

    async def uplift(self, limit: int) -> dict[str, object]:
        interval: dict[str, float] = {"ms": 3.0, "low": 1.0, "high": 5.0}
        row = {"network": "AS64500", "as_name": None, "provider": "alder", "nominal": None, "samples": [9.0, 9.0], "weight": 1}
        column = {"rules": ["www/all A"], "holdout": 0.1, "overall": interval, "moved": interval, "networks": limit}
        column |= {"measured": 1, "worse": 0, "off": [], "rows": [{**row, **interval}]}
        return {"at": 2.0, "half_life": 3600.0, "weighted_by": "networks", "columns": [column]}

    async def wan(self, asn: int | None, limit: int) -> dict[str, object]:
        self.wan_asked.append((asn, limit))
        row = {"network": "AS64500/NO", "asn": 64500, "as_name": None, "level": 1, "arms": []}
        return {"serial": self.serial, "at": 1.0, "total": 1, "rows": [row]}

    async def overrides(self) -> Sequence[Override]:
        return self.kept

    async def add(self, order: Override) -> Override:
        if order.provider == "elm":
            raise EdgednsError("unknown provider 'elm'")
        self.kept.append(replace(order, id="o2", created=2.0))
        return self.kept[-1]

    async def remove(self, name: str) -> bool:
        before = len(self.kept)
        self.kept = [one for one in self.kept if one.id != name]
        return len(self.kept) < before

    async def add_note(self, kind: str, text: str) -> dict[str, object]:
        return {"at": 3.0, "kind": kind, "text": text}

    async def load(self, body: object) -> dict[str, object]:
        self.loads = parse_loads(body, 1000.0)
        return {"accepted": len(self.loads), "gbit_per_query": {"alder": 0.5, "birch": None}}

    async def status(self) -> dict[str, object]:
        return {
            "capacity": CAPACITY,
            "targets": {"networks": 0, "hosts": 0, "asked_by": {}},
            **dict.fromkeys(("now", "started", "published", "fresh_until", "sampled_at"), 2.0),
            **{key: [] for key in ("serials", "names", "failed_zones", "moves", "notes", "listen")},
            **{key: {} for key in ("zones", "queries", "samples")},
            **dict.fromkeys(("serial", "rows", "overrides"), self.serial),
            "providers": [
                {
                    "name": "alder", "addresses": ["192.0.2.10"], "state": "up", "down4": False, "down6": False,
                    "checks": [{"address": "192.0.2.10", "down": False, "checked": None, "note": ""}],
                }
            ],
        }


def over_http(control: Control, token: str, session: Callable[[Ask], Awaitable[None]], inflow: Inflow | None = None) -> None:
    """Run `session(ask)` against the served app; every JSON reply is compared with the OpenAPI file on its way."""

    async def run() -> None:
        sock = admin.listen(Address("127.0.0.1", 0), token)
        runner, address = await admin.start(make_app(control.services(), token, inflow=inflow), sock)
        try:
            async with ClientSession(f"http://{address}") as http:

                async def ask(method: str, path: str, **more: Any) -> Reply:
                    async with http.request(method, path, **more) as response:
                        body = await response.read()
                        wrong = mismatch(method, path, response.status, response.content_type, body)
                        assert wrong == "", wrong
                        parsed = json.loads(body) if response.content_type == "application/json" else body.decode()
                        return response.status, parsed, response.headers

                await session(ask)
        finally:
            await runner.cleanup()

    asyncio.run(run())


def test_health_and_readiness() -> None:
    control = Control()

    async def session(ask: Ask) -> None:
        assert (await ask("GET", "/healthz"))[:2] == (200, {"status": "ok"})
        assert (await ask("GET", "/readyz"))[:2] == (200, {"status": "ready", "serial": 7})
        control.serial = 0
        assert (await ask("GET", "/readyz"))[:2] == (503, {"error": "no snapshot is being served yet"})
        assert (await ask("GET", "/healthz"))[0] == 200

    over_http(control, "", session)


def test_metrics_are_prometheus_text(tmp_path: Path) -> None:
    control = Control()
    registry = metrics.Registry(tmp_path / "registry.jsonl")
    cells = metrics.Counters(metrics.counters_path(tmp_path, 0)).cells
    cells[registry.block("responses", ("example.net",), len(metrics.RCODES)) + 3] = 4
    cells[metrics.UDP_RECEIVED] = 9
    control.families = [
        *metrics.families(registry, tmp_path),
        *metrics.control_families(7, 12.5, {"good": 2}, {"accepted": 3}, 1),
    ]

    async def session(ask: Ask) -> None:
        status, text, headers = await ask("GET", "/metrics")
        assert status == 200
        assert headers["Content-Type"].startswith("text/plain; version=")
        lines = text.splitlines()
        for line in (
            'edgedns_dns_responses_total{rcode="NXDOMAIN",zone="example.net"} 4.0',
            "edgedns_udp_received_total 9.0",
            'edgedns_udp_outcomes_total{outcome="silent"} 0.0',
            "edgedns_wan_age_seconds 12.5",
            "edgedns_snapshot_serial 7.0",
            'edgedns_reloads_total{result="good"} 2.0',
            'edgedns_samples_total{result="accepted"} 3.0',
            "# TYPE edgedns_dns_requests_total counter",
        ):
            assert line in lines or line.replace("_total counter", " counter") in lines, line
        assert "asn" not in text

    over_http(control, "", session)


def test_explain_hands_over_what_was_asked() -> None:
    control = Control()

    async def session(ask: Ask) -> None:
        query = {
            "name": "www.cdn.example.net",
            "type": "aaaa",
            "from": "198.51.100.9",
            "subnet": "203.0.113.7/24",
            "asn": "AS64500",
        }
        status, reply, _ = await ask("GET", "/v1/explain", params=query)
        assert (status, reply["answer"]) == (200, ["192.0.2.10"])
        assert control.asked == [Question("www.cdn.example.net", "AAAA", "198.51.100.9", "203.0.113.0/24", 64500)]

    over_http(control, "", session)


@pytest.mark.parametrize(
    ("query", "status", "message"),
    [
        ({"from": "192.0.2.1"}, 400, "'name' is missing"),
        ({"name": "www.example."}, 400, "give 'from' (an address) or 'asn'"),
        ({"name": "www.example.", "from": "here"}, 400, "'from': 'here' is not an IP address"),
        ({"name": "www.example.", "from": "fe80::1%lo"}, 400, "is not an IP address"),
        ({"name": "www.example.", "from": "192.0.2.1", "subnet": "x"}, 400, "'subnet': 'x' is not a prefix"),
        ({"name": "www.example.", "asn": "4294967296"}, 400, "'asn' must be a number from 0 to 4294967295"),
        ({"name": "www.example.", "from": "192.0.2.1", "type": "A;"}, 400, "'type' is not a record type"),
        ({"name": "www.example.", "form": "192.0.2.1"}, 400, "unknown parameter 'form'; known are name, type, from"),
        ({"name": "elsewhere.example.", "from": "192.0.2.1"}, 400, "elsewhere.example. is in no zone served here"),
    ],
)
def test_explain_says_what_is_wrong(query: dict[str, str], status: int, message: str) -> None:
    async def session(ask: Ask) -> None:
        found, reply, _ = await ask("GET", "/v1/explain", params=query)
        assert found == status
        assert message in reply["error"]

    over_http(Control(), "", session)


def test_what_was_not_foreseen_shows_no_detail(caplog: pytest.LogCaptureFixture) -> None:
    async def session(ask: Ask) -> None:
        status, reply, _ = await ask("GET", "/v1/explain", params={"name": "broken.example.", "asn": "1"}, headers=BEARER)
        assert status == 500
        assert "secret" not in reply["error"]

    over_http(Control(), TOKEN, session)
    assert "GET /v1/explain failed" in caplog.text
    assert TOKEN not in caplog.text


def test_samples_need_the_token() -> None:
    control = Control()

    async def session(ask: Ask) -> None:
        for headers in (
            {},
            {"Authorization": "Bearer wrong"},
            {"Authorization": f"Basic {TOKEN}"},
            {"Authorization": "Bearer é"},
        ):
            status, reply, sent = await ask("POST", "/v1/samples", data=b"{}\n", headers=headers)
            assert status == 401
            assert sent["WWW-Authenticate"] == "Bearer"
            assert TOKEN not in reply["error"]
        assert control.bodies == []
        status, reply, _ = await ask("POST", "/v1/samples", data=b"{}\n{}\n", headers=BEARER)
        assert (status, reply["accepted"], reply["rejected"][0]["line"]) == (200, 2, 3)
        assert control.bodies == [b"{}\n{}\n"]

    over_http(control, TOKEN, session)


def test_samples_without_a_configured_token_come_from_programs_not_pages() -> None:
    control = Control()

    async def session(ask: Ask) -> None:
        status, reply, _ = await ask("POST", "/v1/samples", data=b"{}\n")
        assert (status, reply["error"]) == (415, "send it with Content-Type: application/x-ndjson")
        typed = {"Content-Type": "application/x-ndjson"}
        assert (await ask("POST", "/v1/samples", data=b"{}\n", headers=typed))[0] == 200
        for more in ({"Origin": "http://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}):
            assert (await ask("POST", "/v1/samples", data=b"{}\n", headers={**typed, **more}))[0] == 403
            assert (await ask("DELETE", "/v1/overrides/o1", headers=more))[0] == 403
        assert len(control.bodies) == len(control.kept) == 1

    over_http(control, "", session)


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8053", "127.0.0.1.evil.example", "[2001:db8::1]:8053", "192.0.2.1", ""]
)
def test_dns_rebinding_finds_nothing_without_a_token(host: str) -> None:
    async def session(ask: Ask) -> None:
        status, reply, _ = await ask("GET", "/v1/overrides", headers={"Host": host})
        assert status == 403
        assert "is not this machine" in reply["error"]

    over_http(Control(), "", session)


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:9999", "127.0.0.1:1", "[::1]:8053"])
def test_loopback_by_any_name_is_this_machine(host: str) -> None:
    async def session(ask: Ask) -> None:
        assert (await ask("GET", "/v1/overrides", headers={"Host": host}))[0] == 200

    over_http(Control(), "", session)


def test_bodies_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin, "SAMPLES_LIMIT", 1000)
    monkeypatch.setattr(admin, "ORDER_LIMIT", 1000)
    control = Control()

    async def trickle(parts: int) -> Any:
        for _ in range(parts):
            yield b"x" * 100

    async def session(ask: Ask) -> None:
        packed = {**BEARER, "Content-Encoding": "gzip"}
        for body, headers in ((b"x" * 1001, BEARER), (trickle(11), BEARER), (gzip.compress(b"x" * 100_000), packed)):
            status, reply, _ = await ask("POST", "/v1/samples", data=body, headers=headers)
            assert (status, reply["error"]) == (413, "the body is longer than 1000 octets")
        assert (await ask("POST", "/v1/overrides", data=b"[" * 1001, headers=BEARER))[0] == 413
        assert control.bodies == []
        assert (await ask("POST", "/v1/samples", data=trickle(10), headers=BEARER))[0] == 200
        assert (await ask("POST", "/v1/samples", data=gzip.compress(b"{}\n"), headers=packed))[0] == 200
        assert control.bodies[1] == b"{}\n"

    over_http(control, TOKEN, session)


def test_samples_are_bounded_in_rate() -> None:
    inflow = Inflow(rate=1000.0, burst=2000.0, level=2000.0)

    async def session(ask: Ask) -> None:
        assert (await ask("POST", "/v1/samples", data=b"x" * 10_000, headers=BEARER))[0] == 200
        status, reply, headers = await ask("POST", "/v1/samples", data=b"x", headers=BEARER)
        assert status == 429
        assert "try again in 8 s" in reply["error"]
        assert headers["Retry-After"] == "8"

    over_http(Control(), TOKEN, session, inflow)


def test_inflow_lets_few_in_at_once_and_refills() -> None:
    inflow = Inflow(rate=10.0, burst=100.0, level=100.0)
    for _ in range(BODIES_AT_ONCE):
        inflow.enter(0.0)
    with pytest.raises(Refused, match="too much at once"):
        inflow.enter(0.0)
    inflow.leave(150)
    with pytest.raises(Refused, match="try again in 5 s"):
        inflow.enter(0.0)
    inflow.enter(5.1)


def test_slow_bodies_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin, "BODY_SECONDS", 0.05)
    inflow = Inflow()

    async def stalled() -> Any:
        yield b"x"
        await asyncio.sleep(0.5)
        yield b"y"

    async def session(ask: Ask) -> None:
        assert (await ask("POST", "/v1/samples", data=stalled(), headers=BEARER))[0] == 408

    over_http(Control(), TOKEN, session, inflow)
    assert inflow.reading == 0


def test_uplift_is_bounded() -> None:
    async def session(ask: Ask) -> None:
        for query, limit in (("?limit=7", 7), ("", 100)):
            status, body = (await ask("GET", f"/v1/uplift{query}"))[:2]
            assert (status, body["columns"][0]["networks"]) == (200, limit)
        for query in ("limit=0", "limit=10001", "limit=x", "asn=1"):
            assert (await ask("GET", f"/v1/uplift?{query}"))[0] == 400

    over_http(Control(), "", session)


def test_wan_is_bounded() -> None:
    control = Control()

    async def session(ask: Ask) -> None:
        assert (await ask("GET", "/v1/wan"))[0] == 200
        assert (await ask("GET", "/v1/wan?asn=AS64500&limit=5"))[0] == 200
        assert control.wan_asked == [(None, 100), (64500, 5)]
        for wrong in ("limit=0", "limit=10001", "limit=x", "asn=-1", "provider=alder"):
            assert (await ask("GET", f"/v1/wan?{wrong}"))[0] == 400

    over_http(control, "", session)


def test_overrides_are_shown_added_and_removed() -> None:
    control = Control()

    async def session(ask: Ask) -> None:
        _, reply, _ = await ask("GET", "/v1/overrides")
        assert reply["overrides"][0]["match"] == {"asn": [64500]}
        assert (await ask("POST", "/v1/overrides", json=ORDER))[0] == 401
        assert (await ask("DELETE", "/v1/overrides/o1"))[0] == 401
        status, reply, _ = await ask("POST", "/v1/overrides", json=ORDER, headers=BEARER)
        assert (status, reply["id"], reply["until"]) == (201, "o2", 2112048000.0)
        assert (await ask("DELETE", "/v1/overrides/o1", headers=BEARER))[:2] == (200, {"removed": "o1"})
        assert (await ask("DELETE", "/v1/overrides/o1", headers=BEARER))[0] == 404
        assert [one.id for one in control.kept] == ["o2"]

    over_http(control, TOKEN, session)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{", "the body is not JSON"),
        (b"[" * 60_000, "the body is not JSON"),
        (b"\xff", "the body is not JSON"),
        (b'{"kind": "drain"}', "'provider' is missing"),
        (json.dumps({**ORDER, "provider": "elm"}).encode(), "unknown provider 'elm'"),
    ],
)
def test_wrong_overrides_get_a_sentence(body: bytes, message: str) -> None:
    async def session(ask: Ask) -> None:
        status, reply, _ = await ask("POST", "/v1/overrides", data=body, headers={"Content-Type": "application/json"})
        assert status == 400
        assert message in reply["error"]

    over_http(Control(), "", session)


def test_unknown_paths_and_methods_are_json_too() -> None:
    async def run() -> None:
        runner, address = await admin.start(make_app(Control().services()), admin.listen(Address("127.0.0.1", 0), ""))
        async with ClientSession(f"http://{address}") as http:
            async with http.get("/v2") as response:
                assert (response.status, await response.json()) == (404, {"error": "Not Found"})
            async with http.put("/v1/wan") as response:
                assert (response.status, await response.json()) == (405, {"error": "Method Not Allowed"})
                assert response.headers["Allow"] == "GET,HEAD"
                assert response.headers["Server"] == "edgedns"
        await runner.cleanup()

    asyncio.run(run())


def test_status_and_description() -> None:
    async def session(ask: Ask) -> None:
        assert (await ask("GET", "/v1/status"))[1]["providers"][0]["name"] == "alder"
        assert (await ask("GET", "/v1/openapi.json"))[1]["openapi"] == "3.1.0"

    over_http(Control(), "", session)


def test_reload_is_a_write() -> None:
    async def session(ask: Ask) -> None:
        assert (await ask("POST", "/v1/reload"))[0] == 401
        status, reply, _ = await ask("POST", "/v1/reload", headers=BEARER)
        assert (status, reply["changed"], reply["restarts"]) == (200, ["workers: 1 -> 2"], True)

    over_http(Control(), TOKEN, session)


def test_without_a_token_only_loopback_is_listened_on() -> None:
    with pytest.raises(Refused, match=r"can't listen on 0\.0\.0\.0:0 without a token"):
        admin.listen(Address("0.0.0.0", 0), "")


def test_a_port_in_use_is_one_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(Refused) as caught:
            admin.listen(Address("127.0.0.1", port), "")
    advice = "another program uses this address; stop it, or choose another with --admin ADDR:PORT"
    assert str(caught.value) == f"can't listen on 127.0.0.1:{port}: {advice}"


LOAD = {"provider": "alder", "gbps": 120.5}


def test_measured_loads_are_taken_one_or_many() -> None:
    control = Control()

    async def session(ask: Ask) -> None:
        status, told, _ = await ask("POST", "/v1/load", json=LOAD, headers=BEARER)
        assert (status, told["accepted"]) == (200, 1)
        assert control.loads == [Load("alder", 120.5e9, 1000.0)]
        many = [{**LOAD, "at": 900}, {**LOAD, "provider": "birch", "gbps": 0}]
        status, told, _ = await ask("POST", "/v1/load", json=many, headers=BEARER)
        assert (status, told["accepted"]) == (200, 2)
        assert control.loads == [Load("alder", 120.5e9, 900.0), Load("birch", 0.0, 1000.0)]
        assert (await ask("POST", "/v1/load", json=LOAD))[0] == 401

    over_http(control, TOKEN, session)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ([], "give 1 to 1000 loads"),
        ("alder", "a load is an object with 'provider' and 'gbps'"),
        ({"gbps": 1}, "'provider' is missing"),
        ({**LOAD, "mbps": 1}, "unknown field 'mbps'; known are provider, gbps, at"),
        ({**LOAD, "gbps": -1}, "'gbps' must be a number from 0 to 1000000"),
        ({**LOAD, "gbps": True}, "'gbps' must be a number from 0 to 1000000"),
        ({**LOAD, "gbps": "9"}, "'gbps' must be a number from 0 to 1000000"),
        ({**LOAD, "gbps": 10**400}, "'gbps' must be a number from 0 to 1000000"),
        ({**LOAD, "at": 699}, "'at' must be Unix seconds, at most 300 s ago"),
        ({**LOAD, "at": 1006}, "'at' must be Unix seconds, at most 300 s ago"),
        ([LOAD, {**LOAD, "gbps": None}], "load 2: 'gbps' must be a number from 0 to 1000000"),
    ],
)
def test_a_load_that_is_wrong_is_told_so(body: object, message: str) -> None:
    async def session(ask: Ask) -> None:
        status, told, _ = await ask("POST", "/v1/load", json=body, headers=BEARER)
        assert (status, told) == (400, {"error": message})

    over_http(Control(), TOKEN, session)
