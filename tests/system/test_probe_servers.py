"""Name servers and resolvers that people run answer our DNS probes, over both families, and ask nobody else for it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.system import internet, resolvers
from tests.system.internet import Host

STARTS: dict[str, Callable[[Host], None]] = {
    "bind": resolvers.start_named,
    "knot-resolver": resolvers.start_kresd,
    "pdns": resolvers.start_pdns,
    "unbound": resolvers.start_unbound,
}
CLIENT = ("198.51.100.1", "2001:db8:c::1")
pytestmark = [pytest.mark.root, pytest.mark.timeout(240)]


def test_they_reply_and_recurse_for_none(tmp_path: Path) -> None:
    if lacking := resolvers.missing(*STARTS):
        pytest.skip(f"needs {', '.join(lacking)}")
    with internet.internet(tmp_path) as net:
        zone = f". 3600 IN {resolvers.SOA}\n. 3600 IN NS a.root.\na.root. 3600 IN A 203.0.113.1\n"
        internet.start_nsd(net.host("root", "203.0.113.1", "2001:db8:0:1::1"), {".": zone})
        for number, (name, start) in enumerate(STARTS.items(), 60):
            start(net.host(name[:6], f"203.0.113.{number}", f"2001:db8:0:{number}::1"))
        root, *asked = net.hosts.values()
        client = net.host("client", *CLIENT)
        before = queries(root)
        addresses = {address for host in (root, *asked) for address in host.addresses}
        targets = client.folder / "targets"
        targets.write_text("".join(json.dumps({"address": address, "method": "dns"}) + "\n" for address in sorted(addresses)))
        (client.folder / "asn").write_text("203.0.113.0\t203.0.113.255\t64500\tDE\tdocumentation\n")
        words = [f"--targets={targets}", f"--asn={client.folder}/asn", *(f"--source=alder={address}" for address in CLIENT)]
        pace = ["--every=1s", "--per-address=20", "--per-network=200", "--once"]
        out = client.run(sys.executable, "-m", "edgedns", "probe", "--vantage=fra1", "--collector=-", *words, *pace, timeout=60)
        samples = [json.loads(line) for line in out.splitlines()]
        assert {sample["address"] for sample in samples if "rtt_ms" in sample} == addresses
        ours, priming = 3 * len(root.addresses), 3 * len(STARTS)
        assert queries(root) - before <= ours + priming, "for us they would have asked it 3 times an address"


def queries(root: Host) -> int:
    """Datagrams that this host took in."""
    lines = [line.split() for name in ("snmp", "snmp6") for line in root.run("cat", f"/proc/net/{name}").splitlines()]
    udp4 = [line for line in lines if line[0] == "Udp:"]
    udp6 = next(line for line in lines if line[0] == "Udp6InDatagrams")
    return int(udp4[1][1]) + int(udp6[1])
