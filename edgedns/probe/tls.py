"""Whom we believe over TLS, from the other side's address alone, or from its name."""

from __future__ import annotations

import ssl
from functools import cache


@cache
def trusting() -> ssl.SSLContext:
    """For servers of whom only an address is known: no certificate can be judged by that."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


@cache
def judging() -> ssl.SSLContext:
    """For servers that are named: by the system's authorities, whose reading takes its time once."""
    return ssl.create_default_context()
