"""A body counts once, whoever sends it again."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgedns.errors import SourceError
from edgedns.probe import repeats as module
from edgedns.probe.repeats import KEPT, Repeats

NOW = 1_764_000_000.0


def test_the_same_body_is_one_and_another_is_none() -> None:
    repeats = Repeats()
    assert [repeats.is_one(body, NOW) for body in (b"a\n", b"b\n", b"a\n", b"a", b"a\n")] == [False, False, True, False, True]
    assert repeats.count == 2


def test_an_empty_body_is_none() -> None:
    repeats = Repeats()
    assert not repeats.is_one(b"", NOW)
    assert not repeats.is_one(b"\n", NOW)
    assert not repeats.is_one(b"\n", NOW)


def test_it_is_remembered_as_long_as_its_samples_would_be_taken() -> None:
    repeats = Repeats()
    repeats.is_one(b"a", NOW)
    assert repeats.is_one(b"a", NOW + KEPT)
    assert not repeats.is_one(b"a", NOW + KEPT + 1)


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST", 100)
    repeats = Repeats()
    for number in range(1000):
        assert not repeats.is_one(b"%d" % number, NOW)
    assert len(repeats.to_sections()["at"]) <= 100
    assert repeats.is_one(b"999", NOW)
    assert not repeats.is_one(b"0", NOW)


def test_another_process_remembers() -> None:
    repeats = Repeats()
    assert not repeats.is_one(b"a", NOW)
    again = Repeats.from_sections(repeats.to_sections())
    assert again.is_one(b"a", NOW + 1)
    assert len(Repeats.from_sections(Repeats().to_sections()).to_sections()["at"]) == 0


@pytest.mark.parametrize("at", [np.zeros(2), np.array(["x"])])
def test_what_is_damaged_is_said(at: NDArray[Any]) -> None:
    with pytest.raises(SourceError):
        Repeats.from_sections({"digests": np.zeros((1, 16), dtype=np.uint8), "at": at})
    with pytest.raises(SourceError):
        Repeats.from_sections({"digests": np.zeros((1, 3), dtype=np.uint8), "at": np.zeros(1)})
