"""RFC 9018: cookies of edgedns, NSD, Knot and BIND are good at each other's, and a secret is rolled without a restart.

"Server Cookies so that an anycast server set including diverse implementations will interoperate with standard clients".
"""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edgedns.dns.cookie import make
from edgedns.engine import native
from tests.conformance import peers
from tests.small import write_rules, write_table
from tests.system.serving import SLACK, Server, serving, wait_until

A, B, C = "e5e973e5a6b2a43f48e7dc849e37bfcf", "445536bcd2513298075a5d379663c962", "dd3bdf9344b678b185a6f5cb60fca715"
MINE = "2464c4abcf10c957"
ZONE = "$TTL 60\n@ SOA ns1 h 1 3600 900 1209600 300\n@ NS ns1\nns1 A 192.0.2.1\nwww A 192.0.2.2\n"
NSD = 'server:\n  answer-cookie: yes\n  cookie-secret-file: "{file}"\n'
KNOT = """
mod-cookies:
  - id: default
    secret: "0x{secret}"
    badcookie-slip: 1
template:
  - id: default
    global-module: mod-cookies/default
"""
BIND = """
options {{
  directory "{folder}"; pid-file none; session-keyfile none; lock-file none;
  listen-on port {port} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }}; recursion no;
  require-server-cookie yes; cookie-algorithm siphash24; {secrets}
}};
controls {{ }};
zone "example.net" {{ type primary; file "zone"; }};
"""
ENGINES = ("native", "python", "reference") if native.AVAILABLE else ("python", "reference")
NAMED = shutil.which("named", path=peers.PATH)
DOCUMENT = (Path(__file__).parents[2] / "docs" / "operating.md").read_text(encoding="utf-8")
pytestmark = [
    pytest.mark.xdist_group("cookies"),
    pytest.mark.skipif(shutil.which("dig") is None, reason="needs dig"),
]


def dig(port: int, *options: str) -> str:
    command = ["dig", "@127.0.0.1", "-p", str(port), "+norecurse", "+tries=1", "+time=5", *options]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def cookie(port: int, sent: str = MINE, name: str = "www.example.net") -> str:
    """The cookie that comes back for one that is sent; dig itself says that it is its own."""
    found = re.search(r"COOKIE: ([0-9a-f]{48}) \(good\)", dig(port, name, f"+cookie={sent}", "+nobadcookie"))
    assert found, sent
    return found[1]


def is_believed(port: int, sent: str) -> bool:
    """RFC 7873 section 5.4: a query for nothing but a cookie's worth is NOERROR or BADCOOKIE."""
    said = dig(port, "+header-only", f"+cookie={sent}", "+nobadcookie")
    assert "BADCOOKIE" in said or "NOERROR" in said
    return "NOERROR" in said


