"""One class over both twins of the loop that asks, against servers that answer in every way they can."""

from __future__ import annotations

import socket
import threading
import time
from array import array
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import pytest

from edgedns.bench import questions, volley
from edgedns.bench.latency import BUCKETS, MOST, bucket, edge, quantiles
from edgedns.bench.questions import Mix
from edgedns.bench.volley import CELLS, Cell, Magazine

SECOND = 1_000_000_000
QUESTIONS = questions.parse(["a.example.net A", "b.example.net AAAA"], "here")
Answer = Callable[[bytes], list[bytes]]


def as_reply(packet: bytes, rcode: int = 0) -> bytes:
    return packet[:2] + b"\x84" + bytes((rcode,)) + packet[4:]


class Standin:
    """Answers each packet with what `answer` makes of it, after `delay` seconds."""

    def __init__(self, answer: Answer, delay: float = 0.0) -> None:
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.bind(("127.0.0.1", 0))
        self.sock.settimeout(0.05)
        self.answer, self.delay, self.seen, self.peers = answer, delay, [0], set[str]()
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._serve)
        self.thread.start()

    def _serve(self) -> None:
        while not self.stop.is_set():
            try:
                packet, peer = self.sock.recvfrom(4096)
            except TimeoutError:
                continue
            self.seen[0] += 1
            self.peers.add(peer[0])
            time.sleep(self.delay)
            for reply in self.answer(packet):
                self.sock.sendto(reply, peer)

    def close(self) -> None:
        self.stop.set()
        self.thread.join()
        self.sock.close()


@pytest.fixture
def standin() -> Iterator[Callable[..., Standin]]:
    made: list[Standin] = []

    def make(answer: Answer, delay: float = 0.0) -> Standin:
        made.append(Standin(answer, delay))
        return made[-1]

    yield make
    for each in made:
        each.close()


def magazine(count: int = 2) -> Magazine:
    return questions.load(QUESTIONS, Mix(), Random(1), count)


