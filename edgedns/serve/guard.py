"""Who may ask what of the admin side, and errors as JSON."""

from __future__ import annotations

import hmac
import ipaddress
import logging
from collections.abc import Awaitable, Callable

from aiohttp import web
from aiohttp.typedefs import Middleware

from edgedns.errors import EdgednsError

Next = Callable[[web.Request], Awaitable[web.StreamResponse]]
SAFE = ("GET", "HEAD", "OPTIONS")
log = logging.getLogger("edgedns.admin")


class Refused(EdgednsError):
    """A request that is refused with this HTTP status; `headers` go with the reply."""

    def __init__(self, status: int, sentence: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(sentence)
        self.status = status
        self.headers = headers or {}


def error_reply(status: int, sentence: str, headers: dict[str, str] | None = None) -> web.Response:
    return web.json_response({"error": sentence}, status=status, headers=headers)


@web.middleware
async def errors_as_json(request: web.Request, handler: Next) -> web.StreamResponse:
    """Whatever goes wrong becomes {"error": "..."}; what we did not foresee is logged without the request's headers."""
    try:
        return await handler(request)
    except Refused as error:
        return error_reply(error.status, str(error), error.headers)
    except EdgednsError as error:
        return error_reply(400, str(error))
    except web.HTTPException as error:
        if error.status < 400:
            raise
        allow = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else None
        return error_reply(error.status, error.reason, allow)
    except Exception:
        log.exception("%s %s failed", request.method, request.path)
        return error_reply(500, "something went wrong here; the log says what")


def guard(token: str) -> Middleware:
    """Middleware: pages elsewhere must not act through a visitor's browser, nor read through DNS rebinding.

    Without a token only loopback is listened on, and a browser there is the way in: so the Host must be loopback's.
    """

    @web.middleware
    async def check(request: web.Request, handler: Next) -> web.StreamResponse:
        if not token and not _is_loopback_host(request.host):
            raise Refused(403, f"Host {request.host[:80]!r} is not this machine; use 127.0.0.1 or localhost")
        if request.method not in SAFE:
            _refuse_other_origins(request)
        return await handler(request)

    return check


def _is_loopback_host(host: str) -> bool:
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    if name.lower() in ("localhost", "localhost."):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _refuse_other_origins(request: web.Request) -> None:
    origin = request.headers.get("Origin")
    site = request.headers.get("Sec-Fetch-Site", "none")
    if (origin and origin != f"{request.scheme}://{request.host}") or site not in ("none", "same-origin"):
        raise Refused(403, "writes from pages of another origin are refused")


def require_token(request: web.Request, token: str, content_types: tuple[str, ...] = ()) -> None:
    """Refused 401 without the token. Where none is set, a content type that a foreign page can't send unasked."""
    if token:
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        # As octets: comparing text refuses what isn't ASCII.
        if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), token.encode()):
            sentence = "this needs the token: Authorization: Bearer TOKEN"
            raise Refused(401, sentence, {"WWW-Authenticate": "Bearer"})
    elif content_types and request.content_type not in content_types:
        raise Refused(415, f"send it with Content-Type: {content_types[0]}")


async def read_body(request: web.Request, limit: int) -> bytes:
    """The body, decompressed; Refused 413 as soon as it is longer than `limit` octets."""
    sentence = f"the body is longer than {limit} octets"
    if (request.content_length or 0) > limit:
        raise Refused(413, sentence)
    parts, length = [], 0
    async for part in request.content.iter_chunked(1 << 16):
        length += len(part)
        if length > limit:
            raise Refused(413, sentence)
        parts.append(part)
    return b"".join(parts)
