"""Control without processes: inputs that break, rounds, failures, orders, restarts. It is asked as a worker would be."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from edgedns import metrics
from edgedns.control import Control, Paths
from edgedns.control.plausible import moved_share, observed
from edgedns.dns import name as names
from edgedns.dns import types
from edgedns.dns.edns import ClientSubnet, Edns
from edgedns.dns.message import Query
from edgedns.engine.answer import answer
from edgedns.errors import EdgednsError, RuleErrors, SourceError
from edgedns.model import Override, Reason, Wan
from edgedns.serve.current import Current, Mapped
from edgedns.serve.orders import OrderError, parse_override
from edgedns.steer.deciding.decisions import Decisions
from tests.small import ADDRESS, NETWORKS, network, samples, subnet, write_rules, write_table, write_zone
from tests.small import replace as save

NOW = 1_790_000_000.0
ALDER, BIRCH, CEDAR = (ADDRESS[name] for name in ("alder", "birch", "cedar"))
GOOD = {"alder": 30.0, "birch": 20.0, "cedar": 40.0}


class Place:
    """A state directory, its inputs, and the control processes that ran over it one after the other."""

    def __init__(self, top: Path, **rules: Any) -> None:
        self.top = top
        self.rules = write_rules(top / "rules", **rules)
        self.table = write_table(top / "table.tsv")
        self.said: list[str] = []

    def control(self, now: float = NOW) -> Control:
        control = Control(Paths(self.top / "state", self.rules, self.table), "node", self.said.append)
        control.start(now)
        return control

    def text(self) -> str:
        return "\n".join(self.said)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def ask(control: Control, name: str = "www", of: int = 7, at: float = NOW, qtype: int = types.A) -> list[str]:
    """The addresses a network is given, from the files as a new worker would open them."""
    root = control.publisher.last()
    assert root is not None
    snapshot = Mapped(control.publisher.directory).snapshot(root)
    prefix = ip_network(subnet(of))
    edns = Edns(1232, 0, False, ClientSubnet(1, 24, 0, prefix.network_address.packed))
    wire = names.from_text(f"{name}.example.net")
    query = Query(0, types.QUERY, False, False, wire, wire, qtype, types.IN, edns, b"")
    given, _ = answer(snapshot, query, bytes((127, 0, 0, 1)), at)
    return [str(ip_address(rr.rdata)) for rr in given.response.answer] or [types.rcode_name(given.response.rcode)]


def measure(control: Control, rtts: Mapping[str, float | None], rounds: int = 1, now: float = NOW, **more: Any) -> float:
    """Rounds of samples, each closed; gives the time then."""
    for _ in range(rounds):
        assert not control.ingest(samples(now + 1, rtts, **more), now + 1).rejected
        now += 10
        control.close_round(now)
    return now


def lose(control: Control, provider: str, now: float, **more: Any) -> float:
    """Losses of one provider, one a second, the others replying, until it is acted upon."""
    rtts: dict[str, float | None] = {**GOOD, provider: None}
    for _ in range(12):
        now += 0.5
        control.ingest(samples(now, rtts, **more), now)
    return now


def root_of(control: Control) -> dict[str, Any]:
    assert control.publisher.root
    return control.publisher.root


def order(**fields: Any) -> Override:
    return parse_override({"owner": "noc", "reason": "test", **fields})


def give(control: Control, now: float, **fields: Any) -> Override:
    made = control.completed_order(order(**fields), now)
    control.take_order(made, control.worlds.with_orders([*control.overrides, made], now), now)
    return made


def reload_rules(control: Control, now: float = NOW) -> bool:
    return control.take_rules(control.worlds.read_rules(now), now)


# -- starting, rules and tables


def test_the_first_start_publishes_nominal_answers(place: Place) -> None:
    control = place.control()
    assert control.serial == 1
    assert ask(control) == [ALDER]
    assert root_of(control)["fresh_until"] == 0.0
    assert (place.top / "state/run/registry.jsonl").exists()


def test_nothing_to_serve_is_an_error_with_every_mistake(place: Place) -> None:
    (place.rules / "example.net.yaml").write_text("version: 1\nzone: example.net\nrecord: {}\n")
    with pytest.raises(RuleErrors, match="did you mean 'records'"):
        place.control()


def test_a_good_file_is_served_and_counted(place: Place) -> None:
    control = place.control()
    write_zone(place.rules, nominal=["cedar", "birch", "alder"])
    assert reload_rules(control)
    assert ask(control) == [CEDAR]
    assert (control.counts.reloads_good, control.counts.reloads_bad, control.serial) == (1, 0, 2)


def test_a_bad_file_changes_nothing_and_says_so(place: Place) -> None:
    control = place.control()
    (place.rules / "example.net.yaml").write_text("version: 1\nzone: example.net\nrecord: {}\n")
    assert reload_rules(control)  # its zone stands as it was
    assert ask(control) == [ALDER]
    assert "zone example.net has errors and stays as it was" in place.text()
    assert "unknown key 'record'" in place.text()
    assert (control.counts.reloads_good, control.counts.reloads_bad, control.serial) == (0, 1, 1)
    save(place.rules / "providers.yaml", "version: [")
    assert not reload_rules(control)
    assert ask(control) == [ALDER]
    assert control.counts.reloads_bad == 2
    assert control.worlds.problems


def test_a_bad_zone_holds_back_only_itself(place: Place) -> None:
    write_zone(place.rules, "example.org")
    control = place.control()
    (place.rules / "example.net.yaml").write_text("version: 1\nzone: example.net\nwww: 1\n")
    write_zone(place.rules, "example.org", plain="192.0.2.99")
    assert reload_rules(control)
    assert ask(control) == [ALDER]
    assert sorted(control.world.loaded.failed_zones) == ["example.net"]
    assert control.world.serials["example.org"].serial == int(NOW) + 1  # it did change, within the same second


def test_failed_inline_tests_hold_a_zone_back(place: Place) -> None:
    control = place.control()
    wrong = "tests: [{name: www, type: A, from: 192.0.2.1, expect: cedar}]\n"
    write_zone(place.rules, nominal=["birch", "alder", "cedar"], more=wrong)
    assert reload_rules(control)
    assert ask(control) == [ALDER]
    assert "test failed: www.example.net. A gives birch, expected cedar" in place.text()
    assert control.counts.reloads_bad == 1


def test_when_all_tests_fail_on_a_first_start_there_is_nothing_to_serve(place: Place) -> None:
    write_zone(place.rules, more="tests: [{name: www, type: A, from: 192.0.2.1, expect: cedar}]\n")
    with pytest.raises(RuleErrors, match="test failed"):
        place.control()


def empty(folder: Path, pattern: str) -> None:
    for path in folder.glob(pattern):
        path.unlink()


BREAKAGES: dict[str, Callable[[Place], object]] = {
    "a zone does not parse": lambda place: (place.rules / "example.net.yaml").write_text("zone: ["),
    "its zone's name is gone": lambda place: save(place.rules / "example.net.yaml", "%%%"),
    "a test fails": lambda place: write_zone(
        place.rules, nominal=["cedar"], more="tests: [{name: www, type: A, from: 192.0.2.1, expect: alder}]\n"
    ),
    "providers.yaml does not parse": lambda place: (place.rules / "providers.yaml").write_text("{"),
    "no file is left": lambda place: empty(place.rules, "*"),
    "the directory is gone": lambda place: shutil.rmtree(place.rules),
    "the table is half": lambda place: place.table.write_text("10.0.0.0\t10.0.255.255\t645"),
    "the table is gone": lambda place: place.table.unlink(),
    "the root is damaged": lambda place: (place.top / "state/published/root.json").write_text('{"format": 1, "ser'),
    "the root is of another format": lambda place: (place.top / "state/published/root.json").write_text('{"format": 99}'),
    "the root is gone": lambda place: (place.top / "state/published/root.json").unlink(),
    "published files are gone": lambda place: empty(place.top / "state/published", "*.bin"),
    "published files are damaged": lambda place: [
        p.write_bytes(p.read_bytes()[:-3] + b"xyz") for p in (place.top / "state/published").glob("*.bin")
    ],
    "published files are cut": lambda place: [p.write_bytes(b"") for p in (place.top / "state/published").glob("*.bin")],
    "histograms are damaged": lambda place: (place.top / "state/rtt.npz").write_bytes(b"PK\x03\x04 not really"),
    "overrides are damaged": lambda place: (place.top / "state/overrides.json").write_text('[{"kind": 7}, 3, {"id": "x"}]'),
    "overrides are no list": lambda place: (place.top / "state/overrides.json").write_text("7"),
    "secrets are damaged": lambda place: (place.top / "state/secrets.json").write_text('{"cookies": []}'),
    "the registry is damaged": lambda place: (place.top / "state/run/registry.jsonl").write_bytes(b"\xff\xfe[\n[["),
    "the registry is gone": lambda place: (place.top / "state/run/registry.jsonl").unlink(),
    "run is gone": lambda place: shutil.rmtree(place.top / "state/run"),
    "published is gone": lambda place: shutil.rmtree(place.top / "state/published"),
}


@pytest.mark.parametrize("breakage", BREAKAGES)
def test_a_restart_over_a_broken_input_gives_the_same_answers(place: Place, breakage: str) -> None:
    control = place.control()
    control.save(NOW)
    for _ in range(2):  # nor does one restart use up what the next one needs
        BREAKAGES[breakage](place) if _ == 0 else None
        again = place.control(NOW + 5)
        assert ask(again) == [ALDER]
        assert ask(again, "split") == ask(control, "split")
        assert ask(again, "plain") == ["192.0.2.80"]


def test_rules_that_were_good_are_not_overwritten_by_bad_ones(place: Place) -> None:
    place.control()
    (place.rules / "example.net.yaml").write_text("zone: [")
    place.control()
    assert "measured" in (place.top / "state/rules-good/example.net.yaml").read_text()
    assert len(list((place.top / "state").glob("rules-good-*"))) == 1


def test_kept_rules_hold_included_files_of_folders_below(place: Place) -> None:
    (place.rules / "zones").mkdir()
    (place.rules / "zones/more.zone").write_text("more A 192.0.2.81\n")
    path = place.rules / "example.net.yaml"
    path.write_text(path.read_text() + "  - {file: zones/more.zone}\n")
    assert ask(place.control(), "more") == ["192.0.2.81"]
    shutil.rmtree(place.rules)
    assert ask(place.control(), "more") == ["192.0.2.81"]


def test_a_zone_under_another_file_name_stands_over_restarts_and_reloads(place: Place) -> None:
    (place.rules / "example.net.yaml").rename(place.rules / "cdn.yaml")
    place.control()
    (place.rules / "cdn.yaml").write_text("%%%")
    control = place.control()
    assert ask(control) == [ALDER]
    (place.rules / "cdn.yaml").write_text("%%% still")
    reload_rules(control)
    assert ask(control) == [ALDER]


def test_a_new_table_is_served_and_a_broken_one_is_not(place: Place) -> None:
    control = place.control()
    write_table(place.table, [*range(NETWORKS), 99])
    save(place.table, place.table.read_text().replace("\t64519\t", "\t64999\t"))
    assert control.take_table(control.worlds.read_table(NOW), NOW)
    assert ask(control) == [CEDAR]  # AS 64999 is pinned
    place.table.write_text("<html>502 Bad Gateway</html>")
    assert not control.take_table(control.worlds.read_table(NOW), NOW)
    assert ask(control) == [CEDAR]
    assert "the ASN table stays as it was" in place.text()
    assert ask(place.control()) == [CEDAR]  # the last good one was kept


def test_inline_tests_do_not_hold_back_a_new_table(place: Place) -> None:
    write_zone(place.rules, more="tests: [{name: www, type: A, asn: 64519, expect: alder}]\n")
    control = place.control()
    save(place.table, place.table.read_text().replace("\t64519\t", "\t64999\t"))
    assert control.take_table(control.worlds.read_table(NOW), NOW)
    assert ask(control) == [CEDAR]


def test_a_salt_in_the_rules_is_used_by_every_node(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    one, two = (Place(tmp_path / name, more="salt: spice").control() for name in ("a", "b"))
    assert one.world.salt == two.world.salt
    spread = [ask(one, "split", of) for of in range(NETWORKS)]
    assert spread == [ask(two, "split", of) for of in range(NETWORKS)]
    assert {BIRCH, ALDER} == {given for each in spread for given in each}


def test_a_directory_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SourceError, match=r"^can't write to the state directory .*: Not a directory; choose another with"):
        Control(Paths(tmp_path / "file" / "state", tmp_path), "node", print)


def test_a_publish_that_fails_leaves_everything_as_it_was(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    control = place.control()
    force = control.force

    def full(*_: object) -> None:
        raise SourceError("can't write: No space left on device")

    write_zone(place.rules, nominal=["cedar", "birch", "alder"])
    monkeypatch.setattr(control.publisher, "_write", full)
    world = control.worlds.read_rules(NOW)
    assert not control.take_rules(world, NOW)
    with pytest.raises(EdgednsError):
        give(control, NOW, kind="drain", provider="alder")
    control.ingest(samples(NOW, GOOD), NOW)
    with pytest.raises(EdgednsError):
        control.close_round(NOW + 10)
    assert control.force is force
    assert control.overrides == []
    monkeypatch.undo()
    assert reload_rules(control)
    assert ask(control) == [CEDAR]


def test_deleted_published_files_are_written_again(place: Place) -> None:
    control = place.control()
    for path in control.publisher.directory.iterdir():
        path.unlink()
    control.tick(NOW + 10)
    assert ask(control) == [ALDER]
    shutil.rmtree(place.top / "state/published")
    shutil.rmtree(place.top / "state/run")
    control.tick(NOW + 20)
    assert ask(control) == [ALDER]
    assert "are written again" in place.text()
    control.tick(NOW + 30)
    assert place.text().count("are written again") == 2


# -- samples and rounds


def test_samples_move_answers(place: Place) -> None:
    control = place.control()
    now = measure(control, GOOD, 3)
    assert ask(control) == [BIRCH]
    assert any("AS64512/DE/10.0.0.0/16: alder -> birch (measured)" in line for line in place.said)
    assert all("\n" not in line for line in place.said)
    entry = next(one for one in control.recent if one["network"].startswith("AS64519/DE/10."))
    assert (entry["before"], entry["after"], entry["reason"]) == ("alder", "birch", "MEASURED")
    assert root_of(control)["fresh_until"] >= now


def test_rounds_are_as_long_as_the_rules_say(tmp_path: Path) -> None:
    control = Place(tmp_path, period="2s").control()
    assert control.measured.rtt.round_seconds == 2.0
    control.ingest(samples(NOW + 1, GOOD), NOW + 1)
    control.tick(NOW + 2.1)
    assert ask(control) == [BIRCH]
    assert control.force.table.at == NOW + 2


def test_a_table_does_not_fade_away_when_no_samples_come(place: Place) -> None:
    control = place.control()
    now = measure(control, GOOD, 3)
    table = control.force.table
    for number in range(1, 50):
        control.close_round(now + 10 * number)
    assert control.force.table.at <= table.at + 20
    assert float(control.force.table.samples.max()) > 0.7 * float(table.samples.max())
    root = root_of(control)
    assert root["fresh_until"] <= now + 20 + 600
    assert ask(control, at=root["fresh_until"] - 1) == [BIRCH]
    assert ask(control, at=root["fresh_until"] + 1) == [ALDER]  # nominal


def test_root_is_not_replaced_when_nothing_moves(place: Place) -> None:
    control = place.control()
    now = measure(control, GOOD, 1)
    serial = control.serial
    now = measure(control, GOOD, 5, now)
    assert control.serial == serial
    now = measure(control, GOOD, 10, now)
    assert control.serial in (serial + 1, serial + 2)  # fresh_until goes on by tenths
    root = root_of(control)
    assert root["fresh_until"] > now + 500


def test_a_failure_is_acted_upon_at_once_and_told(place: Place) -> None:
    control = place.control()
    now = measure(control, GOOD, 3)
    serial = control.serial
    lose(control, "birch", now, networks=range(10))
    assert control.serial > serial
    assert ask(control) == [ALDER]
    assert ask(control, of=30) == [BIRCH]
    assert any("AS64519/DE/10.7.0.0/16" in one["network"] and one["reason"] == "FAILED_OVER" for one in control.recent)
    assert any("birch -> alder (failed_over)" in line for line in place.said)


@pytest.mark.parametrize("killed_after", ["a failure", "a round"])
def test_a_restart_goes_on_with_the_same_answers(place: Place, killed_after: str) -> None:
    control = place.control()
    now = measure(control, GOOD, 3)
    if killed_after == "a failure":
        now = lose(control, "birch", now, networks=range(10))
    before = [ask(control, of=of) for of in range(NETWORKS)]
    again = place.control(now + 30)  # nothing was saved: only what was published is there
    assert [ask(again, of=of) for of in range(NETWORKS)] == before
    again.close_round(now + 40)
    assert [ask(again, of=of) for of in range(NETWORKS)] == before
    root = root_of(again)
    assert ask(again, at=root["fresh_until"] + 1) == [ALDER]


def test_a_restart_keeps_what_is_fresh_as_fresh_as_it_was(place: Place) -> None:
    control = place.control()
    measure(control, GOOD, 3)
    root = root_of(control)
    again = place.control(NOW + 300)
    assert root_of(again)["fresh_until"] == root["fresh_until"]
    late = place.control(root["fresh_until"] + 1)
    assert ask(late, at=root["fresh_until"] + 1) == [ALDER]


def test_the_clock_set_back_does_not_stop_rounds(place: Place) -> None:
    control = place.control()
    measure(control, GOOD, 3)
    then = NOW - 86400
    measure(control, {"alder": 10.0, "birch": 30.0, "cedar": 40.0}, 4, then)
    assert ask(control, at=then + 40) == [ALDER]
    assert control.force.table.at == then + 40


def test_a_stored_table_from_the_future_is_refused(place: Place) -> None:
    measure(place.control(), GOOD, 3)
    then = NOW - 86400
    control = place.control(then)
    assert control.counts.refused == 1
    assert "dated 86410 s in the future" in place.text()
    measure(control, {"alder": 50.0, "birch": 30.0, "cedar": 10.0}, 4, then)
    assert ask(control, at=then + 40) == [CEDAR]


def test_too_many_vantages_are_refused_without_harm(place: Place) -> None:
    control = place.control()
    for number in range(300):
        with contextlib.suppress(SourceError):
            control.ingest(samples(NOW, GOOD, [1], f"v{number}"), NOW)
    measure(control, GOOD, 3, vantage="v0")
    assert ask(control) == [BIRCH]


# -- law 8


def shuffled(control: Control, seed: int) -> dict[str, float | None]:
    dice = Random(seed)
    return {name: float(dice.randrange(10, 80)) for name in GOOD}


def test_a_table_that_moves_too_much_is_refused_until_it_does_not(tmp_path: Path) -> None:
    place = Place(tmp_path, limit=0.1)
    control = place.control()
    now = measure(control, GOOD, 4)
    fresh_until = control.force.taken_at + 600
    while now + 10 < fresh_until:
        now = measure(control, {"alder": 5.0, "birch": 60.0, "cedar": 70.0}, 1, now)
        given = [ask(control, of=of, at=now) for of in range(0, NETWORKS, 6)]
        assert given.count([BIRCH]) >= 5
        fresh_until = max(fresh_until, control.force.taken_at + 600)
        if now > NOW + 1200:
            break
    assert control.counts.refused > 3
    assert "of queries would move at once, the limit is 10% (max_moved_share in providers.yaml)" in place.text()
    now = measure(control, {"alder": 5.0, "birch": 60.0, "cedar": 70.0}, 3, now)  # nothing fresh to compare with: go on
    assert ask(control, at=now) == [ALDER]


def test_within_the_limit_measurements_move_answers(tmp_path: Path) -> None:
    control = Place(tmp_path, limit=1.0).control()
    now = measure(control, GOOD, 4)
    now = measure(control, {"alder": 5.0, "birch": 60.0, "cedar": 70.0}, 12, now)
    assert control.counts.refused == 0
    assert ask(control, at=now) == [ALDER]


def test_a_refused_table_does_not_hold_up_a_failover(place: Place) -> None:
    control = place.control()
    now = measure(control, GOOD, 4)
    for _ in range(6):  # cedar is said to be best, everywhere, while birch falls silent for some
        for at in (1, 3, 5, 7, 9):
            control.ingest(samples(now + at, {"alder": 30.0, "birch": 60.0, "cedar": 1.0}, range(10, NETWORKS)), now + at)
            control.ingest(samples(now + at, {"alder": 30.0, "birch": None, "cedar": 1.0}, range(10)), now + at)
        now += 10
        control.close_round(now)
    assert control.counts.refused > 0
    assert ask(control, of=30, at=now) == [BIRCH]
    assert ask(control, of=7, at=now) in ([ALDER], [CEDAR])


def test_a_table_that_shrank_is_refused_while_the_last_one_is_fresh(place: Place) -> None:
    control = place.control()
    now = measure(control, GOOD, 3)
    later = now + 570  # what was measured has faded away by now
    control.measured.rtt = type(control.measured.rtt)(10.0)
    control.ingest(samples(later + 1, GOOD, range(3)), later + 1)
    control.close_round(later + 10)
    assert "the WAN table shrank from" in place.text()
    later += 40
    control.ingest(samples(later + 1, GOOD, range(3)), later + 1)
    control.close_round(later + 10)
    assert control.force.taken_at == later + 10


def test_a_silent_provider_is_never_the_last_one_taken_away(place: Place) -> None:
    control = place.control()
    now = measure(control, GOOD, 2)
    for provider in ("alder", "birch", "cedar"):
        now = lose(control, provider, now)
    for _ in range(20):
        now += 0.5
        control.ingest(samples(now, dict.fromkeys(GOOD, None)), now)
    assert ask(control, at=now)[0] in ADDRESS.values()


def published_counts(control: Control, heavy: dict[int, int]) -> list[bytes]:
    """As workers leave them: u32 by network id, in two files."""
    atoms = control.world.ground.atoms
    arrays = [np.zeros(len(atoms.net_asn), np.uint32) for _ in range(2)]
    for number, count in heavy.items():
        arrays[number % 2][np.flatnonzero(atoms.net_asn == 64512 + number)[0]] += count
    return [array.tobytes() for array in arrays]


def moved_networks(control: Control, numbers: range) -> tuple[Decisions, Decisions]:
    """Decisions as they are, and with the first target of some networks another, as by measurement."""
    before = control.force.decisions
    columns = dict(before.columns)
    for column, decided in before.columns.items():
        if isinstance(column.action, Wan) and len(decided.keys):
            other = replace(decided.rankings[0], targets=("cedar", "birch", "alder"), reason=Reason.MEASURED)
            ranking, wanted = decided.ranking.copy(), [64512 + number for number in numbers]
            ranking[np.isin(decided.rows["asn"], wanted)] = len(decided.rankings)
            columns[column] = replace(decided, ranking=ranking, rankings=(*decided.rankings, other))
    return before, replace(before, columns=columns)


def test_moves_are_weighed_by_observed_queries(place: Place) -> None:
    control = place.control()
    measure(control, GOOD, 3)
    atoms = control.world.ground.atoms
    before, after = moved_networks(control, range(20))
    by_rows = moved_share(before, after, None)
    assert 0.25 < by_rows < 0.4  # a third of the rows
    everyone = dict.fromkeys(range(NETWORKS), 10)
    heavy = observed(published_counts(control, everyone | dict.fromkeys(range(20), 5000)), atoms)
    light = observed(published_counts(control, everyone | dict.fromkeys(range(20, 60), 5000)), atoms)
    assert moved_share(before, after, heavy) > 0.99
    assert moved_share(before, after, light) < 0.01
    assert moved_share(before, before, heavy) == 0.0


def without_networks(decisions: Decisions) -> Decisions:
    """As after a start: a few probes, which speak for everyone, or for a country."""
    columns = dict(decisions.columns)
    for column, decided in decisions.columns.items():
        levels = decided.rows["asn"] < 0
        if levels.any():
            hold = decided.hold[levels] if len(decided.hold) else decided.hold
            columns[column] = replace(
                decided, keys=decided.keys[levels], ranking=decided.ranking[levels], since=decided.since[levels], hold=hold
            )
    return replace(decisions, columns=columns)


def test_a_networks_own_first_measurement_is_no_move_and_its_loss_is_one(place: Place) -> None:
    """The first table of a start may speak for all by a few; it must not keep the next ones out."""
    control = place.control()
    measure(control, GOOD, 3)
    _, moved = moved_networks(control, range(NETWORKS))
    start = without_networks(moved)
    assert moved_share(start, control.force.decisions, None) == moved_share(start, moved, None) == 0.0
    assert moved_share(moved, without_networks(control.force.decisions), None) > 0.5


def test_few_queries_say_nothing_and_few_moves_are_always_plausible(place: Place) -> None:
    control = place.control()
    measure(control, GOOD, 3)
    atoms = control.world.ground.atoms
    assert observed(published_counts(control, {3: 5000}), atoms) is None  # somebody's dig loop
    assert observed(published_counts(control, dict.fromkeys(range(NETWORKS), 1)), atoms) is None
    assert observed([b"\1\2\3"], atoms) is None
    assert moved_share(*moved_networks(control, range(5)), None) == 0.0


def test_counts_of_workers_are_found_under_the_published_atoms(place: Place) -> None:
    control = place.control()
    counters = metrics.Counters(metrics.counters_path(control.run, 0))
    current = Current(place.top / "state", counters)
    current.refresh(NOW)
    wire = names.from_text("www.example.net")
    prefix = ip_network(subnet(7)).network_address.packed[:3]
    packet = bytes.fromhex("000100000001000000000001") + wire + b"\0\1\0\1" + b"\0\0\x29\x04\xd0\0\0\0\0"
    packet += b"\0\x0b\0\x08\0\7\0\1\x18\0" + prefix
    reply = current.respond(packet, bytes((127, 0, 0, 1)), "udp", NOW)
    assert reply is not None
    assert ip_address(ALDER).packed in reply
    key = control.world.ground.key
    (counts,) = metrics.read_networks(control.run, key)
    network_id = int(np.flatnonzero(control.world.ground.atoms.net_asn == 64519)[0])
    assert np.frombuffer(counts, np.uint32)[network_id] == 1
    control.sweep({control.serial})
    assert len(metrics.read_networks(control.run, key)) == 1  # those in use are kept
    write_table(place.table, range(50))
    assert control.take_table(control.worlds.read_table(NOW), NOW)
    control.sweep({1})
    assert len(metrics.read_networks(control.run, key)) == 1  # a worker still counts there
    control.sweep({control.serial})
    assert metrics.read_networks(control.run, key) == []


def test_a_world_that_waits_while_another_root_is_published_and_swept_loses_no_file(place: Place) -> None:
    control = place.control()
    write_table(place.table, range(50))
    world = control.worlds.read_table(NOW)
    for _ in range(3):
        give(control, NOW, kind="drain", provider="alder")
        control.drop_order(control.overrides[0].id, None, NOW)
    give(control, NOW, kind="drain", provider="alder")
    control.sweep({control.serial})
    assert world is not None
    assert not control.publisher.stands(world.base_name)
    assert control.take_table(world, NOW)
    assert control.publisher.damaged() == set()
    assert ask(control) == [BIRCH]


# -- orders


def test_a_drain_holds_until_it_ends_and_is_told(place: Place) -> None:
    control = place.control()
    give(control, NOW, kind="drain", provider="alder", until=NOW + 60)
    assert ask(control) == [BIRCH]
    assert ask(control, at=NOW + 61) == [ALDER]  # by the published schedule alone
    assert ask(control, "split", at=NOW) == [BIRCH]
    control.tick(NOW + 61)
    assert control.overrides == []
    assert ask(control, at=NOW + 61) == [ALDER]
    assert any("the drain" in line and "of alder has ended" in line for line in place.said)


def test_a_drain_compiles_nothing(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    control = place.control()
    monkeypatch.setattr("edgedns.control.worlds.make_world", None)
    made = control.completed_order(order(kind="drain", provider="alder"), NOW)
    control.take_order(made, None, NOW)
    assert ask(control) == [BIRCH]
    assert control.drop_order(made.id, None, NOW)
    assert ask(control) == [ALDER]
    assert not control.drop_order(made.id, None, NOW)


def test_a_pin_holds_until_it_ends_over_restarts(place: Place) -> None:
    control = place.control()
    give(control, NOW, kind="pin", name="WWW.example.net", provider="cedar", until=NOW + 60)
    give(control, NOW, kind="pin", name="one.example.net", provider="alder", match={"prefix": "10.7.0.0/17"})
    for each in (control, place.control(NOW + 5)):
        assert ask(each) == [CEDAR]
        assert ask(each, at=NOW + 61) == [ALDER]
        assert ask(each, "one") == [ALDER]
        assert ask(each, "one", of=8) == [BIRCH]
        assert len(each.overrides) == 2
    late = place.control(NOW + 61)
    assert [one.name for one in late.overrides] == ["one.example.net"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "drain", "provider": "elm"}, "there is no provider 'elm'; there are alder, birch, cedar"),
        ({"kind": "drain", "provider": "alder", "until": 5}, "'until' has passed already"),
        ({"kind": "pin", "provider": "alder", "name": "no.example.net"}, "no zone steers the name 'no.example.net'"),
        ({"kind": "pin", "provider": "alder", "name": "a..b"}, "no zone steers the name"),
        ({"kind": "pin", "provider": "alder", "name": "www.example.net", "match": {"network": "x"}}, "there is no network 'x'"),
    ],
)
def test_orders_that_cannot_be_followed_are_refused(place: Place, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(OrderError, match=message):
        place.control().completed_order(order(**fields), NOW)


def test_orders_whose_provider_left_the_rules_harm_nobody(place: Place) -> None:
    extra = "networks: {office: {asn: 64519}}"
    write_rules(place.rules, more=extra)
    control = place.control()
    give(control, NOW, kind="pin", name="www.example.net", provider="cedar")
    give(control, NOW, kind="pin", name="one.example.net", provider="alder", match={"network": "office"})
    give(control, NOW, kind="drain", provider="cedar")
    shared = (place.rules / "providers.yaml").read_text().replace("cedar: {v4: [203.0.113.10]}", "elm: {v4: [203.0.113.99]}")
    save(place.rules / "providers.yaml", shared.replace(extra, ""))
    zone = (place.rules / "example.net.yaml").read_text().replace("cedar", "elm")
    save(place.rules / "example.net.yaml", zone)
    assert reload_rules(control)
    assert ask(control) == [ALDER]
    assert ask(control, "one") == [BIRCH]
    assert ask(place.control()) == [ALDER]
    assert len(control.overrides) == 3  # they come back with the provider


@pytest.mark.parametrize(
    ("policy", "given"),
    [("fail-open", [ALDER]), ("nodata", ["NOERROR"]), ("servfail", ["SERVFAIL"]), ("{use: cedar}", [CEDAR])],
)
def test_when_the_last_provider_is_drained_the_rule_says_what_to_do(tmp_path: Path, policy: str, given: list[str]) -> None:
    control = Place(tmp_path, all_down=policy).control()
    for provider in ("alder", "birch", "cedar"):
        assert ask(control)[0] in ADDRESS.values()
        give(control, NOW, kind="drain", provider=provider, until=NOW + 600)
    assert ask(control) == given
    assert ask(control, at=NOW + 601) == [ALDER]


def test_nominal_after_fresh_until_respects_drains(place: Place) -> None:
    control = place.control()
    measure(control, GOOD, 2)
    give(control, NOW + 20, kind="drain", provider="alder", until=NOW + 5000)
    root = root_of(control)
    assert len(root["schedule"]) == 3
    assert ask(control, at=NOW + 4999) == [BIRCH]
    assert ask(control, at=NOW + 5001) == [ALDER]


def test_there_may_not_be_too_many_orders(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    control = place.control()
    monkeypatch.setattr("edgedns.control.orders.MOST", 2)
    for _ in range(2):
        give(control, NOW, kind="drain", provider="alder", until=NOW + 60)
    with pytest.raises(OrderError, match="there are 2 overrides already"):
        give(control, NOW, kind="drain", provider="alder")


def test_no_secret_is_logged_or_published(place: Place) -> None:
    control = place.control()
    measure(control, GOOD, 3)
    secret = json.loads((place.top / "state/secrets.json").read_text())["cookies"][0]
    assert (place.top / "state/secrets.json").stat().st_mode & 0o077 == 0
    assert secret not in place.text()
    assert all(secret.encode() not in path.read_bytes() for path in control.publisher.directory.iterdir())


def test_a_network_is_told_by_its_address(place: Place) -> None:
    control = place.control()
    key = control.network_of(ip_address(network(9)).packed)
    assert key is not None
    assert key.text == "AS64521/DE/10.9.0.0/16"
    assert control.network_of(bytes((192, 0, 2, 1))) is None
    assert control._network_of_asn(64521, 4) is not None
    assert control._network_of_asn(65550, 4) is None