@pytest.mark.parametrize("native", [pytest.param(True, id="native"), pytest.param(False, id="python")])
class TestVolley:
    @pytest.fixture(autouse=True)
    def _built(self, native: bool) -> None:
        if native and not volley.NATIVE:
            pytest.skip("the native loop is not built")

    def fire(
        self, server: Standin | tuple[str, int], native: bool, seconds: float = 0.15, rate: float = 0.0, window: int = 4,
        timeout: float = 5.0, sources: tuple[str, ...] = ("127.0.0.1",), burst: int = 1, drain: float = 20.0,
    ) -> array[int]:  # fmt: skip
        cells, socks = array("Q", bytes(8 * CELLS)), []
        for source in sources:
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            sock.bind((source, 0))
            sock.connect(server if isinstance(server, tuple) else server.sock.getsockname())
            socks.append(sock)
        start = time.monotonic_ns()
        made = volley.make(
            socks, magazine(), cells, interval=SECOND / rate if rate else 0.0, window=window, burst=burst,
            timeout=round(timeout * SECOND), start=start, native=native,
        )  # fmt: skip
        made.fire(start + round(seconds * SECOND), True)
        made.fire(time.monotonic_ns() + round(drain * SECOND), False)
        for sock in socks:
            sock.close()
        return cells

    def test_closed_loop_counts_every_answer_once(self, standin: Callable[..., Standin], native: bool) -> None:
        cells = self.fire(standin(lambda packet: [as_reply(packet, 3)]), native)
        assert cells[Cell.SENT] == cells[Cell.ANSWERED] == cells[Cell.RCODE + 3] == sum(cells[Cell.HISTOGRAM :]) > 10
        assert not any(cells[cell] for cell in (Cell.LOST, Cell.LATE, Cell.WRONG, Cell.STRANGE, Cell.REFUSED, Cell.TRUNCATED))
        assert 0 < cells[Cell.TOTAL_NS] <= cells[Cell.MOST_NS] * cells[Cell.ANSWERED]
        assert cells[Cell.OCTETS_IN] == cells[Cell.OCTETS_OUT] > 0

    def test_closed_loop_keeps_the_window(self, standin: Callable[..., Standin], native: bool) -> None:
        server = standin(lambda packet: [])
        cells = self.fire(server, native, window=7, drain=0.01)
        assert cells[Cell.SENT] == 7
        assert cells[Cell.ANSWERED] == cells[Cell.LOST] == 0

    def test_open_loop_sends_on_schedule_whatever_comes_back(self, standin: Callable[..., Standin], native: bool) -> None:
        cells = self.fire(standin(lambda packet: []), native, rate=400, seconds=0.5, timeout=0.1)
        assert 100 < cells[Cell.SENT] <= 200  # fewer where the machine slept through the end
        assert cells[Cell.LOST] == cells[Cell.SENT]

    def test_bursts_leave_together(self, standin: Callable[..., Standin], native: bool) -> None:
        cells = self.fire(standin(lambda packet: [as_reply(packet)]), native, rate=200, burst=50, seconds=0.6)
        assert cells[Cell.SENT] in (50, 100, 150)
        assert cells[Cell.ANSWERED] == cells[Cell.SENT]

    def test_latency_counts_from_when_a_query_was_due(self, standin: Callable[..., Standin], native: bool) -> None:
        """A server at 50 a second, asked 200 times a second: the last one waited most of a second, though none was lost."""
        cells = self.fire(standin(lambda packet: [as_reply(packet)], 0.02), native, rate=200, seconds=0.3)
        assert cells[Cell.ANSWERED] == cells[Cell.SENT] > 20
        assert cells[Cell.MOST_NS] > 0.015 * SECOND * (cells[Cell.SENT] - 1) - 0.005 * SECOND * cells[Cell.SENT]

    def test_what_comes_after_the_timeout_is_lost_and_late(self, standin: Callable[..., Standin], native: bool) -> None:
        server = standin(lambda packet: [as_reply(packet)], 0.15)
        cells = self.fire(server, native, rate=2, seconds=0.6, timeout=0.05)
        assert cells[Cell.LOST] == cells[Cell.SENT] >= 1
        assert cells[Cell.LATE] >= 1
        assert cells[Cell.ANSWERED] == 0

    def test_replies_to_another_question_settle_nothing(self, standin: Callable[..., Standin], native: bool) -> None:
        def wrong_then_right(packet: bytes) -> list[bytes]:
            return [as_reply(packet).replace(b"example", b"elpmaxe"), as_reply(packet)]

        cells = self.fire(standin(wrong_then_right), native)
        assert cells[Cell.ANSWERED] == cells[Cell.SENT] == cells[Cell.WRONG] > 0

    @pytest.mark.parametrize(
        ("odd", "cell"),
        [
            (lambda packet: packet, Cell.WRONG),  # no reply: QR is off
            (lambda packet: packet[:2] + b"\xa4" + packet[3:], Cell.WRONG),  # another opcode
            (lambda packet: as_reply(packet)[:20], Cell.WRONG),  # cut off
            (lambda packet: as_reply(packet)[:4] + bytes(8), Cell.WRONG),  # NOERROR without a question
            (lambda packet: as_reply(packet)[:7], Cell.STRANGE),
            (lambda packet: b"", Cell.STRANGE),
            (lambda packet: b"\xff\xfe" + as_reply(packet)[2:], Cell.STRANGE),  # an ID that is not out
        ],
    )
    def test_odd_replies(
        self, standin: Callable[..., Standin], native: bool, odd: Callable[[bytes], bytes], cell: Cell
    ) -> None:
        cells = self.fire(standin(lambda packet: [odd(packet)]), native, window=3, timeout=0.1, drain=0.5)
        assert cells[Cell.ANSWERED] == 0
        assert cells[cell] > 0
        assert sum(cells[Cell.LATE : Cell.BEHIND]) == cells[cell]

    def test_an_error_may_leave_the_question_out(self, standin: Callable[..., Standin], native: bool) -> None:
        cells = self.fire(standin(lambda packet: [packet[:2] + b"\x80\x01" + bytes(8)]), native)
        assert cells[Cell.RCODE + 1] == cells[Cell.ANSWERED] == cells[Cell.SENT] > 0

    def test_a_second_reply_is_strange(self, standin: Callable[..., Standin], native: bool) -> None:
        cells = self.fire(standin(lambda packet: [as_reply(packet)] * 2), native)
        assert cells[Cell.ANSWERED] == cells[Cell.SENT]
        assert cells[Cell.STRANGE] >= cells[Cell.SENT] - 8  # the last ones come when nobody listens

    def test_every_source_asks(self, standin: Callable[..., Standin], native: bool) -> None:
        server = standin(lambda packet: [as_reply(packet)])
        sources = tuple(f"127.0.1.{number}" for number in range(5))
        self.fire(server, native, sources=sources, window=10)
        assert server.peers == set(sources)

    def test_a_closed_port_is_told(self, native: bool) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as nobody:
            nobody.bind(("127.0.0.1", 0))
            where = nobody.getsockname()
        cells = self.fire(where, native, rate=100, timeout=0.1)
        assert cells[Cell.REFUSED] > 0
        assert cells[Cell.LOST] == cells[Cell.SENT]


