"""A small Internet of the tests' own: hosts are network namespaces on one bridge; no packet leaves them. Needs root.

Hosts have whatever addresses they like: everybody is on one link, so that no routers are needed. What is started in a
host ends with it, by process id.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests import authorities

TOOLS = ("ip", "nsd", "unbound", "dig", "nsenter", "unshare")
UNBOUND = """
server:
  num-threads: 1
  username: ""
  chroot: ""
  directory: "{folder}"
  pidfile: "{folder}/unbound.pid"
  logfile: "{folder}/unbound.log"
  use-syslog: no
  verbosity: 1
  root-hints: "{folder}/root.hints"
  access-control: 0.0.0.0/0 allow
  access-control: ::/0 allow
  qname-minimisation-strict: yes
  module-config: "{modules}"
{lines}
remote-control:
  control-enable: no
"""


def missing_tools() -> list[str]:
    """What this machine lacks; empty where the namespaces can be made."""
    lacking = [tool for tool in TOOLS if shutil.which(tool, path=_path()) is None]
    return lacking if os.geteuid() == 0 else ["root", *lacking]


def _path() -> str:
    return os.environ.get("PATH", "") + ":/usr/sbin:/sbin"


def run(*command: str) -> None:
    """Run to the end; AssertionError with what it said on failure."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, env={**os.environ, "PATH": _path()})
    assert not done.returncode, f"{shlex.join(command)}: {done.stderr}"


def pids(namespace: str) -> list[int]:
    """Of everything that runs in a network namespace."""
    done = subprocess.run(["ip", "netns", "pids", namespace], capture_output=True, text=True, env={"PATH": _path()})
    return [int(pid) for pid in done.stdout.split()]


