"""`edgedns serve` restarted, reloaded and upgraded under load: each query is asked once, and all are answered, rightly."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

import edgedns
from edgedns.serve.worker import start_ticks
from tests.conformance.peers import free_port
from tests.small import ADDRESS, write_rules, write_table, write_zone
from tests.system.load import Load
from tests.system.serving import SLACK, TOKEN, UNLIMITED, Server

NOTHING = {"lost": 0, "servfail": 0, "empty": 0, "wrong": 0}
pytestmark = pytest.mark.xdist_group("restart")


class Installed(Server):
    """Runs from a copy of the package, so that it can be upgraded, and takes all its settings from a file."""

    def __init__(self, top: Path) -> None:
        super().__init__(top, write_rules(top / "rules"), write_table(top / "table.tsv"), 2)
        self.package = top / "site" / "edgedns"
        shutil.copytree(Path(edgedns.__file__).parent, self.package, ignore=shutil.ignore_patterns("__pycache__"))
        self.environ = {**os.environ, "EDGEDNS_TOKEN": TOKEN, "PYTHONPATH": str(self.package.parent)}
        self.config = top / "edgedns.yaml"
        self.port = free_port()
        self.set_config()

    def set_config(self, more: str = "", workers: int = 2, listen: str = "", rate_limit: str = UNLIMITED) -> None:
        text = f"rules: {self.rules}\nasn: {self.table}\nstate: {self.state}\nadmin: 127.0.0.1:0\nworkers: {workers}\n"
        text += f"rate-limit: {rate_limit}\nlisten: ['127.0.0.1:{self.port}'{listen}]\n{more}"
        self.config.write_text(text)

    def start(self, *more: str, ready: bool = True, environ: dict[str, str] | None = None, under: Sequence[str] = ()) -> Server:
        self.mark()
        command = [*under, sys.executable, "-P", "-m", "edgedns", "serve", "--config", str(self.config), *more]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, stderr=log, env={**self.environ, **(environ or {})})
        if ready:
            self.port = int(self.wait_for(r"serving 127\.0\.0\.1:(\d+)")[1])
            self.admin = self.wait_for(r"admin side: (http://\S+?)/\s")[1]
            self._remember_workers()
        return self

    def reload(self) -> subprocess.CompletedProcess[str]:
        """`edgedns reload`, to its end."""
        command = [sys.executable, "-P", "-m", "edgedns", "reload", "--server", self.admin]
        done = subprocess.run(command, capture_output=True, text=True, env=self.environ, timeout=100)
        self._remember_workers()
        return done

    def upgrade(self, text: str = "# another build\n") -> None:
        """Another build in the place of this one."""
        path = self.package / "serve" / "worker.py"
        aside = path.with_suffix(".new")
        aside.write_text(path.read_text() + text)
        aside.replace(path)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Installed]:
    made = Installed(tmp_path)
    try:
        made.start()
        yield made
    finally:
        made.clean_up()


def limit(server: Installed) -> None:
    """Settings of the workers: all of them are replaced."""
    before = server.worker_pids()
    server.set_config(rate_limit="surplus=900000")
    done = server.reload()
    assert (done.returncode, done.stdout) == (0, f"rate-limit: {UNLIMITED} -> surplus=900000\n"), done
    assert not set(before) & set(server.worker_pids())
    assert server.process is not None
    children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()
    assert all(start_ticks(int(pid)) for pid in children), "the dead are buried"


def break_settings(server: Installed) -> None:
    """Nothing changes, and it says why."""
    before = server.worker_pids()
    server.set_config("wrokers: 3\n")
    done = server.reload()
    assert done.returncode == 1
    assert "unknown option 'wrokers', did you mean 'workers'?" in done.stderr
    assert server.worker_pids() == before


def crash(server: Installed) -> None:
    """The control process is killed; the next one takes over."""
    server.end(signal.SIGKILL)
    server.set_config()
    server.start()
    assert len(server.worker_pids()) == 2


def grow(server: Installed) -> None:
    """One worker more, and an address of the other family."""
    server.set_config(workers=3, listen=f", '[::1]:{server.port}'")
    done = server.reload()
    assert done.returncode == 0, done
    assert len(server.worker_pids()) == 3


def upgrade(server: Installed) -> None:
    """First to a build that can't answer, which stays out, then to one that can."""
    assert server.process is not None
    before, own = server.worker_pids(), server.process.pid
    path = server.package / "serve" / "worker.py"
    good = path.read_text()
    server.upgrade("raise RuntimeError('half copied')\n")
    done = server.reload()
    assert done.returncode == 1
    assert "the installed edgedns is another build (not done)" in done.stderr
    assert "half copied" in done.stderr
    assert server.worker_pids() == before
    path.write_text(good)
    server.upgrade()
    done = server.reload()
    assert (done.returncode, "the installed edgedns is another build" in done.stdout) == (0, True), done
    assert not set(before) & set(server.worker_pids())
    assert server.process.pid == own
    assert server.process.poll() is None


