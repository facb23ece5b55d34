"""What lies where a file is to be written aside: it is replaced, and nothing is written through it."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgedns.store.aside import opened_anew
from edgedns.store.local import CookieSecrets, LocalStore
from edgedns.store.tables import Tables

SECRETS = CookieSecrets((bytes(16),), 0.0)


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    path = tmp_path / "elsewhere"
    path.write_text("as it was")
    return path


def test_a_link_is_replaced(tmp_path: Path, elsewhere: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(elsewhere)
    with opened_anew(link) as file:
        file.write(b"new")
    assert (link.read_text(), link.is_symlink(), elsewhere.read_text()) == ("new", False, "as it was")


def test_a_note_of_an_update_is_not_written_through_a_link(tmp_path: Path, elsewhere: Path) -> None:
    tables = Tables(tmp_path)
    with tables.locked():
        tables.aside("last.json").symlink_to(elsewhere)
        tables.note(5.0, "taken")
    assert (tables.last(), elsewhere.read_text()) == ((5.0, "taken"), "as it was")


def test_what_was_left_lends_a_secret_no_permissions(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    (tmp_path / ".secrets.json").touch(0o644)
    store.keep_cookie_secrets(SECRETS)
    assert (tmp_path / "secrets.json").stat().st_mode & 0o777 == 0o600
    assert store.cookie_secrets() == SECRETS