@dataclass
class Host:
    """One namespace with its own /etc, /opt, /usr/src and /var/lib, which nobody else sees."""

    name: str
    namespace: str
    folder: Path
    addresses: Sequence[str]
    holder: subprocess.Popen[bytes]
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def command(self, *command: str) -> list[str]:
        """`command` as it is run inside."""
        return ["nsenter", f"--net=/var/run/netns/{self.namespace}", f"--mount=/proc/{self.holder.pid}/ns/mnt", "--", *command]

    def run(self, *command: str, timeout: float = 20, check: bool = True) -> str:
        """Run to the end and give what was printed; CalledProcessError, with stderr in it, on failure."""
        done = subprocess.run(
            self.command(*command), capture_output=True, text=True, timeout=timeout, env={**os.environ, "PATH": _path()}
        )
        if check and done.returncode:
            raise AssertionError(f"{self.name}: {shlex.join(command)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    def shell(self, line: str, timeout: float = 60) -> str:
        """Run a line as an operator types it."""
        return self.run("sh", "-euc", line, timeout=timeout)

    def start(self, *command: str) -> subprocess.Popen[bytes]:
        log = (self.folder / f"{Path(command[0]).name}.out").open("ab")
        with log:
            started = subprocess.Popen(
                self.command(*command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "PATH": _path()},
                cwd="/",
            )
        self.running.append(started)
        return started

    def pids(self) -> list[int]:
        return pids(self.namespace)

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """End what runs here, and all that it started, as when the machine loses power."""
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        for process in self.running:
            process.wait(10)
        self.running.clear()

    def output(self) -> str:
        """What was said by what runs here, for messages of failures."""
        return "\n".join(f"--- {path.name}\n{path.read_text(errors='replace')[-4000:]}" for path in self.folder.glob("*.out"))


class Internet:
    """A bridge and the hosts on it. `close` ends and removes all, however far it came."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.hosts: dict[str, Host] = {}
        self._prefix = f"edgedns-{os.getpid()}"
        self._wire = f"{self._prefix}-wire"
        run("ip", "netns", "add", self._wire)
        run("ip", "-n", self._wire, "link", "add", "wire", "type", "bridge")
        run("ip", "-n", self._wire, "link", "set", "wire", "up")

    def host(self, name: str, *addresses: str) -> Host:
        """A host with these addresses, which reaches all others."""
        namespace, port = f"{self._prefix}-{name}", f"v-{name}"
        folder = self.folder / name
        folder.mkdir()
        run("ip", "netns", "add", namespace)
        # A mount namespace lives as long as a process in it; this one is in no network namespace of ours.
        holder = subprocess.Popen(["unshare", "-m", "--propagation", "private", "sleep", "infinity"], stdin=subprocess.DEVNULL)
        made = self.hosts[name] = Host(name, namespace, folder, addresses, holder)
        run("ip", "link", "add", port, "netns", self._wire, "type", "veth", "peer", "name", "eth0", "netns", namespace)
        run("ip", "-n", self._wire, "link", "set", port, "master", "wire", "up")
        for link in ("lo", "eth0"):
            run("ip", "-n", namespace, "link", "set", link, "up")
        for address in addresses:
            run("ip", "-n", namespace, "addr", "add", address, "dev", "eth0", *(["nodad"] if ":" in address else []))
        for family in ("-4", "-6"):
            run("ip", family, "-n", namespace, "route", "add", "default", "dev", "eth0")
        _wait_for(lambda: os.readlink(f"/proc/{holder.pid}/ns/mnt") != os.readlink("/proc/self/ns/mnt"), "a mount namespace")
        _own_folders(made)
        return made

    def close(self) -> None:
        for host in self.hosts.values():
            host.kill()
            host.holder.kill()
            host.holder.wait(10)
            run("ip", "netns", "del", host.namespace)
        run("ip", "netns", "del", self._wire)


@contextlib.contextmanager
def internet(folder: Path) -> Iterator[Internet]:
    """An Internet for the length of a `with`, gone afterwards even where building it failed."""
    made = Internet(folder)
    try:
        yield made
    finally:
        made.close()


def _own_folders(host: Host) -> None:
    """Empty /opt, /usr/src and /var/lib, and an /etc whose changes are kept aside."""
    host.run("mount", "-t", "tmpfs", "tmpfs", "/usr/src")
    host.run("mkdir", "/usr/src/upper", "/usr/src/work")
    host.run("mount", "-t", "overlay", "overlay", "-o", "lowerdir=/etc,upperdir=/usr/src/upper,workdir=/usr/src/work", "/etc")
    for place in ("/usr/src", "/opt", "/var/lib"):
        host.run("mount", "-t", "tmpfs", "tmpfs", place)


def _wait_for(true: Callable[[], bool], what: str, within: float = 20) -> None:
    until = time.monotonic() + within
    while not true():
        assert time.monotonic() < until, f"no {what} within {within} s"
        time.sleep(0.02)


def start_nsd(host: Host, zones: dict[str, str]) -> None:
    """NSD for these zones (name -> text), on all addresses of the host."""
    files = {name: f"{number}.zone" for number, name in enumerate(zones)}
    for name, file in files.items():
        (host.folder / file).write_text(zones[name])
    lines = [f'logfile: "{host.folder}/nsd.log"', *(f"ip-address: {address}" for address in host.addresses)]
    (host.folder / "nsd.conf").write_text(authorities.nsd(host.folder, files, lines))
    host.start("nsd", "-d", "-c", str(host.folder / "nsd.conf"))
    for name in zones:
        wait_for_answer(host, host.addresses[0], name, "SOA")


def start_unbound(host: Host, hints: str, lines: Sequence[str] = (), modules: str = "iterator") -> None:
    """unbound on all addresses of the host, told of the root by `hints`; `lines` go into its server section."""
    (host.folder / "root.hints").write_text(hints)
    both = [*(f"interface: {address}" for address in host.addresses), *lines]
    config = UNBOUND.format(folder=host.folder, modules=modules, lines="\n".join(f"  {line}" for line in both))
    (host.folder / "unbound.conf").write_text(config)
    host.start("unbound", "-d", "-p", "-c", str(host.folder / "unbound.conf"))
    wait_for_answer(host, host.addresses[0], "version.bind", "TXT", "-c", "CH")


def wait_for_answer(host: Host, server: str, name: str, rtype: str, *options: str, within: float = 30) -> None:
    """Wait until `server`, asked from `host`, says anything at all."""
    question = ("dig", f"@{server}", *options, name, rtype, "+time=1", "+tries=1", "+norecurse")
    until = time.monotonic() + within
    while "status:" not in host.run(*question, check=False):
        assert time.monotonic() < until, f"{server} does not answer\n{host.output()}"
        time.sleep(0.1)


def unbound_has(module: str) -> bool:
    """Whether this unbound was built with a module, such as subnetcache."""
    if shutil.which("unbound", path=_path()) is None:
        return False
    done = subprocess.run(["unbound", "-V"], capture_output=True, text=True, env={"PATH": _path()})
    linked = [line for line in done.stdout.splitlines() if line.startswith("Linked modules")]
    return module in " ".join(linked).split()
