"""The main of a worker process, `python -m edgedns.serve.worker`, started by the control process with its sockets open.

It answers from the files that the control process publishes and needs nothing else of it: it goes on when that is
gone. What it has to say about itself lies in `<state>/run/worker-<slot>.json` (see Status), so that any later control
process finds it there, and asks it for its sockets. It imports neither numpy, pydantic nor aiohttp.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import gc
import importlib
import json
import os
import resource
import signal
import socket
import sys
import threading
import time
from array import array
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from edgedns import __version__, metrics
from edgedns.config import Address, parse_address
from edgedns.engine.limit import OFF, Terms, parse_terms
from edgedns.errors import SourceError
from edgedns.serve import notice, sockets, tcp, udp
from edgedns.serve.clock import Clock
from edgedns.serve.complaints import Complaints
from edgedns.serve.handover import Giver

REFRESH = 0.1  # seconds between two looks at what is published
SELDOM = 1.0  # the same where the kernel tells what is replaced
RESPONDER = "edgedns.serve.current:open_current"
STOP = {signal.SIGTERM, signal.SIGINT}


class Responder(Protocol):
    """What answers, made by the named function `(state_dir: str, counters: metrics.Counters) -> Responder`."""

    @property
    def places(self) -> Sequence[Path]:
        """The directories of what `refresh` looks at."""

    @property
    def serial(self) -> int:
        """Of the snapshot that is served; 0 while there is none."""

    def respond(self, packet: bytes, client: bytes, transport: str, now: float) -> bytes | None: ...

    def refresh(self, now: float) -> None:
        """Look whether something new was published; called by one thread, at once or after REFRESH seconds."""


@dataclass(frozen=True, slots=True)
class Status:
    """What a worker tells of itself. `ticks` is its start time by /proc, which guards against reused process ids.

    `settings` are the arguments that all workers of one control process share. `error` is why it could not start.
    """

    pid: int
    ticks: int
    slot: int
    version: str
    settings: list[str]
    ready: bool = False
    error: str = ""


def status_path(run: Path, slot: int) -> Path:
    return run / f"worker-{slot}.json"


def write_status(run: Path, status: Status) -> None:
    path = status_path(run, status.slot)
    aside = path.with_suffix(f".{status.pid}.new")
    aside.write_text(json.dumps(asdict(status)), encoding="utf-8")
    aside.replace(path)


def read_status(run: Path, slot: int) -> Status | None:
    """None where there is none, or one of another version's form."""
    try:
        return Status(**json.loads(status_path(run, slot).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def start_ticks(pid: int) -> int:
    """When the process began, in clock ticks since boot; 0 if it is gone or a zombie (proc(5), stat)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return 0
    return 0 if fields[0] in ("Z", "X") else int(fields[19])


def listen_sentence(address: Address, error: OSError) -> str:
    """Why we can't listen there, and what to do about it."""
    import errno

    advice = {
        errno.EADDRINUSE: "another program uses this address; stop it, or choose another with --listen ADDR:PORT",
        errno.EACCES: "ports below 1024 need root or CAP_NET_BIND_SERVICE; choose a higher one with --listen ADDR:PORT",
        errno.EADDRNOTAVAIL: "no interface of this machine has this address; check --listen",
    }
    return f"can't listen on {address}: {advice.get(error.errno or 0, error.strerror or str(error))}"


def arguments(listen: Sequence[Address], state: Path, responder: str, extra: Sequence[str]) -> list[str]:
    """What all workers of one control process are started with, beside their slot and sockets."""
    return [*(f"--listen={address}" for address in listen), f"--state={state}", f"--responder={responder}", *extra]


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="edgedns.serve.worker", description="Answer DNS queries (started by edgedns serve).")
    parser.add_argument("--slot", type=int, required=True, help="which of the workers this is")
    parser.add_argument("--sockets", default="", help="numbers of open sockets that are passed, with commas")
    parser.add_argument("--listen", action="append", required=True, help="ADDR:PORT, may be repeated: opened unless passed")
    parser.add_argument("--build", default="", help="which files it runs from, so that others see it")
    parser.add_argument("--state", type=Path, required=True, help="state directory")
    parser.add_argument("--responder", default=RESPONDER, help="module:function that opens what answers")
    parser.add_argument("--rate-limit", default=OFF, help="off, or words as of edgedns serve --rate-limit")
    parser.add_argument("--tcp-idle", type=float, default=tcp.IDLE, help="seconds before an idle connection is closed")
    return parser.parse_args(argv)


def main(argv: Sequence[str]) -> int:
    """Serve until SIGTERM or SIGINT; 0 then, 1 (and the reason in the status) when it can't start."""
    # Before any thread starts: they inherit the mask, and the watch loop alone takes the signals.
    signal.pthread_sigmask(signal.SIG_BLOCK, {*STOP, notice.SIGNAL})
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    options = parse(argv)
    run: Path = options.state / "run"
    settings = [argument for argument in argv if not argument.startswith(("--slot", "--sockets"))]
    status = Status(os.getpid(), start_ticks(os.getpid()), options.slot, __version__, settings)
    lock = _lock_slot(run, options.slot)
    if lock is None:
        return 1  # the status is the other's
    write_status(run, status)
    try:
        return _run(options, run, status)
    except Exception as error:
        text = str(error) or type(error).__name__
        write_status(run, Status(status.pid, status.ticks, status.slot, __version__, settings, error=text))
        sys.stderr.write(f"worker {options.slot}: can't start: {text}\n")
        return 1


def rehearse(state: Path, responder: str = RESPONDER) -> None:
    """See whether a worker could answer from what is published, with nothing opened for others; SourceError if not."""
    made = _open_responder(responder, str(state), metrics.Counters())
    try:
        made.refresh(time.time())
    except Exception as error:
        raise SourceError(f"what is published can't be served: {error}") from error
    if not made.serial:
        raise SourceError("what is published can't be served")


def _lock_slot(run: Path, slot: int) -> int | None:
    """The open lock file of the slot, None if another living worker has it. It is held until the process ends."""
    descriptor = os.open(run / f"worker-{slot}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        sys.stderr.write(f"worker {slot}: another worker has this slot\n")
        return None
    return descriptor


def _run(options: argparse.Namespace, run: Path, status: Status) -> int:
    allow_descriptors()
    clock, complain = Clock(), Complaints(f"worker {options.slot}")
    counters = _open_counters(run, options.slot, complain)
    counters.begin(status.pid, time.time())
    responder = _open_responder(options.responder, str(options.state), counters)
    terms = parse_terms(options.rate_limit)
    if not _wait_for_snapshot(responder, clock, counters, complain):
        return 0
    # Only what can answer may share the port: the kernel spreads queries over all who listen.
    found = _sockets(options.sockets, [parse_address(text) for text in options.listen])
    giver = _open_giver(run, options.slot, found, complain)
    service = Service(found, responder, clock, counters, complain, options.tcp_idle, terms)
    gc.collect()
    gc.freeze()  # what is loaded by now stays
    service.start()
    write_status(run, Status(status.pid, status.ticks, status.slot, status.version, status.settings, ready=True))
    notices = notice.Notices(responder.places)
    while True:
        pause = SELDOM if notices.stand() else REFRESH  # before the look: what is replaced after it is told
        _watch_once(responder, clock, counters, complain)
        if not _goes_on(pause):
            break
    if giver:
        giver.close()
    service.stop()
    status_path(run, status.slot).unlink(missing_ok=True)
    return 0


def _goes_on(pause: float) -> bool:
    """Wait until something was published, no longer than `pause` seconds; false when told to stop."""
    told = signal.sigtimedwait({*STOP, notice.SIGNAL}, pause)
    return told is None or told.si_signo not in STOP


def _sockets(passed: str, listen: Sequence[Address]) -> list[socket.socket]:
    """What we answer on: sockets that were passed to us, and what is lacking, opened now."""
    found = [sockets.held(socket.socket(fileno=int(number))) for number in passed.split(",") if number]
    for place in sockets.missing(sockets.places(listen), found):
        try:
            found.append(sockets.opened(place))
        except OSError as error:
            raise OSError(listen_sentence(place.address, error)) from error
    return [one.sock for one in found]


class Service:
    """The sockets of one worker and their threads."""

    def __init__(
        self,
        found: Sequence[socket.socket],
        responder: Responder,
        clock: Clock,
        counters: metrics.Counters,
        complain: Complaints,
        tcp_idle: float = tcp.IDLE,
        terms: Terms = udp.NO_LIMIT,
    ) -> None:
        respond, cells = responder.respond, counters.cells
        # A responder of the native engine has a loop of its own.
        look = getattr(responder, "look", None) if getattr(responder, "engine", "") == "native" else None
        replies, secrets = getattr(responder, "replies", None), getattr(responder, "cookie_secrets", tuple)
        self._bell = getattr(responder, "bell", array("Q", (0,)))
        by = udp.Answering(respond, clock, cells, complain, look, terms, replies, secrets, self._bell)
        self._udp = [sock for sock in found if sock.type == socket.SOCK_DGRAM]
        listeners = [sock for sock in found if sock.type == socket.SOCK_STREAM]
        self._tcp = tcp.TcpServer(
            *(listeners, respond, clock, cells, complain, tcp.limits(tcp_idle)),
            *(getattr(responder, "transfer", None), look, self._bell),
        )
        self._leaves = [threading.Event() for _ in self._udp]
        self._threads = [
            threading.Thread(target=udp.serve, args=(sock, _is_wildcard(sock), by, leave), daemon=True)
            for sock, leave in zip(self._udp, self._leaves, strict=True)
        ]
        self._threads.append(threading.Thread(target=self._tcp.run, daemon=True))

    def start(self) -> None:
        # A UDP reply waits at most this long for a thread that is busy with TCP.
        sys.setswitchinterval(0.0005)
        for thread in self._threads:
            thread.start()

    def stop(self, within: float = 2 * udp.PATIENCE) -> None:
        """Answer what was taken and what is queued in retired sockets, then close; no longer than `within` seconds."""
        for sock, leave in zip(self._udp, self._leaves, strict=True):
            if not udp.is_retired(sock):  # others go on reading there
                leave.set()
        self._bell[0] += 1
        self._tcp.stop()
        until = time.monotonic() + within
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))


