"""The pages of the admin side."""

from __future__ import annotations

from collections.abc import Sequence

from aiohttp import web


def page_routes() -> Sequence[web.AbstractRouteDef]:
    return []
