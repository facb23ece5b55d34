"""The control process' side of the workers: start, watch, start again, take over, stop.

Workers outlive the control process. The next one finds them by the status files they keep in `<state>/run`, goes on
with those that were started with the same settings, and lets the others go only when their successors answer.

Sockets outlive workers: the control process holds duplicates, passes them to each worker that it starts in the place of
another, and asks workers for theirs that it did not start. So nothing that waits in a socket is lost.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from edgedns import __version__, metrics
from edgedns.config import Address
from edgedns.errors import EdgednsError
from edgedns.serve import handover, sockets, udp, worker
from edgedns.serve.forks import Forks
from edgedns.serve.sockets import Berth, Held
from edgedns.serve.worker import listen_sentence, read_status, start_ticks

SPACING = 0.5  # seconds between two starts in one slot
LONGEST_WAIT = 10.0  # between starts of a worker that dies before it is ready
SILENT = 10.0  # seconds without a beat after which a worker counts as hung
CLOSED_AFTER = 2  # failed starts in a row: what nobody reads is closed until the next try, so that others get its share
LOG_SIZE = 4 << 20


class WorkersError(EdgednsError):
    """The workers can't be started, and why."""


@dataclass(slots=True)
class Worker:
    """One living worker, or one that is due to be started again (`pid` 0)."""

    slot: int
    pid: int = 0
    ticks: int = 0
    fresh: bool = False  # started by us, not found
    ready: bool = False
    started: float = 0.0  # CLOCK_MONOTONIC
    due: float = 0.0
    failures: int = 0  # in a row, before it was ready
    berth: Berth = field(default_factory=list)

    def is_alive(self) -> bool:
        if self.pid:
            with contextlib.suppress(ChildProcessError):  # an orphan's next of kin may be we: process 1 of a container
                os.waitpid(self.pid, os.WNOHANG)
        return bool(self.pid) and start_ticks(self.pid) == self.ticks

    def send(self, number: signal.Signals) -> None:
        if self.is_alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)


