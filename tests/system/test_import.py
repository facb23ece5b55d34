"""`edgedns import`: what it prints is served as the zone was."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from edgedns.engine.load import Loaded, load_rules
from tests.system.serving import Server

RULES = Path(__file__).parents[2] / "rules"
ZONE = """\
$TTL 1h
$ORIGIN example.org.
@ 2h IN SOA ns1 noc ( 2026112301 ; serial
      3h 15m 2w 1m )
  NS ns1
  NS ns2.example.net.
  MX 10 mail
ns1 A 192.0.2.53
    AAAA 2001:db8:53::1
mail 5m A 192.0.2.25
text TXT "two; strings" "and a \\"quote\\""
odd\\.dot A 192.0.2.9
\\200x TYPE65280 \\# 2 0a00
$INCLUDE more.zone sub
"""


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edgedns", "import", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def loaded(text: str, folder: Path) -> Loaded:
    folder.mkdir(exist_ok=True)
    (folder / "imported.yaml").write_text(text)
    return load_rules(folder)


def records(content: Loaded, zone: str) -> list[tuple[bytes, int, int, bytes]]:
    return sorted(rr[:4] for rr in content.statics[zone])


def test_a_zone_file_is_served_as_it_is_written(tmp_path: Path) -> None:
    (tmp_path / "db").write_text(ZONE)
    (tmp_path / "more.zone").write_text("www CNAME mail.example.org.\n@ NS ns1.elsewhere.example.\n".replace("@ NS", "del NS"))
    direct = tmp_path / "direct"
    direct.mkdir()
    (direct / "more.zone").write_text((tmp_path / "more.zone").read_text())
    (direct / "db").write_text(ZONE)
    (direct / "zone.yaml").write_text("version: 1\nzone: example.org\nstatic: {file: db}\n")
    done = run("example.org", tmp_path / "db")
    assert done.returncode == 0, done.stderr
    wanted = records(load_rules(direct), "example.org")
    assert len(wanted) == 12
    assert records(loaded(done.stdout, tmp_path / "made"), "example.org") == wanted
    assert "  - \"mail 300 A 192.0.2.25\"" in done.stdout


def test_a_signed_zone_is_imported_without_what_a_signer_made(tmp_path: Path) -> None:
    signed = ZONE.replace("$INCLUDE more.zone sub\n", "") + (
        "@ DNSKEY 257 3 13 mdsswUyr3DPW132mOi8V9xESWE8jTo0dxCjjnopKl+GqJxpVXckHAeF+KkxLbxILfDLUT0rAK9iUzy1L53eKGQ==\n"
        "@ NSEC mail.example.org. A NS SOA\nmail NSEC ns1.example.org. A\n"
    )
    (tmp_path / "db").write_text(signed)
    done = run("example.org", tmp_path / "db")
    assert done.returncode == 0, done.stderr
    assert "left out, since they are a signer's and edgedns signs nothing: 1 DNSKEY, 2 NSEC" in done.stderr
    assert "NSEC" not in done.stdout


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("www A 192.0.2.300\n", "db:1:7: error: '192.0.2.300' is not the data of type A"),
        ("www DYNA map\n", "db:1:5: error: unknown record type 'DYNA'"),
        ("www.example.com. A 192.0.2.1\n", "db:1:1: error: 'www.example.com.' is not in zone 'example.org'"),
        ("$INCLUDE nowhere\n", "db:1:10: error: can't read"),
        ("a CNAME b\na A 192.0.2.1\n", "a.example.org has a CNAME and so nothing else"),
    ],
)
def test_mistakes_are_named_and_nothing_is_printed(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "db").write_text(text)
    done = run("example.org", tmp_path / "db")
    assert (done.returncode, done.stdout) == (1, "")
    assert said in done.stderr
    assert "nothing was imported" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["example.org"], "give a zone FILE, or --from ADDR"),
        (["example.org", "x", "--from", "192.0.2.1"], "give a zone FILE, or --from ADDR"),
        (["example.org", "/nonexistent"], "can't read /nonexistent"),
        (["example..org", "/dev/null"], "empty label"),
        (["example.org", "--from", "nowhere"], "--from"),
        (["example.org", "--from", "127.0.0.1:9"], "127.0.0.1:9 doesn't transfer example.org"),
    ],
)
def test_what_it_can_not_do_is_said(arguments: list[str], said: str) -> None:
    done = run(*arguments)
    assert done.returncode in (1, 2)
    assert done.stdout == ""
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_zone_is_transferred_from_another_server(tmp_path: Path) -> None:
    """Ours, with the example zone and its odd records: what comes over is what it says, steered names as nominal addresses."""
    top = tmp_path / "serving"
    top.mkdir()
    server = Server(top, RULES)
    try:
        server.start()
        done = run("cdn.example.net", "--from", f"127.0.0.1:{server.port}")
    finally:
        server.clean_up()
    assert done.returncode == 0, done.stderr
    made = records(loaded(done.stdout, tmp_path / "made"), "cdn.example.net")
    ours = load_rules(RULES)
    wanted = {rr[:2] + rr[3:4] for rr in ours.statics["cdn.example.net"] if rr.type != 6}
    assert {(owner, rtype, rdata) for owner, rtype, _, rdata in made} >= wanted
    steered = {record.name for record in ours.rules.zones["cdn.example.net"].records}
    assert {owner for owner, rtype, *_ in made if rtype == 1} >= steered
    assert json.loads(done.stdout.split("  - ", 1)[1].split("\n", 1)[0]).startswith("@ ")
