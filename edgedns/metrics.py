"""Plain integer counters in shared memory, one file per worker, and their totals.

Standard library only, nothing of ours: serving processes import this module.

A worker adds to u64 cells in `<run>/worker-<slot>.counters`. A new worker of the slot opens the same file and goes on
adding, so totals survive deaths; whoever reads sums the files of all slots. What a cell means is fixed for the first
FIXED of them and lies in the Registry for the rest. `cells[i] += 1` is one step for the threads of a process: the
interpreter changes threads only at calls and backward jumps, and there is neither inside it.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import re
import stat
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product
from operator import add
from pathlib import Path
from typing import Final, NamedTuple

MAGIC: Final = int.from_bytes(b"edgcnt\x00\x01", "little")
RING_MAGIC: Final = int.from_bytes(b"edgring\x02", "little")
RING_HEAD: Final = 64
HEADER: Final = 16
CELLS: Final = 1 << 18
OVERFLOW: Final = 4096

# The fixed cells. Of each transport, RECEIVED = REPLIED + SILENT + RAISED + UNSENT.
UDP_RECEIVED: Final = 0
UDP_REPLIED: Final = 1
UDP_SILENT: Final = 2
UDP_RAISED: Final = 3
UDP_UNSENT: Final = 4
TCP_RECEIVED: Final = 5
TCP_REPLIED: Final = 6
TCP_SILENT: Final = 7
TCP_RAISED: Final = 8
TCP_UNSENT: Final = 9
TRUNCATED: Final = 10
TCP_ACCEPTED: Final = 11
TCP_REFUSED: Final = 12
TCP_IDLE_CLOSED: Final = 13
RATE_DROPPED: Final = 14
RATE_SLIPPED: Final = 15
HANDED_BACK: Final = 16
SHED: Final = 17
FIXED: Final = 64

# What the cells of one registered block mean, in order; an engine's index into a block is an index into these.
REQUEST_TYPES: Final = (
    "A", "AAAA", "ANY", "CAA", "CNAME", "DNSKEY", "DS", "HTTPS", "MX", "NAPTR", "NS", "PTR", "SOA", "SRV", "SVCB", "TXT",
    "other",
)  # fmt: skip
RCODES: Final = (
    "NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED", "YXDOMAIN", "YXRRSET", "NXRRSET", "NOTAUTH",
    "NOTZONE", "RCODE11", "RCODE12", "RCODE13", "RCODE14", "RCODE15", "BADVERS", "BADKEY", "BADTIME", "BADMODE",
    "BADNAME", "BADALG", "BADTRUNC", "BADCOOKIE",
)  # fmt: skip
REASONS: Final = (
    "PINNED", "WEIGHTED", "ORDERED", "MEASURED", "HELD", "SPILLED", "FAILED_OVER", "GUARDED", "HOLDOUT", "NOMINAL",
    "ALL_DOWN",
)  # fmt: skip


class Shape(NamedTuple):
    """A kind of block: its metric's name and help, the labels of a block, and the labels of each of its cells."""

    name: str
    help: str
    labels: tuple[str, ...]
    cell_labels: tuple[str, ...]
    cells: tuple[tuple[str, ...], ...]


# Named as CoreDNS names its own; there, family "1" is IPv4 and "2" is IPv6.
SHAPES: Final[dict[str, Shape]] = {
    "requests": Shape(
        "edgedns_dns_requests",
        "Queries received.",
        ("zone",),
        ("proto", "family", "type"),
        tuple(product(("udp", "tcp"), ("1", "2"), REQUEST_TYPES)),
    ),
    "responses": Shape("edgedns_dns_responses", "Responses sent.", ("zone",), ("rcode",), tuple((name,) for name in RCODES)),
    "answers": Shape(
        "edgedns_dns_answers",
        "Steered answers, by the rule that matched, the provider given and why.",
        ("zone", "rule", "provider"),
        ("reason",),
        tuple((name,) for name in REASONS),
    ),
}


