"""`edgedns probe`: the options about whom it probes and what it says of itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from edgedns.cli import targeting
from edgedns.cli.probe import probe
from edgedns.config import Address
from edgedns.errors import EdgednsError
from edgedns.special import Prefixes
from edgedns.steer.space.asn import AsnTable, load

TARGETS = '{"address": "203.0.113.7", "endpoint": "127.0.0.1:9"}\n{"address": "203.0.113.8", "endpoint": "127.0.0.2:9"}\n'


@pytest.fixture
def table(tmp_path: Path) -> AsnTable:
    (tmp_path / "table.tsv").write_text("8.8.0.0\t8.8.255.255\t64500\tDE\tOne\n")
    return load(tmp_path / "table.tsv")


def ran(folder: Path, **options: str) -> tuple[int, str]:
    """Exit code and everything that was said; a full command line where `options` change nothing."""
    (folder / "targets").write_text(TARGETS)
    (folder / "table.tsv").write_text("8.8.0.0\t8.8.255.255\t64500\tDE\tOne\n")
    given = {"vantage": "fra1", "collector": "http://127.0.0.1:9", "targets": str(folder / "targets"), "for": "100ms"}
    given |= {"source": "alder=127.1.0.1", "asn": str(folder / "table.tsv")}
    given |= {name.replace("_", "-"): value for name, value in options.items()}
    result = CliRunner().invoke(probe, [word for name, value in given.items() for word in (f"--{name}", value)])
    return result.exit_code, " ".join(result.output.split())


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"targets": "collector", "collector": "-"}, "a collector has to be there"),
        ({"about": "mailto:call us"}, "it is a URI of at most 120 characters"),
        ({"about": "noc@example.net"}, "https:, mailto: or tel:"),
        ({"about": "tel:" + "1" * 120}, "at most 120 characters"),
        ({"about_listen": "127.0.0.1:0"}, "say whom to turn to with --about"),
        ({"about": "mailto:noc@example.net", "about_listen": "127.0.0.1"}, "is not ADDR:PORT"),
        ({"about": "mailto:noc@example.net", "about_listen": "192.0.2.1:80"}, "can't answer at 192.0.2.1:80: "),
        ({"opt_out": "/nowhere"}, "/nowhere can't be read: No such file"),
        ({"networks": "0"}, "0 is not in the range"),
        ({"per_network": "0"}, "0 is not in the range"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, options: dict[str, str], error: str) -> None:
    code, said = ran(tmp_path, **options)
    assert code in (1, 2)
    assert error in said
    assert "Traceback" not in said


def test_who_opted_out_before_is_never_a_target(tmp_path: Path) -> None:
    (tmp_path / "opt-out").write_text("127.0.0.2\n")
    code, said = ran(tmp_path, opt_out=str(tmp_path / "opt-out"))
    assert code == 0
    assert "1 paths to 1 targets" in said
    (tmp_path / "opt-out").write_text("127.0.0.0/8\n")
    assert "0 paths to 0 targets" in ran(tmp_path, opt_out=str(tmp_path / "opt-out"))[1]


def test_turns_are_said(tmp_path: Path) -> None:
    code, said = ran(tmp_path, per_network="0.6")
    assert code == 0
    assert "targets of a network take up to 2 turns, to keep --per-network" in said


class Agent:
    """What followers ask of one."""

    class plan:  # noqa: N801
        vantage = "fra1"

    def __init__(self) -> None:
        self.never: list[Prefixes] = []

    async def bar(self, never: Prefixes) -> None:
        self.never.append(never)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not holds():
            await asyncio.sleep(0.01)


def test_an_opt_out_list_is_followed_and_stays_while_it_can_not_be_read(
    tmp_path: Path, table: AsnTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(targeting, "LOOK", 0.05)
    (tmp_path / "targets").write_text(TARGETS)
    (tmp_path / "opt-out").write_text("8.8.8.0/24\n")
    whom = targeting.Whom(str(tmp_path / "targets"), tmp_path / "opt-out", "udp", table, ("", "", 1))
    agent: Any = Agent()
    said: list[str] = []

    async def main() -> None:
        running = [asyncio.create_task(one) for one in whom.followers(agent, said.append)]
        (tmp_path / "opt-out").write_text("8.8.8.0/24\n8.8.9.0/24\n")
        await until(lambda: len(agent.never) == 1)
        (tmp_path / "opt-out").write_text("8.8.8.1/24\n")
        await until(lambda: len(said) == 2)
        (tmp_path / "opt-out").unlink()
        await until(lambda: len(said) == 3)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    assert len(whom.never) == 1
    asyncio.run(main())
    assert b"\x08\x08\x09\x01" in agent.never[0]
    assert len(agent.never) == 1
    assert all(line.endswith("it stays as it was") for line in said[1:])


def test_a_place_that_is_taken_is_said() -> None:
    async def main() -> None:
        async with targeting.telling([Address("127.0.0.1", 0)], str):
            pass
        with pytest.raises(EdgednsError, match=r"can't answer at 192\.0\.2\.1:80: "):
            async with targeting.telling([Address("192.0.2.1", 80)], str):
                pass

    asyncio.run(main())