def _is_wildcard(sock: socket.socket) -> bool:
    return Address(*sock.getsockname()[:2]).is_wildcard


def allow_descriptors() -> None:
    """As many open files as may be: one for each TCP connection, or for each socket of each worker."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _open_counters(run: Path, slot: int, complain: Complaints) -> metrics.Counters:
    try:
        return metrics.Counters(metrics.counters_path(run, slot))
    except OSError as error:  # better uncounted answers than none
        complain("opening counters", error)
        return metrics.Counters()


def _open_giver(run: Path, slot: int, found: Sequence[socket.socket], complain: Complaints) -> Giver | None:
    try:
        return Giver(run, slot, found, complain)
    except OSError as error:  # the next control process will have to do with sockets of its own
        complain("offering sockets", error)
        return None


def _open_responder(name: str, state: str, counters: metrics.Counters) -> Responder:
    module, _, function = name.partition(":")
    made: Responder = getattr(importlib.import_module(module), function)(state, counters)
    return made


def _wait_for_snapshot(responder: Responder, clock: Clock, counters: metrics.Counters, complain: Complaints) -> bool:
    """True once there is something to serve, False when told to stop before."""
    while True:
        _watch_once(responder, clock, counters, complain)
        if responder.serial:
            return True
        if signal.sigtimedwait(STOP, REFRESH / 2) is not None:
            return False


def _watch_once(responder: Responder, clock: Clock, counters: metrics.Counters, complain: Complaints) -> None:
    clock.tick()
    try:
        responder.refresh(clock.now)
    except Exception as error:  # the last good snapshot stands
        complain("refreshing", error)
    counters.beat(time.monotonic(), responder.serial)


if __name__ == "__main__":
    code = main(sys.argv[1:])
    # Daemon threads may be within a system call; nothing is left to tidy up.
    sys.stderr.flush()
    os._exit(code)