def write(path: Path, *secrets: str) -> None:
    path.write_text("".join(f"{secret}\n" for secret in secrets))
    path.chmod(0o640)


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Server]]:
    """A node for each engine, with one file of secrets."""
    top = tmp_path_factory.mktemp("shared")
    write(top / "secrets", A, B)
    rules, table = write_rules(top / "rules"), write_table(top / "table.tsv")
    with contextlib.ExitStack() as running:
        started: dict[str, Server] = {}
        for engine in ENGINES:
            (top / engine).mkdir()
            started[engine] = Server(top / engine, rules, table)
            running.callback(started[engine].clean_up)
            started[engine].start("--cookie-secret-file", str(top / "secrets"), environ={"EDGEDNS_ENGINE": engine})
        yield started


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Of one node."""
    (tmp_path / "node").mkdir()
    return tmp_path / "node"


def test_one_node_s_cookie_is_good_at_another(nodes: dict[str, Server]) -> None:
    for one in nodes.values():
        given = cookie(one.port)
        assert all(is_believed(other.port, given) for other in nodes.values())
        assert not is_believed(one.port, given[:-2] + f"{int(given[-2:], 16) ^ 1:02x}")


@pytest.mark.skipif(bool(peers.missing("nsd")), reason="needs nsd")
def test_nsd_s_cookies_are_ours(nodes: dict[str, Server], tmp_path: Path) -> None:
    """NSD gives a good one back as it came; a second later one that it did not believe would have another time in it."""
    shared = nodes["python"].top.parent / "secrets"
    (tmp_path / "secrets").write_bytes(shared.read_bytes())
    with peers.serving("nsd", "example.net.", ZONE, tmp_path, NSD.format(file=tmp_path / "secrets")) as port:
        theirs, ours = cookie(port), {engine: cookie(node.port) for engine, node in nodes.items()}
        time.sleep(1.1)
        for engine, node in nodes.items():
            assert cookie(port, ours[engine]) == ours[engine], engine
            assert cookie(node.port, theirs) == theirs, engine
            assert is_believed(node.port, theirs), engine


@pytest.mark.skipif(bool(peers.missing("knot")), reason="needs knot")
@pytest.mark.parametrize("secret", [A, B])
def test_knot_s_cookies_are_ours(nodes: dict[str, Server], tmp_path: Path, secret: str) -> None:
    """Knot answers BADCOOKIE where it does not believe one. It believes ours where our active secret is its own, and we its."""
    with peers.serving("knot", "example.net.", ZONE, tmp_path, KNOT.format(secret=secret)) as port:
        theirs = cookie(port)
        for node in nodes.values():
            said = dig(port, "www.example.net", f"+cookie={cookie(node.port)}", "+nobadcookie")
            assert ("status: NOERROR" in said) is (secret == A)
            assert is_believed(node.port, theirs)


@contextlib.contextmanager
def bind(folder: Path, *secrets: str) -> Iterator[int]:
    port = peers.free_port()
    (folder / "zone").write_text(ZONE)
    told = " ".join(f'cookie-secret "{secret}";' for secret in secrets)
    (folder / "named.conf").write_text(BIND.format(folder=folder, port=port, secrets=told))
    with (folder / "out").open("wb") as out:
        command = [str(NAMED), "-f", "-c", str(folder / "named.conf"), "-n", "1"]
        process = subprocess.Popen(command, stdout=out, stderr=out)
    try:
        peers.wait_for(port, "example.net.", lambda: (folder / "out").read_text() if process.poll() is not None else "")
        yield port
    finally:
        process.terminate()
        process.wait(10)


@pytest.mark.skipif(NAMED is None, reason="needs named")
def test_bind_s_cookies_are_ours(nodes: dict[str, Server], tmp_path: Path) -> None:
    """BIND makes cookies by its first secret and believes those of all; where it wants one, others are BADCOOKIE."""

    def is_wanted(sent: str) -> bool:
        said = dig(port, "www.example.net", f"+cookie={sent}", "+nobadcookie")
        assert "BADCOOKIE" in said or "NOERROR" in said
        return "NOERROR" in said

    for secrets in ((A, B), (C,)):
        with bind(tmp_path, *secrets) as port:
            theirs = cookie(port)
            for engine, node in nodes.items():
                assert is_believed(node.port, theirs) is (A in secrets), engine
                assert is_wanted(cookie(node.port)) is (A in secrets), engine
            assert not is_wanted(theirs[:-2] + f"{int(theirs[-2:], 16) ^ 1:02x}")


def recipe() -> list[str]:
    """The commands of the document that roll a secret, stage by stage."""
    part = DOCUMENT[DOCUMENT.index("## Cookies") :]
    return re.findall(r"^```sh\n(.*?)^```", part, flags=re.MULTILINE | re.DOTALL)[:4]


def test_a_secret_is_rolled_as_the_document_says(folder: Path) -> None:
    """RFC 9018 section 5: a cookie of the old secret is good until the third stage, one of the new one from the first on."""
    path = folder.parent / "secrets"
    first, learn, use, forget = (text.replace("/etc/edgedns/cookie-secrets", str(path)) for text in recipe())
    first = first.replace("root:edgedns", "$(id -u):$(id -g)")

    def type_it(commands: str) -> list[str]:
        subprocess.run(["sh", "-euc", commands], check=True, cwd=folder)
        return path.read_text().split()

    (old,) = type_it(first)
    assert path.stat().st_mode & 0o777 == 0o640
    with serving(folder, "--cookie-secret-file", str(path)) as server:
        port, before = server.port, cookie(server.port)
        assert_soon(lambda: is_believed(port, before))
        _, new = type_it(learn)
        server.wait_for("2 cookie secrets, shared")
        time.sleep(0.3)
        assert made_by(port, old)
        assert is_believed(port, before)
        assert type_it(use) == [new, old]
        assert_soon(lambda: made_by(port, new))
        assert is_believed(port, before)
        assert type_it(forget) == [new]
        assert_soon(lambda: not is_believed(port, before))
        assert made_by(port, new)
        assert path.stat().st_mode & 0o777 == 0o640
        assert "everybody" not in server.said()
        assert old not in server.said()
        assert new not in server.said()


def made_by(port: int, secret: str) -> bool:
    given = bytes.fromhex(cookie(port))
    return make(given[:8], bytes((127, 0, 0, 1)), bytes.fromhex(secret), int.from_bytes(given[12:16], "big")) == given


def assert_soon(holds: Callable[[], bool]) -> None:
    """What is saved is in force within two seconds."""
    wait_until(holds, 2.0 * SLACK)


def test_what_is_wrong_with_the_file_is_told_and_a_node_goes_on(folder: Path) -> None:
    path = folder.parent / "secrets"
    write(path, A)
    path.chmod(0o644)
    with serving(folder, "--cookie-secret-file", str(path)) as server:
        server.wait_for("everybody can read or write the cookie secrets")
        given = cookie(server.port)
        path.write_text(A[:-1] + "\n")
        server.wait_for(r"line 1 is not a secret of 32 hexadecimal digits; the cookie secrets stay as they were")
        assert is_believed(server.port, given)
        assert A not in server.said()
