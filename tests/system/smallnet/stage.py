"""Builds a world out of namespaces, and runs a scenario in it: router, server, agents, watcher."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.system.internet import pids, run

from . import caches
from .globe import POPS, PROVIDERS, SERVER, Arm, Way, World, write_rules, write_targets
from .scenario import Scenario

HERE = Path(__file__).parent
TOOLS = ("ip", "gcc", "dig", "curl", "unbound", "setpriv")
MILLION = 1_000_000
PREFIX = "small"
EDGE, HQ = "edge", "hq"
POP_ADDRESS = {pop: f"198.51.100.{200 + i}" for i, pop in enumerate(POPS)}
SITE = {pop: 300 + i for i, pop in enumerate(POPS)} | {HQ: 310}
COLLECTOR = f"http://{SERVER}:8053"
TOKEN = "not-a-secret-on-this-Internet"
ENVIRON = {**os.environ, "PATH": os.environ.get("PATH", "") + ":/usr/sbin:/sbin", "EDGEDNS_TOKEN": TOKEN}


def missing() -> list[str]:
    """What this machine lacks for it."""
    lacking = [tool for tool in TOOLS if shutil.which(tool, path=ENVIRON["PATH"]) is None]
    lacking += [] if Path("/dev/net/tun").exists() else ["/dev/net/tun"]
    return lacking if os.geteuid() == 0 else ["root", *lacking]


class Router:
    """`router.c`, and the numbers that it knows things by."""

    def __init__(self, folder: Path) -> None:
        made = folder / "router"
        subprocess.run(["gcc", "-O2", "-Wall", "-Wextra", str(HERE / "router.c"), "-o", str(made), "-lm"], check=True)
        self._process = subprocess.Popen([str(made)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
        self.ports: dict[str, int] = {}

    def tell(self, orders: Sequence[str]) -> list[str]:
        """Each order's answer; ValueError for the first that is refused."""
        assert self._process.stdin
        assert self._process.stdout
        answers = []
        for start in range(0, len(orders), 200):  # a pipe holds so much
            part = orders[start : start + 200]
            self._process.stdin.write("\n".join(part) + "\n")
            self._process.stdin.flush()
            answers += [self._process.stdout.readline().strip() for _ in part]
        for order, answer in zip(orders, answers, strict=True):
            if not answer.startswith("ok"):
                raise ValueError(f"{order}: {answer}")
        return answers

    def open_port(self, device: str) -> None:
        self.ports[device] = int(self.tell([f"port {device}"])[0].split()[1])

    def set_paths(self, paths: dict[Arm, Way]) -> None:
        """Of these arms; providers are numbered by family."""
        self.tell([_path_order(arm, path) for arm, path in paths.items()])

    def counts(self) -> dict[str, int]:
        names = ("forwarded", "lost", "cut", "no_route", "wrong_source", "queue_full")
        return dict(zip(names, map(int, self.tell(["count"])[0].split()[1:]), strict=True))

    def stop(self) -> None:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            _kill(self._process)
        self._process.stdout.close()


def provider_number(provider: int, family: int) -> int:
    """The router's: a provider's two families have paths of their own."""
    return 2 * provider + (family == 6)


def _path_order(arm: Arm, path: Way) -> str:
    bursts = "".join(f" {int(chance * MILLION)}" for chance in path.bursts) if any(path.bursts) else ""
    numbers = (int(path.rtt * 1000), int(path.jitter * 1000), int(path.loss * MILLION))
    place = f"path {arm.network} {provider_number(arm.provider, arm.family)} {POPS.index(path.pop)}"
    return f"{place} {' '.join(map(str, numbers))}{bursts}"


