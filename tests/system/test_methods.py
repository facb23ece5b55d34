"""`edgedns probe` by every method, with and without privileges, towards an Internet that the test plays: see `tunnel`."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.system.tunnel import ICMP, ICMP6, Packet, Tunnel, echo, packed, tunnel

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root for a network namespace"),
    pytest.mark.skipif(not Path("/dev/net/tun").exists(), reason="needs /dev/net/tun"),
    pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs setpriv"),
]
DEVICES = {
    "p1": ("192.0.2.10/32", "192.0.2.11/32", "192.0.2.12/32", "192.0.2.13/32", "2001:db8:a1::10/128"),
    "p2": ("198.51.100.10/32", "2001:db8:b1::10/128"),
}
HOSTS = ("203.0.113.7", "2001:db8:77::7")
SOURCES = ("alder=192.0.2.10", "alder=2001:db8:a1::10")
RAW = "+net_raw"
WEB_SERVER = """
import http.server, json, ssl, sys, threading
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(*sys.argv[1:])
ports = {}
for method in ("http", "https"):
    server = http.server.ThreadingHTTPServer(("198.51.100.10", 0), http.server.BaseHTTPRequestHandler)  # says 501
    if method == "https":
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=server.serve_forever).start()
    ports[method] = server.server_port
print(json.dumps(ports), flush=True)
"""
Entries = Sequence[Mapping[str, object]]


@pytest.fixture(scope="module")
def machine() -> Iterator[Tunnel]:
    with tunnel(DEVICES) as made:
        yield made


class Machine:
    """The machine, friendly again, and the files that its agents are given, which nobody may read, too."""

    def __init__(self, world: Tunnel, folder: Path) -> None:
        self.world = world
        self.folder = folder
        world.seen.clear()
        world.answer = echo
        world.groups("1 0")
        (folder / "asn.tsv").write_text("203.0.113.0\t203.0.113.255\t64500\tDE\tdocumentation\n")

    def probe(
        self, targets: Entries, sources: Sequence[str] = SOURCES, capabilities: str = "", more: Sequence[str] = ()
    ) -> subprocess.CompletedProcess[str]:
        """One period of an agent that nobody runs."""
        (self.folder / "targets").write_text("".join(json.dumps(target) + "\n" for target in targets))
        given = ["--vantage=fra1", "--collector=-", f"--targets={self.folder}/targets", f"--asn={self.folder}/asn.tsv"]
        pace = ["--every=300ms", "--per-address=200", "--timeout=300ms", "--once"]
        sources = [f"--source={source}" for source in sources]
        command = [sys.executable, "-m", "edgedns", "probe", *given, *pace, *sources, *more]
        return self.world.run(*command, capabilities=capabilities)


@pytest.fixture
def host(machine: Tunnel) -> Iterator[Machine]:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Machine(machine, Path(folder))


def by(*methods: str, hosts: Sequence[str] = HOSTS) -> Entries:
    """A target for each method and host."""
    return [{"address": host, "method": method} for method in methods for host in hosts]


def replied(ended: subprocess.CompletedProcess[str]) -> list[str]:
    """The addresses that were timed."""
    assert ended.returncode == 0, ended.stderr
    samples: list[dict[str, Any]] = [json.loads(line) for line in ended.stdout.splitlines()]
    return sorted(sample["address"] for sample in samples if 0 < sample.get("rtt_ms", 0) < 200)


# What it takes.


def test_nothing_but_icmp_needs_a_privilege(host: Machine) -> None:
    ended = host.probe(by("udp", "dns", "tcp"))
    assert replied(ended) == sorted(HOSTS * 3)
    assert "probing by dns, tcp, udp\n" in ended.stderr


@contextlib.contextmanager
def web_server(host: Machine) -> Iterator[dict[str, int]]:
    """Plain HTTP and HTTPS on the machine's own second address; gives the ports by method."""
    key, certificate = host.folder / "key.pem", host.folder / "certificate.pem"
    make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    subprocess.run([*make, "-subj", "/CN=x", "-keyout", key, "-out", certificate], check=True, capture_output=True)
    command = host.world.command(sys.executable, "-c", WEB_SERVER, str(certificate), str(key))
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            yield json.loads(server.stdout.readline())
        finally:
            server.kill()


def test_http_and_https_need_none_either(host: Machine) -> None:
    with web_server(host) as ports:
        places = {way: f"198.51.100.10:{port}" for way, port in ports.items()}
        targets = [{"address": "203.0.113.7", "endpoint": place, "method": way} for way, place in places.items()]
        for timed in ("connect", "first-byte"):
            ended = host.probe(targets, SOURCES[:1], more=["--timeout=1s", f"--http-time={timed}"])
            assert replied(ended) == ["203.0.113.7"] * 2
            way = "the TCP handshake" if timed == "connect" else "the first octet of the reply"
            assert f"probing by http (timing {way}), https (timing {way})\n" in ended.stderr


def test_icmp_of_a_group_that_may(host: Machine) -> None:
    host.world.groups("65534 65534")
    ended = host.probe(by("icmp"))
    assert replied(ended) == sorted(HOSTS)
    assert "probing by icmp (unprivileged sockets, by net.ipv4.ping_group_range = 65534 65534)" in ended.stderr


def test_icmp_with_one_capability(host: Machine) -> None:
    ended = host.probe(by("icmp"), capabilities=RAW)
    assert replied(ended) == sorted(HOSTS)
    assert "probing by icmp (raw sockets, by CAP_NET_RAW)" in ended.stderr


