"""Worker processes: started, watched, started again, outliving the control process and taken over by the next."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median

import pytest

from edgedns import metrics
from edgedns.config import Address
from edgedns.serve import workers as workers_module
from edgedns.serve.worker import listen_sentence, read_status, start_ticks, write_status
from edgedns.serve.workers import Workers, WorkersError
from tests.conformance.peers import free_port

HERE = Path(__file__).parent
LOOPBACK = (Address("127.0.0.1", 0),)
Make = Callable[..., Workers]


@pytest.fixture
def lines() -> list[str]:
    return []


@pytest.fixture
def make(tmp_path: Path, lines: list[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """Workers in this test's state directory; whatever still runs there at the end is ended."""
    monkeypatch.setenv("PYTHONPATH", str(HERE))
    made: list[Workers] = []

    def build(count: int = 1, listen: tuple[Address, ...] = LOOPBACK, responder: str = "open_echo") -> Workers:
        made.append(Workers(listen, count, tmp_path, responder=f"standin:{responder}", log=lines.append))
        return made[-1]

    yield build
    for one in made:
        one.stop()
    run = tmp_path / "run"
    for slot in range(10):
        status = read_status(run, slot)
        if status and start_ticks(status.pid) == status.ticks:
            os.kill(status.pid, signal.SIGKILL)


def ask(address: Address, packet: bytes, timeout: float = 3.0) -> bytes:
    with socket.socket(address.family, socket.SOCK_DGRAM) as sock:
        sock.settimeout(timeout)
        sock.connect((address.host, address.port))
        sock.send(packet)
        return sock.recv(65535)


def ask_tcp(address: Address, packet: bytes) -> bytes:
    with socket.create_connection((address.host, address.port), timeout=3) as sock:
        sock.sendall(len(packet).to_bytes(2, "big") + packet)
        return sock.recv(65535)[2:]


def poll_until(workers: Workers, done: Callable[[], bool], within: float = 5.0) -> float:
    """Poll as the control process does, until `done`; seconds it took."""
    begun = time.monotonic()
    while not done():
        workers.poll()
        assert time.monotonic() - begun < within, "too late"
        time.sleep(0.02)
    return time.monotonic() - begun


def until_replaced(workers: Workers, victim: int) -> float:
    """Seconds until two answer, and it is not one of them."""
    return poll_until(workers, lambda: victim not in (pids := workers.pids) and len(pids) == 2)


def test_every_address_is_answered_over_both_transports(make: Make) -> None:
    workers = make(2, (Address("127.0.0.1", 0), Address("::1", 0), Address("0.0.0.0", 0)))
    workers.start()
    for address in workers.listen:
        assert address.port
        reachable = Address("127.0.0.2" if address.is_wildcard else address.host, address.port)
        assert ask(reachable, b"hello") == ask_tcp(reachable, b"hello") == b"hello"
    seen = {ask(workers.listen[0], b"pid") for _ in range(60)}
    assert seen == {b"%d" % pid for pid in workers.pids}


def test_a_worker_imports_nothing_heavy(make: Make) -> None:
    workers = make()
    workers.start()
    loaded = set(ask(workers.listen[0], b"modules").decode().split(","))
    assert "edgedns.serve.udp" in loaded
    heavy = {"numpy", "pydantic", "aiohttp", "yaml", "asyncio", "dns", "prometheus_client", "multiprocessing", "subprocess"}
    assert not loaded & heavy


def test_a_killed_worker_is_back_within_a_second_and_no_count_is_lost(make: Make, tmp_path: Path, lines: list[str]) -> None:
    workers = make(2)
    workers.start()
    for _ in range(20):
        ask(workers.listen[0], b"hello")
    victim = workers.pids[0]
    os.kill(victim, signal.SIGKILL)
    took = until_replaced(workers, victim)
    assert took < 1.0 * 3  # thrice the figure asked for: the machine may be busy
    assert workers.restarts == 1
    assert f"worker 0, process {victim}, ended (killed by signal 9); starting another" in lines
    for _ in range(20):
        assert ask(workers.listen[0], b"hello") == b"hello"
    workers.stop()
    totals = metrics.read_totals(tmp_path / "run")
    assert totals[metrics.UDP_RECEIVED] == 40
    # A reply leaves before it is counted: the kill may have come between the two.
    assert totals[metrics.UDP_REPLIED] in (39, 40)


def test_a_query_that_kills_is_survived(make: Make, lines: list[str]) -> None:
    workers = make()
    workers.start()
    with pytest.raises(TimeoutError):
        ask(workers.listen[0], b"die", timeout=0.2)
    poll_until(workers, lambda: len(workers.pids) == 1)
    assert ask(workers.listen[0], b"hello") == b"hello"
    assert any("ended (exit 7)" in line for line in lines)


