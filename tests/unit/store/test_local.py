"""The state directory: what was kept comes back, what is damaged is told, what fails leaves the old."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgedns.errors import SourceError
from edgedns.store.local import LocalStore


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "state" / "deeper")


def test_arrays_and_json_come_back(store: LocalStore) -> None:
    assert store.load_arrays("rtt") is None
    assert store.load_json("overrides") is None
    sections = {"a": np.arange(5), "b": np.array([b"DE", b""], "S2"), "c": np.zeros((0, 13), np.uint8)}
    store.save_arrays("rtt", sections)
    store.save_json("overrides", [{"id": "x", "until": None}])
    found = store.load_arrays("rtt")
    assert found is not None
    assert set(found) == set(sections)
    for name, column in sections.items():
        np.testing.assert_array_equal(found[name], column)
        assert found[name].dtype == column.dtype
    assert store.load_json("overrides") == [{"id": "x", "until": None}]


@given(content=st.binary(max_size=300), keep=st.integers(0, 400))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
def test_whatever_lies_in_a_file_is_read_or_told(store: LocalStore, content: bytes, keep: int) -> None:
    store.save_arrays("rtt", {"a": np.arange(5)})
    whole = (store.directory / "rtt.npz").read_bytes()
    for name, damaged in (("rtt.npz", whole[:keep] + content), ("overrides.json", content)):
        (store.directory / name).write_bytes(damaged)
    for load in (lambda: store.load_arrays("rtt"), lambda: store.load_json("overrides")):
        with contextlib.suppress(SourceError):
            load()


def test_pickles_are_never_opened(store: LocalStore) -> None:
    np.savez(store.directory / "rtt.npz", a=np.array([{"x": 1}], dtype=object))
    with pytest.raises(SourceError):
        store.load_arrays("rtt")


def test_secrets_are_made_once_and_are_their_owners_alone(store: LocalStore) -> None:
    store.ensure_secrets(1.0)
    path = store.directory / "secrets.json"
    made = path.read_bytes()
    assert path.stat().st_mode & 0o777 == 0o600
    store.ensure_secrets(1.0)
    assert path.read_bytes() == made


@pytest.mark.parametrize(
    "content", ["", "{}", '{"cookies": []}', '{"cookies": ["00"]}', '{"cookies": [7]}', "[]", "null", '"x"']
)
def test_secrets_that_cannot_be_used_are_made_anew(store: LocalStore, content: str) -> None:
    path = store.directory / "secrets.json"
    path.write_text(content)
    store.ensure_secrets(1.0)
    assert len(bytes.fromhex(path.read_text().split('"')[3])) == 16


def test_the_salt_stays(store: LocalStore) -> None:
    salt = store.ensure_salt()
    assert 0 <= salt < 1 << 64
    assert store.ensure_salt() == salt
    (store.directory / "salt").write_text("not hex")
    anew = store.ensure_salt()
    assert store.ensure_salt() == anew


def rules(top: Path, **files: str) -> Path:
    top.mkdir(exist_ok=True)
    for name, text in files.items():
        (top / name.replace("__", "/")).parent.mkdir(exist_ok=True)
        (top / name.replace("__", "/")).write_text(text)
    return top


def kept(store: LocalStore) -> dict[str, str]:
    top = store.good_rules
    return {str(path.relative_to(top)): path.read_text() for path in top.rglob("*") if path.is_file()}


def test_rules_are_kept_whole(store: LocalStore, tmp_path: Path) -> None:
    directory = rules(tmp_path / "rules", a="1", zones__b="2")
    (directory / ".a.swp").write_text("an editor's")
    store.keep_rules(directory)
    assert kept(store) == {"a": "1", "zones/b": "2"}
    (directory / "a").unlink()
    store.keep_rules(rules(directory, c="3"))
    assert kept(store) == {"c": "3", "zones/b": "2"}
    assert len(list(store.directory.glob("rules-good-*"))) == 1


def test_rules_that_are_links_are_kept_as_what_they_lead_to(store: LocalStore, tmp_path: Path) -> None:
    real = rules(tmp_path / "..2026_11", a="1")
    directory = tmp_path / "rules"
    directory.mkdir()
    (directory / "..data").symlink_to(real)
    (directory / "a").symlink_to("..data/a")
    store.keep_rules(directory)
    (real / "a").write_text("2")
    assert kept(store) == {"a": "1"}


def test_rules_that_cannot_be_copied_leave_the_old_copy(store: LocalStore, tmp_path: Path) -> None:
    directory = rules(tmp_path / "rules", a="1")
    store.keep_rules(directory)
    (directory / "a").unlink()
    (directory / "a").symlink_to("nowhere")
    with pytest.raises(SourceError, match="could not be kept"):
        store.keep_rules(directory)
    assert kept(store) == {"a": "1"}
    assert len(list(store.directory.glob("rules-good-*"))) == 1


def test_the_table_is_copied_when_it_is_another(store: LocalStore, tmp_path: Path) -> None:
    table = tmp_path / "table.tsv"
    table.write_text("one")
    store.keep_table(table)
    before = store.good_table.stat().st_ino
    store.keep_table(table)
    assert store.good_table.stat().st_ino == before
    table.write_text("another")
    store.keep_table(table)
    assert store.good_table.read_text() == "another"
    table.unlink()
    with pytest.raises(SourceError, match="could not be kept"):
        store.keep_table(table)
    assert store.good_table.read_text() == "another"


def test_a_failed_write_leaves_what_was_there(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.save_json("overrides", [1])

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SourceError, match=r"^can't write .*overrides\.json: No space left on device$"):
        store.save_json("overrides", [2])
    assert store.load_json("overrides") == [1]


def test_a_state_directory_that_was_deleted_is_made_again(store: LocalStore) -> None:
    store.directory.rmdir()
    store.save_json("overrides", [1])
    assert store.load_json("overrides") == [1]
