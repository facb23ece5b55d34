"""One measurement: warm up, ask for so long, wait for what is still on its way; a Tick each second and a Result at the end."""

from __future__ import annotations

import resource
import socket
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from edgedns.bench import owners, volley
from edgedns.bench.latency import quantiles
from edgedns.bench.volley import CELLS, Cell, Magazine
from edgedns.dns.types import rcode_name
from edgedns.errors import EdgednsError, SourceError

QUANTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p99.9": 0.999}
SLICE_NS = 50_000_000  # between two looks at Ctrl-C
BUFFER = 4 << 20
TRIES = 3


@dataclass(frozen=True)
class Plan:
    """Whom to ask and how. `rate` (queries a second, open loop) or, when 0, `outstanding` (closed loop). Seconds throughout.

    `sources`: addresses to ask from, `ports` sockets from each; empty: what routing chooses.
    """

    address: str
    port: int
    rate: float = 0.0
    outstanding: int = 100
    burst: int = 1
    duration: float = 10.0
    warmup: float = 1.0
    timeout: float = 1.0
    sources: tuple[str, ...] = ()
    ports: int = 8
    native: bool = volley.NATIVE


@dataclass(frozen=True)
class Tick:
    """One second: since the last one, and `at` seconds from the start."""

    at: float
    sent: int
    answered: int
    lost: int
    latency: dict[str, float]


@dataclass(frozen=True)
class Result:
    """All that was counted, seconds and shares; `server_cpu`: of the processes asked, None where they can't be looked at."""

    plan: Plan
    seconds: float
    cells: Sequence[int]
    ticks: list[Tick] = field(repr=False)
    own_cpu: float
    server_cpu: float | None
    server_pids: list[int]

    def __getitem__(self, cell: Cell) -> int:
        return self.cells[cell]

    @property
    def rcodes(self) -> dict[str, int]:
        """How many replies had which rcode; those that had none are left out."""
        return {rcode_name(code): self.cells[Cell.RCODE + code] for code in range(16) if self.cells[Cell.RCODE + code]}

    @property
    def histogram(self) -> Sequence[int]:
        """Counts by latency.bucket."""
        return self.cells[Cell.HISTOGRAM :]

    @property
    def latency(self) -> dict[str, float]:
        """Quantiles, mean and max, in seconds."""
        most = self[Cell.MOST_NS] / 1e9
        found = quantiles(self.histogram, list(QUANTILES.values()))
        mean = self[Cell.TOTAL_NS] / max(1, self[Cell.ANSWERED]) / 1e9
        return {**{name: min(each, most) for name, each in zip(QUANTILES, found, strict=True)}, "max": most, "mean": mean}

    @property
    def lost_share(self) -> float:
        return self[Cell.LOST] / max(1, self[Cell.SENT])

    @property
    def unsent(self) -> int:
        """Queries of the open loop that were due before the end, and that this machine was too late to send at all."""
        return max(0, int(self.plan.rate * min(self.seconds, self.plan.duration)) - self[Cell.SENT])

    @property
    def behind_share(self) -> float:
        """Of the queries that were due, those that this machine sent over a millisecond late or not at all."""
        return (self[Cell.BEHIND] + self.unsent) / max(1, self[Cell.SENT] + self.unsent)

    @property
    def server_us(self) -> float | None:
        """Microseconds of the server's CPU for each query answered."""
        return None if self.server_cpu is None or not self[Cell.ANSWERED] else self.server_cpu / self[Cell.ANSWERED] * 1e6

    def to_json(self) -> dict[str, Any]:
        counts = {cell.name.lower(): self[cell] for cell in list(Cell)[: Cell.TOTAL_NS]}
        return {
            **counts, "unsent": self.unsent, "rcodes": self.rcodes,
            "octets_out": self[Cell.OCTETS_OUT], "octets_in": self[Cell.OCTETS_IN],
            "seconds": round(self.seconds, 6), "qps": round(self[Cell.ANSWERED] / self.seconds, 1),
            "lost_share": self.lost_share, "latency_ms": {name: round(each * 1e3, 4) for name, each in self.latency.items()},
            "own_cpu_seconds": round(self.own_cpu, 4), "server_cpu_seconds": self.server_cpu,
            "server_cpu_us_per_query": self.server_us, "server_pids": self.server_pids,
            "engine": "native" if self.plan.native else "python",
        }  # fmt: skip


