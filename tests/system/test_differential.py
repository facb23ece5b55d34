"""The same questions to edgedns, NSD and Knot, on the same zone without steering: every difference is explained.

docs/conformance.md has the explanations, each with how often it is met.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import struct
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random

import dns.message
import pytest

from edgedns.engine.load import load_rules
from edgedns.errors import RuleErrors
from tests.conformance import peers
from tests.property import test_odd_zones
from tests.small import write_table
from tests.system import differ
from tests.system.differ import Case, Question, Said
from tests.system.serving import Server

PEERS = ("nsd", "knot")
SEED = int(os.environ.get("EDGEDNS_SEED", "1"))
DOCUMENT = (Path(__file__).parents[2] / "docs" / "conformance.md").read_text(encoding="utf-8")
pytestmark = [
    pytest.mark.xdist_group("differential"),
    pytest.mark.skipif(bool(peers.missing(*PEERS)), reason=f"needs {', '.join(peers.missing(*PEERS))}"),
]


@contextlib.contextmanager
def all_serving(folder: Path, lines: list[str]) -> Iterator[dict[str, int]]:
    """The zone on edgedns, NSD and Knot: their ports on 127.0.0.1."""
    text = "\n".join(lines) + "\n"
    rules = folder / "rules"
    rules.mkdir()
    (rules / "zone").write_text(text)
    (rules / "differ.yaml").write_text("version: 1\nzone: differ.example\nstatic: {file: zone}\n")
    with contextlib.ExitStack() as running:
        ports = {}
        for peer in PEERS:
            (folder / peer).mkdir()
            ports[peer] = running.enter_context(peers.serving(peer, differ.APEX, text, folder / peer))
        server = Server(folder, rules, write_table(folder / "table.tsv"))
        running.callback(server.clean_up)
        server.start(ready=False)
        found = server.wait_for(r"serving 127\.0\.0\.1:(\d+)", within=180)  # 50,000 records on a loaded machine
        yield {"edgedns": int(found[1]), **ports}


def ask(port: int, question: Question) -> Said:
    wire = question.message.to_wire()
    if question.tcp:
        with socket.create_connection(("127.0.0.1", port), 5) as sock, sock.makefile("rb") as stream:
            sock.sendall(struct.pack("!H", len(wire)) + wire)
            return Said.of(stream.read(struct.unpack("!H", stream.read(2))[0]))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(5)
        sock.connect(("127.0.0.1", port))
        sock.send(wire)
        return Said.of(sock.recv(65535))


def compare(ports: dict[str, int], questions: list[Question]) -> tuple[Counter[str], list[str]]:
    """How often each explanation was needed, and what none explains."""
    needed: Counter[str] = Counter()
    unexplained = []
    for question in questions:
        said = {name: ask(port, question) for name, port in ports.items()}
        for peer in PEERS:
            used, left = differ.explain(Case(question, peer, said["edgedns"], said[peer]))
            needed.update(f"{peer}: {name}" for name in used)
            unexplained += [f"{question}: {part}: {ours} and {peer}: {theirs}" for part, (ours, theirs) in left.items()]
    return needed, unexplained


def run(folder: Path, seed: int, size: int, count: int) -> None:
    lines = differ.zone(seed, size)
    with all_serving(folder, lines) as ports:
        needed, unexplained = compare(ports, differ.questions(seed, lines, count))
    print(f"seed {seed}, {len(lines)} records, {count} questions: {dict(sorted(needed.items()))}")
    assert not unexplained, "\n".join(unexplained[:20])


def test_500_questions_are_answered_alike(tmp_path: Path) -> None:
    run(tmp_path, SEED, 300, 500)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(2, 9))
def test_5000_questions_are_answered_alike(tmp_path: Path, seed: int) -> None:
    run(tmp_path, seed, 300, 5000)


@pytest.mark.long
def test_a_zone_of_50000_records(tmp_path: Path) -> None:
    run(tmp_path, 6, 25_000, 5000)


def odd_zone(folder: Path, dice: Random) -> list[str]:
    """A zone of wildcards, cuts and aliases near each other that neither NSD nor edgedns refuses."""
    while True:
        names = dict.fromkeys(test_odd_zones.owner(dice) for _ in range(22))
        lines = [f"$ORIGIN {differ.APEX}", "$TTL 300", differ.SOA, "@ NS ns1", "ns1 A 192.0.2.53"]
        lines += [line for name in names for line in test_odd_zones.records(dice, name)]
        (folder / "zone").write_text("\n".join(lines) + "\n")
        (folder / "differ.yaml").write_text("version: 1\nzone: differ.example\nstatic: {file: zone}\n")
        command = ["nsd-checkzone", differ.APEX, str(folder / "zone")]
        refused = subprocess.run(command, capture_output=True, env={"PATH": peers.PATH}).returncode
        with contextlib.suppress(RuleErrors):
            load_rules(folder)
            if not refused:
                return lines


def run_odd(folder: Path, seed: int, count: int) -> None:
    dice = Random(seed)
    (folder / "trial").mkdir()
    lines = odd_zone(folder / "trial", dice)
    wires = [test_odd_zones.packet(dice, "differ.example") for _ in range(count)]
    asked = [differ.Question(dns.message.from_wire(wire), dice.random() < 0.2) for wire in wires]
    with all_serving(folder, lines) as ports:
        needed, unexplained = compare(ports, asked)
    print(f"seed {seed}, {len(lines)} records: {dict(sorted(needed.items()))}")
    assert not unexplained, "\n".join([*unexplained[:20], *lines])


def test_an_odd_zone_is_answered_alike(tmp_path: Path) -> None:
    run_odd(tmp_path, SEED, 300)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(2, 10))
def test_eight_odd_zones_are_answered_alike(tmp_path: Path, seed: int) -> None:
    run_odd(tmp_path, seed, 700)


def test_every_explanation_is_in_the_document() -> None:
    told = re.findall(r"^\| `([a-z0-9-]+)` \|", DOCUMENT, flags=re.MULTILINE)
    assert told == list(differ.EXPLAINED)
