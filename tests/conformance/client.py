"""The independent client of the conformance tests: dnspython for messages, plain sockets for the wire."""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypedDict, Unpack

import dns.edns
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset

APEX = "cdn.example.net."
TIMEOUT = 3.0
QUIET = 0.3  # what "no answer" waits
NO_EDNS = -1


@dataclass(frozen=True)
class Server:
    """`port` is bound at `hosts` one by one, `every_port` at 0.0.0.0 and ::."""

    host: str
    port: int
    every_port: int
    hosts: tuple[str, ...]
    state: Path | None = None


class How(TypedDict, total=False):
    """What a question has beside name and type: see `question`."""

    edns: int
    payload: int
    options: Sequence[dns.edns.Option]
    subnet: str
    do: bool
    rd: bool
    rclass: str


@dataclass(frozen=True)
class Client:
    """One way of asking one address."""

    host: str
    port: int
    transport: str = "udp"

    def over(self, transport: str) -> Client:
        return replace(self, transport=transport)

    def at(self, host: str, port: int | None = None) -> Client:
        return replace(self, host=host, port=port or self.port)

    def __call__(self, name: str, rtype: str = "A", **how: Unpack[How]) -> dns.message.Message:
        """Ask for a name of the zone (or, with a final dot, any); `how` is as for `question`."""
        return self.send(question(name, rtype, **how))

    def send(self, query: dns.message.Message | bytes) -> dns.message.Message:
        """The reply to a message, checked to be a reply to it."""
        wire = query if isinstance(query, bytes) else query.to_wire()
        reply = self.exchange(wire)
        assert reply[:2] == wire[:2], "the reply has another id"
        assert reply[2] & 0x80, "the reply has no QR"
        return dns.message.from_wire(reply, ignore_trailing=False, one_rr_per_rrset=False)

    def exchange(self, wire: bytes) -> bytes:
        """Octets in, octets out; TimeoutError where nothing comes."""
        if self.transport == "tcp":
            with self.stream() as sock:
                sock.sendall(struct.pack("!H", len(wire)) + wire)
                return receive(sock)
        with self.datagrams() as sock:
            sock.send(wire)
            return sock.recv(65535)

    def datagrams(self) -> socket.socket:
        """A UDP socket connected to the server: the kernel takes replies from that address and port alone."""
        sock = socket.socket(socket.AF_INET6 if ":" in self.host else socket.AF_INET, socket.SOCK_DGRAM)
        sock.settimeout(TIMEOUT)
        sock.connect((self.host, self.port))
        return sock

    def stream(self) -> socket.socket:
        return socket.create_connection((self.host, self.port), TIMEOUT)

    def is_silent(self, wire: bytes) -> bool:
        """Whether nothing answers these octets, while a question sent after them is answered."""
        with self.datagrams() as sock:
            sock.send(wire)
            canary = question("zero").to_wire()
            sock.send(canary)
            if sock.recv(65535)[:2] != canary[:2]:
                return False
            sock.settimeout(QUIET)
            try:
                sock.recv(65535)
            except TimeoutError:
                return True
            return False


def receive(sock: socket.socket) -> bytes:
    """One message off a stream; ConnectionError where it ends before."""
    (length,) = struct.unpack("!H", exactly(sock, 2))
    return exactly(sock, length)


def exactly(sock: socket.socket, count: int) -> bytes:
    found = b""
    while len(found) < count:
        more = sock.recv(count - len(found))
        if not more:
            raise ConnectionError("closed")
        found += more
    return found


def full(name: str) -> str:
    """Names without a final dot are the zone's; "@" is its apex."""
    return name if name.endswith(".") else APEX if name == "@" else f"{name}.{APEX}"


def question(
    name: str,
    rtype: str = "A",
    *,
    edns: int = NO_EDNS,
    payload: int = 1232,
    options: Sequence[dns.edns.Option] = (),
    subnet: str = "",
    do: bool = False,
    rd: bool = False,
    rclass: str = "IN",
) -> dns.message.Message:
    """A query; options or `do` imply EDNS version 0. `subnet` is a client subnet in text."""
    wanted = [*options, *([dns.edns.ECSOption.from_text(f"ECS {subnet}")] if subnet else [])]
    if (wanted or do) and edns == NO_EDNS:
        edns = 0
    made = dns.message.make_query(full(name), rtype, rclass, use_edns=False)
    made.flags = dns.flags.RD if rd else dns.flags.Flag(0)
    if edns != NO_EDNS:
        made.use_edns(edns, dns.flags.DO if do else 0, payload, options=wanted)
    return made


def coded(code: int, content: bytes = b"") -> dns.edns.GenericOption:
    """An option of any code."""
    return dns.edns.GenericOption(dns.edns.OptionType.make(code), content)


def texts(section: Sequence[dns.rrset.RRset]) -> list[str]:
    """Each record of a section as "owner type data", names of the zone without it."""
    apex = dns.name.from_text(APEX)
    return [
        f"{rrset.name.relativize(apex)} {dns.rdatatype.to_text(rrset.rdtype)} {rdata.to_text(origin=apex, relativize=True)}"
        for rrset in section
        for rdata in rrset
    ]


def rcode(reply: dns.message.Message) -> str:
    return dns.rcode.to_text(reply.rcode())


def flags(reply: dns.message.Message) -> set[str]:
    """The header's flags but QR, which every reply has."""
    return set(dns.flags.to_text(reply.flags).split()) - {"QR"}


def option(reply: dns.message.Message, kind: int) -> dns.edns.Option | None:
    """The one option of that code, if there is one; two are an error."""
    found = [each for each in reply.options if each.otype == kind]
    assert len(found) < 2
    return found[0] if found else None


def subnet_of(reply: dns.message.Message) -> str:
    """The reply's client subnet option as ADDRESS/SOURCE/SCOPE, or an empty text."""
    found = option(reply, dns.edns.OptionType.ECS)
    return f"{found.address}/{found.srclen}/{found.scopelen}" if isinstance(found, dns.edns.ECSOption) else ""
