"""docs/deploying.md, typed into two machines (namespaces), delegated to by NSD as root and TLD, and asked through unbound."""

from __future__ import annotations

import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, TypeVar

import pytest
import yaml

from tests.system import internet
from tests.system.units import unit

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "deploying.md").read_text(encoding="utf-8")
RESOLVER, RESOLVER6 = "203.0.113.53", "2001:db8:0:53::1"
NS1, NS2 = ("192.0.2.53", "2001:db8:53::1"), ("198.51.100.53", "2001:db8:53::2")
NS2_ALSO = ("198.51.100.54", "2001:db8:53::22")
HOME, OFFICE, OFFICE6 = "203.0.113.7", "198.51.100.9", "2001:db8:ff::9"
SOA = "SOA a.nic.net. noc.nic.net. 1 3600 900 1209600 60"
ROOT_ZONE = f""". 3600 IN {SOA}
. 3600 IN NS a.root.
a.root. 3600 IN A 203.0.113.1
a.root. 3600 IN AAAA 2001:db8:0:1::1
net. 3600 IN NS a.nic.net.
example. 3600 IN NS a.nic.net.
a.nic.net. 3600 IN A 203.0.113.2
a.nic.net. 3600 IN AAAA 2001:db8:0:2::1
"""
NET = f"$ORIGIN net.\n$TTL 3600\n@ {SOA}\n@ NS a.nic\na.nic A 203.0.113.2\na.nic AAAA 2001:db8:0:2::1\nexample NS a.nic\n"
EXAMPLE = f"$TTL 3600\n@ {SOA}\n@ NS a.nic.net.\nns.elsewhere A 192.0.2.90\nedge.partner A 192.0.2.91\n"
CHILD = f"$TTL 60\n@ {SOA}\n@ NS ns1\n@ NS ns2\nns1 A 192.0.2.90\nns1 AAAA 2001:db8:90::1\n"
CHILD += "ns2 A 198.51.100.90\nhost A 192.0.2.99\n"
SUB = f"$TTL 60\n@ {SOA}\n@ NS ns.elsewhere.example.\nhost A 192.0.2.98\n"


class Block(NamedTuple):
    """A code block of the document, and the number of the step it is in (0 after the last one)."""

    step: int
    language: str
    text: str


def blocks() -> list[Block]:
    found = []
    for part in re.split(r"^(?=## )", DOCUMENT, flags=re.MULTILINE):
        number = re.match(r"## (\d+)\.", part)
        for language, text in re.findall(r"^```(\w+)\n(.*?)^```", part, flags=re.MULTILINE | re.DOTALL):
            found.append(Block(int(number.group(1)) if number else 0, language, text))
    return found


def commands(step: int) -> list[str]:
    return [line for block in blocks() if block.step == step and block.language == "sh" for line in block.text.splitlines()]


def only(language: str) -> str:
    (found,) = (block.text for block in blocks() if block.language == language)
    return found


