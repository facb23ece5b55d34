"""Law 1 over zones made by dice: wildcards, cuts, aliases and steered names above, below and beside each other."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from random import Random

import dns.edns
import dns.message
import pytest

from edgedns.engine import answer, fastpath, inline, native
from edgedns.engine.cells import Space
from edgedns.engine.compile import atoms_file, compile_base, snapshot_of
from edgedns.engine.load import load_rules
from edgedns.engine.overlay import Spreader, compile_overlay
from edgedns.engine.resolve import CHAIN_LIMIT
from edgedns.engine.snapshot import Snapshot
from edgedns.engine.tally import Tally
from edgedns.errors import RuleErrors
from edgedns.steer.space import asn
from tests.conftest import NOW, SALT, SECRETS, Places

SEED = int(os.environ.get("EDGEDNS_SEED", "1"))
ZONES, QUESTIONS = 24, 150
TYPES = ("A", "A", "A", "AAAA", "TXT", "MX", "CNAME", "DNAME", "NS", "DS", "SOA", "ANY", "HTTPS", "RRSIG", "TYPE65280")
CLIENTS = (bytes((192, 0, 2, 9)), bytes((198, 51, 100, 9)), bytes.fromhex("20010db8") + bytes(12))
SHARED = """\
version: 1
providers:
  alder: {v4: [192.0.2.10, 192.0.2.11], v6: ["2001:db8:a1::10"]}
  birch: {v4: [198.51.100.10]}
