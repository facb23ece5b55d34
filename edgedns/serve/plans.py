"""POST /v1/plan: a rules directory's files as JSON, what publishing them would change as the reply."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from pathlib import PurePosixPath

from aiohttp import web

from edgedns.serve.guard import Refused, read_body, require_token
from edgedns.serve.requests import parse_json

BODY_LIMIT = 32 << 20
FILES_LIMIT = 10_000

Plan = Callable[[Mapping[str, str]], Awaitable[Mapping[str, object]]]


def routes(plan: Plan, token: str) -> list[web.RouteDef]:
    """The one route; `plan` is given texts by their path inside the rules directory."""

    async def post(request: web.Request) -> web.Response:
        require_token(request, token, ("application/json",))
        return web.json_response(await plan(parse_files(await read_body(request, BODY_LIMIT))))

    return [web.post("/v1/plan", post)]


def parse_files(body: bytes) -> dict[str, str]:
    """`{"files": {"cdn.yaml": "version: 1..."}}`; Refused names what is wrong."""
    content = parse_json(body)
    files = content.get("files") if isinstance(content, dict) else None
    if not isinstance(files, dict) or not 0 < len(files) <= FILES_LIMIT:
        raise Refused(400, f"'files' must be an object of 1 to {FILES_LIMIT} texts by path")
    for name, text in files.items():
        if not _is_inside(name):
            raise Refused(400, f"{name[:80]!r} is not a path inside a rules directory")
        if not isinstance(text, str) or not _is_unicode(text):
            raise Refused(400, f"{name[:80]!r} is not a text")
    return files


def _is_inside(name: str) -> bool:
    parts = PurePosixPath(name).parts
    plain = name.isprintable() and 0 < len(name) <= 200 and "/".join(parts) == name
    return plain and not name.startswith("/") and all(part not in (".", "..") for part in parts)


def _is_unicode(text: str) -> bool:
    """JSON can write half of a surrogate pair, which no file can hold."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