class Machine:
    """Types the document's commands into one host. What needs a network or a running systemd has a stand-in."""

    def __init__(self, host: internet.Host, addresses: tuple[str, str]) -> None:
        self.host = host
        self.addresses = addresses
        self.typed: list[str] = []
        self.server: subprocess.Popen[bytes] | None = None
        self.stand_ins = {
            "apt-get install": self._installed,
            "python3 -m venv": self._make_venv,
            "/opt/edgedns/bin/pip install": self._pip,
            "ufw allow": self._ufw,
            "sysctl -p": self._sysctl,
            "systemctl daemon-reload": self._verify_unit,
            "systemctl enable --now edgedns": self._start,
            "curl": self._wait_ready,
        }
        host.run("mkdir", "/usr/src/edgedns")
        host.run("mount", "--bind", str(ROOT), "/usr/src/edgedns")

    def type(self, line: str) -> str:
        self.typed.append(line)
        for beginning, stand_in in self.stand_ins.items():
            if line.startswith(beginning):
                stand_in(line)
                return ""
        for theirs, ours in zip(NS1, self.addresses, strict=True):
            line = re.sub(rf"@{theirs}(?=\s)", f"@{ours}", line)
        return self.host.shell(line)

    def set_listen(self, *addresses: str) -> None:
        """Edit the settings as step 4 says."""
        path = "/etc/edgedns/edgedns.yaml"
        settings = yaml.safe_load(self.host.run("cat", path))
        settings["listen"] = list(addresses)
        self.host.shell(f"cat > {path} <<'END'\n{yaml.safe_dump(settings)}END\n")

    def _installed(self, line: str) -> None:
        assert shlex.split(line)[2:] == ["python3-venv", "python3-dev", "gcc", "bind9-dnsutils", "curl"]

    def _make_venv(self, line: str) -> None:
        self.host.run("ln", "-s", sys.prefix, shlex.split(line)[-1])  # test_installs_from_the_tree does it in earnest

    def _pip(self, line: str) -> None:
        assert (ROOT / "pyproject.toml").exists()
        assert line.endswith(" /usr/src/edgedns")

    def _ufw(self, line: str) -> None:
        assert re.fullmatch(r"ufw allow 53/(udp|tcp)", line)

    def _sysctl(self, line: str) -> None:
        """The settings are the whole machine's: looked up, not changed."""
        for setting in self.host.run("cat", shlex.split(line)[-1]).splitlines():
            if not setting.startswith("#"):
                key, value = setting.split(" = ")
                assert Path("/proc/sys", *key.split(".")).exists()
                assert int(value) >= 1 << 20

    def _verify_unit(self, line: str) -> None:
        self.host.run("systemd-analyze", "verify", "/etc/systemd/system/edgedns.service")

    def _start(self, line: str = "") -> None:
        """As the unit says, with no more capabilities; as root, since the tests' interpreter may be root's alone."""
        service = unit("edgedns.service")["Service"]
        self.host.run("mkdir", "-p", f"/var/lib/{service['StateDirectory']}")
        capabilities = ",".join(f"+{name.lower().removeprefix('cap_')}" for name in service["CapabilityBoundingSet"].split())
        limit = ["setpriv", f"--bounding-set=-all,{capabilities}", "--inh-caps=-all", "--no-new-privs"]
        self.server = self.host.start(*limit, *shlex.split(service["ExecStart"]))

    def _wait_ready(self, line: str) -> None:
        until = time.monotonic() + 60
        while '"ready"' not in self.host.run("sh", "-c", line, check=False):
            assert time.monotonic() < until, self.host.output()
            assert self.server is not None
            assert self.server.poll() is None, self.host.output()
            time.sleep(0.2)

    def workers(self) -> list[int]:
        """Process ids of what answers."""
        text = self.host.run("sh", "-c", "cat /var/lib/edgedns/run/worker-*.json")
        return sorted(int(pid) for pid in re.findall(r'"pid": (\d+)', text))


class Deployed(NamedTuple):
    """What the module's tests ask."""

    ns1: Machine
    ns2: Machine
    client: internet.Host

    def dig(self, *words: str, source: str = HOME) -> str:
        """What `dig` prints on the client, through the resolver unless `words` name another server."""
        server = [] if any(word.startswith("@") for word in words) else [f"@{RESOLVER}"]
        return self.client.run("dig", *server, "-b", source, "+time=5", "+tries=2", *words)


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    with internet.internet(tmp_path_factory.mktemp("internet")) as net:
        machines = Machine(net.host("ns1", *NS1), NS1), Machine(net.host("ns2", *NS2, *NS2_ALSO), NS2)
        for machine in machines:
            for step in range(1, 6):
                for line in commands(step):
                    machine.type(line)
        machines[1].set_listen("0.0.0.0:53", "[::]:53")
        starts = commands(6)
        for line in starts:  # on both at the same time: the first start takes a while
            for machine in machines:
                machine.type(line)
        _build_rest(net)
        yield Deployed(*machines, net.hosts["client"])


