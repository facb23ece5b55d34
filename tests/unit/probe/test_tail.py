"""A followed log file: rotation of both kinds, lines in pieces, and what is passed over."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from edgedns.errors import SourceError
from edgedns.probe import tail
from edgedns.probe.tail import LINE_LIMIT, LINGER, OLD_FILES, Tail


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "access.log"
    path.write_bytes(b"before\n")
    return path


def write(path: Path, text: bytes) -> None:
    with path.open("ab") as file:
        file.write(text)


def read(followed: Tail, now: float = 0.0) -> list[bytes]:
    return list(followed.lines(now))


def test_it_begins_at_the_end(log: Path) -> None:
    followed = Tail(log)
    assert read(followed) == []
    write(log, b"one\ntwo\n")
    assert read(followed) == [b"one", b"two"]
    assert read(followed) == []


def test_a_line_under_way_at_the_start_is_left_out(log: Path) -> None:
    write(log, b"half of")
    followed = Tail(log)
    write(log, b" a line")
    assert read(followed) == []
    write(log, b"\nwhole\n")
    assert read(followed) == [b"whole"]


def test_a_line_in_pieces_is_one_line(log: Path) -> None:
    followed = Tail(log)
    found = []
    for piece in (b"on", b"e\nt", b"", b"w", b"o\n"):
        write(log, piece)
        found += read(followed)
    assert found == [b"one", b"two"]


def test_a_file_to_come_is_read_from_its_beginning(tmp_path: Path) -> None:
    followed = Tail(tmp_path / "later.log")
    assert read(followed) == []
    write(tmp_path / "later.log", b"first\n")
    assert read(followed) == [b"first"]


def test_the_writer_of_a_renamed_file_goes_on_for_a_while(log: Path) -> None:
    followed = Tail(log)
    writer = log.open("ab", buffering=0)
    writer.write(b"one\n")
    log.rename(log.with_suffix(".1"))
    writer.write(b"two\n")
    assert read(followed) == [b"one", b"two"]  # no successor yet
    write(log, b"new one\n")
    writer.write(b"three\nfo")
    assert sorted(read(followed, 1.0)) == [b"new one", b"three"]
    writer.write(b"ur\n")
    write(log, b"new two\n")
    assert sorted(read(followed, 2.0)) == [b"four", b"new two"]
    assert followed.rotations == 1
    writer.close()


def test_a_renamed_file_is_let_go_once_it_is_quiet(log: Path) -> None:
    opened = len(os.listdir("/proc/self/fd"))
    followed = Tail(log)
    writer = log.open("ab", buffering=0)
    log.rename(log.with_suffix(".1"))
    write(log, b"")
    read(followed, 0.0)
    writer.write(b"late\n")
    assert read(followed, LINGER - 1) == [b"late"]
    assert read(followed, LINGER + 1) == []
    assert len(os.listdir("/proc/self/fd")) == opened + 3
    read(followed, 2 * LINGER + 1)
    assert len(os.listdir("/proc/self/fd")) == opened + 2
    writer.close()
    followed.close()
    assert len(os.listdir("/proc/self/fd")) == opened


def test_files_renamed_one_after_the_other_are_not_kept_for_ever(log: Path) -> None:
    opened = len(os.listdir("/proc/self/fd"))
    followed = Tail(log)
    for number in range(20):
        log.rename(log.with_suffix(f".{number}"))
        write(log, b"%d\n" % number)
        assert read(followed) == [b"%d" % number]
    assert len(os.listdir("/proc/self/fd")) <= opened + OLD_FILES + 1
    followed.close()


def test_a_truncated_file_is_read_from_its_beginning(log: Path) -> None:
    followed = Tail(log)
    write(log, b"one\ntwo\nthr")
    assert read(followed) == [b"one", b"two"]
    os.truncate(log, 0)
    write(log, b"four\n")
    assert read(followed) == [b"four"]
    assert followed.truncations == 1


def test_a_line_too_long_is_left_out_and_counted(log: Path) -> None:
    followed = Tail(log)
    write(log, b"x" * (LINE_LIMIT + 1))
    read(followed)
    write(log, b"x" * (5 * LINE_LIMIT))
    read(followed)
    write(log, b"\nshort\n" + b"y" * (LINE_LIMIT + 1) + b"\nlast\n")
    assert read(followed) == [b"short", b"last"]
    assert followed.too_long == 2


def test_who_is_far_behind_skips(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tail, "CHUNK", 100)
    monkeypatch.setattr(tail, "BEHIND_LIMIT", 1000)
    followed = Tail(log)
    write(log, b"".join(b"%09d\n" % number for number in range(200)))
    found = read(followed)
    assert found == [b"%09d" % number for number in range(191, 200)]
    assert followed.skipped == 1900
    write(log, b"".join(b"%09d\n" % number for number in range(20)))
    assert len(read(followed)) == 10
    assert followed.is_behind
    assert len(read(followed)) == 10
    assert not followed.is_behind


def test_the_old_file_is_read_on_while_the_new_one_cannot_be(log: Path) -> None:
    followed, found = Tail(log), list[bytes]()
    writer = log.open("ab", buffering=0)
    log.rename(log.with_suffix(".1"))
    log.mkdir()
    for line in (b"one", b"two"):
        writer.write(line + b"\n")
        with pytest.raises(SourceError, match="not a plain file"):
            found.extend(followed.lines(0.0))
    log.rmdir()
    write(log, b"three\n")
    assert read(followed) == [b"three"]
    writer.close()
    assert found == [b"one", b"two"]


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
def test_what_is_no_file_is_told(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "odd")
    with pytest.raises(SourceError, match="odd"):
        Tail(tmp_path / "odd")
