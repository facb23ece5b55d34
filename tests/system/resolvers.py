"""Resolvers other than unbound, on a host of the tests' Internet; and edgedns there, delegated to by a root of its own."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypedDict

from tests.system import internet
from tests.system.internet import Host, Internet

ASKER = Path(__file__).parent / "asker.py"
HINTS = ". 3600 IN NS a.root.\na.root. 3600 IN A 203.0.113.1\na.root. 3600 IN AAAA 2001:db8:0:1::1\n"
# The example zone's own, of both its name servers.
SERVER, SERVER6 = "192.0.2.53", "2001:db8:53::1"
ALSO = ("198.51.100.53", "2001:db8:53::2")
SOA = "SOA a.nic.net. noc.nic.net. 1 3600 900 1209600 60"
PROGRAMS = {"bind": "named", "knot-resolver": "kresd", "pdns": "pdns_recursor", "unbound": "unbound"}
NAMED = """
options {{
  directory "{folder}"; pid-file none; session-keyfile none; lock-file none;
  listen-on {{ {address}; }}; listen-on-v6 {{ {address6}; }};
  recursion yes; allow-query {{ any; }}; allow-recursion {{ any; }};
  dnssec-validation no; qname-minimization strict; empty-zones-enable no;
}};
controls {{ }};
zone "." {{ type hint; file "{folder}/root.hints"; }};
"""
KRESD = """
net.listen('{address}', 53, {{ kind = 'dns' }})
net.listen('{address6}', 53, {{ kind = 'dns' }})
modules = {{ 'hints > iterate' }}
hints.root_file('{folder}/root.hints')
trust_anchors.remove('.')
modules.unload('ta_signal_query')
modules.unload('ta_sentinel')
modules.unload('ta_update')
modules.unload('detect_time_skew')
modules.unload('detect_time_jump')
cache.open(10 * MB, 'lmdb://{folder}/cache')
"""
PDNS = """
config-dir={folder}
socket-dir={folder}
local-address={address}, {address6}
query-local-address=0.0.0.0, ::
allow-from=0.0.0.0/0, ::/0
dont-query=
hint-file={folder}/root.hints
dnssec=off
qname-minimization=yes
threads=1
daemon=no
webserver=no
security-poll-suffix=
edns-outgoing-bufsize=1232
"""


def missing(*names: str) -> list[str]:
    """What this machine lacks of these resolvers and of what the namespaces need."""
    found = [PROGRAMS[name] for name in names if shutil.which(PROGRAMS[name], path=internet._path()) is None]
    return [*internet.missing_tools(), *found]


def start_named(host: Host) -> None:
    _start(host, NAMED, "named.conf", lambda config: ["named", "-f", "-c", config, "-n", "1"])


def start_kresd(host: Host) -> None:
    (host.folder / "cache").mkdir()
    _start(host, KRESD, "kresd.conf", lambda config: ["kresd", "-n", "-c", config, str(host.folder)])


def start_pdns(host: Host, lines: Sequence[str] = ()) -> None:
    text = PDNS + "".join(f"{line}\n" for line in lines)
    _start(host, text, "recursor.conf", lambda config: ["pdns_recursor", f"--config-dir={Path(config).parent}"])


def start_unbound(host: Host, lines: Sequence[str] = (), modules: str = "iterator") -> None:
    internet.start_unbound(host, HINTS, ["use-caps-for-id: yes", *lines], modules)


def _start(host: Host, template: str, name: str, command: Callable[[str], list[str]]) -> None:
    (host.folder / "root.hints").write_text(HINTS)
    host.folder.chmod(0o755)
    config = host.folder / name
    config.write_text(template.format(folder=host.folder, address=host.addresses[0], address6=host.addresses[1]))
    host.start(*command(str(config)))
    internet.wait_for_answer(host, host.addresses[0], "version.bind", "TXT", "-c", "CH")


def build(net: Internet, rules: Path, zone: str, parents: dict[str, str], delegated: dict[str, str]) -> Host:
    """Root, TLD, the servers of what the zone delegates (all NSD), and edgedns as the zone's only server."""
    root = f". 3600 IN {SOA}\n. 3600 IN NS a.root.\na.root. 3600 IN A 203.0.113.1\na.root. 3600 IN AAAA 2001:db8:0:1::1\n"
    root += "a.nic.net. 3600 IN A 203.0.113.2\na.nic.net. 3600 IN AAAA 2001:db8:0:2::1\n"
    root += "".join(f"{name} 3600 IN NS a.nic.net.\n" for name in ("net.", "example."))
    internet.start_nsd(net.host("root", "203.0.113.1", "2001:db8:0:1::1"), {".": root})
    internet.start_nsd(net.host("tld", "203.0.113.2", "2001:db8:0:2::1"), parents)
    if delegated:
        internet.start_nsd(net.host("child", "192.0.2.90", "198.51.100.90", "2001:db8:90::1"), delegated)
    server = net.host("server", SERVER, SERVER6, *ALSO)
    listen = ["--listen", "0.0.0.0:53", "--listen", "[::]:53"]
    command = [sys.executable, "-m", "edgedns", "serve", "--rules", str(rules), "--state", str(server.folder / "state")]
    server.start(*command, *listen, "--admin", "off", "--workers", "1")
    internet.wait_for_answer(server, SERVER, zone, "SOA", within=180)  # it expands the table first, maybe on a loaded machine
    return server


class Told(TypedDict):
    """What asker.py prints of one question."""

    rcode: str
    data: list[str]
    scope: int | None


def ask_all(host: Host, questions: Sequence[Mapping[str, object]]) -> list[Told]:
    """What `host` is answered, by asker.py in its namespace."""
    (host.folder / "questions").write_text("".join(json.dumps(question) + "\n" for question in questions))
    script = f"{sys.executable} {ASKER} < {host.folder}/questions"
    started = time.monotonic()
    lines = host.shell(script, timeout=300).splitlines()
    assert len(lines) == len(questions), f"{len(lines)} of {len(questions)} answered in {time.monotonic() - started:.0f} s"
    return [json.loads(line) for line in lines]