def _build_rest(net: internet.Internet) -> None:
    """Root, TLD with the document's delegation, servers of what the zone delegates further, resolver and client."""
    parent = f"$ORIGIN example.net.\n$TTL 3600\n@ {SOA}\n@ NS a.nic.net.\n{only('zone')}"
    internet.start_nsd(net.host("root", "203.0.113.1", "2001:db8:0:1::1"), {".": ROOT_ZONE})
    tld = net.host("tld", "203.0.113.2", "2001:db8:0:2::1")
    internet.start_nsd(tld, {"net.": NET, "example.net.": parent, "example.": EXAMPLE})
    child = net.host("child", "192.0.2.90", "198.51.100.90", "2001:db8:90::1")
    internet.start_nsd(child, {"child.cdn.example.net.": CHILD, "sub.cdn.example.net.": SUB})
    hints = ". 3600 IN NS a.root.\na.root. 3600 IN A 203.0.113.1\na.root. 3600 IN AAAA 2001:db8:0:1::1\n"
    resolver, with_subnets = net.host("resolver", RESOLVER, RESOLVER6), internet.unbound_has("subnetcache")
    modules, lines = ("subnetcache iterator", ["client-subnet-zone: cdn.example.net"]) if with_subnets else ("iterator", [])
    internet.start_unbound(resolver, hints, lines, modules)
    net.host("client", HOME, OFFICE, OFFICE6).shell(f"echo nameserver {RESOLVER} > /etc/resolv.conf")


pytestmark = pytest.mark.xdist_group("deploy")
Test = TypeVar("Test", bound=Callable[..., None])
needs_root = [
    pytest.mark.root,
    pytest.mark.skipif(bool(internet.missing_tools()), reason=f"needs {', '.join(internet.missing_tools())}"),
]


def rooted(test: Test) -> Test:
    for mark in needs_root:
        test = mark(test)
    return test


def status(output: str) -> str:
    found = re.search(r"status: (\w+)", output)
    assert found, output
    return found.group(1)


def short(output: str) -> set[str]:
    """The lines of `dig +short`, less what it says of tries that were not the last."""
    return {line for line in output.splitlines() if line and not line.startswith(";;")}


def test_ten_steps() -> None:
    titles = re.findall(r"^## (\d+)\.", DOCUMENT, flags=re.MULTILINE)
    assert titles == [str(number) for number in range(1, 11)]


def test_settings_shown_are_those_of_the_file() -> None:
    assert yaml.safe_load(only("yaml")) == yaml.safe_load((ROOT / "deploy" / "edgedns.yaml").read_text())


def test_the_unit_gives_what_the_settings_need() -> None:
    service, settings = unit("edgedns.service")["Service"], yaml.safe_load(only("yaml"))
    assert settings["state"] == f"/var/lib/{service['StateDirectory']}"
    assert service["AmbientCapabilities"] == service["CapabilityBoundingSet"] == "CAP_NET_BIND_SERVICE"
    assert service["KillMode"] == "process"  # else a crash of the control process would end the workers
    assert service["OOMPolicy"] == "continue"
    assert service["Type"] == "notify"
    assert service["ExecReload"] == service["ExecStart"].split()[0] + " reload"
    assert int(service["FileDescriptorStoreMax"]) >= 2 * len(settings["listen"]) * 64  # sockets of the most workers


@rooted
def test_every_command_of_the_first_six_steps_was_typed(deployed: Deployed) -> None:
    shown = [line for step in range(1, 7) for line in commands(step)]
    assert len(shown) >= 15
    for machine in deployed.ns1, deployed.ns2:
        assert machine.typed[: len(shown)] == shown


@rooted
@pytest.mark.parametrize("line", commands(7))
def test_step_7_the_node_itself_answers(deployed: Deployed, line: str) -> None:
    for machine in deployed.ns1, deployed.ns2:
        output = machine.type(line)
        assert status(output) == "NOERROR"
        assert re.search(r"flags: qr aa;.* ANSWER: [12],", output)


