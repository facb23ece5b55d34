"""What a server tells of itself to those who ask in class CHAOS (RFC 4892); nothing where its node has no name."""

from __future__ import annotations

from edgedns import __version__
from edgedns.dns import types
from edgedns.dns.edns import NOT_AUTHORITATIVE, PROHIBITED
from edgedns.dns.message import RR, Response

# RFC 4892 section 2 tells of the names under "server."; those under "bind." are what most people type.
NODE_NAMES = frozenset({b"\x02id\x06server\0", b"\x08hostname\x04bind\0"})
VERSION_NAMES = frozenset({b"\x07version\x06server\0", b"\x07version\x04bind\0"})


def chaos(node: str, name: bytes, qtype: int) -> Response:
    """The answer to a question in class CHAOS for a folded `name`. `node` is empty where the server is to stay unnamed."""
    if name not in NODE_NAMES | VERSION_NAMES or qtype not in (types.TXT, types.ANY):
        return Response(types.REFUSED, error=NOT_AUTHORITATIVE)
    if not node:
        return Response(types.REFUSED, error=PROHIBITED)
    text = (node if name in NODE_NAMES else f"edgedns {__version__}").encode()[:255]
    record = RR(name, types.TXT, 0, bytes((len(text),)) + text)
    return Response(types.NOERROR, answer=(record,), klass=types.CH)
