"""Publishing: names by content, one rename of root, old generations, damage, and what law 8 refuses."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgedns.control.schedule import Scheduler, fresh_until
from edgedns.errors import PublishRefused, SourceError
from edgedns.publish import Facts, Publisher, Root, Step, files_of, read_root, refuse_implausible
from edgedns.steer.table.rtt import RttStore
from edgedns.steer.table.wan import estimate

NOW = 1_790_000_000.0


def root_of(publisher: Publisher, content: bytes, **extra: Any) -> Root:
    overlay = publisher.put("overlay", content)
    return Root(publisher.put("atoms", b"a", "key"), publisher.put("base", b"b"), (Step(0.0, overlay),), NOW, 0.0, extra)


def test_a_file_is_named_by_its_content_and_written_once(tmp_path: Path) -> None:
    publisher = Publisher(tmp_path, "n")
    name = publisher.put("overlay", b"one")
    before = (tmp_path / name).stat()
    assert publisher.put("overlay", b"one") == name
    assert (tmp_path / name).stat().st_mtime_ns == before.st_mtime_ns
    assert publisher.put("overlay", b"two") != name
    assert publisher.put("base", b"one") != name
    assert publisher.put("atoms", b"x", "0123") == "atoms-0123.bin"


def test_a_file_that_is_not_what_its_name_says_is_written_again(tmp_path: Path) -> None:
    publisher = Publisher(tmp_path, "n")
    name = publisher.put("overlay", b"one")
    mapped = open(tmp_path / name, "rb")  # noqa: SIM115
    (tmp_path / "other").write_bytes(b"xxx")
    os.replace(tmp_path / "other", tmp_path / name)
    assert publisher.put("overlay", b"one") == name
    assert (tmp_path / name).read_bytes() == b"one"
    assert mapped.read() == b"one"  # by renaming: who has it open is not disturbed
    mapped.close()


def test_serials_go_on_over_restarts(tmp_path: Path) -> None:
    publisher = Publisher(tmp_path, "n")
    assert [publisher.publish(root_of(publisher, b"%d" % i)) for i in range(3)] == [1, 2, 3]
    again = Publisher(tmp_path, "n")
    assert again.publish(root_of(again, b"9")) == 4
    found = read_root(tmp_path)
    assert found is not None
    assert (found["serial"], found["node"], found["published"]) == (4, "n", NOW)
    assert found == again.root


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"format": 2}', b'{"format": 1, "serial": "x"}', b"[" * 9999, b"\xff"])
def test_a_root_that_cannot_be_read_is_told_and_replaced(tmp_path: Path, content: bytes) -> None:
    publisher = Publisher(tmp_path, "n")
    (tmp_path / "root.json").write_bytes(content)
    with pytest.raises(SourceError, match="it is published anew"):
        publisher.last()
    assert publisher.publish(root_of(publisher, b"1")) == 1
    assert publisher.last()


def test_a_root_deleted_meanwhile_does_not_turn_serials_back(tmp_path: Path) -> None:
    publisher = Publisher(tmp_path, "n")
    publisher.publish(root_of(publisher, b"1"))
    (tmp_path / "root.json").unlink()
    assert publisher.damaged() == {"root.json"}
    assert publisher.publish(root_of(publisher, b"2")) == 2
    assert publisher.damaged() == set()


def test_damage_to_a_published_file_is_noticed(tmp_path: Path) -> None:
    publisher = Publisher(tmp_path, "n")
    publisher.publish(root_of(publisher, b"1"))
    assert publisher.root is not None
    base = publisher.root["base"]
    (tmp_path / base).write_bytes(b"x")
    assert publisher.damaged() == {base}
    publisher.put("base", b"b")
    publisher.publish(root_of(publisher, b"1"))
    assert publisher.damaged() == set()


def test_damage_between_writing_and_publishing_is_noticed_too(tmp_path: Path) -> None:
    publisher = Publisher(tmp_path, "n")
    root = root_of(publisher, b"1")
    (tmp_path / "aside").write_bytes(b"b")  # as long as what it replaces
    os.replace(tmp_path / "aside", tmp_path / root.base)
    publisher.publish(root)
    assert publisher.damaged() == {root.base}


def test_a_file_that_was_never_there_is_damage_too(tmp_path: Path) -> None:
    publisher = Publisher(tmp_path, "n")
    root = root_of(publisher, b"1")
    publisher.publish(root)
    publisher.publish(replace(root, base="base-swept.bin"))
    assert publisher.damaged() == {"base-swept.bin"}


def test_what_waits_for_its_root_is_kept(tmp_path: Path) -> None:
    publisher = Publisher(tmp_path, "n")
    publisher.publish(root_of(publisher, b"1"))
    waiting = publisher.put("base", b"takes seconds more")
    assert publisher.sweep() == []
    for number in range(2):  # a round, a failover
        publisher.publish(root_of(publisher, b"%d" % number))
        assert publisher.sweep() == []
    assert (tmp_path / waiting).exists()
    for number in range(10):
        publisher.publish(root_of(publisher, b"%d" % number))
    assert waiting in publisher.sweep()


def test_the_last_generations_and_what_is_mapped_are_kept(tmp_path: Path) -> None:
    publisher = Publisher(tmp_path, "n")
    roots = [root_of(publisher, b"%d" % i) for i in range(10)]
    for root in roots:
        publisher.publish(root)
    (tmp_path / f".base-x.bin.{os.getpid() + 1}").write_bytes(b"half")  # of a process that died
    overlays = [root.schedule[0].overlay for root in roots]
    gone = publisher.sweep(mapped=[overlays[0]])
    assert set(overlays[1:6]) <= set(gone)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"root.json", overlays[0], *overlays[6:], roots[0].atoms, roots[0].base}
    assert files_of(publisher.root or {}) <= left
    assert publisher.sweep([overlays[0]]) == []


def test_what_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    publisher = Publisher(tmp_path / "published", "n")
    (tmp_path / "published").rmdir()
    publisher.put("base", b"b")  # made again
    (tmp_path / "published/root.json").mkdir()
    with pytest.raises(SourceError, match=r"^can't write .*root\.json: Is a directory$"):
        publisher.publish(root_of(publisher, b"1"))
    assert publisher.root is None
    (tmp_path / "file").write_text("")
    with pytest.raises(SourceError, match="can't make"):
        Publisher(tmp_path / "file" / "published", "n")


def test_a_crash_while_writing_leaves_the_last_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publisher = Publisher(tmp_path, "n")
    publisher.publish(root_of(publisher, b"1"))
    before = (tmp_path / "root.json").read_bytes()

    def crash(_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", crash)
    with pytest.raises(SourceError, match="No space left on device"):
        publisher.publish(root_of(publisher, b"1", zones={}))
    assert (tmp_path / "root.json").read_bytes() == before
    assert json.loads(before)["serial"] == 1


FACTS = Facts(measured_at=NOW, rows=100, last_rows=100, moved=0.1, limit=0.5, oldest=600.0)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"measured_at": NOW + 60}, "the WAN table is dated 60 s in the future: check this machine's clock"),
        ({"measured_at": NOW - 700}, "the WAN table is 700 s old, more than 600 s: are probes arriving?"),
        ({"rows": 49}, "the WAN table shrank from 100 to 49 rows: are probes arriving?"),
        ({"moved": 0.51}, r"51% of queries would move at once, the limit is 50% \(max_moved_share in providers.yaml\)"),
    ],
)
def test_the_implausible_is_refused(changed: dict[str, float], message: str) -> None:
    with pytest.raises(PublishRefused, match=message):
        refuse_implausible(Facts(**{name: changed.get(name, getattr(FACTS, name)) for name in Facts.__slots__}), NOW)


@pytest.mark.parametrize("changed", [{}, {"rows": 50}, {"moved": 0.5}, {"measured_at": NOW + 4}, {"last_rows": 0, "rows": 0}])
def test_the_plausible_is_not(changed: dict[str, float]) -> None:
    refuse_implausible(Facts(**{name: changed.get(name, getattr(FACTS, name)) for name in Facts.__slots__}), NOW)


@given(
    taken=st.lists(st.floats(0, 100), min_size=1, max_size=60),
    fresh_for=st.floats(1, 3600),
)
def test_fresh_until_is_never_far_from_what_is_promised(taken: list[float], fresh_for: float) -> None:
    now, published = NOW, 0.0
    for pause in taken:
        now += pause
        before, published = published, fresh_until(now, fresh_for, published, now)
        assert now + 0.9 * fresh_for - 1e-6 <= published <= now + fresh_for
        assert published >= before
    assert fresh_until(0.0, fresh_for, published, now) == 0.0
    assert fresh_until(now, fresh_for / 2, published, now) == pytest.approx(now + fresh_for / 2)  # the rules were changed


def test_a_table_that_is_as_it_was_is_not_packed_again_unless_its_file_is_gone(tmp_path: Path, monkeypatch: Any) -> None:
    """A failover between rounds does not wait for the table's octets."""
    scheduler, table, packed = Scheduler(Publisher(tmp_path, "test")), estimate(RttStore()), []
    monkeypatch.setattr(np, "savez", lambda file, **sections: packed.append(file.write(repr(sections).encode())))
    names = {scheduler.table(table) for _ in range(3)}
    assert len(packed) == len(names) == 1
    (tmp_path / names.copy().pop()).unlink()
    assert {scheduler.table(table)} == names
    assert len(packed) == 2
    assert (tmp_path / names.pop()).exists()
    scheduler.table(replace(table, at=7.0))
    assert len(packed) == 3
