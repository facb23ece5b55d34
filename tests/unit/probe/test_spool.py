"""The spool: bounded, the oldest lost first and counted, there again after whatever ended the process."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgedns.errors import EdgednsError
from edgedns.probe.spool import LEAST, Spool

EVER = 0.0
BIG = 1 << 20


def lines(first: int, last: int) -> list[bytes]:
    return [b'{"at":%d.5,"vantage":"fra1"}' % number for number in range(first, last)]


def drained(spool: Spool, most: int = 100, since: float = EVER) -> list[bytes]:
    found: list[bytes] = []
    while batch := spool.head(most, since):
        found += batch
        spool.done()
    return found


def sums_hold(spool: Spool, found: int) -> bool:
    return spool.taken + spool.lost + spool.expired + spool.waiting == found


def test_what_is_added_comes_back_in_order(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", BIG)
    spool.add(lines(0, 250))
    spool.add(lines(250, 300))
    assert spool.waiting == 300
    assert drained(spool) == lines(0, 300)
    assert (spool.waiting, spool.taken) == (0, 300)
    spool.add(lines(300, 310))
    assert drained(spool) == lines(300, 310)
    assert (tmp_path / "spool").stat().st_mode & 0o777 == 0o700


def test_the_head_is_the_same_until_it_is_done(tmp_path: Path) -> None:
    spool = Spool(tmp_path, BIG)
    spool.add(lines(0, 10))
    assert spool.head(4, EVER) == spool.head(8, EVER) == lines(0, 4)
    spool.add(lines(10, 20))
    spool.put_back()
    assert spool.head(3, EVER) == lines(0, 3)
    spool.done()
    assert drained(spool) == lines(3, 20)


def test_a_batch_that_may_have_been_taken_stays_one(tmp_path: Path) -> None:
    spool = Spool(tmp_path, BIG)
    spool.add(lines(0, 3))
    spool.add(lines(3, 6), alone=True)
    spool.add(lines(6, 9))
    batches = []
    while batch := spool.head(100, EVER):
        batches.append(len(batch))
        spool.done()
    assert batches == [3, 3, 3]


def test_another_process_goes_on_where_the_first_ended(tmp_path: Path) -> None:
    first = Spool(tmp_path, BIG)
    first.add(lines(0, 100))
    assert first.head(30, EVER) == lines(0, 30)
    first.done()
    first.head(30, EVER)  # handed over, and nobody knows whether it arrived
    first.close()
    second = Spool(tmp_path, BIG)
    assert second.waiting == 70
    assert second.head(30, EVER) == lines(30, 60)
    second.add(lines(100, 110))
    second.put_back()
    assert drained(second) == lines(30, 110)
    second.close()
    assert Spool(tmp_path, BIG).waiting == 0


def test_a_torn_last_line_is_dropped_and_counted(tmp_path: Path) -> None:
    first = Spool(tmp_path, BIG)
    first.add(lines(0, 10))
    first.close()
    (path,) = tmp_path.glob("0*.ndjson")
    os.truncate(path, path.stat().st_size - 5)
    second = Spool(tmp_path, BIG)
    assert (second.torn, second.waiting) == (1, 9)
    second.add(lines(20, 22))
    assert drained(second) == [*lines(0, 9), *lines(20, 22)]


def test_it_is_bounded_and_the_oldest_go(tmp_path: Path) -> None:
    spool = Spool(tmp_path, LEAST)
    for number in range(0, 20_000, 10):
        spool.add(lines(number, number + 10))
        assert sum(path.stat().st_size for path in tmp_path.glob("0*.ndjson")) <= LEAST + 400
    assert spool.lost > 0
    assert sums_hold(spool, 20_000)
    left = drained(spool)
    assert left == lines(spool.lost, 20_000)
    assert sums_hold(spool, 20_000)


def test_what_the_collector_would_refuse_for_its_age_is_dropped_and_counted(tmp_path: Path) -> None:
    spool = Spool(tmp_path, BIG)
    spool.add([*lines(0, 50), b"not what we write", *lines(100, 110)])
    assert drained(spool, since=105.0) == [b"not what we write", *lines(105, 110)]
    assert (spool.expired, spool.taken, spool.waiting) == (55, 6, 0)


def test_what_was_in_memory_when_the_process_was_killed_is_found(tmp_path: Path) -> None:
    killed = Spool(tmp_path, BIG)
    killed.add(lines(0, 5))
    killed.journal(lines(5, 8))
    killed.journal(lines(8, 9))
    killed.close()
    again = Spool(tmp_path, BIG)
    assert again.waiting == 9
    again.journal(lines(20, 30))
    again.clear()
    assert drained(again) == lines(0, 9)
    again.close()
    assert Spool(tmp_path, BIG).waiting == 0


def test_one_process_at_a_time(tmp_path: Path) -> None:
    spool = Spool(tmp_path, BIG)
    with pytest.raises(EdgednsError, match="is another process'"):
        Spool(tmp_path, BIG)
    spool.close()
    Spool(tmp_path, BIG).close()


def test_a_directory_that_can_not_be_used_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EdgednsError, match="can't be used: "):
        Spool(tmp_path / "file", BIG)


def test_a_full_disk_leaves_no_half_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = Spool(tmp_path, BIG)
    spool.add(lines(0, 10))
    write = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda descriptor, text: write(descriptor, text[:7]))
        with pytest.raises(OSError, match="the disk is full"):
            spool.add(lines(10, 20))
    spool.add(lines(20, 30))
    assert drained(spool) == [*lines(0, 10), *lines(20, 30)]


steps = st.lists(st.tuples(st.sampled_from(["add", "alone", "take", "peek", "restart"]), st.integers(1, 40)), max_size=30)


@settings(max_examples=80, deadline=None)
@given(steps)
def test_nothing_is_lost_twice_or_out_of_order(tmp_path_factory: pytest.TempPathFactory, moves: list[tuple[str, int]]) -> None:
    directory = tmp_path_factory.mktemp("spool")
    spool, added, taken = Spool(directory, BIG), 0, list[bytes]()
    for what, count in moves:
        if what in ("add", "alone"):
            spool.add(lines(added, added + count), alone=what == "alone")
            added += count
        elif what == "restart":
            spool.close()
            spool = Spool(directory, BIG)
        else:
            batch = list(spool.head(count, EVER))
            if what == "take":
                taken += batch
                spool.done()
        assert spool.waiting == added - len(taken)
    assert taken + drained(spool) == lines(0, added)
    spool.close()