def test_what_workers_say_reaches_the_log(make: Make, lines: list[str]) -> None:
    workers = make()
    workers.start()
    ask_tcp(workers.listen[0], b"hello")
    with pytest.raises(TimeoutError):
        ask(workers.listen[0], b"raise", timeout=0.1)
    poll_until(workers, lambda: any("worker 0: answering: ValueError: as asked" in line for line in lines))


CONTROL = """
import sys, time
from pathlib import Path
from statistics import median
from edgedns.config import Address
from edgedns.serve.workers import Workers
workers = Workers((Address("127.0.0.1", int(sys.argv[2])),), 2, Path(sys.argv[1]), responder="standin:open_echo")
workers.start()
print(*workers.pids, flush=True)
while True:
    workers.poll()
    time.sleep(0.05)
"""


def test_workers_outlive_the_control_process_and_the_next_one_takes_them_over(make: Make, tmp_path: Path) -> None:
    address = Address("127.0.0.1", free_port())
    control = subprocess.Popen(
        [sys.executable, "-c", CONTROL, str(tmp_path), str(address.port)], stdout=subprocess.PIPE, text=True
    )
    assert control.stdout
    pids = [int(word) for word in control.stdout.readline().split()]
    control.send_signal(signal.SIGKILL)
    control.wait()
    # Its end of the pipe closes though workers live: they hold nothing of the control process.
    assert control.stdout.read() == ""
    control.stdout.close()
    for _ in range(20):
        assert ask(address, b"hello") == b"hello"
    successor = make(2, (address,))
    successor.start()
    assert sorted(successor.pids) == sorted(pids)
    assert int(ask(address, b"pid")) in pids
    os.kill(pids[0], signal.SIGKILL)
    until_replaced(successor, pids[0])
    successor.stop()
    with pytest.raises(ConnectionRefusedError):
        ask(address, b"hello")


def test_other_settings_replace_them_only_when_the_new_ones_answer(make: Make, tmp_path: Path) -> None:
    first = make(2)
    first.start()
    address, old = first.listen[0], set(first.pids)
    first.leave()
    broken = make(2, (address,), "open_broken")
    with pytest.raises(WorkersError, match="this responder never opens"):
        broken.start()
    broken.leave()
    assert {int(ask(address, b"pid")) for _ in range(40)} == old
    second = make(1, (address,), "open_tagged")
    second.start()
    assert not old & set(second.pids)
    assert [ask(address, b"hello") for _ in range(20)] == [b"new hello"] * 20


def test_nothing_is_lost_while_workers_are_replaced(make: Make) -> None:
    first = make(2)
    first.start()
    address = first.listen[0]
    first.leave()
    clients = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(30)]
    for sock in clients:
        sock.settimeout(2)
        sock.connect((address.host, address.port))
    second = make(2, (address,), "open_tagged")
    replacing = threading.Thread(target=second.start)
    seen: set[bytes] = set()
    replacing.start()
    last = 0
    for number in range(10_000):
        for sock in clients:
            sock.send(b"%05d" % number)
        for sock in clients:
            reply = sock.recv(100)  # a lost one is a TimeoutError
            assert reply.endswith(b"%05d" % number)
            seen.add(reply[:-5])
        last = last or (0 if replacing.is_alive() else number)
        if last and number > last + 5:
            break
    replacing.join()
    for sock in clients:
        sock.close()
    assert seen == {b"", b"new "}
    assert reply.startswith(b"new ")


def test_fewer_workers_end_the_surplus(make: Make) -> None:
    first = make(3)
    first.start()
    first.leave()
    second = make(1, first.listen)
    second.start()
    assert len(second.pids) == 1
    assert {int(ask(first.listen[0], b"pid")) for _ in range(30)} == set(second.pids)


def test_a_reused_process_id_is_not_taken_for_a_worker(make: Make, tmp_path: Path) -> None:
    first = make()
    first.start()
    status = read_status(tmp_path / "run", 0)
    assert status
    first.stop()
    imposter = subprocess.Popen(["sleep", "60"])
    try:
        write_status(tmp_path / "run", type(status)(imposter.pid, status.ticks, 0, status.version, status.settings, True))
        second = make(1, first.listen)
        second.start()
        assert imposter.pid not in second.pids
        second.stop()
        assert imposter.poll() is None
    finally:
        imposter.kill()
        imposter.wait()


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_STREAM])
def test_a_port_in_use_is_one_sentence(make: Make, kind: socket.SocketKind) -> None:
    with socket.socket(socket.AF_INET, kind) as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)  # even one that would share it
        taken.bind(("127.0.0.1", 0))
        if kind == socket.SOCK_STREAM:
            taken.listen(1)
        address = Address("127.0.0.1", taken.getsockname()[1])
        with pytest.raises(WorkersError) as caught:
            make(1, (address,)).start()
    advice = "another program uses this address; stop it, or choose another with --listen ADDR:PORT"
    assert str(caught.value) == f"can't listen on {address}: {advice}"


def test_an_address_of_nobody_here_is_one_sentence(make: Make) -> None:
    with pytest.raises(
        WorkersError, match=r"can't listen on 192\.0\.2\.77:5300: no interface of this machine has this address"
    ):
        make(1, (Address("192.0.2.77", 5300),)).start()