@dataclass
class Stage:
    """A world that runs. `namespaces` are named by what they are; `close` ends all, however far it came."""

    world: World
    folder: Path
    families: tuple[int, ...] = (4,)
    every: str = "10s"
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.prefix = f"{PREFIX}{os.getpid()}"
        self.made: list[str] = []
        self.router = Router(self.folder)

    def build(self) -> None:
        """Namespaces, devices, addresses, routes, paths."""
        for name in (EDGE, HQ, *POPS):
            run("ip", "netns", "add", f"{self.prefix}-{name}")
            self.made.append(name)
            self._inside(name, "sysctl", "-qw", "net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.default.rp_filter=0")
            self._inside(name, "sysctl", "-qw", "net.ipv4.icmp_ratelimit=0", "net.ipv6.icmp.ratelimit=0")
            self._inside(name, "sysctl", "-qw", "net.ipv6.conf.all.accept_dad=0", "net.ipv6.conf.default.accept_dad=0")
            self._inside(name, "sysctl", "-qw", "net.ipv4.ping_group_range=0 2147483647")
            self._ip(name, "link set lo up")
        self._build_sites()
        for pop in POPS:
            self._build_pop(pop)
        self.router.set_paths(self.world.paths)
        write_rules(self.world, self.folder / "rules")
        write_targets(self.world, self.folder / "targets.jsonl", self.families)

    def _build_sites(self) -> None:
        for name, addresses in ((EDGE, ()), (HQ, (f"{SERVER}/32",)), *((pop, (f"{POP_ADDRESS[pop]}/32",)) for pop in POPS)):
            self._device(name, f"{name}0", addresses)
            self._ip(name, f"route add default dev {name}0", f"-6 route add default dev {name}0")
        edge = self.router.ports[f"{EDGE}0"]
        orders, routes = [], []
        for network in self.world.networks:
            for prefix in (network.v4, network.v6):
                orders.append(f"site {network.number} {edge} {prefix.replace('/', ' ')}")
                # every address of it is there
                routes.append(f"{'-6 ' if ':' in prefix else ''}route add local {prefix} dev lo")
        self._ip(EDGE, *routes)
        orders += [f"site {SITE[pop]} {self.router.ports[f'{pop}0']} {address} 32" for pop, address in POP_ADDRESS.items()]
        orders.append(f"site {SITE[HQ]} {self.router.ports[f'{HQ}0']} {SERVER} 32")
        self.router.tell(orders)

    def _build_pop(self, pop: str) -> None:
        """A device for each provider, and policy routing: what is sent from a provider's address leaves through it."""
        for number, provider in enumerate(PROVIDERS):
            if pop not in provider.pops:
                continue
            device, table = f"{pop}-{provider.name}", 100 + number
            addresses = [f"{provider.v4}/32", *([f"{provider.v6}/128"] if provider.v6 else [])]
            self._device(pop, device, addresses)
            for address, family in zip(addresses, (4, 6), strict=False):
                flag = "-6 " if family == 6 else ""
                rule, route = f"rule add from {address} lookup {table}", f"route add default dev {device} table {table}"
                self._ip(pop, flag + rule, flag + route)
                plain = address.split("/")[0]
                orders = [f"landing {POPS.index(pop)} {provider_number(number, family)} {self.router.ports[device]}"]
                if pop == provider.pops[0]:
                    orders.append(f"anycast {provider_number(number, family)} {plain}")
                self.router.tell(orders)

    def _device(self, name: str, device: str, addresses: Sequence[str]) -> None:
        outside = f"t{os.getpid() % 100000}-{len(self.router.ports)}"
        self.router.open_port(outside)
        self.router.ports[device] = self.router.ports.pop(outside)
        self.router.ports[outside] = self.router.ports[device]
        namespace = f"{self.prefix}-{name}"
        run("ip", "link", "set", outside, "netns", namespace, "name", device)
        self._ip(name, *(f"addr add {address} dev {device}{' nodad' if ':' in address else ''}" for address in addresses))
        self._ip(name, f"link set {device} up")

    def _ip(self, name: str, *lines: str) -> None:
        """Orders of ip(8) in a namespace, all at once."""
        plain = [line for line in lines if not line.startswith("-6 ")]
        six = [line.removeprefix("-6 ") for line in lines if line.startswith("-6 ")]
        for flags, batch in (([], plain), (["-6"], six)):
            if batch:
                command = ["ip", *flags, "-n", f"{self.prefix}-{name}", "-batch", "-"]
                subprocess.run(command, input="\n".join(batch), text=True, check=True, env=ENVIRON, capture_output=True)

    def _inside(self, name: str, *command: str) -> None:
        run(*self.command(name, *command))

    def command(self, name: str, *command: str) -> list[str]:
        """A command as it is run in a namespace; it ends with us, even if we are killed."""
        return ["setpriv", "--pdeathsig", "KILL", "nsenter", f"--net=/var/run/netns/{self.prefix}-{name}", "--", *command]

    def start(self, role: str, name: str, *command: str) -> None:
        with (self.folder / f"{role}.log").open("ab") as log:
            self.running[role] = subprocess.Popen(
                self.command(name, *command), stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=ENVIRON
            )

    def start_server(self) -> None:
        options = {"rules": self.folder / "rules", "asn": self.folder / "asn.tsv", "state": self.folder / "state"}
        words = [f"--{name}={value}" for name, value in options.items()]
        addresses = [f"--listen={SERVER}:53", f"--admin={SERVER}:8053"]
        self.start("server", HQ, sys.executable, "-m", "edgedns", "serve", *words, *addresses, "--workers=1")
        self.wait_ready()

    def wait_ready(self, within: float = 60) -> None:
        until = time.monotonic() + within
        probe = self.command(HQ, "dig", f"@{SERVER}", "www.cdn.example.net", "A", "+short", "+time=1", "+tries=1")
        while time.monotonic() < until:
            done = subprocess.run(probe, capture_output=True, text=True, env=ENVIRON)
            if done.returncode == 0 and done.stdout.strip():
                return
            time.sleep(0.2)
        raise AssertionError(f"the server does not answer:\n{self.log('server')}")

    def start_agents(self) -> None:
        """They share a key, so that each tells of the replies to others that land at its PoP."""
        key = self.folder / "fleet-key"
        key.write_text("5e" * 32)
        for pop in POPS:
            sources = [
                f"--source={provider.name}={address}"
                for provider in PROVIDERS
                for address in (provider.v4, provider.v6)
                if pop in provider.pops and address and (6 if ":" in address else 4) in self.families
            ]
            agent = [sys.executable, "-m", "edgedns", "probe", f"--vantage={pop}", f"--collector={COLLECTOR}"]
            whom = [f"--targets={self.folder / 'targets.jsonl'}", f"--asn={self.folder / 'asn.tsv'}", f"--every={self.every}"]
            self.start(f"agent-{pop}", pop, *agent, *whom, f"--key-file={key}", *sources)

    def start_watcher(self, role: str, server: str, networks: Sequence[int], lasts: float) -> Path:
        out = self.folder / f"{role}.csv"
        words = (server, ",".join(map(str, networks)), lasts, out, *self.families)
        self.start(role, EDGE, sys.executable, str(HERE / "watcher.py"), *map(str, words))
        return out

    def start_caches(self, networks: Sequence[int]) -> None:
        for number in networks:
            self.start(f"cache-{number}", EDGE, *caches.command(self.folder / f"cache{number}", self.world.networks[number]))

    def play(self, scenario: Scenario, cached: Sequence[int] = ()) -> float:
        """Let it warm up and happen; gives the Unix time at which it began to happen.

        What every network's client is told is in `answers.csv`, what the resolvers of some say in `cached.csv`.
        """
        self.start_server()
        self.start_agents()
        self.start_caches(cached)
        lasts = scenario.warm + scenario.lasts
        out = self.start_watcher("answers", SERVER, range(len(self.world.networks)), lasts)
        if cached:
            self.start_watcher("cached", f"198.18.{{}}.{caches.HOST}", cached, lasts)
        start = _first_line_at(out) + scenario.warm
        before: dict[Arm, Way] = self.world.paths
        for turn in scenario.turns:
            time.sleep(max(0.0, start + turn.at - time.time()))
            after = scenario.paths(self.world, turn.at)
            self.router.set_paths({arm: path for arm, path in after.items() if before[arm] != path})
            before = after
            machine = scenario.events[turn.event].machine
            if machine:
                self._turn_machine(*machine, turn.begins)
        for role in ("answers", "cached")[: 1 + bool(cached)]:
            self.running[role].wait(start + scenario.lasts - time.time() + 30)
        return start

    def _turn_machine(self, what: str, which: str, begins: bool) -> None:
        if what == "cut":
            ports = [port for device, port in self.router.ports.items() if device.startswith(which)]
            self.router.tell([f"cut {port} {int(begins)}" for port in ports])
        elif begins and what == "kill":
            _kill(self.running.pop("server"))
        elif begins:
            self.start_server()

    def dig(self, network: int, *words: str) -> str:
        """What `dig` prints for a client in a network."""
        client = self.world.networks[network].address(99)
        done = subprocess.run(
            self.command(EDGE, "dig", f"@{SERVER}", "-b", client, "www.cdn.example.net", "+time=2", *words),
            capture_output=True, text=True, env=ENVIRON, timeout=20,
        )  # fmt: skip
        return done.stdout

    def ask_collector(self, path: str) -> Any:
        """What the admin side answers to a GET, as JSON."""
        done = subprocess.run(self.command(HQ, "curl", "-sS", COLLECTOR + path), capture_output=True, timeout=20, check=True)
        return json.loads(done.stdout)

    def log(self, role: str) -> str:
        path = self.folder / f"{role}.log"
        return path.read_text(errors="replace")[-3000:] if path.exists() else ""

    def close(self) -> None:
        with contextlib.ExitStack() as last:  # each of them, whatever goes wrong with another
            for name in self.made:
                last.callback(_remove, f"{self.prefix}-{name}")
            last.callback(self.router.stop)
            for process in self.running.values():
                last.callback(_kill, process)


@contextlib.contextmanager
def stage(world: World, folder: Path, families: tuple[int, ...] = (4,), every: str = "10s") -> Iterator[Stage]:
    sweep()
    made = Stage(world, folder, families, every)
    try:
        made.build()
        yield made
    finally:
        made.close()


def sweep() -> None:
    """Remove what runs left behind that were killed: theirs are the namespaces named by a process that is no more."""
    for path in Path("/var/run/netns").glob(f"{PREFIX}*-*"):
        owner = path.name.removeprefix(PREFIX).partition("-")[0]
        if owner.isdigit() and not Path(f"/proc/{owner}").exists():
            with contextlib.suppress(AssertionError):  # another run sweeps as well
                _remove(path.name)


def _remove(namespace: str) -> None:
    for pid in pids(namespace):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    run("ip", "netns", "del", namespace)


def _first_line_at(path: Path) -> float:
    """When the watcher began, as it says."""
    until = time.monotonic() + 20
    while time.monotonic() < until:
        if path.exists() and (line := path.read_text().partition("\n")[0]):
            return float(line.split(",")[0])
        time.sleep(0.05)
    raise AssertionError("the watcher got no answers")


def _kill(process: subprocess.Popen[Any]) -> None:
    process.kill()
    process.wait(10)
