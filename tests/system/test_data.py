"""`edgedns data` as a process of its own: what it says, how it exits, and a running server that follows."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner

from edgedns.cli.check import check
from edgedns.cli.data import age, report
from edgedns.cli.data import data as commands
from edgedns.steer.space import asn
from tests import publisher as site
from tests.publisher import Publisher
from tests.small import ADDRESS, subnet, write_rules
from tests.system.serving import SLACK, Server

WITHOUT_PROXIES = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}


def data(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edgedns", "data", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=WITHOUT_PROXIES)


def status(*arguments: str) -> subprocess.CompletedProcess[str]:
    return data("status", *arguments)


@pytest.fixture(scope="module")
def publisher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Publisher]:
    with Publisher(tmp_path_factory.mktemp("publisher")) as running:
        yield running


class Operator:
    """Types `edgedns data` for one state directory and one publisher, whose files are of today."""

    def __init__(self, state: Path, publisher: Publisher) -> None:
        self.state, self.publisher, self.now = str(state), publisher, time.time()

    def update(self, content: bytes, *more: str) -> subprocess.CompletedProcess[str]:
        url = self.publisher.publish(content, at=self.now)
        common = ("--source", "iptoasn", "--url", url, "--ca", str(self.publisher.ca), "--state", self.state)
        return data("update", *common, *more)

    def first(self) -> None:
        """A small table in place of the embedded one takes an operator's word."""
        done = self.update(site.table(), "--allow-loss", "--max-moved", "100%", "--allow-older")
        assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory, publisher: Publisher) -> Path:
    """A state directory with a first table."""
    state = tmp_path_factory.mktemp("begun")
    Operator(state, publisher).first()
    return state


@pytest.fixture
def operator(begun: Path, tmp_path: Path, publisher: Publisher) -> Operator:
    return Operator(shutil.copytree(begun, tmp_path / "state"), publisher)


def test_the_embedded_table_says_what_it_is() -> None:
    done = status()
    assert done.returncode == 0
    for words in ("@ip-location-db/asn 2.3.2026061719", "2026-06-17", "411,961 IPv4, 103,197 IPv6", "91,065", "contains bugs"):
        assert words in done.stdout
    days = (datetime.now(UTC).date() - date(2026, 6, 17)).days
    assert f"{days} days" in done.stdout
    assert ("more than 30" in done.stderr) == (days > 30)


def test_a_table_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "table"
    path.write_text("192.0.2.0/24\t64496\n")
    done = status("--asn", str(path))
    assert (done.returncode, done.stderr) == (0, "")
    assert "pyasn .dat" in done.stdout
    assert "1 IPv4, 0 IPv6" in done.stdout
    assert "contains bugs" not in done.stdout


def test_a_broken_table_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "table"
    path.write_text("192.0.2.0/24\t644")
    done = status("--asn", str(path))
    assert done.returncode == 2
    assert done.stderr == f"error: {path}: its last line has no line end: the file was cut off, get it again\n"


def test_age_counts_days_and_never_runs_backwards() -> None:
    table = asn.embedded()
    assert age(table, date(2026, 7, 17)) == 30
    assert age(table, date(2026, 6, 1)) == 0
    assert "age:     30 days" in report(table, None, date(2026, 7, 17))


def test_from_update_to_rollback(operator: Operator, publisher: Publisher) -> None:
    today = datetime.fromtimestamp(operator.now, UTC).date().isoformat()
    refused = operator.update(site.table(range(6)))
    assert (refused.returncode, refused.stdout.count("\n")) == (1, 2)
    assert "error: IPv4: 29% of the ranges in use" in refused.stderr
    assert refused.stderr.endswith("nothing was changed\n")
    done = operator.update(site.changed(2))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith(f"in use now: iptoasn, dated {today}\ncredit: {credit()}\n")
    back = data("rollback", "--state", operator.state)
    assert (back.returncode, back.stdout.splitlines()[0]) == (0, f"in use again: iptoasn, dated {today}")
    again = operator.update(site.changed(2))
    assert again.returncode == 0
    assert again.stdout.startswith("nothing new: the table is the one that was rolled back")
    told = status("--state", operator.state)
    assert told.returncode == 0
    shown = (f"source:  iptoasn ({publisher.url('/table')})", "76 IPv4, 75 IPv6", f"rolled back from: iptoasn, dated {today}")
    for words in (*shown, f"credit:  {credit()}", "last run: ", "nothing new: "):
        assert words in told.stdout, words


