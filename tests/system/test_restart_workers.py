"""Sockets outlive workers and control processes: what waits in them is answered by whoever comes next."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edgedns.config import Address
from edgedns.serve import handover, sockets
from edgedns.serve.worker import start_ticks
from edgedns.serve.workers import Workers
from tests.system.serving import kill
from tests.system.test_workers import LOOPBACK, Make, ask, ask_tcp, lines, make, poll_until, until_replaced

__all__ = ["lines", "make"]
BOTH = (Address("127.0.0.1", 0), Address("::1", 0))


def wait(done: Callable[[], bool], within: float = 10.0) -> None:
    until = time.monotonic() + within
    while not done():
        assert time.monotonic() < until, "too late"
        time.sleep(0.01)


def numbers(workers: Workers) -> set[int]:
    return {one.number for one in workers.held}


@contextlib.contextmanager
def clients(address: Address, count: int) -> Iterator[list[socket.socket]]:
    """So many that the kernel's hash spreads them over all sockets of the port."""
    with contextlib.ExitStack() as opened:
        made = [opened.enter_context(socket.socket(address.family, socket.SOCK_DGRAM)) for _ in range(count)]
        for sock in made:
            sock.settimeout(5)
            sock.connect((address.host, address.port))
        yield made


def test_what_waits_for_a_killed_worker_is_answered_by_the_next(make: Make) -> None:
    workers = make(2, BOTH)
    workers.start()
    before = numbers(workers)
    assert len(before) == 2 * 2 * 2
    for address in workers.listen:
        for pid in workers.pids:
            kill(pid)
        with clients(address, 20) as asking, socket.create_connection((address.host, address.port), timeout=5) as stream:
            for sock in asking * 10:
                sock.send(b"hello")
            stream.sendall(b"\x00\x05hello")
            poll_until(workers, lambda: len(workers.pids) == 2)
            for sock in asking * 10:
                assert sock.recv(100) == b"hello"
            assert stream.recv(100) == b"\x00\x05hello"
    assert numbers(workers) == before


def test_the_next_control_process_gets_the_sockets_from_the_workers(make: Make) -> None:
    first = make(2, BOTH)
    first.start()
    before, pids = numbers(first), first.pids
    first.leave()
    second = make(2, first.listen, "open_tagged")  # started otherwise: both are replaced
    second.start()
    assert not set(pids) & set(second.pids)
    assert numbers(second) == before
    for address in second.listen:
        assert ask(address, b"hello") == ask_tcp(address, b"hello") == b"new hello"


def test_nothing_is_lost_when_workers_become_more_and_fewer(make: Make) -> None:
    first = make(1)
    first.start()
    address = first.listen[0]
    first.leave()
    stop, lost = threading.Event(), []

    def load() -> None:
        with clients(address, 30) as asking:
            while not stop.is_set():
                for sock in asking:
                    sock.send(b"hello")
                for sock in asking:
                    try:
                        sock.recv(100)
                    except OSError as error:
                        lost.append(error)

    thread = threading.Thread(target=load)
    thread.start()
    try:
        for count in (3, 1, 2, 1):
            workers = make(count, (address,))
            workers.start()
            assert len(workers.pids) == count
            assert len(numbers(workers)) == 2 * count
            workers.leave()
            time.sleep(0.2)
    finally:
        stop.set()
        thread.join()
    assert lost == []


def test_an_address_is_added_and_one_removed(make: Make) -> None:
    first = make(2, BOTH)
    first.start()
    v4, v6 = first.listen
    before = numbers(first)
    first.leave()
    second = make(2, (v4, Address("127.0.0.2", v4.port)))
    second.start()
    for address in second.listen:
        assert ask(address, b"hello") == ask_tcp(address, b"hello") == b"hello"
    with pytest.raises(ConnectionRefusedError):
        ask(v6, b"hello")
    with pytest.raises(ConnectionRefusedError):
        ask_tcp(v6, b"hello")
    assert len(numbers(second) & before) == 4


def test_what_nobody_can_read_is_left_to_the_others(make: Make, lines: list[str]) -> None:
    """A worker that can't start again: after two tries its sockets are closed, and opened by the one that can."""
    workers = make(2)
    workers.start()
    good, address = list(workers._settings), workers.listen[0]
    workers._settings = [*good, "--no-such-option"]
    kill(workers.pids[0])
    poll_until(workers, lambda: sum("did not start" in line for line in lines) == 2, 10)
    assert len(workers.held) == 2
    with clients(address, 40) as asking:
        for sock in asking:
            sock.send(b"hello")
        assert [sock.recv(100) for sock in asking] == [b"hello"] * 40
    workers._settings = good
    poll_until(workers, lambda: len(workers.pids) == 2, 20)
    assert len(workers.held) == 4
    assert {ask(address, b"pid") for _ in range(60)} == {b"%d" % pid for pid in workers.pids}


def test_sockets_are_given_to_their_owner_only(make: Make, tmp_path: Path) -> None:
    workers = make()
    workers.start()
    assert (tmp_path / "run" / "worker-0.sock").stat().st_mode & 0o077 == 0
    assert handover.ask(tmp_path / "run", 7) is None
    stopped = workers._workers[0].pid
    workers.leave()
    os.kill(stopped, signal.SIGTERM)
    wait(lambda: not (tmp_path / "run" / "worker-0.sock").exists())