def _map_file(path: Path, size: int, magic: bytes) -> mmap.mmap:
    """Map `path` shared, `size` octets; a file of another size or start is replaced. OSError when it can't be."""
    if path.exists() and not _is_ours(path, size, magic):
        path.unlink()  # whoever still maps it keeps it
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        # Reserved now, so that a full disk is an error here and not a SIGBUS at some later count.
        os.posix_fallocate(descriptor, 0, size)
        return mmap.mmap(descriptor, size)
    finally:
        os.close(descriptor)


def _is_ours(path: Path, size: int, magic: bytes) -> bool:
    with path.open("rb") as file:
        return os.fstat(file.fileno()).st_size == size and file.read(len(magic)) == magic


class Counters:
    """One worker's cells. `cells` is a u64 view of CELLS; count with `cells[i] += 1`.

    Without a path the cells lie in memory of this process alone (a worker answers even where it can't count).
    """

    def __init__(self, path: Path | None = None) -> None:
        size = (HEADER + CELLS) * 8
        mapped = _map_file(path, size, MAGIC.to_bytes(8, "little")) if path else mmap.mmap(-1, size)
        self.path = path
        self._header: memoryview[int] = memoryview(mapped).cast("Q")
        self.cells: memoryview[int] = self._header[HEADER:]
        self._header[1] = CELLS
        self._header[0] = MAGIC

    def begin(self, pid: int, started: float) -> None:
        """Note whose cells these are from now on; `started` in Unix seconds."""
        self._header[2] = pid
        self._header[3] = int(started * 1000)
        self._header[4] = 0
        self._header[5] = 0

    def beat(self, monotonic: float, serial: int) -> None:
        """Note that the worker lives (seconds of CLOCK_MONOTONIC) and which snapshot it serves."""
        self._header[4] = serial
        self._header[5] = int(monotonic * 1000)


class NetworkCounts:
    """Queries per network of one worker: `counts` is a u32 view of `size` entries, indexed by network id.

    A u32 wraps; count with `counts[n] = counts[n] + 1 & 0xFFFFFFFF`, and take differences modulo 2**32.
    The file's name carries the digest of the atoms that the ids are of: see `networks_path`.
    """

    def __init__(self, path: Path | None, size: int) -> None:
        octets = max(size, 1) * 4
        mapped = _map_file(path, octets, b"") if path else mmap.mmap(-1, octets)
        self.path = path
        self.counts: memoryview[int] = memoryview(mapped).cast("I")


def counters_path(run: Path, slot: int) -> Path:
    return run / f"worker-{slot}.counters"


def networks_path(run: Path, slot: int, digest: str) -> Path:
    return run / f"worker-{slot}-{digest}.networks"


def read_networks(run: Path, digest: str) -> list[bytes]:
    """The u32 arrays (native order) of every worker, dead ones too, that counted networks of these atoms."""
    return [path.read_bytes() for path in sorted(run.glob(f"worker-*-{digest}.networks"))]


def drop_networks(run: Path, keep: Iterable[str]) -> None:
    """Delete the counts of atoms whose digest isn't in `keep`; a worker that still maps one keeps its own copy."""
    kept = tuple(f"-{digest}.networks" for digest in keep)
    for path in run.glob("worker-*-*.networks"):
        if not path.name.endswith(kept):
            path.unlink(missing_ok=True)


def ring_path(run: Path, slot: int) -> Path:
    return run / f"worker-{slot}.seen"


def map_ring(path: Path, octets: int) -> memoryview:
    """A worker's ring of samples (engine.seen), empty; only its owner reads it: it holds addresses. OSError if it can't be.

    It ends with the process: `path` leads others to its memory, which no disk has a copy of, so that no answer waits for one.
    """
    descriptor = os.memfd_create(path.name)
    os.fchmod(descriptor, 0o600)
    os.ftruncate(descriptor, octets)
    mapped = memoryview(mmap.mmap(descriptor, octets, mmap.MAP_SHARED | mmap.MAP_POPULATE))
    mapped[:RING_HEAD].cast("Q")[0] = RING_MAGIC
    aside = path.with_suffix(f".{os.getpid()}.new")
    aside.symlink_to(f"/proc/{os.getpid()}/fd/{descriptor}")
    aside.replace(path)
    return mapped


