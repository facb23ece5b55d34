"""The OpenAPI file names every route, and the comparison with it can fail."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest

from edgedns.serve import catchments, plans, tops, vantages, wanted, whom
from edgedns.serve.admin import make_app
from tests.unit.serve.openapi_check import DOCUMENT, mismatch
from tests.unit.serve.test_admin import Control


async def given(vantage: str, networks: int) -> bytes:
    return b""


async def planned(files: Mapping[str, str]) -> dict[str, object]:
    return {}


async def most_asked(seconds: int, limit: int) -> dict[str, object]:
    return {}


async def landed(limit: int) -> dict[str, object]:
    return {}


async def all_vantages() -> dict[str, object]:
    return {}


async def nothing(question: object) -> dict[str, object]:
    return {}


def test_every_route_is_described_and_every_description_has_a_route() -> None:
    routes = [*plans.routes(planned, ""), *catchments.routes(landed), *whom.routes(given, ""), *tops.routes(most_asked, "")]
    routes += wanted.routes(wanted.Calls(nothing, nothing, nothing), "")
    routes += vantages.routes(all_vantages, nothing, "")
    served = {
        (route.method, route.resource.canonical)
        for route in make_app(Control().services(), routes=routes).router.routes()
        if route.resource and route.method != "HEAD"
    }
    described = {(method.upper(), path) for path, operations in DOCUMENT["paths"].items() for method in operations}
    assert served == described


def test_every_reference_leads_somewhere() -> None:
    text = json.dumps(DOCUMENT)
    named = {part.partition('"')[0] for part in text.split('"#/components/schemas/')[1:]}
    assert named == set(DOCUMENT["components"]["schemas"])


@pytest.mark.parametrize(
    ("path", "status", "kind", "body", "message"),
    [
        ("/healthz", 200, "application/json", b'{"status": "ok"}', ""),
        ("/healthz", 200, "text/html", b"", "content type text/html"),
        ("/healthz", 201, "application/json", b"{}", "status 201 is not described"),
        ("/healthz", 200, "application/json", b'{"status": "fine"}', "'fine' is none of"),
        ("/readyz", 200, "application/json", b'{"status": "ready"}', "serial is missing"),
        ("/readyz", 200, "application/json", b'{"status": "ready", "serial": "7"}', "'7' is not integer"),
        ("/readyz", 503, "application/json", b'{"error": "x", "trace": ""}', "trace is not described"),
        ("/v1/overrides", 200, "application/json", b'{"overrides": [{}]}', "id is missing"),
        ("/v2", 200, "application/json", b"{}", "is not described"),
    ],
)
def test_the_comparison_can_fail(path: str, status: int, kind: str, body: bytes, message: str) -> None:
    found = mismatch("GET", path, status, kind, body)
    assert message in found
    assert bool(message) == bool(found)
