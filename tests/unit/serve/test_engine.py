"""Which engine answers: what was built, or what the environment asks for."""

from __future__ import annotations

import pytest

from edgedns.engine import native
from edgedns.errors import SourceError
from edgedns.serve.current import ENGINE, engine_name


@pytest.mark.parametrize(("built", "asked", "name"), [
    (True, "", "native"), (False, "", "python"), (True, "python", "python"), (True, "reference", "reference"),
    (True, "native", "native"),
])  # fmt: skip
def test_engine(monkeypatch: pytest.MonkeyPatch, built: bool, asked: str, name: str) -> None:
    monkeypatch.setattr(native, "AVAILABLE", built)
    assert engine_name({ENGINE: asked}) == name


def test_an_engine_that_is_not_there_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "AVAILABLE", False)
    with pytest.raises(SourceError, match="was not built"):
        engine_name({ENGINE: "native"})
    with pytest.raises(SourceError, match="native, python, reference"):
        engine_name({ENGINE: "turbo"})
