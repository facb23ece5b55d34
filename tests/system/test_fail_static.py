"""Law 4: each input is taken away in turn while 500 queries a second are asked, each once: all are answered, and rightly."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import dns.message
import pytest

from tests.small import ADDRESS, NETWORKS, samples, write_rules, write_table
from tests.small import replace as save
from tests.system.load import Load
from tests.system.serving import SLACK, Server, serving, wait_until

ALDER, BIRCH, CEDAR = (ADDRESS[name] for name in ("alder", "birch", "cedar"))
ROUND = 0.5  # seconds
NOTHING = {"lost": 0, "servfail": 0, "empty": 0, "wrong": 0}
pytestmark = pytest.mark.xdist_group("fail-static")


class Probes:
    """Feeds samples five times a second; what is best changes every second, so that answers move under the load."""

    def __init__(self, server: Server, moving: bool = True) -> None:
        self._server, self._moving = server, moving
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Probes:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        number = 0
        while not self._stop.wait(0.2):
            number += 1
            fast = 5.0 if self._moving and number // 5 % 2 else 80.0
            with contextlib.suppress(OSError):  # the control process may be what is taken away
                body = samples(time.time(), {"alder": 40.0, "birch": 20.0, "cedar": fast}, range(0, NETWORKS, 3))
                self._server.http("/v1/samples", body)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    rules = {"period": f"{ROUND * 1000:.0f}ms", "fresh_for": "1h", "limit": 1.0}
    with serving(tmp_path_factory.mktemp("static"), workers=2, **rules) as server, Probes(server):
        server.until_answered([BIRCH], 5 * SLACK, of=9)
        yield server


def restore(server: Server) -> None:
    shutil.rmtree(server.rules, ignore_errors=True)
    write_rules(server.rules, period=f"{ROUND * 1000:.0f}ms", fresh_for="1h", limit=1.0)
    assert server.table is not None
    write_table(server.table)
    time.sleep(1.0)


def remove_state(server: Server) -> None:
    for name in ("published", "run", "rules-good"):
        gone = server.top / f"gone-{name}"
        if not (server.state / name).exists():  # taken away before, and not made anew yet
            continue
        (server.state / name).rename(gone)  # while files are written there, deleting one by one would not end
        gone.unlink() if gone.is_symlink() else shutil.rmtree(gone)
    for path in server.state.glob("*.*"):
        path.unlink()
    (server.state / "salt").unlink(missing_ok=True)


def spoil(*folders: Path) -> None:
    """Other content in place of each file, by renaming, and unreadable for all but root."""
    for folder in folders:
        for path in [path for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")]:
            aside = folder / ".spoilt"
            aside.write_bytes(b"EDGEDNS\0 but not really")
            aside.chmod(0)
            aside.replace(path)


def publish_foreign(server: Server) -> None:
    """A well-formed root that names a truncated base, then one of another format.

    Midway between two rounds: a root of the server's own that is written over at once, workers may have and `Load` not.
    """
    time.sleep((ROUND / 2 - time.time()) % ROUND)
    root = server.root()
    folder = server.state / "published"
    (folder / "base-half.bin").write_bytes((folder / root["base"]).read_bytes()[:-100])
    save(folder / "root.json", json.dumps(root | {"serial": root["serial"] + 1000, "base": "base-half.bin"}))
    time.sleep(ROUND)
    save(folder / "root.json", json.dumps(root | {"serial": root["serial"] + 2000, "format": 2}))
    time.sleep(0.4)


def break_rules(server: Server) -> None:
    (server.rules / "example.net.yaml").write_text("zone: [")
    time.sleep(0.6)
    (server.rules / "providers.yaml").write_text("providers: {alder: ")


def give_bad_tests(server: Server) -> None:
    path = server.rules / "example.net.yaml"
    save(path, path.read_text() + "tests: [{name: www, type: A, from: 192.0.2.1, expect: cedar}]\n")


def break_table(server: Server) -> None:
    assert server.table is not None
    server.table.write_bytes(server.table.read_bytes()[:-40])
    time.sleep(0.6)
    save(server.table, "<html>503 Service Unavailable</html>")


def remove_table(server: Server) -> None:
    assert server.table
    server.table.unlink()


TAKEN: dict[str, Callable[[Server], object]] = {
    "the state directory's files": remove_state,
    "readable state files": lambda server: spoil(server.state, server.state / "run"),
    "readable published files": lambda server: spoil(server.state / "published"),
    "a sound root": publish_foreign,
    "the ASN table": remove_table,
    "a sound ASN table": break_table,
    "rules that parse": break_rules,
    "rules that pass their tests": give_bad_tests,
    "the rules directory": lambda server: shutil.rmtree(server.rules),
}


@pytest.mark.parametrize("what", TAKEN)
def test_taking_away(shared: Server, what: str) -> None:
    with Load(shared.port, shared.state) as load:
        time.sleep(0.6)
        TAKEN[what](shared)
        time.sleep(1.6)
    assert load.report() == NOTHING
    assert len(load.asked) > 700
    wait_until(lambda: shared.http("/readyz")[0] == 200, 5 * SLACK)
    restore(shared)
    assert shared.addresses(of=9) in ([BIRCH], [CEDAR])


def test_answers_move_under_the_load(shared: Server) -> None:
    """Or the checks above would prove little."""
    order = {"kind": "drain", "provider": "birch", "owner": "noc", "reason": "test"}
    with Load(shared.port, shared.state) as load:
        for _ in range(3):
            time.sleep(0.4)
            made = shared.http("/v1/overrides", order)[1]
            time.sleep(0.4)
            shared.http(f"/v1/overrides/{made['id']}", method="DELETE")
    assert load.report() == NOTHING
    assert load.roots >= 6
    given: dict[bytes, set[str]] = {}
    for one in load.asked:
        answer = dns.message.from_wire(one.reply).answer
        given.setdefault(one.packet[2:], set()).add("\n".join(map(str, answer)))
    assert max(map(len, given.values())) > 1


def test_the_check_itself_can_fail(shared: Server) -> None:
    with Load(shared.port, shared.state) as load:
        time.sleep(0.3)
    one, other = load.asked[0], next(x for x in load.asked if x.packet[12:] != load.asked[0].packet[12:])
    one.reply = other.reply
    load.asked[1].reply = b""
    assert load.report()["wrong"] == 1
    assert load.report()["lost"] == 1


def test_probes_gone_workers_turn_to_nominal(tmp_path: Path) -> None:
    with serving(tmp_path, workers=2, period="500ms", fresh_for="3s", limit=1.0) as server:
        with Probes(server, moving=False):
            server.until_answered([BIRCH], 5 * SLACK)
        with Load(server.port, server.state) as load:
            until = server.root()["fresh_until"]
            assert server.addresses() == [BIRCH]
            time.sleep(max(0.0, until - time.time()) + 0.5)
            took = server.until_answered([ALDER], 1 * SLACK)
        assert took < 1 * SLACK
        assert load.report() == NOTHING


def test_the_control_process_killed(tmp_path: Path) -> None:
    """Workers go on, turn to nominal by themselves at fresh_until, and the next control process takes them over."""
    with serving(tmp_path, workers=2, period="500ms", fresh_for="6s", limit=1.0) as server:
        with Probes(server, moving=False):
            server.until_answered([BIRCH], 5 * SLACK)
            with Load(server.port, server.state) as load:
                time.sleep(0.5)
                pids = server.worker_pids()
                server.end(signal.SIGKILL)
                until = server.root()["fresh_until"]
                assert server.addresses() == [BIRCH]
                assert time.time() < until, "too slow to tell"
                time.sleep(max(0.0, until - time.time()) + 0.2)
                server.until_answered([ALDER], 1 * SLACK)
                serial = server.root()["serial"]
                server.start()
                assert server.worker_pids() == pids
                server.until_answered([BIRCH], 5 * SLACK)
        assert server.root()["serial"] > serial
        assert load.report() == NOTHING


def test_everything_taken_away_at_a_restart(tmp_path: Path) -> None:
    """What was published is served again though rules and table are broken, and no samples come."""
    with serving(tmp_path, workers=2, period="500ms", limit=1.0) as server:
        with Probes(server, moving=False):
            server.until_answered([BIRCH], 5 * SLACK)
        with Load(server.port, server.state) as load:
            server.end(signal.SIGKILL)
            break_rules(server)
            break_table(server)
            server.start()
            assert server.addresses() == [BIRCH]
            assert "the last good ones are served" in server.said()
            time.sleep(1.0)
        assert load.report() == NOTHING
        server.end()
        server.start()  # now without workers that were there
        assert server.addresses() == [BIRCH]


@pytest.mark.long
def test_a_minute_of_everything(shared: Server) -> None:
    """All of it, one after the other, under one load."""
    with Load(shared.port, shared.state) as load:
        for _ in range(3):
            for take in TAKEN.values():
                take(shared)
                time.sleep(1.5)
                restore(shared)
    assert load.report() == NOTHING
    assert len(load.asked) > 20_000
    wait_until(lambda: shared.http("/readyz")[0] == 200, 5 * SLACK)