def credit() -> str:
    return "IPtoASN, https://iptoasn.com/: PDDL 1.0, no attribution needed"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--url", "http://192.0.2.1/table"), 1, "http://192.0.2.1/table is not https://"),
        (("--url", "https://127.0.0.1:1/table"), 2, "no connection"),
        (("--source", "maxmind"), 2, "maxmind wants a key of your own: --key-file FILE or EDGEDNS_MAXMIND"),
        (("--source", "nobody"), 2, "Invalid value for '--source'"),
        (("--max-moved", "much"), 2, "'much' is not a percentage, such as 7.5%"),
    ],
)
def test_how_it_exits(tmp_path: Path, arguments: tuple[str, ...], code: int, words: str) -> None:
    done = CliRunner().invoke(commands, ["update", "--state", str(tmp_path), *arguments])
    assert done.exit_code == code
    assert words in done.stderr


def test_nothing_to_roll_back(tmp_path: Path) -> None:
    done = CliRunner().invoke(commands, ["rollback", "--state", str(tmp_path)])
    assert done.exit_code == 1
    assert "the embedded table is in use" in done.stderr


class Asker(threading.Thread):
    """Asks without a pause; `lost` counts what was not answered within two seconds."""

    def __init__(self, server: Server) -> None:
        super().__init__()
        self.server, self.asked, self.lost, self.over = server, 0, 0, threading.Event()

    def run(self) -> None:
        while not self.over.is_set():
            self.asked += 1
            try:
                self.server.addresses(of=self.asked % 60, timeout=2.0 * SLACK)
            except Exception:
                self.lost += 1

    def __enter__(self) -> Asker:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.join()


def test_a_running_server_follows(tmp_path: Path, operator: Operator) -> None:
    """Network 7 comes to AS 64999, which a rule pins to cedar: answers change within seconds, and none is lost."""
    server = Server(tmp_path, write_rules(tmp_path / "rules"))
    try:
        server.start()
        assert server.addresses(of=7) == [ADDRESS["alder"]]
        with Asker(server) as asker:
            done = operator.update(site.table(asns={7: 64999}))
            assert done.returncode == 0, done.stderr
            server.until_answered([ADDRESS["cedar"]], within=5 * SLACK, of=7)
            if dig := shutil.which("dig"):
                question = [f"-p{server.port}", "+short", "+norec", f"+subnet={subnet(7)}", "www.example.net"]
                found = subprocess.run([dig, "@127.0.0.1", *question], capture_output=True, text=True, check=True)
                assert found.stdout == f"{ADDRESS['cedar']}\n"
            assert server.addresses(of=8) == [ADDRESS["alder"]]
            server.wait_for("ASN table in force: iptoasn, dated ")
            made = server.counters()["edgedns_asn_table_timestamp_seconds"]
            assert (made % site.DAY, operator.now - made < site.DAY) == (0.0, True)
            assert data("rollback", "--state", operator.state).returncode == 0
            server.until_answered([ADDRESS["alder"]], within=5 * SLACK, of=7)
        assert asker.lost == 0
        assert asker.asked > 100
    finally:
        server.clean_up()


def test_a_damaged_table_keeps_nobody_from_starting(tmp_path: Path, operator: Operator) -> None:
    """The previous one stands in; the log says so."""
    assert operator.update(site.table(asns={7: 64999})).returncode == 0
    server = Server(tmp_path, write_rules(tmp_path / "rules"))
    newest = max((tmp_path / "state" / "tables").glob("asn-*.xz"), key=lambda path: path.stat().st_mtime_ns)
    newest.write_bytes(newest.read_bytes()[:-100])
    try:
        server.start()
        assert "the ASN table can't be used; the last good one is" in server.said()
        assert server.addresses(of=7) == [ADDRESS["alder"]]
    finally:
        server.clean_up()


def test_rules_are_checked_against_the_table_in_use(operator: Operator, tmp_path: Path) -> None:
    rules = write_rules(tmp_path / "rules")
    with (rules / "example.net.yaml").open("a") as zone:
        zone.write("tests: [{name: www, type: A, from: 10.7.0.1, expect: cedar}]\n")
    assert operator.update(site.table(asns={7: 64999})).returncode == 0
    plain, with_state = (CliRunner().invoke(check, [str(rules), *more]) for more in ((), ("--state", operator.state)))
    assert (plain.exit_code, with_state.exit_code) == (1, 0)
    assert "W701" not in with_state.stdout
