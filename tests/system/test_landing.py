"""Two agents of a fleet, whose provider announces one address at both: replies that land at the other are told of there."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.system.tunnel import ENVIRON, Packet, Tunnel, echo, tunnel

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root for network namespaces"),
    pytest.mark.skipif(not Path("/dev/net/tun").exists(), reason="needs /dev/net/tun"),
    pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs setpriv"),
]
DEVICES = {"p1": ("192.0.2.10/32", "2001:db8:a1::10/128")}
HOSTS = ("203.0.113.7", "2001:db8:77::7")
RAW = "+net_raw"
KEY, OTHER_KEY = "5e" * 32, "5f" * 32
SLACK = 3.0
Line = dict[str, Any]


@pytest.fixture(scope="module")
def machines() -> Iterator[tuple[Tunnel, Tunnel]]:
    with tunnel(DEVICES, name="fra") as fra, tunnel(DEVICES, name="ams") as ams:
        yield fra, ams


@dataclass
class Fleet:
    """fra1 and ams1. Whatever is sent anywhere is answered, and the answer lands at ams1, until somebody says otherwise."""

    fra: Tunnel
    ams: Tunnel
    folder: Path

    def __post_init__(self) -> None:
        for machine in (self.fra, self.ams):
            machine.seen.clear()
            machine.groups("1 0")
            machine.answer = self.land
        (self.folder / "asn.tsv").write_text("203.0.113.0\t203.0.113.255\t64500\tDE\tdocumentation\n")
        (self.folder / "key").write_text(KEY + "\n")

    def land(self, device: str, packet: Packet) -> list[Packet]:
        for reply in echo(device, packet):
            self.ams.inject(reply)
        return []

    def agent(self, machine: Tunnel, vantage: str, methods: Sequence[str], *more: str, capabilities: str = RAW) -> list[str]:
        """What starts it, every half second."""
        path = self.folder / f"{vantage}-targets"
        path.write_text("".join(json.dumps({"address": host, "method": way}) + "\n" for way in methods for host in HOSTS))
        words = [f"--vantage={vantage}", "--collector=-", f"--targets={path}", f"--asn={self.folder}/asn.tsv"]
        words += ["--source=alder=192.0.2.10", "--source=alder=2001:db8:a1::10", f"--key-file={self.folder}/key"]
        words += ["--every=500ms", "--per-address=200", "--timeout=300ms"]
        command = [sys.executable, "-m", "edgedns", "probe", *words, *more]
        return machine.as_nobody(*command, capabilities=capabilities)

    @contextlib.contextmanager
    def listening(self, methods: Sequence[str] = ("tcp",), capabilities: str = RAW) -> Iterator[Callable[[], list[Line]]]:
        """ams1 runs; gives what it has told so far."""
        out = (self.folder / "ams1.out").open("w+")
        command = self.agent(self.ams, "ams1", methods, capabilities=capabilities)
        with out, (self.folder / "ams1.err").open("w+") as said:
            process = subprocess.Popen(command, stdout=out, stderr=said, env=ENVIRON, cwd="/")
            try:
                _wait_for(lambda: "listening" in (self.folder / "ams1.err").read_text(), "ams1 listens")
                yield lambda: [json.loads(line) for line in (self.folder / "ams1.out").read_text().splitlines()]
            finally:
                process.terminate()
                process.wait(10)

    def asks(self, *methods: str, key: str = KEY, more: Sequence[str] = (), capabilities: str = RAW) -> list[Line]:
        """What fra1 finds in one period."""
        (self.folder / "key").write_text(key)
        command = self.agent(self.fra, "fra1", methods, "--once", *more, capabilities=capabilities)
        ended = subprocess.run(command, capture_output=True, text=True, timeout=60, env=ENVIRON, cwd="/", check=False)
        assert ended.returncode == 0, ended.stderr
        return [json.loads(line) for line in ended.stdout.splitlines()]


@pytest.fixture
def fleet(machines: tuple[Tunnel, Tunnel]) -> Iterator[Fleet]:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Fleet(*machines, Path(folder))


def _wait_for(true: Callable[[], object], what: str, within: float = 10.0 * SLACK) -> None:
    until = time.monotonic() + within
    while not true():
        assert time.monotonic() < until, f"not within {within} s: {what}"
        time.sleep(0.05)


def landed(lines: Sequence[Line]) -> list[Line]:
    return [line for line in lines if "sent_by" in line]


@pytest.mark.parametrize(("method", "groups"), [("udp", "1 0"), ("dns", "1 0"), ("icmp", "1 0"), ("icmp", "0 70000")])
def test_a_reply_that_lands_at_another_agent_is_told_of_there(fleet: Fleet, method: str, groups: str) -> None:
    """Whatever that one probes by itself; and by ICMP of either kind."""
    for machine in (fleet.fra, fleet.ams):
        machine.groups(groups)
    with fleet.listening() as told:
        found = fleet.asks(method)
        assert {line["address"] for line in found if line.get("lost")} == set(HOSTS)
        _wait_for(lambda: len(landed(told())) >= 2, "both are told of")
        lines = landed(told())
    assert {line["address"] for line in lines} == set(HOSTS)
    for line in lines:
        assert (line["vantage"], line["provider"], line["sent_by"]) == ("ams1", "alder", "fra1")
        assert abs(line["at"] - time.time()) < 30
        assert not line.keys() & {"rtt_ms", "lost"}


def test_where_it_lands_it_is_measured_at_once_from_then_on(fleet: Fleet) -> None:
    """ams1 asks who never answered in each sixth period only; a landing shows that this one would answer now."""
    fleet.ams.answer = lambda device, packet: []

    def moved(device: str, packet: Packet) -> list[Packet]:
        fleet.ams.answer = echo
        for reply in echo(device, packet):
            fleet.ams.inject(reply)
        return []

    fleet.fra.answer = moved
    with fleet.listening(("udp",)) as told:
        _wait_for(lambda: len(told()) >= 2 * 2 + 2, "the first periods in which all are asked are over")
        fleet.asks("udp")
        _wait_for(lambda: {line["address"] for line in told() if "rtt_ms" in line} == set(HOSTS), "ams1 measures them")
        first = {line["address"]: line["at"] for line in reversed(landed(told()))}
        timed = [line for line in told() if "rtt_ms" in line]
        assert all(any(line["address"] == host and abs(line["at"] - at) < 0.1 for line in timed) for host, at in first.items())


def test_another_fleets_replies_mean_nothing(fleet: Fleet) -> None:
    with fleet.listening() as told:
        fleet.asks("udp", "dns", "icmp", key=OTHER_KEY)
        time.sleep(0.5)
        assert landed(told()) == []


def test_a_reply_from_somebody_else_than_was_asked_means_nothing(fleet: Fleet) -> None:
    """Whoever was asked can pass what he got on to others; that would claim their catchment."""

    def aside(device: str, packet: Packet) -> list[Packet]:
        for reply in echo(device, packet):
            fleet.ams.inject(reply._replace(source="2001:db8:77::66" if ":" in reply.source else "203.0.113.66"))
        return []

    fleet.fra.answer = aside
    with fleet.listening() as told:
        fleet.asks("udp", "dns", "icmp")
        time.sleep(0.5)
        assert landed(told()) == []


def test_a_reply_again_and_again_is_told_once(fleet: Fleet) -> None:
    def many(device: str, packet: Packet) -> list[Packet]:
        for reply in echo(device, packet):
            for _ in range(50):
                fleet.ams.inject(reply)
        return []

    fleet.fra.answer = many
    with fleet.listening() as told:
        fleet.asks("udp")
        _wait_for(lambda: len(landed(told())) >= 2, "both are told of")
        time.sleep(0.5)
        assert len(landed(told())) == 2


def test_without_icmp_the_rest_is_heard_and_that_is_said(fleet: Fleet) -> None:
    with fleet.listening(capabilities="") as told:
        said = (fleet.folder / "ams1.err").read_text()
        _wait_for(lambda: "not everything" in (fleet.folder / "ams1.err").read_text(), "it is said")
        said = (fleet.folder / "ams1.err").read_text()
        assert "not everything that lands here will be heard: can't probe by icmp from 192.0.2.10: neither may group" in said
        fleet.asks("udp")
        _wait_for(lambda: len(landed(told())) >= 2, "both are told of")
