"""The line for each method, from a source: which socket, which packets, and in whose name."""

from __future__ import annotations

import secrets
import socket
from dataclasses import dataclass, field

from edgedns.model import Method
from edgedns.probe.connect import TcpLine
from edgedns.probe.http import HttpLine, HttpTime
from edgedns.probe.icmp import open_icmp, told
from edgedns.probe.measure import DatagramLine, Line, OnForeign
from edgedns.probe.source import NotPossible, Source
from edgedns.probe.wire import DnsQuery, Echo, Format, IcmpEcho

DATAGRAMS: tuple[Method, ...] = ("udp", "dns", "icmp")


@dataclass(frozen=True, slots=True)
class Voice:
    """How an agent speaks. `key` is 16 to 64 secret octets: the agent's own, or its fleet's.

    `port` is the fleet's: the source port of UDP, one above that of DNS, and the identifier of ICMP, so that replies which
    anycast takes to another agent find a socket there. 0: whatever is free. `dns_zone` is where names of DNS probes lie,
    `user_agent` and `http_time` belong to HTTP. `about` is a URI, whom to turn to, said in UDP and ICMP.
    """

    key: bytes = field(repr=False)
    port: int = 0
    dns_zone: str = "edgedns-probe.invalid"
    user_agent: str = "edgedns-probe"
    http_time: HttpTime = "connect"
    about: str = ""


def open_line(method: Method, source: Source, vantage: str, voice: Voice, on_foreign: OnForeign | None = None) -> Line:
    """The line for a method from a source, in the running event loop; NotPossible says what is in the way."""
    try:
        if method == "tcp":
            return TcpLine(source)
        if method in ("http", "https"):
            return HttpLine(source, method == "https", voice.user_agent, voice.http_time)
        sock, packets, way = _datagrams(method, source, vantage, voice)
    except NotPossible as error:
        raise NotPossible(f"can't probe by {method} {error}") from None
    except OSError as error:
        raise NotPossible(f"can't probe by {method} from {source}: {error.strerror or error}") from None
    # Agents of a fleet share a key, so numbers begin anywhere: no process takes its predecessor's replies for its own.
    return DatagramLine(sock, packets, (vantage, source.provider), secrets.randbits(63), on_foreign, way)


def _datagrams(method: Method, source: Source, vantage: str, voice: Voice) -> tuple[socket.socket, Format, str]:
    echo = Echo(voice.key, vantage, source.provider, "" if method == "dns" else voice.about)
    if method == "icmp":
        icmp = open_icmp(source, voice.port)
        identifier = voice.port or int.from_bytes(voice.key[:2])
        return icmp.sock, IcmpEcho(source.family, echo, identifier, icmp.kind == "raw"), told(icmp.kind)
    if method == "dns":
        try:
            query = DnsQuery(echo, voice.dns_zone)
        except ValueError as error:
            raise NotPossible(f"from {source}: {error}") from None
        return source.open(socket.SOCK_DGRAM, port=voice.port and voice.port + 1), query, ""
    return source.open(socket.SOCK_DGRAM, port=voice.port), echo, ""