@rooted
def test_step_8_both_nodes_say_the_same(deployed: Deployed) -> None:
    first, second = commands(8)
    assert deployed.ns1.host.shell(first) == deployed.ns1.host.shell(second) != ""
    assert "2026112201" in deployed.ns1.host.shell(first)


@rooted
def test_both_nodes_split_alike(deployed: Deployed) -> None:
    """Weighted by the hash unit: the same subnets of AS3320 on the same side, because the salt is in the rules."""
    questions = "".join(f"www.cdn.example.net A +subnet=80.{128 + i}.77.0/24\n" for i in range(24))
    deployed.client.shell(f"cat > /opt/questions <<'END'\n{questions}END")
    answers = [deployed.dig(f"@{server}", "+short", "-f", "/opt/questions").split() for server in (NS1[0], NS2[0])]
    assert answers[0] == answers[1]
    assert set(answers[0]) == {"192.0.2.10", "198.51.100.10"}


@rooted
@pytest.mark.parametrize("line", commands(10))
def test_step_10_the_world_resolves(deployed: Deployed, line: str) -> None:
    output = deployed.client.shell(line)
    if "+nssearch" in line:
        assert set(re.findall(r"from server (\S+) in", output)) == {*NS1, *NS2}
        assert set(re.findall(r"example\.net\. (\d+) ", output)) == {"2026112201"}
    else:
        assert status(output) == "NOERROR"
        assert re.search(r" ANSWER: [12],", output)


ANSWERS = [
    ("www A", {"192.0.2.10"}),
    ("www AAAA", {"2001:db8:a1::10"}),
    ("shop A", {"www.cdn.example.net.", "192.0.2.10"}),
    ("old-shop AAAA", {"shop.cdn.example.net.", "www.cdn.example.net.", "2001:db8:a1::10"}),
    ("partner A", {"edge.partner.example.", "192.0.2.91"}),
    ("anything.wild A", {"192.0.2.80"}),
    ("two.labels.wild TXT", {'"any name below wild"'}),
    ("some.apps A", {"192.0.2.10"}),
    ("some.moved A", {"apps.cdn.example.net.", "some.apps.cdn.example.net.", "192.0.2.10"}),
    ("x.cname A", {"www.cdn.example.net.", "192.0.2.10"}),
    ("host.child A", {"192.0.2.99"}),
    ("host.sub A", {"192.0.2.98"}),
    ("zero A", {"192.0.2.104"}),
    ("pool A", {"192.0.2.101", "192.0.2.102", "192.0.2.103"}),
    ("_sip._udp SRV", {"10 60 5060 sip.cdn.example.net.", "20 40 5060 mx1.cdn.example.net."}),
    ("odd TYPE65280", {"\\# 4 0A000001"}),
]


@rooted
@pytest.mark.parametrize("transport", ["+notcp", "+tcp"])
@pytest.mark.parametrize(("question", "expected"), ANSWERS)
def test_resolving(deployed: Deployed, question: str, expected: set[str], transport: str) -> None:
    name, rtype = question.split()
    assert short(deployed.dig(f"{name}.cdn.example.net", rtype, "+short", transport)) == expected


@rooted
def test_resolving_over_ipv6(deployed: Deployed) -> None:
    found = deployed.dig(f"@{RESOLVER6}", "www.cdn.example.net", "AAAA", "+short", source=OFFICE6)
    assert len(short(found)) >= 1


@rooted
@pytest.mark.parametrize(
    ("question", "expected"),
    [
        *((question, "NXDOMAIN") for question in ("nowhere A", "below.www A", "dangling A", "no.deep.tree A")),
        *((question, "NOERROR") for question in ("v4 AAAA", "deep.tree A", "tree A", "www MX")),
    ],
)
def test_negative_answers_through_the_resolver(deployed: Deployed, question: str, expected: str) -> None:
    name, rtype = question.split()
    output = deployed.dig(f"{name}.cdn.example.net", rtype)
    assert status(output) == expected
    assert re.search(r"^cdn\.example\.net\.\s+\d+\s+IN\s+SOA", output, flags=re.MULTILINE)