def read_rings(run: Path) -> list[bytes]:
    """The content of the rings of all workers that live."""
    found = []
    for path in sorted(run.glob("worker-*.seen")):
        with contextlib.suppress(OSError):
            found.append(_read_ring(path))
    return [content for content in found if content]


def _read_ring(path: Path) -> bytes:
    """Empty where the path leads to something else: a process may have the number of one that is gone."""
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        regular = stat.S_ISREG(os.fstat(file.fileno()).st_mode)
        magic = file.read(8) if regular else b""
        return magic + file.read() if magic == RING_MAGIC.to_bytes(8, "little") else b""


class WorkerHead(NamedTuple):
    """The header of a counter file: times in seconds, `started` Unix, `beat` CLOCK_MONOTONIC (0 before the first)."""

    slot: int
    pid: int
    started: float
    serial: int
    beat: float


def read_head(run: Path, slot: int) -> WorkerHead | None:
    """The header of one slot's file, None when there is none that is ours."""
    try:
        with counters_path(run, slot).open("rb") as file:
            cells = array("Q", file.read(HEADER * 8))
    except (OSError, ValueError):
        return None
    if len(cells) < HEADER or cells[0] != MAGIC:
        return None
    return WorkerHead(slot, cells[2], cells[3] / 1000, cells[4], cells[5] / 1000)


def slots(run: Path) -> list[int]:
    """The slots that have, or once had, a worker."""
    names = (re.fullmatch(r"worker-(\d+)\.counters", path.name) for path in run.glob("worker-*.counters"))
    return sorted(int(match[1]) for match in names if match)


def read_totals(run: Path, count: int = FIXED) -> array[int]:
    """The first `count` cells, summed over the workers of all times."""
    totals = array("Q", bytes(count * 8))
    for slot in slots(run):
        try:
            with counters_path(run, slot).open("rb") as file:
                content = file.read((HEADER + count) * 8)
        except FileNotFoundError:
            continue
        if len(content) == (HEADER + count) * 8 and int.from_bytes(content[:8], "little") == MAGIC:
            totals = array("Q", map(add, totals, array("Q", content[HEADER * 8 :])))
    return totals


class Block(NamedTuple):
    """`size` cells from index `base` on, which count `kind` for these label values."""

    kind: str
    labels: tuple[str, ...]
    size: int
    base: int


class Registry:
    """Who counts where. Append-only and kept in a file, so that running workers and the next control process agree.

    One JSON line per block, written as soon as it is given out. When the cells are used up, further blocks share the
    last OVERFLOW cells: counted still, told apart no more.
    """

    def __init__(self, path: Path, capacity: int = CELLS) -> None:
        self._path = path
        self._end = capacity - OVERFLOW
        self._blocks: dict[tuple[str, tuple[str, ...], int], Block] = {}
        self.used = FIXED
        self._read()

    def block(self, kind: str, labels: tuple[str, ...], size: int) -> int:
        """Index of the first of `size` cells for this kind and labels: the same at each call. ValueError over OVERFLOW."""
        if not 0 < size <= OVERFLOW:
            raise ValueError(f"a block has 1 to {OVERFLOW} cells, not {size}")
        known = self._blocks.get((kind, labels, size))
        if known:
            return known.base
        if self.used + size > self._end:
            return self._end
        block = Block(kind, labels, size, self.used)
        line = json.dumps([kind, list(labels), size, self.used]) + "\n"
        with self._path.open("a", encoding="utf-8") as file:
            file.write(line)
        self._add(block)
        return block.base

    def blocks(self) -> list[Block]:
        return list(self._blocks.values())

    def _add(self, block: Block) -> None:
        self._blocks[block.kind, block.labels, block.size] = block
        self.used = block.base + block.size

    def _read(self) -> None:
        """Take the blocks of an earlier process; a line cut short by its death ends the file there."""
        try:
            lines = self._path.read_bytes().splitlines(keepends=True)
        except FileNotFoundError:
            return
        good = 0
        for line in lines:
            block = _parse_block(line)
            if block is None or block.base != self.used:
                os.truncate(self._path, good)
                return
            self._add(block)
            good += len(line)


