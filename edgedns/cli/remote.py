"""Speaking to a running server's admin side."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlencode

import click

from edgedns.config import DEFAULT_ADMIN, TOKEN_VARIABLE, SettingsError, read_token

TIMEOUT = 10.0
REPLY_LIMIT = 64 << 20
Command = TypeVar("Command", bound=Callable[..., Any])


class _StayHere(urllib.request.HTTPRedirectHandler):
    """Follows nobody: urllib would take the token along, also to another host."""

    def redirect_request(self, *_: object) -> None:
        return None


class Remote:
    """One server. Whatever goes wrong is a ClickException in one sentence."""

    def __init__(self, server: str, token: str = "", timeout: float = TIMEOUT) -> None:
        self._server = base_url(server, "--server").rstrip("/")
        self._token = token
        self._timeout = timeout
        # A proxy from the environment has no business between an operator and the server on this machine.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _StayHere)

    def get(self, path: str, query: Mapping[str, str] | None = None) -> Any:
        return self._call("GET", path + (f"?{urlencode(query)}" if query else ""))

    def post(self, path: str, body: object) -> Any:
        return self._call("POST", path, json.dumps(body).encode())

    def delete(self, path: str) -> Any:
        return self._call("DELETE", path)

    def _call(self, method: str, path: str, body: bytes | None = None) -> Any:
        request = urllib.request.Request(self._server + path, body, method=method)
        if body is not None:
            request.add_header("Content-Type", "application/json")
        if self._token:
            request.add_header("Authorization", f"Bearer {self._token}")
        try:
            with self._opener.open(request, timeout=self._timeout) as reply:
                return json.loads(reply.read(REPLY_LIMIT))
        except urllib.error.HTTPError as error:
            raise click.ClickException(_refusal(error)) from None
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", None) or error
            raise click.ClickException(f"no answer from {self._server}: {reason}; is `edgedns serve` running there?") from None


def base_url(text: str, option: str) -> str:
    """A server's, as an option names it."""
    if not re.fullmatch(r"https?://[^\s/?#]+/?", text):
        raise click.BadParameter(f"{text!r} is not http://HOST:PORT", param_hint=option)
    return text


def _refusal(error: urllib.error.HTTPError) -> str:
    try:
        return str(json.loads(error.read(1 << 16))["error"])
    except (OSError, ValueError, KeyError, TypeError):
        return f"the server says {error.code} {error.reason}"


def server_option(command: Command) -> Command:
    """Adds `--server`."""
    return click.option("--server", default=f"http://{DEFAULT_ADMIN}", show_default=True, metavar="URL",
                        help="The admin side of a running server.")(command)  # fmt: skip


def token_option(command: Command) -> Command:
    """Adds `--token-file`, told as `token`."""
    return click.option("--token-file", "token", type=click.Path(path_type=Path), metavar="FILE", callback=_token,
                        help=f"Has the server's token; else {TOKEN_VARIABLE}.")(command)  # fmt: skip


def _token(context: click.Context, parameter: click.Parameter, value: Path | None) -> str:
    try:
        return read_token(value)
    except SettingsError as error:
        raise click.BadParameter(str(error), param_hint="--token-file") from None
