"""The demo's resolvers: one socket that asks for each network in turn, with its client subnet, as public resolvers do."""

from __future__ import annotations

import asyncio
import contextlib
import time
from itertools import cycle

import dns.edns
import dns.exception
import dns.message
import dns.rdatatype

from edgedns.demo.board import Board, Spot

RATE = 50.0
PASTED_EVERY = 1.0
OVERDUE = 2.0


class Asker(asyncio.DatagramProtocol):
    """Asks until `run` is cancelled: networks whose lines are printed once a second, the others in turn."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._transport: asyncio.DatagramTransport | None = None
        self._pending: dict[int, tuple[Spot, float]] = {}
        self._number = 0

    async def run(self) -> None:
        """Until cancelled."""
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(lambda: self, remote_addr=self._board.server)
        others = cycle(self._board.spots)
        due = 0.0
        try:
            while True:
                if loop.time() >= due:
                    due = loop.time() + PASTED_EVERY
                    for spot in self._board.pasted:
                        self._ask(transport, spot)
                self._ask(transport, next(others))
                self._forget(time.time() - OVERDUE)
                await asyncio.sleep(1 / RATE)
        finally:
            transport.close()

    def _ask(self, transport: asyncio.DatagramTransport, spot: Spot) -> None:
        self._number = (self._number + 1) & 0xFFFF
        address, _, length = spot.subnet.partition("/")
        option = dns.edns.ECSOption(address, int(length))
        query = dns.message.make_query(self._board.name, "A", use_edns=0, options=[option], id=self._number)
        self._pending[self._number] = spot, time.time()
        self._board.asked += 1
        transport.sendto(query.to_wire())

    def _forget(self, before: float) -> None:
        for number, (_, asked) in list(self._pending.items()):
            if asked > before:
                return
            del self._pending[number]
            self._board.unanswered += 1

    def datagram_received(self, packet: bytes, peer: object) -> None:
        """A reply; what can't be read stays unanswered."""
        with contextlib.suppress(dns.exception.DNSException, KeyError):
            reply = dns.message.from_wire(packet)
            spot, _ = self._pending.pop(reply.id)
            addresses = [item.address for rrset in reply.answer if rrset.rdtype == dns.rdatatype.A for item in rrset]
            self._board.take_answer(spot, addresses, time.time())

    def error_received(self, error: Exception) -> None:
        """A refused datagram is counted as an unanswered one."""