def test_icmp_with_neither_says_what_to_do(host: Machine) -> None:
    ended = host.probe(by("icmp", hosts=HOSTS[:1]), SOURCES[:1])
    assert ended.returncode == 1
    assert ended.stderr == (
        "Error: can't probe by icmp from 192.0.2.10: neither may group 65534 open ICMP sockets (sysctl -w "
        "net.ipv4.ping_group_range='65534 65534' permits it) nor has the process CAP_NET_RAW "
        "(AmbientCapabilities=CAP_NET_RAW in its unit, or setcap cap_net_raw+ep on a python of its own)\n"
    )
    assert host.world.seen == []


# Where it leaves.


def test_each_source_leaves_as_it_says_by_every_method(host: Machine) -> None:
    """Policy routing sees the mark; an interface is stronger than the default route."""
    world = host.world
    world.ip("rule", "add", "fwmark", "7", "lookup", "107")
    world.ip("route", "add", "default", "dev", "p2", "table", "107")
    words = ("alder=192.0.2.10", "birch=192.0.2.11,interface=p2", "cedar=192.0.2.12,mark=0x7", "dogwood=192.0.2.13,mark=8")
    try:
        ended = host.probe(by("udp", "dns", "tcp", "icmp", hosts=HOSTS[:1]), words, capabilities=RAW)
    finally:
        world.ip("rule", "del", "fwmark", "7")
        world.ip("route", "flush", "table", "107")
    assert replied(ended) == [HOSTS[0]] * 4 * 4
    left = defaultdict(set)
    for device, packet in world.seen:
        left[packet.source, packet.protocol].add(device)
    expected = {"192.0.2.10": {"p1"}, "192.0.2.11": {"p2"}, "192.0.2.12": {"p2"}, "192.0.2.13": {"p1"}}
    assert left == {(source, protocol): device for source, device in expected.items() for protocol in (1, 6, 17)}


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (",mark=7", "with mark 7: marks need CAP_NET_ADMIN, or since Linux 5.17 CAP_NET_RAW: AmbientCapabilities="),
        (",interface=none0", "through none0: there is no such interface"),
        (",interface=a/b", "'interface=a/b' is neither interface=NAME nor mark=N"),
        (",mark=0", "'mark=0' is neither interface=NAME nor mark=N"),
        (",mark=4294967296", "'mark=4294967296' is neither interface=NAME nor mark=N"),
    ],
)
def test_what_is_wrong_with_a_source_is_said(host: Machine, words: str, error: str) -> None:
    ended = host.probe(by("udp"), [f"alder=192.0.2.10{words}"])
    assert ended.returncode in (1, 2)
    assert error in " ".join(ended.stderr.split())
    assert "Traceback" not in ended.stderr


# What is no reply.


def unreachable(_: str, packet: Packet) -> list[Packet]:
    """A router's word on a packet, for another reason by each address: RFC 792, RFC 4443 section 3.1."""
    six = ":" in packet.target
    code = packed(packet)[39 if six else 19]
    head = bytes([1, code] if six else [3, code]) + bytes(6)
    router = "2001:db8:ffff::1" if six else "198.18.0.1"
    return [packet.back(head + packed(packet), ICMP6 if six else ICMP, router)]


@pytest.mark.parametrize("capabilities", ["", RAW])
def test_icmp_errors_are_no_replies(host: Machine, capabilities: str) -> None:
    """Also "port unreachable" about a SYN, which the kernel reports as a refusal, though a firewall may have sent it."""
    host.world.groups("1 0" if capabilities else "65534 65534")
    host.world.answer = unreachable
    reasons = [f"203.0.113.{code}" for code in (0, 1, 2, 3, 10, 13)] + [f"2001:db8:77::{code}" for code in range(1, 7)]
    ended = host.probe(by("udp", "dns", "tcp", "icmp", hosts=reasons), capabilities=capabilities)
    assert replied(ended) == []
    assert {packet.target for _, packet in host.world.seen} == set(reasons)


def forged(device: str, packet: Packet) -> list[Packet]:
    """What strangers who have no key can send: other stamps, cut ones, and another peer's."""
    real = echo(device, packet)[0]
    head, stamp = real.payload[:8], real.payload[8:]
    fakes = [b"", stamp[:-1], bytes(len(stamp)), stamp[:30] + bytes([stamp[30] ^ 1]) + stamp[31:], stamp + b"x"]
    told = [real._replace(payload=head + each) for each in fakes]
    return [*told, real._replace(source="2001:db8:77::8" if ":" in real.source else "203.0.113.8")]


@pytest.mark.parametrize("capabilities", ["", RAW])
def test_strangers_replies_are_strays(host: Machine, capabilities: str) -> None:
    host.world.groups("1 0" if capabilities else "65534 65534")
    host.world.answer = forged
    ended = host.probe(by("icmp"), capabilities=capabilities)
    assert replied(ended) == []
    strays = int(ended.stderr.split(" stray packets")[0].rsplit(" ", 1)[1])
    assert strays >= 6 * 2


def test_replies_to_somebody_elses_ping_are_none_of_ours(host: Machine) -> None:
    """A raw socket is shown everybody's."""

    def others(device: str, packet: Packet) -> list[Packet]:
        real = echo(device, packet)[0]
        return [real._replace(payload=real.payload[:4] + bytes([real.payload[4] ^ 0xFF]) + real.payload[5:])]

    host.world.answer = others
    assert replied(host.probe(by("icmp"), capabilities=RAW)) == []