def test_a_low_port_is_one_sentence() -> None:
    sentence = listen_sentence(Address("127.0.0.1", 53), OSError(errno.EACCES, "Permission denied"))
    assert sentence.startswith("can't listen on 127.0.0.1:53: ports below 1024 need root or CAP_NET_BIND_SERVICE")


def test_two_control_processes_do_not_share_a_state_directory(make: Make) -> None:
    first = make()
    first.start()
    with pytest.raises(WorkersError, match="another edgedns serves from the state directory"):
        make().start()
    assert ask(first.listen[0], b"hello") == b"hello"


def test_a_worker_without_a_snapshot_takes_no_queries(make: Make, tmp_path: Path) -> None:
    (tmp_path / "serial").write_text("0")
    workers = make()
    with pytest.raises(WorkersError, match="not ready after 1 s"):
        workers.start(timeout=0.6)
    workers.leave()
    (tmp_path / "serial").write_text("5")
    again = make()
    again.start()
    assert again.serials() == [5]
    (tmp_path / "serial").write_text("6")
    poll_until(again, lambda: again.serials() == [6])


def seen_by(workers: Workers, serial: int) -> bool:
    return workers.serials() == [serial]


def test_what_is_published_is_seen_at_once(make: Make, tmp_path: Path) -> None:
    workers = make()
    workers.start()
    took = []
    for serial in range(7, 12):
        (tmp_path / "aside").write_text(str(serial))
        (tmp_path / "aside").replace(tmp_path / "serial")
        took.append(poll_until(workers, partial(seen_by, workers, serial)))
    assert median(took) < 0.4, "less than the second between two looks"


def test_a_worker_that_nobody_asks_hardly_ever_wakes(make: Make) -> None:
    workers = make()
    workers.start()
    time.sleep(0.5)
    before = _wakings(workers.pids[0])
    time.sleep(3)
    assert _wakings(workers.pids[0]) - before <= 3 * 8  # two a second for each socket's loop, one for the watch


def _wakings(pid: int) -> int:
    """How often its threads have gone to sleep so far."""
    lines = (line for path in Path(f"/proc/{pid}/task").glob("*/status") for line in path.read_text().splitlines())
    return sum(int(line.split()[1]) for line in lines if line.startswith("voluntary_ctxt_switches"))


def test_one_that_cannot_start_again_is_tried_less_and_less(make: Make, tmp_path: Path, lines: list[str]) -> None:
    workers = make()
    workers.start()
    (tmp_path / "serial").write_text("not a number")  # it lives on: a refresh that fails changes nothing
    time.sleep(0.25)
    assert ask(workers.listen[0], b"hello") == b"hello"
    workers._settings = [*workers._settings, "--no-such-option"]
    os.kill(workers.pids[0], signal.SIGKILL)
    poll_until(workers, lambda: workers.restarts >= 2, 10)
    begun = time.monotonic()
    while time.monotonic() - begun < 2.5:
        workers.poll()
        time.sleep(0.02)
    assert workers.restarts <= 4
    assert any("worker 0 did not start (exit 2)" in line for line in lines)


def test_a_hung_worker_is_killed_and_replaced(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers_module, "SILENT", 0.6)
    workers = make()
    workers.start()
    victim = workers.pids[0]
    os.kill(victim, signal.SIGSTOP)
    poll_until(workers, lambda: len(workers.pids) == 1 and victim not in workers.pids)
    assert ask(workers.listen[0], b"hello") == b"hello"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_told_to_end_ends_at_once(make: Make, tmp_path: Path, number: signal.Signals) -> None:
    workers = make()
    workers.start()
    pid, begun = workers.pids[0], time.monotonic()
    os.kill(pid, number)
    while start_ticks(pid):
        assert time.monotonic() - begun < 1.0 * 3
        time.sleep(0.01)
    assert workers._template
    assert workers._template.code_of(pid) == 0
    assert workers._template.code_of(pid) is None
    assert read_status(tmp_path / "run", 0) is None


def test_workers_are_in_sessions_of_their_own(make: Make) -> None:
    workers = make()
    workers.start()
    assert os.getsid(workers.pids[0]) == workers.pids[0]


def test_a_thousand_idle_connections_leave_udp_and_new_tcp_alone(make: Make) -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 1200:
        pytest.skip("this test needs 1,200 open files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 1200), hard))
    workers = make()
    workers.start()
    address = workers.listen[0]
    idle = [socket.create_connection((address.host, address.port), timeout=3) for _ in range(1000)]
    try:
        slowest = 0.0
        for _ in range(50):
            begun = time.monotonic()
            assert ask(address, b"hello") == ask_tcp(address, b"hello") == b"hello"
            slowest = max(slowest, time.monotonic() - begun)
        assert slowest < 0.3
    finally:
        for sock in idle:
            sock.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
