"""What the sides that speak HTTP share: their sockets, and the headers of each reply."""

from __future__ import annotations

import socket

from aiohttp import web

from edgedns.config import Address
from edgedns.serve.guard import Refused
from edgedns.serve.worker import listen_sentence


def open_socket(address: Address, option: str = "--listen", waiting: int = 128) -> socket.socket:
    """A socket that listens, `waiting` connections at most; Refused in one sentence when that can't be."""
    sock = socket.socket(address.family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((address.host, address.port))
        sock.listen(waiting)
    except OSError as error:
        sock.close()
        raise Refused(503, listen_sentence(address, error).replace("--listen", option)) from None
    return sock


async def set_headers(_: web.Request, response: web.StreamResponse) -> None:
    """To be called as a response is prepared."""
    response.headers["Server"] = "edgedns"
    response.headers.setdefault("X-Content-Type-Options", "nosniff")
    response.headers.setdefault("Cache-Control", "no-store")