class Workers:
    """`count` workers on the same addresses. Not thread-safe; `poll` is to be called about every 100 ms.

    `listen` is what they listen on: a port 0 is replaced by a free one at `start`. `given` are sockets that were passed to
    this process. `log` gets what they have to say.
    """

    def __init__(
        self,
        listen: Sequence[Address],
        count: int,
        state: Path,
        *,
        python: str = sys.executable,
        responder: str = worker.RESPONDER,
        extra: Sequence[str] = (),
        given: Sequence[Held] = (),
        log: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.listen = tuple(listen)
        self.restarts = 0
        self.settled = 0.0  # Unix time; 0 while those whose place they take run still
        self._count = count
        self._state = state.absolute()
        self._run = self._state / "run"
        self._python = python
        self._responder = responder
        self._extra = tuple(extra)
        self._given = list(given)
        self._log = log
        self._workers: list[Worker] = []
        self._going: list[Worker] = []  # others have taken their place
        self._surplus: list[Held] = []
        self._template: Forks | None = None
        self._before: set[int] = set()  # the numbers of the sockets that were there before us
        self._settings: list[str] = []
        self._lock: int | None = None
        self._logfile: IO[bytes] | None = None
        self._logged = 0

    def start(self, timeout: float = 30.0, settle: bool = True) -> None:
        """Adopt or start all, and return when each is ready. WorkersError says why one is not; those that ran still run.

        Without `settle` those that are to go run until that is called, so that `retreat` can leave things as they were.
        """
        self.take_lock()
        worker.allow_descriptors()
        self._open_log()
        self._before = {one.number for one in self._given}
        found = self._find()
        self._before |= {held.number for one in found for held in one.berth}
        self.listen = tuple(self._resolve(address, found) for address in self.listen)
        self._settings = worker.arguments(self.listen, self._state, self._responder, self._extra)
        kept = [one for one in found if self._is_alike(one)][: self._count] if self._all_are_read(found) else []
        others = [one for one in found if one not in kept]
        self._workers = kept + self._fresh(found)[: self._count - len(kept)]
        try:
            self._surplus = self._allot(kept, others)
            for one in self._workers[len(kept) :]:
                self._spawn(one)
            self._wait_ready(timeout)
        except BaseException:  # Ctrl-C too: they would live on
            self._end_fresh()
            self._forget([*found, *self._workers])
            raise
        self._going = others
        if settle:
            self.settle()

    def settle(self) -> None:
        """End those whose place others have taken, and close what nobody needs any more."""
        sockets.retire(self._surplus)
        _end(self._going, 2.0)
        for one in self._going:
            self._clear(one.slot)
        sockets.end(self._surplus)
        self._going, self._surplus = [], []
        self.settled = time.time()

    def _is_alike(self, one: Worker) -> bool:
        """Whether it can go on: started as we would start it, and its sockets are ours too."""
        status = read_status(self._run, one.slot)
        same = status is not None and status.settings == self._settings and status.version == __version__
        return same and one.ready and not sockets.missing(sockets.places(self.listen), one.berth)

    def _all_are_read(self, found: Sequence[Worker]) -> bool:
        """Whether the workers that run read every socket that they should: more may have been given to us since."""
        read, wanted = {one.number for each in found for one in each.berth}, sockets.places(self.listen)
        return all(one.number in read for one in self._given if one.shared and one.place in wanted)

    def _fresh(self, found: Sequence[Worker]) -> list[Worker]:
        """New ones in slots that nobody has: counters and status files are each worker's own."""
        taken = {one.slot for one in found}
        return [Worker(slot) for slot in range(len(found) + self._count) if slot not in taken]

    def _allot(self, kept: Sequence[Worker], others: Sequence[Worker]) -> list[Held]:
        """Give each worker the sockets of one that goes; what is left over. A worker opens itself what it lacks."""
        wanted = sockets.places(self.listen)
        theirs = [one.berth for one in (*kept, *others)]
        berths, left = sockets.allot(wanted, theirs, self._given, self._count)
        self._given = []
        for one, berth in zip(self._workers, berths, strict=True):
            one.berth = berth
        ours = self._ports((*kept, *others)) | {held.place.address.port for berth in berths for held in berth}
        for address in self.listen:
            if address.port not in ours:
                check_free(address)
        return left

    def _ports(self, found: Iterable[Worker]) -> set[int]:
        """Where workers that run are bound: there only their successors' own bind can tell whether an address is free."""
        statuses = (read_status(self._run, one.slot) for one in found)
        arguments = [argument for status in statuses if status for argument in status.settings]
        return {int(argument.rpartition(":")[2]) for argument in arguments if argument.startswith("--listen")}

    def poll(self) -> None:
        """Start again what died or hangs, pass on what the workers said. Never blocks."""
        now = time.monotonic()
        for one in self._workers:
            if one.pid and not one.is_alive():
                self._mourn(one, now)
            elif one.pid:
                self._look_at(one, now)
            if not one.pid and now >= one.due:
                self.restarts += 1
                self._spawn(one)
        self.pass_on_log()

    def stop(self, timeout: float = 2.0, keep: bool = False) -> None:
        """End all workers; those that don't go by themselves are killed. What is queued is answered first.

        With `keep` it stays queued instead: the service manager has the sockets, for the next control process.
        """
        if not keep:
            for one in self._workers:
                sockets.retire(one.berth)
        _end(self._workers, timeout)
        for one in self._workers:
            self._clear(one.slot)
        self._forget(self._workers)
        self.leave()

    def retreat(self) -> None:
        """End those that were started and leave those that were found, as if nothing had been tried."""
        self._end_fresh()
        self.leave()

    def _end_fresh(self) -> None:
        """End those that were started, and the sockets that are theirs alone."""
        fresh = [one for one in self._workers if one.fresh]
        sockets.retire(held for one in fresh for held in one.berth if held.number not in self._before)
        _end(fresh, 2.0)

    def hand_on(self) -> None:
        """As `leave`, for this process' next incarnation: our sockets stay open, and what else there is ends with the image."""
        self.pass_on_log()
        self._drop_template()

    def leave(self) -> None:
        """Let go of the workers, which go on answering, for another control process to take over."""
        self.pass_on_log()
        self._forget(self._workers)
        self._drop_template()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
        if self._logfile:
            self._logfile.close()
            self._logfile = None

    def _forget(self, those: Iterable[Worker]) -> None:
        """Close our duplicates of their sockets."""
        for one in (*those, *self._going):
            sockets.close(one.berth)
        sockets.close([*self._given, *self._surplus])
        self._workers, self._given, self._going, self._surplus = [], [], [], []

    def _clear(self, slot: int) -> None:
        """Nobody is there any more who could be asked."""
        worker.status_path(self._run, slot).unlink(missing_ok=True)

    @property
    def held(self) -> list[Held]:
        """The sockets of all, each once."""
        return list({one.number: one for each in self._workers for one in each.berth}.values())

    @property
    def pids(self) -> list[int]:
        """Of the workers that answer."""
        return [one.pid for one in self._workers if one.ready and one.is_alive()]

    def serials(self) -> list[int]:
        """The snapshot that each ready worker serves."""
        heads = (metrics.read_head(self._run, one.slot) for one in self._workers if one.ready)
        return [head.serial for head in heads if head]

    def take_lock(self) -> None:
        """Be the one that serves from this state directory, as `start` is; WorkersError if another is."""
        if self._lock is not None:
            return
        try:
            self._run.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self._run / "workers.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            said = f"can't write to the state directory {self._state}: {error.strerror}; choose another with --state DIR"
            raise WorkersError(said) from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise WorkersError(
                f"another edgedns serves from the state directory {self._state}; stop it, or choose another with --state DIR"
            ) from None
        self._lock = descriptor

    def _find(self) -> list[Worker]:
        """The living workers of this state directory, each with the sockets that it gives us."""
        slots = {int(path.stem.removeprefix("worker-")) for path in self._run.glob("worker-*.json")}
        statuses = (read_status(self._run, slot) for slot in sorted(slots))
        alive = [status for status in statuses if status and start_ticks(status.pid) == status.ticks]
        known = {one.number: one for one in self._given}
        found = []
        for status in alive:
            berth = self._ask(status.slot, known) or []
            found.append(Worker(status.slot, status.pid, status.ticks, ready=status.ready, berth=berth))
        read = {one.number for each in found for one in each.berth}
        self._given = [one for one in self._given if one.number not in read]
        return found

    def _ask(self, slot: int, known: dict[int, Held]) -> Berth | None:
        """Duplicates of the sockets of the worker in a slot, or what is known already under the same number.

        None where it does not give them.
        """
        given = handover.ask(self._run, slot)
        if given is None:
            return None
        got = [sockets.held(sock) for sock in given]
        berth = [known.setdefault(one.number, one) for one in got if not udp.is_retired(one.sock)]
        sockets.close(one for one in got if one not in berth)
        return berth

    def _resolve(self, address: Address, found: Sequence[Worker]) -> Address:
        """The address itself, or for port 0 a port that we have there already, or one that is free for UDP and TCP."""
        if address.port:
            return address
        ours = [one.place.address for one in (*self._given, *(each for worker in found for each in worker.berth))]
        for one in ours:
            if one.host == address.host and one not in self.listen:
                return one
        for _ in range(100):
            with socket.socket(address.family, socket.SOCK_DGRAM) as probe:
                probe.bind((address.host, 0))
                chosen = Address(address.host, probe.getsockname()[1])
                with contextlib.suppress(OSError), socket.socket(address.family, socket.SOCK_STREAM) as stream:
                    stream.bind((chosen.host, chosen.port))
                    return chosen
        raise WorkersError(f"no port of {address.host} is free for both UDP and TCP")

    def _spawn(self, one: Worker) -> None:
        """Start a worker in the slot, with its sockets."""
        self._clear(one.slot)
        one.ready, one.fresh, one.started, one.due = False, True, time.monotonic(), 0.0
        try:
            one.pid = self._fork([f"--slot={one.slot}", *self._settings], [held.sock.fileno() for held in one.berth])
        except OSError as error:
            self._log(f"worker {one.slot} can't be started: {error}")
            self._delay(one)
            return
        one.ticks = start_ticks(one.pid)

    def _fork(self, arguments: Sequence[str], numbers: Sequence[int]) -> int:
        """The process id of a new worker. The process that it is forked from is started where there is none, or no more."""
        if self._template is not None:
            try:
                return self._template.fork(arguments, numbers)
            except OSError:
                self._drop_template()
        self._template = Forks(self._python, self._state, self._responder, self._logfile)
        try:
            return self._template.fork(arguments, numbers)
        except OSError:
            self._drop_template()
            raise

    def _drop_template(self) -> None:
        if self._template is not None:
            self._template.close()
            self._template = None

    def _mourn(self, one: Worker, now: float) -> None:
        code = self._template.code_of(one.pid) if self._template else None
        how = "" if code is None else f" (killed by signal {-code})" if code < 0 else f" (exit {code})"
        if one.ready:
            self._log(f"worker {one.slot}, process {one.pid}, ended{how}; starting another")
            one.failures, one.due = 0, max(now, one.started + SPACING)
        else:
            self._log(f"worker {one.slot} did not start{how}: {self._reason(one)}")
            self._delay(one)
        one.pid, one.ready = 0, False

    def _delay(self, one: Worker) -> None:
        one.failures += 1
        if one.failures >= CLOSED_AFTER and any(other.ready for other in self._workers):
            own = [held for held in one.berth if not held.shared]
            sockets.retire(own)
            sockets.end(own)
            one.berth = [held for held in one.berth if held.shared]
        one.due = time.monotonic() + min(SPACING * 2**one.failures, LONGEST_WAIT)

    def _look_at(self, one: Worker, now: float) -> None:
        if not one.ready:
            status = read_status(self._run, one.slot)
            if status and status.pid == one.pid and status.ready:
                one.ready, one.failures = True, 0
                self._follow_berth(one)
            return
        head = metrics.read_head(self._run, one.slot)
        if head is None and read_status(self._run, one.slot) is None:
            self._log(f"worker {one.slot}: its files in {self._run} are gone or damaged; another, with new ones, takes over")
            self._run.mkdir(exist_ok=True)
            one.send(signal.SIGTERM)
        if head and head.pid == one.pid and head.beat and now - head.beat > SILENT:
            self._log(f"worker {one.slot}, process {one.pid}, has hung for {now - head.beat:.0f} s; it is killed")
            one.send(signal.SIGKILL)

    def _follow_berth(self, one: Worker) -> None:
        """What a worker that is ready answers on: what it was given, and what it opened itself. Not told, what it was given."""
        berth = self._ask(one.slot, {each.number: each for each in one.berth})
        if berth is None:
            self._log(f"worker {one.slot}, process {one.pid}, does not give its sockets: the next one opens what it lacks")
            return
        sockets.close(each for each in one.berth if each not in berth and not each.shared)
        one.berth = berth

    def _wait_ready(self, timeout: float) -> None:
        until = time.monotonic() + timeout
        while not all(one.ready for one in self._workers):
            for one in self._workers:
                if not one.is_alive():
                    self.pass_on_log()
                    raise WorkersError(self._reason(one))
                self._look_at(one, time.monotonic())
            if time.monotonic() > until:
                raise WorkersError(f"the workers are not ready after {timeout:.0f} s")
            time.sleep(0.01)

    def _reason(self, one: Worker) -> str:
        status = read_status(self._run, one.slot)
        if status and status.error:
            return status.error
        return f"a worker ended while starting; {self._run / 'workers.log'} says more"

    def _open_log(self) -> None:
        """Workers write into a file: a terminal or pipe that nobody reads would stop them."""
        self._logfile = (self._run / "workers.log").open("a+b", buffering=0)
        self._logged = self._logfile.tell()

    def pass_on_log(self) -> None:
        """Tell what the workers said since."""
        if self._logfile is None:
            return
        size = os.fstat(self._logfile.fileno()).st_size
        if size > self._logged:
            text = os.pread(self._logfile.fileno(), 1 << 16, self._logged)  # the file may be deleted by now
            whole = text[: text.rfind(b"\n") + 1]
            self._logged += len(whole) or len(text)
            for line in whole.decode("utf-8", "replace").splitlines():
                self._log(line)
        elif size > LOG_SIZE:
            self._logfile.truncate(0)
            self._logged = 0


def check_free(address: Address) -> None:
    """Refuse an address that another program has: with SO_REUSEPORT we might silently share it."""
    for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
        with socket.socket(address.family, kind) as probe:
            if address.family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            if kind == socket.SOCK_STREAM:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # passes over connections in TIME_WAIT
            try:
                probe.bind((address.host, address.port))
                if kind == socket.SOCK_STREAM:
                    probe.listen(1)
            except OSError as error:
                raise WorkersError(listen_sentence(address, error)) from None


def _end(workers: Iterable[Worker], timeout: float) -> None:
    """SIGTERM, and SIGKILL for who is still there after `timeout` seconds."""
    left = [one for one in workers if one.pid]
    for one in left:
        one.send(signal.SIGTERM)
    until = time.monotonic() + timeout
    while left := [one for one in left if one.is_alive()]:
        if time.monotonic() > until:
            for one in left:
                one.send(signal.SIGKILL)
            until += 1.0
        time.sleep(0.01)