@contextmanager
def sockets(plan: Plan) -> Iterator[list[socket.socket]]:
    """Connected ones, from each source; EdgednsError where one can't be had."""
    with ExitStack() as stack:
        found = []
        for source in plan.sources or ("",):
            for _ in range(plan.ports):
                found.append(stack.enter_context(_socket(plan, source)))
        yield found


def _socket(plan: Plan, source: str) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in plan.address else socket.AF_INET, socket.SOCK_DGRAM)
    try:
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            sock.setsockopt(socket.SOL_SOCKET, option, BUFFER)
        if source:
            sock.bind((source, 0))
        sock.connect((plan.address, plan.port))
    except OSError as error:
        sock.close()
        where = f" from {source}" if source else ""
        raise EdgednsError(f"can't reach {plan.address}{where}: {error.strerror or error}") from None
    return sock


def first_reply(plan: Plan, packet: bytes) -> bytes:
    """What one query is answered with; EdgednsError when nothing comes."""
    with _socket(plan, plan.sources[0] if plan.sources else "") as sock:
        sock.settimeout(max(0.2, plan.timeout))
        for _ in range(TRIES):
            try:
                sock.send(packet)
                return sock.recv(4096)
            except TimeoutError:
                continue
            except ConnectionRefusedError:
                raise EdgednsError(f"nothing listens at {plan.address} port {plan.port} (UDP): is the server up?") from None
            except OSError as error:
                raise EdgednsError(f"can't ask {plan.address}: {error.strerror}") from None
    raise EdgednsError(f"{plan.address} port {plan.port} is silent over UDP: is a DNS server there, and no firewall before it?")


def run(plan: Plan, magazine: Magazine, tell: Callable[[Tick], None] = lambda tick: None) -> Result:
    """Measure. Ctrl-C ends it early: what was measured until then counts."""
    if not magazine.rows:
        raise SourceError("there is nothing to ask")
    with sockets(plan) as socks:
        if plan.warmup:
            _Run(plan, socks, magazine).go(plan.warmup, lambda tick: None)
        return _Run(plan, socks, magazine).go(plan.duration, tell)


class _Run:
    """Cells and a volley over the sockets, from now on."""

    def __init__(self, plan: Plan, socks: list[socket.socket], magazine: Magazine) -> None:
        self.plan = plan
        self.cells = array("Q", bytes(8 * CELLS))
        self.start = time.monotonic_ns()
        self.volley = volley.make(
            socks, magazine, self.cells, interval=1e9 / plan.rate if plan.rate else 0.0, window=plan.outstanding,
            burst=plan.burst, timeout=round(plan.timeout * 1e9), start=self.start, native=plan.native,
        )  # fmt: skip
        self.ticks: list[Tick] = []
        self.before = list(self.cells)

    def go(self, seconds: float, tell: Callable[[Tick], None]) -> Result:
        pids = owners.owners(self.plan.address, self.plan.port) if owners.is_local(self.plan.address) else []
        server, own = owners.cpu_seconds(pids), _own_cpu()
        with suppress(KeyboardInterrupt):
            self._until(self.start + round(seconds * 1e9), True, tell)
        took = (time.monotonic_ns() - self.start) / 1e9
        self._until(time.monotonic_ns() + round(self.plan.timeout * 1e9) + SLICE_NS, False, tell)
        after = owners.cpu_seconds(pids)
        used = None if not pids or server is None or after is None else after - server
        return Result(self.plan, took, self.cells, self.ticks, _own_cpu() - own, used, pids)

    def _until(self, end: int, asking: bool, tell: Callable[[Tick], None]) -> None:
        """Fire in slices, and tell of each second. What is only waited for belongs to no tick."""
        while (now := time.monotonic_ns()) < end:
            if not asking and self.cells[Cell.SENT] == self.cells[Cell.ANSWERED] + self.cells[Cell.LOST]:
                return
            next_tick = self.start + (len(self.ticks) + 1) * 1_000_000_000
            self.volley.fire(min(end, next_tick if asking else end, now + SLICE_NS), asking)
            if asking and time.monotonic_ns() >= next_tick:
                self._tick(tell)

    def _tick(self, tell: Callable[[Tick], None]) -> None:
        cells = list(self.cells)
        since = [new - old for new, old in zip(cells, self.before, strict=True)]
        found = quantiles(since[Cell.HISTOGRAM :], list(QUANTILES.values()))
        counts = since[Cell.SENT], since[Cell.ANSWERED], since[Cell.LOST]
        self.ticks.append(Tick(float(len(self.ticks) + 1), *counts, dict(zip(QUANTILES, found, strict=True))))
        self.before = cells
        tell(self.ticks[-1])


def _own_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
