"""What commands that send samples share."""

from __future__ import annotations

import time

import click
import pytest

from edgedns.cli import sending


def test_what_is_said_again_and_again_is_said_once_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    now, said = [1000.0], list[str]()
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    say = sending.sparingly(said.append)
    for number in range(300):
        say(f"collector rejected {number} of 300 samples")
        now[0] += 0.5
    say("collector is back")
    assert said == [f"collector rejected {number} of 300 samples" for number in (0, 120, 240)] + ["collector is back"]


def test_where_there_is_no_collector_lines_are_printed_and_nothing_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    outlet = sending.Outlet("-", "", lambda text: None)
    outlet.add(b'{"rtt_ms":1}')
    assert capsys.readouterr().out == '{"rtt_ms":1}\n'
    assert (outlet.waiting, outlet.told()) == (0, [])


def test_what_waits_for_a_collector_is_told() -> None:
    outlet = sending.Outlet("http://127.0.0.1:9", "", lambda text: None)
    outlet.add(b'{"rtt_ms":1}')
    assert outlet.waiting == 1
    assert outlet.told() == ["0 samples accepted, 1 waiting"]
    with pytest.raises(click.BadParameter, match="is not http://HOST:PORT"):
        sending.Outlet("127.0.0.1:9", "", lambda text: None)
