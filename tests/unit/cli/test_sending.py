"""What commands that send samples share."""

from __future__ import annotations

import pytest

from edgedns.cli import sending


def test_what_is_said_again_and_again_is_said_once_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    now, said = [1000.0], list[str]()
    monkeypatch.setattr(sending.time, "monotonic", lambda: now[0])
    say = sending.sparingly(said.append)
    for number in range(300):
        say(f"collector rejected {number} of 300 samples")
        now[0] += 0.5
    say("collector is back")
    assert said == [f"collector rejected {number} of 300 samples" for number in (0, 120, 240)] + ["collector is back"]