def test_sockets_that_can_t_be_given_are_told_of(tmp_path: Path) -> None:
    told: list[tuple[str, BaseException]] = []
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    giver = handover.Giver(tmp_path, 3, [sock], lambda what, error: told.append((what, error)))
    given = handover.ask(tmp_path, 3)
    assert given is not None
    assert len(given) == 1
    given[0].close()
    sock.close()
    assert handover.ask(tmp_path, 3) is None
    wait(lambda: [what for what, _ in told] == ["giving sockets"])
    giver.close()


def another_than(workers: Workers, dead: int) -> Callable[[], bool]:
    return lambda: workers.pids not in ([], [dead])


def test_a_worker_that_gives_nothing_leaves_its_sockets_to_the_next(
    make: Make, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    workers = make()
    workers.start()
    before = numbers(workers)
    monkeypatch.setattr(handover, "ask", lambda run, slot: None)
    for _ in range(2):
        address, (pid,) = workers.listen[0], workers.pids
        kill(pid)
        with clients(address, 1) as (sock,):
            sock.send(b"hello")  # it waits in the socket
            poll_until(workers, another_than(workers, pid))
            assert sock.recv(100) == b"hello"
        assert numbers(workers) == before
    assert any("does not give its sockets" in line for line in lines)


def test_sockets_that_were_passed_are_shared_by_all(make: Make) -> None:
    """As by systemd: one for each kind, kept open elsewhere, so that they are never retired."""
    place = sockets.Place(LOOPBACK[0], socket.SOCK_DGRAM)
    with sockets.opened(place).sock as outside:
        address = Address("127.0.0.1", outside.getsockname()[1])
        workers = make(2, (address,))
        workers._given = [sockets.held(outside.dup(), shared=True)]
        workers.start()
        assert len(workers.held) == 1 + 2
        for _ in range(20):
            assert ask(address, b"hello") == ask_tcp(address, b"hello") == b"hello"
        workers.stop()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(5)
            sock.sendto(b"hello", address)  # waits where it is
            again = make(1, (address,))
            again._given = [sockets.held(outside.dup(), shared=True)]
            again.start()
            assert sock.recv(100) == b"hello"


def template_of(workers: Workers) -> int:
    assert workers._template is not None
    return workers._template._process.pid


def test_workers_do_not_need_what_they_were_forked_from(make: Make) -> None:
    workers = make(2)
    workers.start()
    before = workers.pids
    os.kill(template_of(workers), signal.SIGKILL)
    poll_until(workers, lambda: True)
    assert workers.pids == before
    kill(workers.pids[0])
    poll_until(workers, lambda: len(workers.pids) == 2)
    assert ask(workers.listen[0], b"hello") == b"hello"


def test_what_workers_are_forked_from_ends_with_the_control_process(make: Make) -> None:
    workers = make()
    workers.start()
    template = template_of(workers)
    workers.leave()
    assert start_ticks(template) == 0
    assert ask(workers.listen[0], b"hello") == b"hello"


def files(run: Path) -> list[str]:
    return sorted(path.name for path in run.iterdir())


def resident(pid: int) -> int:
    """Kilobytes that are this process' own."""
    rows = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(row.split()[1]) for row in rows if row.startswith("Private_"))


@pytest.mark.parametrize(
    "times", [5, pytest.param(100, marks=[pytest.mark.long, pytest.mark.serial, pytest.mark.timeout(900)])]
)
def test_a_killed_worker_is_back_and_nothing_leaks(make: Make, tmp_path: Path, times: int) -> None:
    """Under 800 queries a second, each from a port of its own. Of its share the killed one takes at most a few ms with it."""
    workers = make(2)
    workers.start()
    address, stop, waits, lost = workers.listen[0], threading.Event(), [], []

    def load() -> None:
        while not stop.wait(0.005):
            begun = time.monotonic()
            try:
                assert ask(address, b"hello", 5.0) == b"hello"
                waits.append(time.monotonic() - begun)
            except TimeoutError as error:
                lost.append(error)

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    slowest, before = 0.0, (0, 0, [""])
    for round_ in range(times):
        time.sleep(0.55)  # started again without delay only when it ran for a while
        victim = workers.pids[round_ % 2]
        os.kill(victim, signal.SIGKILL)
        slowest = max(slowest, until_replaced(workers, victim))
        if round_ == 2:
            before = len(os.listdir("/proc/self/fd")), resident(os.getpid()), files(tmp_path / "run")
    stop.set()
    for thread in threads:
        thread.join()
    after = len(os.listdir("/proc/self/fd")), resident(os.getpid()), files(tmp_path / "run")
    assert slowest < 1.0 * 3
    assert max(waits) < 1.0 * 3, "a query waits for the worker that comes"
    assert len(lost) <= times, "one each: what the kernel had given it already"
    assert after[2] == before[2]
    assert after[0] <= before[0] + 4  # the threads' own
    assert after[1] < before[1] + 2000
    print(f"{times} kills: back in {slowest:.2f} s; of {len(waits)} queries {len(lost)} lost, longest wait {max(waits):.2f} s")