@rooted
@pytest.mark.skipif(not internet.unbound_has("subnetcache"), reason="this unbound has no subnetcache module")
def test_clients_of_one_resolver_get_their_own_answers(deployed: Deployed) -> None:
    """RFC 7871 through a cache: the office is pinned to cedar; nobody else's answer is given to it, nor its own to them."""
    cedar = {"203.0.113.10", "203.0.113.11"}
    for _ in range(2):
        assert short(deployed.dig("img.cdn.example.net", "A", "+short", source=OFFICE)) == cedar
        assert short(deployed.dig("img.cdn.example.net", "A", "+short", source=HOME)) == {"192.0.2.10"}
        found = deployed.dig(f"@{RESOLVER6}", "img.cdn.example.net", "AAAA", "+short", source=OFFICE6)
        assert short(found) == {"2001:db8:c1::10", "2001:db8:c1::11"}


@rooted
@pytest.mark.parametrize("transport", ["+notcp", "+tcp"])
def test_replies_leave_from_the_address_that_was_asked(deployed: Deployed, transport: str) -> None:
    """ns2 listens on 0.0.0.0 and [::]; dig takes no reply from elsewhere."""
    for server in (*NS2, *NS2_ALSO):
        source = OFFICE6 if ":" in server else HOME
        output = deployed.dig(f"@{server}", "zero.cdn.example.net", "A", "+norecurse", transport, source=source)
        assert status(output) == "NOERROR"
        assert "unexpected source" not in output


@rooted
def test_workers_answer_without_the_control_process(deployed: Deployed) -> None:
    """What KillMode=process is for: systemd starts the control process again, and it takes over those that run."""
    node = deployed.ns1
    before = node.workers()
    assert node.server is not None
    node.server.send_signal(signal.SIGKILL)
    node.server.wait(10)
    assert status(deployed.dig(f"@{NS1[0]}", "www.cdn.example.net", "A", "+norecurse")) == "NOERROR"
    node.type(commands(6)[2])
    node.type(commands(6)[3])
    assert node.workers() == before


@rooted
def test_one_node_without_power(deployed: Deployed) -> None:
    """unbound goes on resolving through the other, and the node comes back by itself.

    It gives up on a client that it kept waiting for 1.9 s (its discard-timeout), so the client asks again, as they do.
    """
    deployed.ns1.host.kill()
    for number in range(4):
        found = deployed.dig(f"dark-{number}.wild.cdn.example.net", "A", "+short", "+time=3", "+tries=4")
        assert short(found) == {"192.0.2.80"}
    for line in commands(6)[2:]:
        deployed.ns1.type(line)
    assert status(deployed.dig(f"@{NS1[0]}", "www.cdn.example.net", "A", "+norecurse")) == "NOERROR"


@pytest.mark.long
def test_installs_from_the_tree(tmp_path: Path) -> None:
    """Step 1, and the Dockerfile's build stage: a fresh environment, from this tree, without the test's own packages."""
    place, tree = tmp_path / "edgedns", tmp_path / "tree"
    wanted = ("edgedns", "rules", "setup.py", "pyproject.toml", "README.md", "LICENSE", "NOTICE")
    tree.mkdir()  # a copy, since a build leaves things behind
    subprocess.run(["cp", "-a", *(str(ROOT / name) for name in wanted), str(tree)], check=True)
    for built in tree.rglob("*.so"):
        built.unlink()
    for line in commands(1)[1:]:
        words = [word.replace("/opt/edgedns", str(place)).replace("/usr/src/edgedns", str(tree)) for word in shlex.split(line)]
        words[0] = sys.executable if words[0] == "python3" else words[0]
        subprocess.run(words, check=True, capture_output=True, timeout=900)
    shown = subprocess.run([str(place / "bin" / "edgedns"), "check", str(ROOT / "rules")], capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr
    if shutil.which("gcc"):
        assert [path.name for path in place.rglob("_fastpath*.so")], "the native engine was not built"