"""
HEAD = """\
version: 1
zone: {zone}
soa: {{mname: ns1.example.org., rname: noc.example.org, serial: 1}}
ns: [ns1.example.org.]
"""
# A wildcard that is a cut, one that redirects, one beside an alias that leads to a cut, one that leads to itself; a chain
# of as many links as are followed.
CORNERS = f"""\
static:
  - "*.a NS www.example.org."
  - "*.a DS 60485 13 2 {'ab' * 32}"
  - "*.b.c DNAME a.a"
  - "*.c.b CNAME c"
  - "*.c A 192.0.2.1"
  - "c CNAME x.cut"
  - "cut NS www.example.org."
  - "*.b.b A 192.0.2.2"
  - "*.b.b MX 1 *.b.b"
  - "*.b.b MX 2 a.b.b"
  - "*.b.b HTTPS 1 ."
  - "*.a.c CNAME *.a.c"
  - "a CNAME link1"
{"".join(f'  - "link{n} CNAME link{n + 1}"{chr(10)}' for n in range(1, CHAIN_LIMIT))}  - "link{CHAIN_LIMIT} A 192.0.2.3"
"""
STEERED = '  "{}": {{rules: [{{name: near, match: {{prefix: 192.0.2.0/25}}, pin: alder}}, {{name: rest, pin: birch}}]}}\n'


def owner(dice: Random, depth: int = 4) -> str:
    return ".".join(dice.choice(("a", "b", "*", "a", "b")) for _ in range(dice.randint(1, depth)))


def target(dice: Random) -> str:
    made = owner(dice).replace("*", dice.choice(("c", "a")))
    return dice.choice((made, made, made, made, "@", "www.example.org."))


def records(dice: Random, name: str) -> Iterator[str]:
    """What one name has: most often one kind of record, as zones are."""
    kind = dice.randrange(10)
    if kind == 0:
        yield f"{name} CNAME {target(dice)}"
    elif kind == 1:
        yield f"{name} DNAME {target(dice)}"
    elif kind == 2:
        yield from {f"{name} NS {target(dice)}" for _ in range(2)}
        yield from [f"{name} DS 60485 13 2 {'ab' * 32}"] if dice.random() < 0.5 else []
    elif kind in (3, 4):
        yield from (f"{name} MX {number} {target(dice)}" for number in range(2))
        yield f"{name} HTTPS {dice.randrange(2)} {dice.choice((target(dice), '.', owner(dice)))}"
        yield from [f"{name} A 192.0.2.1"] if kind == 3 else []
    else:
        yield f"{name} A 192.0.2.{dice.randrange(250)}"
        yield from [f"{name} TXT {kind}"] if kind > 7 else []


def zone_text(dice: Random, zone: str) -> str:
    """A zone file of up to fourteen names, at most four of them steered."""
    names = dict.fromkeys(owner(dice) for _ in range(14))
    steered = [name for name in names if dice.random() < 0.2][:4]
    static = [line for name in names if name not in steered for line in records(dice, name)]
    made = HEAD.format(zone=zone)
    made += "records:\n" + "".join(map(STEERED.format, steered)) if steered else ""
    return made + "static:\n" + "".join(f'  - "{line}"\n' for line in static)


def write_rules(folder: Path, dice: Random) -> list[str]:
    """A directory of zones that `check` has no errors in; their names."""
    trial, zones = folder / "trial", ["z0.example"]
    trial.mkdir(parents=True)
    for directory in (folder, trial):
        (directory / "providers.yaml").write_text(SHARED)
    (folder / "z0.example.yaml").write_text(HEAD.format(zone="z0.example") + CORNERS)
    while len(zones) < ZONES:
        zone = f"z{len(zones)}.example"
        (trial / "zone.yaml").write_text(zone_text(dice, zone))
        try:
            load_rules(trial)
        except RuleErrors:
            continue
        (trial / "zone.yaml").rename(folder / f"{zone}.yaml")
        zones.append(zone)
    return zones


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> tuple[Snapshot, list[str], Places]:
    top, places = tmp_path_factory.mktemp("odd"), Places()
    zones = write_rules(top / "rules", Random(SEED))
    loaded = load_rules(top / "rules")
    (top / "table.tsv").write_text("198.51.100.0\t198.51.100.255\t64500\tDE\tExample\n")
    atoms = inline.build_atoms(loaded.rules, asn.load(top / "table.tsv"))
    space = Space(atoms, loaded.rules.networks, asn.continent)
    compiled = compile_base(inline.sources(loaded), loaded.rules.providers, space, (), places.block, SALT)
    decisions = inline.nominal_decisions(loaded.rules, compiled)
    overlay = compile_overlay(compiled.columns, decisions, list(loaded.rules.providers), Spreader.of(atoms), SALT)
    return snapshot_of(atoms_file(atoms), compiled.content, overlay, serial=3), zones, places


def packet(dice: Random, zone: str) -> bytes:
    name = ".".join(dice.choice(("a", "b", "*", "c")) for _ in range(dice.randrange(6)))
    message = dns.message.make_query(f"{name}.{zone}.".lstrip("."), dice.choice(TYPES), use_edns=False)
    message.id = dice.getrandbits(16)
    if dice.random() < 0.5:
        subnet = dns.edns.ECSOption(dice.choice(("192.0.2.0", "198.51.100.0")), dice.choice((0, 24)))
        message.use_edns(0, 0, 1232, options=[subnet] if dice.choice((False, True)) else [])
    return message.to_wire()


@pytest.mark.parametrize("engine", ["python", "native"])
def test_the_twins_agree(odd: tuple[Snapshot, list[str], Places], engine: str) -> None:
    if engine == "native" and not native.AVAILABLE:
        pytest.skip("_fastpath was not built")
    reply = native.reply if engine == "native" else fastpath.reply
    snapshot, zones, places = odd
    dice, handed_back, rcodes = Random(SEED), 0, set()
    quick, slow = (Tally(memoryview(bytearray(8 * places.used)).cast("Q"), None) for _ in range(2))
    for zone in zones:
        for _ in range(QUESTIONS * (8 if zone == zones[0] else 1)):
            asked, client, transport = packet(dice, zone), dice.choice(CLIENTS), dice.choice(("udp", "tcp"))
            fast = reply(snapshot, asked, client, transport, NOW, SECRETS, quick)
            if fast is None:
                handed_back += 1
                continue
            expected = answer.respond(snapshot, asked, client, transport, NOW, SECRETS, slow)
            assert fast == expected, dns.message.from_wire(asked).to_text()
            rcodes.add(fast[3] & 15)
    assert bytes(quick.cells) == bytes(slow.cells)
    assert rcodes >= {0, 3}
    assert handed_back < ZONES * QUESTIONS * 0.25
