"""Which secrets of server cookies are in force: the node's own, rolled by time, or those of a shared file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edgedns.control.cookies import DAY, MONTH, Secrets, rolled
from edgedns.engine import answer
from edgedns.probe.methods import Voice
from edgedns.store.local import CookieSecrets, LocalStore

A, B, C = bytes(range(16)), bytes(range(16, 32)), bytes(range(32, 48))
NOW = 1_790_000_000.0


@pytest.mark.parametrize(
    ("age", "keys"),
    [(0, (A, B)), (DAY - 1, (A, B)), (DAY, (A,)), (MONTH - 1, (A,)), (MONTH, (C, A)), (10 * MONTH, (C, A)), (-1, (C, A))],
)
def test_a_node_s_own_is_rolled_each_month_and_believed_another_day(age: float, keys: tuple[bytes, ...]) -> None:
    found = rolled(CookieSecrets((A, B), NOW - age), NOW, C)
    assert found.keys == keys
    assert found.since == (NOW if keys[0] == C else NOW - age)


def test_one_that_was_shared_makes_cookies_no_longer() -> None:
    assert rolled(CookieSecrets((A, B), NOW, shared=True), NOW, C) == CookieSecrets((C, A), NOW)


class Place:
    """A state directory, a file, and what was said; `look` as often as it takes to see a change."""

    def __init__(self, top: Path) -> None:
        self.store = LocalStore(top / "state")
        self.path = top / "secrets"
        self.lines: list[str] = []

    def write(self, *keys: bytes, mode: int = 0o640) -> None:
        self.path.write_text("".join(f"{key.hex()}\n" for key in keys))
        self.path.chmod(mode)

    def secrets(self) -> Secrets:
        return Secrets(self.store, self.path, self.lines.append)

    def keys(self) -> tuple[bytes, ...]:
        kept = self.store.cookie_secrets()
        assert kept is not None
        return kept.keys


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_a_file_is_followed(place: Place) -> None:
    """RFC 9018 section 5: learnt, then used, then alone."""
    place.write(A)
    secrets = place.secrets()
    for keys in ((A,), (A, B), (B, A), (B,)):
        place.write(*keys)
        secrets.follow(NOW)
        secrets.follow(NOW)
        assert place.keys() == keys
    assert len(place.lines) == 4
    assert (place.store.directory / "secrets.json").stat().st_mode & 0o777 == 0o600
    assert not any(key.hex() in line for line in place.lines for key in (A, B))


def test_what_is_half_written_waits(place: Place) -> None:
    place.write(A, B)
    secrets = place.secrets()
    secrets.follow(NOW)
    place.path.write_text(A.hex() + "\n" + B.hex()[:7])
    secrets.follow(NOW)
    place.write(B, A)
    secrets.follow(NOW)
    secrets.follow(NOW)
    assert place.keys() == (B, A)
    assert not any("stay as they were" in line for line in place.lines)


@pytest.mark.parametrize("damage", ["", "no secret\n", A.hex() + A.hex(), None])
def test_a_file_that_cannot_be_used_changes_nothing_and_is_told_once(place: Place, damage: str | None) -> None:
    place.write(A)
    secrets = place.secrets()
    secrets.follow(NOW)
    place.path.unlink()
    if damage is not None:
        place.path.write_text(damage)
    for _ in range(5):
        secrets.follow(NOW)
    assert place.keys() == (A,)
    assert len([line for line in place.lines if "stay as they were" in line]) == 1
    assert A.hex() not in "".join(place.lines)


def test_a_first_file_that_cannot_be_used_leaves_the_node_s_own(place: Place) -> None:
    place.store.ensure_secrets(NOW)
    own = place.keys()
    place.secrets().follow(NOW)
    assert place.keys() == own
    assert "No such file" in place.lines[0]


@pytest.mark.parametrize(("mode", "told"), [(0o600, False), (0o640, False), (0o644, True), (0o602, True)])
def test_a_file_that_everybody_can_read_is_told(place: Place, mode: int, told: bool) -> None:
    place.write(A, mode=mode)
    place.secrets().follow(NOW)
    assert any("everybody can read" in line for line in place.lines) is told
    assert place.keys() == (A,)


def test_a_full_disk_is_tried_again(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.write(A)
    secrets = place.secrets()
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(Exception, match="No space left"):
            secrets.follow(NOW)
    secrets.follow(NOW)
    assert place.keys() == (A,)


def test_without_a_file_the_node_s_own_is_kept(place: Place) -> None:
    secrets = Secrets(place.store, None, place.lines.append)
    secrets.follow(NOW)
    (own,) = place.keys()
    secrets.follow(NOW + DAY)
    assert place.keys() == (own,)
    secrets.follow(NOW + MONTH)
    assert place.keys()[1:] == (own,)
    assert place.lines == []


def test_a_pipe_in_place_of_the_file_is_told_of_and_not_waited_for(place: Place) -> None:
    place.store.ensure_secrets(NOW)
    before = place.keys()
    os.mkfifo(place.path)
    place.secrets().follow(NOW)
    assert place.lines == [f"{place.path}: not a plain file; the cookie secrets stay as they were"]
    assert place.keys() == before


def test_what_holds_secrets_tells_nothing_of_them() -> None:
    """Whatever fails with them at hand: its message and its trace may be logged."""
    secret = b"sixteen secret 8"
    for holder in (answer.Secrets((secret,)), CookieSecrets((secret,), NOW), Voice(secret)):
        assert "secret 8" not in f"{holder} {holder!r} {(holder,)}"
        assert type(holder).__name__ in repr(holder)
