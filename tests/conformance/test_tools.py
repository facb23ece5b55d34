"""What operators type: dig, kdig and drill judge the replies by themselves."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from tests.conformance.client import Client


def typed(tool: str, ask: Client, *words: str) -> str:
    """What the tool prints; the test is skipped where there is none."""
    if shutil.which(tool) is None:
        pytest.skip(f"there is no {tool}")
    command = [tool, f"@{ask.host}", "-p", str(ask.port), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("tool", ["dig", "kdig"])
@pytest.mark.parametrize("transport", ["+notcp", "+tcp"])
def test_no_warnings(ask: Client, tool: str, transport: str) -> None:
    for name in ("zero", "nowhere", "host.child", "mail", "any.wild", "x.moved"):
        output = typed(tool, ask, f"{name}.cdn.example.net", "A", "+norecurse", transport)
        assert not re.search("(?i)warning|malformed|extra bytes|mismatch|;; .*error", output.replace("NOERROR", ""))


@pytest.mark.parametrize("transport", ["-u", "-t"])
@pytest.mark.parametrize(
    ("name", "rcode", "holds"),
    [
        ("zero", "NOERROR", "192.0.2.104"),
        ("nowhere", "NXDOMAIN", "SOA"),
        ("mail", "NOERROR", "CNAME"),
        ("host.child", "NOERROR", "AUTHORITY: 2"),
        ("any.wild", "NOERROR", "ANSWER: 1"),
        ("x.moved", "NOERROR", "DNAME"),
    ],
)
def test_drill_reads_them(ask: Client, transport: str, name: str, rcode: str, holds: str) -> None:
    output = typed("drill", ask, "-o", "rd", "-b", "1232", transport, f"{name}.cdn.example.net", "A")
    assert f"rcode: {rcode}" in output
    assert holds in output
    assert not re.search("(?i)warning|malformed|;; .*(error|truncated)", output.replace("NOERROR", ""))


@pytest.mark.parametrize("tool", ["dig", "kdig"])
def test_dig_s_own_default_options(ask: Client, tool: str) -> None:
    output = typed(tool, ask, "zero.cdn.example.net", "A", "+norecurse", "+dnssec", "+nsid", "+bufsize=4096")
    assert "NOERROR" in output
    assert "192.0.2.104" in output


@pytest.mark.ours
def test_dig_finds_the_cookie_good(ask: Client) -> None:
    assert "(good)" in typed("dig", ask, "zero.cdn.example.net", "+cookie", "+norecurse")


@pytest.mark.parametrize("words", ["+ednsopt=100", "+edns=0 +ednsflags=0x4000", "+edns=1 +noednsneg", "+opcode=15"])
def test_isc_s_compliance_questions(ask: Client, words: str) -> None:
    """RFC 8906 section 8: what is unknown is ignored or named, never met with silence."""
    output = typed("dig", ask, "cdn.example.net", "SOA", "+norecurse", "+nocookie", *words.split())
    expected = {"+edns=1": "BADVERS", "+opcode=15": "NOTIMP"}.get(words.split()[0], "NOERROR")
    assert f"status: {expected}" in output


@pytest.mark.steered
def test_kdig_shows_the_scope(ask: Client) -> None:
    output = typed("kdig", ask, "www.cdn.example.net", "A", "+subnet=198.51.100.0/24")
    assert "198.51.100.0/24/24" in output
    assert "203.0.113.10" in output