Restarts = Sequence[Callable[[Installed], None]]
RESTARTS: Restarts = (limit, break_settings, crash, grow, upgrade)


@pytest.mark.parametrize(
    ("restarts", "rate", "seconds"),
    [
        ((limit, break_settings), 1000, 0),
        pytest.param(RESTARTS, 5000, 60, marks=[pytest.mark.long, pytest.mark.serial, pytest.mark.timeout(600)]),
    ],
    ids=["short", "long"],
)
def test_no_query_is_lost_over_restarts(server: Installed, restarts: Restarts, rate: int, seconds: int) -> None:
    begun = time.monotonic()
    with Load(server.port, server.state, rate, 16) as load:
        for number, restart in enumerate(restarts):
            time.sleep(max(0.5, begun + number * seconds / len(restarts) - time.monotonic()))
            restart(server)
        time.sleep(max(0.5, begun + seconds - time.monotonic()))
    waits = load.waits()
    print(len(load.asked), "asked; p50, longest:", waits[len(waits) // 2], waits[-1], "load", os.getloadavg()[0])
    assert load.report() == NOTHING


@pytest.mark.parametrize(
    ("times", "rate", "every"),
    [(3, 500, 0.5), pytest.param(20, 2500, 3.0, marks=[pytest.mark.long, pytest.mark.serial, pytest.mark.timeout(600)])],
    ids=["short", "long"],
)
def test_reloads_change_no_answer_but_to_the_new_one(server: Installed, times: int, rate: int, every: float) -> None:
    """Each reload brings other rules; every answer is wholly of one serial, and waits are as in quiet."""
    with Load(server.port, server.state, rate, 16) as load:
        time.sleep(2 * every)
        middle = time.time()
        for number in range(times):
            due = time.monotonic() + every
            order = ["birch", "alder"] if number % 2 else ["cedar", "birch", "alder"]
            write_zone(server.rules, nominal=order, plain=f"192.0.2.{number}")
            done = server.reload()
            assert done.returncode == 0, done
            server.until_answered([f"192.0.2.{number}"], SLACK, name="plain.example.net")
            time.sleep(max(0.0, due - time.monotonic()))
    quiet, loud = load.waits(until=middle), load.waits(since=middle)
    p99 = [waits[len(waits) * 99 // 100] * 1e3 for waits in (quiet, loud)]
    print(len(load.asked), "asked; p99 in ms in quiet, over reloads:", p99, "load", os.getloadavg()[0])
    assert load.report() == NOTHING
    assert load.roots > times
    assert p99[1] < max(2 * 3 * p99[0], 5.0 * SLACK)


def test_a_signal_reloads_too(server: Installed) -> None:
    write_zone(server.rules, nominal=["cedar", "birch", "alder"])
    assert server.process is not None
    server.process.send_signal(signal.SIGHUP)
    server.wait_for("reload: rules: serial 1 -> 2|reload: nothing changed")  # the watch may have been first
    server.until_answered([ADDRESS["cedar"]], SLACK)
    (server.rules / "example.net.yaml").write_text("zone: [")
    done = server.reload()
    assert done.returncode == 1
    assert "stays as it was" in done.stderr
    assert server.addresses() == [ADDRESS["cedar"]]


def test_what_no_reload_can_change_is_told(server: Installed) -> None:
    text = server.config.read_text()
    server.config.write_text(text.replace(str(server.state), str(server.top / "elsewhere")))
    done = server.reload()
    assert (done.returncode, done.stdout) == (1, "")
    assert "the state directory is another; that takes a stop and a start" in done.stderr
    server.set_config(listen=", '192.0.2.77:5300'")
    done = server.reload()
    assert done.returncode == 1
    assert "no interface of this machine has this address" in done.stderr
    server.end()
    done = server.reload()
    assert done.returncode == 1
    assert "no answer from" in done.stderr