def _parse_block(line: bytes) -> Block | None:
    try:
        kind, labels, size, base = json.loads(line)
    except ValueError:
        return None
    if not (line.endswith(b"\n") and isinstance(labels, list) and isinstance(size, int) and isinstance(base, int)):
        return None
    return Block(str(kind), tuple(map(str, labels)), size, base)


class Family(NamedTuple):
    """One metric with its samples, each (label values, value), ready for any exposition format."""

    name: str
    help: str
    type: str
    labels: tuple[str, ...]
    samples: Sequence[tuple[tuple[str, ...], float]]


def families(registry: Registry, run: Path) -> Iterator[Family]:
    """Every counter of the workers, summed; cells that never counted are left out of the registered kinds."""
    totals = read_totals(run, registry.used)
    yield from _fixed_families(totals)
    for kind, shape in SHAPES.items():
        samples = [
            ((*block.labels, *cell), float(totals[block.base + index]))
            for block in registry.blocks()
            if block.kind == kind and block.size == len(shape.cells)
            for index, cell in enumerate(shape.cells)
            if totals[block.base + index]
        ]
        yield Family(shape.name, shape.help, "counter", shape.labels + shape.cell_labels, samples)
    yield from _worker_families([head for slot in slots(run) if (head := read_head(run, slot))])


_OUTCOMES: Final = ("replied", "silent", "raised", "unsent")


def _fixed_families(totals: array[int]) -> Iterator[Family]:
    for proto, first in (("udp", UDP_RECEIVED), ("tcp", TCP_RECEIVED)):
        name, what = f"edgedns_{proto}_received", f"Messages received over {proto.upper()}, the sum of all outcomes."
        yield Family(name, what, "counter", (), [((), float(totals[first]))])
        samples = [((outcome,), float(totals[first + 1 + i])) for i, outcome in enumerate(_OUTCOMES)]
        yield Family(f"edgedns_{proto}_outcomes", "What became of each message.", "counter", ("outcome",), samples)
    for cell, name, what in (
        (TRUNCATED, "edgedns_truncated_replies", "Replies sent with TC set."),
        (TCP_ACCEPTED, "edgedns_tcp_accepted", "TCP connections accepted."),
        (TCP_REFUSED, "edgedns_tcp_refused", "TCP connections closed early to make room."),
        (TCP_IDLE_CLOSED, "edgedns_tcp_idle_closed", "TCP connections closed because nothing was asked or read."),
        (RATE_DROPPED, "edgedns_rate_dropped", "Replies that rate limiting dropped, or would have."),
        (RATE_SLIPPED, "edgedns_rate_slipped", "Replies that rate limiting truncated, or would have."),
        (HANDED_BACK, "edgedns_handed_back", "UDP messages that the native engine left to the reference path."),
        (SHED, "edgedns_shed", "Of those, the ones that were not answered because too many came at once."),
    ):
        yield Family(name, what, "counter", (), [((), float(totals[cell]))])


def _worker_families(heads: Sequence[WorkerHead]) -> Iterator[Family]:
    serials = [((str(head.slot),), float(head.serial)) for head in heads]
    yield Family("edgedns_worker_serial", "Snapshot that the slot's worker serves or last served.", "gauge", ("slot",), serials)


def control_families(
    serial: int, wan_age: float, reloads: Mapping[str, int], samples: Mapping[str, int], restarts: int
) -> Iterator[Family]:
    """What the control process itself counts; `reloads` and `samples` by result, `wan_age` in seconds (NaN: no table)."""
    yield Family("edgedns_snapshot_serial", "Snapshot that was published last.", "gauge", (), [((), float(serial))])
    yield Family("edgedns_wan_age_seconds", "Age of the WAN table that steers.", "gauge", (), [((), wan_age)])
    yield Family("edgedns_reloads", "Loads of the rules, by result.", "counter", ("result",), _by_result(reloads))
    yield Family("edgedns_samples", "Sample lines received, by result.", "counter", ("result",), _by_result(samples))
    yield Family("edgedns_worker_restarts", "Workers started again.", "counter", (), [((), float(restarts))])


def _by_result(counts: Mapping[str, int]) -> list[tuple[tuple[str, ...], float]]:
    return [((result,), float(count)) for result, count in counts.items()]
