"""UDP: one blocking loop per socket. As little as possible is done per packet."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from array import array
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from edgedns.engine import native
from edgedns.engine.limit import State, Terms, Verdict, limit, truncated
from edgedns.metrics import (
    RATE_DROPPED,
    RATE_SLIPPED,
    TRUNCATED,
    UDP_RAISED,
    UDP_RECEIVED,
    UDP_REPLIED,
    UDP_SILENT,
    UDP_UNSENT,
)
from edgedns.serve.batch import Batch

if TYPE_CHECKING:
    from edgedns.config import Address
    from edgedns.engine._fastpath import Native
    from edgedns.serve.clock import Clock

# packet, client's packed address (4 or 16 octets), "udp" or "tcp", now (Unix seconds) -> reply, None for silence
Respond = Callable[[bytes, bytes, str, float], bytes | None]
# (packet, client's packed address) that came together (none: nothing came for a while), now -> replies, None for each that
# `respond` is to answer
Replies = Callable[[Sequence[tuple[bytes, bytes]], float], list[bytes | None]]
# packet, client's packed address, the reply if there is one, now -> what is sent, None for nothing
Answer = Callable[[bytes, bytes, bytes | None, float], bytes | None]
# The secrets of server cookies, which rate limiting needs
Secrets = Callable[[], Sequence[bytes]]
Complain = Callable[[str, BaseException], None]
# now -> what the native loop answers from, None where there is nothing yet
Look = Callable[[float], "Native | None"]

NO_LIMIT = Terms()
RECEIVE_BUFFER = 1 << 20
PATIENCE = 0.5  # seconds for which a loop waits for a packet before it looks whether it is to leave
NEVER = threading.Event()
SILENT = array("Q", (0,))
TC = 0x02

# <linux/in.h>, <linux/in6.h>; not all are in this Python's socket module
_IP_PKTINFO = 8
_IP_MTU_DISCOVER = 10
_IPV6_MTU_DISCOVER = 23
_PMTUDISC_OMIT = 5


def open_socket(address: Address) -> socket.socket:
    """A bound UDP socket that shares its port with the other workers'; OSError when that can't be."""
    sock = socket.socket(address.family, socket.SOCK_DGRAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        prepare(sock, address.is_wildcard)
        sock.bind((address.host, address.port))
    except OSError:
        sock.close()
        raise
    return sock


def prepare(sock: socket.socket, wildcard: bool) -> None:
    """Set what our loops rely on, also on a socket that somebody else opened."""
    sock.setblocking(True)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 0, int(PATIENCE * 1e6)))
    if sock.family == socket.AF_INET6:
        level, discover = socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER
        if wildcard:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
    else:
        level, discover = socket.IPPROTO_IP, _IP_MTU_DISCOVER
        if wildcard:
            sock.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
    # RFC 9715 section 3.1: no fragments, and no trust in path MTUs that anyone may have spoofed.
    with contextlib.suppress(OSError):
        sock.setsockopt(level, discover, _PMTUDISC_OMIT)


class Answering(NamedTuple):
    """With what the loops of a worker answer, count and complain.

    With `look` the native loop answers, and `respond` only what that hands back; with `replies` that answers, and `respond`
    what that leaves. Whoever adds one to `bell` lets that loop look at once, else it does twice a second.
    """

    respond: Respond
    clock: Clock
    cells: memoryview[int]
    complain: Complain
    look: Look | None = None
    terms: Terms = NO_LIMIT
    replies: Replies | None = None
    secrets: Secrets = tuple
    bell: array[int] = SILENT


def serve(sock: socket.socket, wildcard: bool, by: Answering, leave: threading.Event = NEVER) -> None:
    """Answer until `retire(sock)`, when what is in the socket's queue by then is answered still; or until `leave` is set.

    Who leaves has answered all that it took, and what is queued is for who goes on reading there.
    """
    state = State()
    limiter = native.limiter_of(by.terms, state) if native.LOOPS and by.look and by.terms.limits else None
    while True:
        try:
            if native.LOOPS and by.look:
                native.serve(sock.fileno(), wildcard, _looking(by, by.look, leave), _handed_back(by), limiter, by.bell)
            else:
                _serve_plain(sock, wildcard, by, state, leave)
            return
        except Exception as error:
            if sock.fileno() < 0:
                return
            by.complain("serving UDP", error)
            time.sleep(0.01)  # whatever it is, it must not become a busy loop


def retire(sock: socket.socket) -> None:
    """The end of a socket: others get what comes from now on, and its loop ends when its queue is empty."""
    # A connected socket is passed over when the kernel chooses among those that share the port, and keeps its queue.
    # To itself: nobody else is taken for its peer.
    own = sock.getsockname()
    loopback = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(own[0], own[0])
    with contextlib.suppress(OSError):
        sock.connect((loopback, *own[1:]))
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RD)  # wakes the reader, also where it says that the socket is not connected


def is_retired(sock: socket.socket) -> bool:
    try:
        sock.getpeername()
    except OSError:
        return False
    return True


def _serve_plain(sock: socket.socket, wildcard: bool, by: Answering, state: State, leave: threading.Event) -> None:
    """The loop in Python, batch by batch."""
    batch, replies, answer = Batch(sock, wildcard), _at_once(by), _answering(by, state)
    cells, counted = by.cells, bool(by.terms.rate)
    while not (batch.ended or leave.is_set()):
        received = batch.receive()
        now = by.clock.tick()
        cells[UDP_RECEIVED] += len(received)
        found, looked_at = replies(received, now), []
        for at, (packet, client) in enumerate(received):
            reply = found[at]
            # Where replies are not counted, what does not amplify is never limited.
            if reply is None or counted or 2 * len(reply) > 3 * len(packet):
                found[at] = answer(packet, client, reply, now)
                looked_at.append(at)
        failed = batch.send(found)
        for at in failed:
            found[at] = None
        cells[UDP_UNSENT] += len(failed)
        cells[UDP_REPLIED] += len(found) - found.count(None)
        cells[TRUNCATED] += sum(reply[2] & TC for at in looked_at if (reply := found[at])) // TC


def _at_once(by: Answering) -> Replies:
    """`replies`; where there is none or it raises, each packet is answered for itself."""

    def found(received: Sequence[tuple[bytes, bytes]], now: float) -> list[bytes | None]:
        if by.replies:
            try:
                return by.replies(received, now)
            except Exception as error:
                by.complain("answering a batch", error)
        return [None] * len(received)

    return found


def _answering(by: Answering, state: State) -> Answer:
    """`respond` with rate limiting behind it (the native loop has its own); what it raises is told, and none of it sent."""

    respond, terms, secrets = by.respond, by.terms, by.secrets

    def answer(packet: bytes, client: bytes, reply: bytes | None, now: float) -> bytes | None:
        try:
            reply = reply or respond(packet, client, "udp", now)
            verdict = Verdict.SEND if reply is None else limit(terms, state, packet, reply, client, now, secrets())
        except Exception as error:
            by.cells[UDP_RAISED] += 1
            by.complain("answering", error)
            return None
        if reply is not None and verdict:
            reply = _limited(verdict, reply, terms, by.cells)
        if reply is None:
            by.cells[UDP_SILENT] += 1
        return reply

    return answer


def _limited(verdict: Verdict, reply: bytes, terms: Terms, cells: memoryview[int]) -> bytes | None:
    """What goes out in the place of a reply that is not to be sent as it is."""
    cells[RATE_SLIPPED if verdict is Verdict.SLIP else RATE_DROPPED] += 1
    if terms.dry_run:
        return reply
    return truncated(reply) if verdict is Verdict.SLIP else None


def _looking(by: Answering, look: Look, leave: threading.Event) -> Callable[[], tuple[Native | None, float] | None]:
    """What the loop in C, which counts what it sends, asks now and then: what it answers from, None to end."""
    seen: Native | None = None

    def look_now() -> tuple[Native | None, float] | None:
        nonlocal seen
        if leave.is_set():
            return None
        now = by.clock.tick()
        try:
            seen = look(now)
        except Exception as error:  # the last good one stands
            by.complain("looking at what is published", error)
        return seen, now

    return look_now


def _handed_back(by: Answering) -> Callable[[bytes, bytes], bytes | None]:
    """What answers a packet that the loop in C hands back."""

    def answer(packet: bytes, client: bytes) -> bytes | None:
        try:
            reply = by.respond(packet, client, "udp", by.clock.now)
        except Exception as error:
            by.cells[UDP_RAISED] += 1
            by.complain("answering", error)
            return None
        if reply is None:
            by.cells[UDP_SILENT] += 1
        return reply

    return answer
