"""Targets from end to end, in namespaces: resolvers ask, a server learns, an agent is told, probes, and spares who opts out."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.small import replace, write_rules
from tests.system import internet
from tests.system.internet import Host, Internet

pytestmark = [pytest.mark.root, pytest.mark.timeout(240)]

SERVER, RESOLVER, FORWARDER, SHY, LISTED, OTHER = "8.8.8.53", "9.9.9.53", "5.5.5.53", "4.4.4.53", "6.6.6.66", "6.6.1.7"
SOURCES = {"alder": "7.7.7.10", "birch": "7.7.7.20"}
ADMIN = f"http://{SERVER}:8053"
TOKEN = "sesame-0123456789"
TABLE = "".join(f"{n}.{n}.0.0\t{n}.{n}.255.255\t{64500 + n}\tDE\tNetwork {n}\n" for n in range(4, 10))
STUB = ["tcp-upstream: yes", "cache-max-ttl: 0", "stub-zone:", '  name: "example.net"', f"  stub-addr: {SERVER}"]
FETCH = (
    "import sys, urllib.request, urllib.error\n"
    "request = urllib.request.Request(sys.argv[1], headers={'Authorization': 'Bearer ' + sys.argv[2]})\n"
    "print(urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=10).read().decode())\n"
)


class World(NamedTuple):
    net: Internet
    server: Host
    agent: Host
    opt_out: Path

    def fetch(self, url: str) -> str:
        return self.agent.run(sys.executable, "-c", FETCH, url, TOKEN)

    def targets(self) -> list[str]:
        """The addresses that the collector gives."""
        lines = self.fetch(f"{ADMIN}/v1/targets?vantage=fra1").splitlines()
        return [json.loads(line)["address"] for line in lines if line]

    def ask(self, host: str, server: str, times: int, **question: Any) -> None:
        """So many questions for www.example.net."""
        asker = self.net.hosts[host]
        line = json.dumps({"server": server, "name": "www.example.net", "type": "A", **question}) + "\n"
        (asker.folder / "questions").write_text(line * times)
        said = asker.shell(f"{sys.executable} {Path(__file__).with_name('asker.py')} < {asker.folder}/questions", timeout=120)
        assert said.count('"NOERROR"') == times

    def pings(self, host: str) -> int:
        """Echo requests that came to a host since it is there."""
        lines = [line.split() for line in self.net.hosts[host].run("cat", "/proc/net/snmp").splitlines()]
        names, values = (line for line in lines if line[0] == "Icmp:")
        return int(values[names.index("InEchos")])


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    if lacking := internet.missing_tools():
        pytest.skip(f"needs {', '.join(lacking)}")
    top = tmp_path_factory.mktemp("targets")
    with internet.internet(top) as net:
        server, agent = net.host("server", SERVER), net.host("agent", *SOURCES.values())
        for name, address in (("resolver", RESOLVER), ("forwarder", FORWARDER), ("shy", SHY), ("listed", LISTED)):
            net.host(name, address)
        replace(top / "table.tsv", TABLE)
        (top / "token").write_text(TOKEN)
        (top / "opt-out").write_text("4.4.4.0/24  # by mail\n")
        (top / "list").write_text(f"{OTHER}\n{LISTED}\n10.0.0.1\n192.0.2.1\n")
        command = [sys.executable, "-m", "edgedns", "serve", "--rules", str(write_rules(top / "rules")), "--workers", "1"]
        files = {"asn": "table.tsv", "opt-out": "opt-out", "targets-list": "list", "token-file": "token", "state": "state"}
        paths = [word for option, name in files.items() for word in (f"--{option}", str(top / name))]
        server.start(*command, *paths, "--listen", f"{SERVER}:53", "--admin", f"{SERVER}:8053", "--rate-limit", "off")
        internet.wait_for_answer(server, SERVER, "example.net", "SOA", within=90)
        yield World(net, server, agent, top / "opt-out")


def wait_for(holds: Callable[[], bool], what: str, within: float = 60) -> float:
    begun = time.monotonic()
    while not holds():
        assert time.monotonic() - begun < within, what
        time.sleep(0.2)
    return time.monotonic() - begun


def agent_started(world: World, *more: str) -> None:
    sources = [word for name, address in SOURCES.items() for word in ("--source", f"{name}={address}")]
    top = world.opt_out.parent
    command = [sys.executable, "-m", "edgedns", "probe", "--vantage", "fra1", "--collector", ADMIN, "--targets", "collector"]
    pace = ["--every", "1s", "--per-address", "10", "--timeout", "500ms"]
    world.agent.start(*command, *sources, *pace, "--token-file", str(top / "token"), "--asn", str(top / "table.tsv"), *more)


def said(world: World) -> str:
    return world.net.hosts["agent"].output() + world.server.output()


def test_who_asks_is_learnt_probed_and_left_alone_when_it_opts_out(world: World) -> None:
    internet.start_unbound(world.net.hosts["resolver"], ". 3600 IN NS a.root.\na.root. 3600 IN A 192.0.2.1\n", STUB)
    world.ask("resolver", RESOLVER, 400)
    world.ask("forwarder", SERVER, 400, subnet="6.6.6.0/24")
    world.ask("shy", SERVER, 400, tcp=True)
    wait_for(lambda: RESOLVER in world.targets(), "nobody was learnt")
    wait_for(lambda: world.targets().index(LISTED) < world.targets().index(OTHER), "it is not in a subnet that was asked for")
    assert set(world.targets()) == {RESOLVER, LISTED, OTHER}, "no forwarder, no bogon, nobody who opted out"

    mine = world.opt_out.with_name("mine")
    mine.write_text("# nobody yet\n")
    told = ["--about", "mailto:noc@example.net", "--about-listen", f"{SOURCES['alder']}:80"]
    agent_started(world, "--opt-out", str(mine), *told)
    wait_for(lambda: min(world.pings("resolver"), world.pings("listed")) > 5, "nobody was probed")
    assert (world.pings("forwarder"), world.pings("shy")) == (0, 0)
    page = world.net.hosts["listed"].run(sys.executable, "-c", FETCH, f"http://{SOURCES['alder']}/.well-known/probing.txt", "")
    assert "Contact: mailto:noc@example.net" in page
    assert "never probed again" in page

    mine.write_text(f"{LISTED}/32\n")
    wait_for(lambda: f"{mine}: 1 prefixes are never probed" in said(world), "the agent's own list", within=30)
    time.sleep(0.5)  # what was on its way has come
    before, of_resolver = world.pings("listed"), world.pings("resolver")
    wait_for(lambda: world.pings("resolver") > of_resolver + 5, "the others are probed as before")
    assert world.pings("listed") == before

    replace(world.opt_out, "4.4.4.0/24\n9.9.0.0/16\n")
    took = wait_for(lambda: RESOLVER not in world.targets(), "the collector's list")
    assert took < 30
    assert set(world.targets()) == {LISTED, OTHER}
    status = json.loads(world.fetch(f"{ADMIN}/v1/status"))["targets"]
    assert status["networks"] == 1
    assert set(status["asked_by"]) == {"fra1"}
