"""The ring of samples: what is written is read, however often it went round and whoever damaged it."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import threading
import zlib
from itertools import pairwise
from pathlib import Path

import pytest

from edgedns import metrics
from edgedns.engine import seen
from edgedns.engine.seen import HEAD, NOT_STEERED, OCTETS, SIZE, Ring, Seen
from edgedns.model import Reason
from edgedns.serve.current import Current

NAME = b"\3www\7example\0"
ONE = Seen(1000.5, bytes((192, 0, 2, 1)), bytes((203, 0, 113, 0)), 24, NAME, 1, 0, 4711, True, False)
OTHER = Seen(1001.0, b"\x20\x01\x0d\xb8" + bytes(12), b"", 0, b"", 0, 1, NOT_STEERED, False, True)
LONG = b"".join(b"\x3f" + b"x" * 63 for _ in range(3)) + b"\x3d" + b"y" * 61 + b"\0"


def ring_of(places: int, step: int = 1) -> Ring:
    return Ring(memoryview(bytearray(HEAD + places * SIZE)), 7, step)


def opened(run: Path, slot: int) -> Ring:
    return Ring(metrics.map_ring(metrics.ring_path(run, slot), OCTETS), 7, 1)


def test_what_is_written_is_read() -> None:
    ring, written = ring_of(4), [ONE, OTHER, ONE._replace(at=1002.0, name=LONG), OTHER._replace(at=1003.0, name=b"\0", qtype=2)]
    assert len(LONG) == 255
    for one in written:
        seen.note(ring, one)
    assert seen.parse(ring.octets.tobytes()) == written
    assert seen.parse(ring.octets.tobytes(), 1001.0, 1003.0) == written[1:3]


def test_the_oldest_are_written_over() -> None:
    ring = ring_of(5)
    for number in range(13):
        seen.note(ring, ONE._replace(at=float(number)))
    assert [one.at for one in seen.parse(ring.octets.tobytes())] == [8.0, 9.0, 10.0, 11.0, 12.0]


def test_an_entry_that_is_being_written_is_passed_over() -> None:
    ring = ring_of(3)
    for one in (ONE, OTHER, ONE):
        seen.note(ring, one)
    for place in range(seen.NAME + len(OTHER.name)):
        torn = bytearray(ring.octets)
        torn[HEAD + SIZE + place] ^= 0x10
        assert len(seen.parse(bytes(torn))) == 2


def test_whatever_lies_in_a_file_is_no_error(tmp_path: Path) -> None:
    ring = opened(tmp_path, 0)
    seen.note(ring, ONE)
    seen.note(ring, OTHER._replace(at=math.nan))
    whole = metrics.ring_path(tmp_path, 0).read_bytes()
    strange = bytearray(whole)
    body = bytearray(strange[HEAD + SIZE + seen.CHECK : HEAD + 2 * SIZE])
    body[56] = 9  # a family that there isn't, and a good checksum
    strange[HEAD + SIZE : HEAD + 2 * SIZE] = zlib.adler32(body[: seen.BODY.size + len(OTHER.name)]).to_bytes(4, "little") + body
    contents = (whole[:-1], whole[: HEAD + 2 * SIZE], bytes(strange), b"", bytes(OCTETS), b"x" * 999, whole[:8])
    for slot, content in enumerate(contents, 1):
        metrics.ring_path(tmp_path, slot).write_bytes(content)
    metrics.ring_path(tmp_path, 8).symlink_to("/proc/1/fd/99999")
    os.mkfifo(metrics.ring_path(tmp_path, 9))  # reading would wait for who writes
    metrics.ring_path(tmp_path, 10).mkdir()
    assert seen.read(tmp_path) == [ONE, ONE, ONE]
    assert opened(tmp_path, 5).octets[HEAD:] == bytes(OCTETS - HEAD)


def test_all_workers_are_read_and_a_new_one_begins_anew(tmp_path: Path) -> None:
    seen.note(opened(tmp_path, 0), OTHER)
    seen.note(opened(tmp_path, 1), ONE)
    assert seen.read(tmp_path) == [ONE, OTHER]
    seen.note(opened(tmp_path, 0), OTHER._replace(at=1002.0))
    assert seen.read(tmp_path) == [ONE, OTHER._replace(at=1002.0)]
    assert seen.read(tmp_path, 1001.5) == [OTHER._replace(at=1002.0)]
    assert metrics.ring_path(tmp_path, 0).stat().st_mode & 0o777 == 0o600  # it holds addresses


def test_no_disk_has_a_page_of_it(tmp_path: Path) -> None:
    ring = opened(tmp_path, 0)
    assert len(ring.octets) == OCTETS
    mapped = [line for line in Path("/proc/self/smaps").read_text().splitlines() if "worker-0.seen" in line]
    assert mapped
    assert all("memfd:" in line for line in mapped)


def test_it_ends_with_its_process(tmp_path: Path) -> None:
    noting = "import sys, tests.unit.engine.test_seen as t; t.seen.note(t.opened(t.Path(sys.argv[1]), 3), t.ONE)"
    subprocess.run([sys.executable, "-c", noting, str(tmp_path)], check=True)
    assert metrics.ring_path(tmp_path, 3).is_symlink()
    assert seen.read(tmp_path) == []


@pytest.mark.parametrize("step", [1, 32])
def test_one_in_so_many_at_no_fixed_distance(step: int) -> None:
    ring = ring_of(1, step)
    places = [place for place in range(step * 4000) if seen.due(ring)]
    assert len(places) == pytest.approx(4000, rel=0.05)
    distances = {after - before for before, after in pairwise(places)}
    assert distances == set(range(1, 2 * step))


def test_many_are_counted_as_one_by_one() -> None:
    ring, many = (Ring(memoryview(bytearray(OCTETS)), 5, 4) for _ in range(2))
    for count in (0, 1, 2, 31, 32, 0, 100, 3):
        assert seen.drawn(many, count) == [place for place in range(count) if seen.due(ring)]
        assert many.dice == ring.dice


def test_threads_may_write_at_once() -> None:
    ring = ring_of(4000)

    def write(first: int) -> None:
        for number in range(1000):
            if seen.due(ring):
                seen.note(ring, ONE._replace(at=float(first + number)))

    threads = [threading.Thread(target=write, args=(first,)) for first in (0, 1000, 2000)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(one.at for one in seen.parse(ring.octets.tobytes())) == [float(number) for number in range(3000)]


def test_what_was_chosen_is_told_by_the_registry(tmp_path: Path) -> None:
    registry = metrics.Registry(tmp_path / "registry")
    registry.block("requests", ("example",), len(metrics.SHAPES["requests"].cells))
    size = len(metrics.SHAPES["answers"].cells)
    first = registry.block("answers", ("example", "rest", "alder"), size)
    second = registry.block("answers", ("example", "rest", "none"), size)
    cells = (first + Reason.HELD, second + Reason.ALL_DOWN, second + size, first - 1, NOT_STEERED)
    told = seen.chosen(registry.blocks(), [ONE._replace(answered=cell) for cell in cells])
    assert told == [("example", "rest", "alder", "HELD"), ("example", "rest", "none", "ALL_DOWN"), None, None, None]
    assert seen.chosen([], [ONE]) == [None]


def test_a_worker_without_room_for_a_ring_answers(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    metrics.ring_path(run, 0).mkdir()
    counters = metrics.Counters(metrics.counters_path(run, 0))
    assert Current(tmp_path, counters).serial == 0