@pytest.mark.skipif(not volley.NATIVE, reason="the native loop is not built")
class TestBounds:
    def make(self, **changed: Any) -> None:
        from edgedns.bench._volley import Volley

        arguments: dict[str, Any] = {
            "fds": (0,), "magazine": bytes(100), "rows": array("I", (0, 50, 20)), "cells": array("Q", bytes(8 * CELLS)),
            "slots": 256, "interval": 0.0, "window": 1, "burst": 1, "timeout": 1, "start": 0,
        }  # fmt: skip
        Volley(*(arguments | changed).values())

    def test_good(self) -> None:
        self.make()

    @pytest.mark.parametrize(
        "changed",
        [
            {"fds": ()}, {"fds": tuple(range(1025))}, {"slots": 0}, {"slots": 3}, {"slots": 1 << 17}, {"burst": 0},
            {"rows": array("I", (0, 50))}, {"rows": array("I")}, {"rows": array("I", (60, 50, 20))},
            {"rows": array("I", (0xFFFFFFFF, 50, 20))}, {"rows": array("I", (0, 50, 51))}, {"rows": array("I", (0, 50, 11))},
            {"rows": array("I", (0, 0xFFFFFFFF, 20))}, {"cells": array("Q", bytes(8))}, {"interval": -1.0},
            {"interval": float("nan")}, {"timeout": 0},
        ],
        ids=str,
    )  # fmt: skip
    def test_what_does_not_fit_is_refused(self, changed: dict[str, object]) -> None:
        with pytest.raises(ValueError, match=r"\w"):
            self.make(**changed)

    def test_cells_are_written(self) -> None:
        with pytest.raises((BufferError, TypeError)):
            self.make(cells=bytes(8 * CELLS))


class TestLatency:
    def test_buckets_follow_one_another(self) -> None:
        dice = Random(3)
        for ns in [*range(3000), *(dice.randrange(MOST) for _ in range(20_000)), MOST]:
            number = bucket(ns)
            assert 0 <= number < BUCKETS
            assert edge(number) <= ns < edge(number + 1)
        assert bucket(MOST + 5) == bucket(MOST) == BUCKETS - 1
        assert all((edge(n + 1) - edge(n)) * 64 <= edge(n) for n in range(64, BUCKETS - 1))

    def test_quantiles(self) -> None:
        counts = [0] * BUCKETS
        for ns in range(1000, 101_000):
            counts[bucket(ns)] += 1
        found = quantiles(counts, [0.0, 0.5, 0.99, 1.0])
        assert found == pytest.approx([0, 51e-6, 100e-6, 101e-6], rel=0.02)
        assert quantiles([0] * BUCKETS, [0.5, 1.0]) == [0.0, 0.0]
