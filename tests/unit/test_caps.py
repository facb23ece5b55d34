"""Caps from queries as workers count them to answers as workers give them; without sockets or processes."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import dns.edns
import dns.message
import numpy as np
import pytest

from edgedns import metrics
from edgedns.control import Control, Paths
from edgedns.control.caps import LoadError, read_demand
from edgedns.engine.demand import Rates, counts_by_network
from edgedns.engine.forecast import by_network, parse
from edgedns.errors import SourceError
from edgedns.serve.current import Current
from edgedns.steer.caps.loads import Load
from edgedns.store.local import LocalStore
from tests.small import ADDRESS, NETWORKS, network, replace, samples, subnet, write_rules, write_table

NOW = 1_790_000_000.0
PROVIDER = {ip_address(address).packed: name for name, address in ADDRESS.items()}
# Birch is the fastest for everyone, alder next; the further on the network, the more it loses by leaving birch.
RTTS = {"birch": 20.0, "cedar": 80.0}


class Place:
    """A control process and one worker over the same state directory."""

    def __init__(self, top: Path, demand: Path | None = None, **capacity: str) -> None:
        self.rules = write_rules(top / "rules")
        self.declare(**capacity)
        self.said: list[str] = []
        self.now = NOW
        paths = Paths(top / "state", self.rules, write_table(top / "table.tsv"), demand)
        self.control = Control(paths, "node", self.said.append)
        self.control.start(NOW)
        counters = metrics.Counters(metrics.counters_path(self.control.run, 0))
        self.worker = Current(top / "state", counters)
        self.measure()
        self.measure()

    def declare(self, **capacity: str) -> None:
        """The providers' capacities, in the rules."""
        path = write_rules(self.rules) / "providers.yaml"
        text = path.read_text(encoding="utf-8")
        for name, value in capacity.items():
            text = text.replace(f"  {name}: {{", f"  {name}: {{capacity: {value}, ")
        replace(path, text)

    def measure(self) -> None:
        """One round of samples."""
        for number in range(NETWORKS):
            rtts = {**RTTS, "alder": 25.0 + number}
            self.control.ingest(samples(self.now + 1, rtts, networks=[number]), self.now + 1)
        self.now += 10
        self.control.close_round(self.now)

    def ask(self, times: int, name: str = "www", networks: Iterable[int] = range(NETWORKS)) -> Counter[str]:
        """Queries from many hash units of each network; who was given how often."""
        self.worker.refresh(self.now)
        given: Counter[str] = Counter()
        query = dns.message.make_query(f"{name}.example.net", "A", use_edns=0, options=[dns.edns.ECSOption("0.0.0.0", 24)])
        packet = query.to_wire()[:-3]
        for number in networks:
            for k in range(times):
                reply = self.worker.respond(packet + bytes((10, number, k)), bytes((127, 0, 0, 1)), "udp", self.now)
                assert reply is not None
                given.update(one for address, one in PROVIDER.items() if address in reply)
        return given

    def round(self, times: int = 40) -> None:
        """Ask, measure, and let caps be solved."""
        self.ask(times)
        self.measure()
        self.price()

    def price(self) -> None:
        problem = self.control.caps_problem(self.now)
        if problem is not None:
            self.control.take_caps(problem.solve(), self.now)

    @property
    def account(self) -> dict[str, Any]:
        told = self.control.caps.account.told()
        return told | {one["provider"]: one for one in told["providers"]}


def test_a_share_is_kept_by_those_that_lose_least(tmp_path: Path) -> None:
    place = Place(tmp_path, birch="50%")
    assert place.ask(1) == {"birch": NETWORKS}
    place.round()
    assert place.account["state"] == "priced"
    assert place.account["birch"]["load"] == pytest.approx(0.45 * place.account["total"], rel=0.02)
    given = place.ask(40)
    assert given["birch"] == pytest.approx(0.45 * given.total(), rel=0.03)
    assert given["cedar"] == 0
    assert place.ask(1, networks=range(10)) == {"alder": 10}
    assert place.ask(1, networks=range(50, 60)) == {"birch": 10}


def test_a_network_too_heavy_for_its_provider_is_divided_by_hash_unit(tmp_path: Path) -> None:
    """One network asks as much as all others together; counted over its /24s, as workers answer them, caps hold."""
    place = Place(tmp_path, birch="30%", alder="45%")

    def everybody() -> Counter[str]:
        return place.ask(25, networks=range(1, NETWORKS)) + sum((place.ask(250, networks=[0]) for _ in range(6)), Counter())

    everybody()
    place.measure()
    place.price()
    given, heavy = everybody(), place.ask(250, networks=[0])
    assert len(heavy) > 1, "the heavy one alone is over every cap"
    assert heavy == place.ask(250, networks=[0]), "each hash unit keeps its provider"
    assert given["birch"] <= 0.30 * given.total()
    assert given["alder"] <= 0.45 * given.total()
    assert place.account["state"] == "priced"


def test_few_queries_leave_caps_idle(tmp_path: Path) -> None:
    place = Place(tmp_path, birch="50%")
    place.round(times=10)
    assert place.account["state"] == "idle"
    assert "fewer than 1000 steered queries a round" in place.account["note"]
    assert place.ask(1) == {"birch": NETWORKS}


def test_nothing_is_counted_or_solved_where_nobody_has_a_cap(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.round()
    assert place.account["state"] == "none"
    assert not place.control.caps.rates.seconds
    assert place.control.caps_problem(place.now) is None


def test_bits_per_second_need_a_measured_load_and_say_so_once(tmp_path: Path) -> None:
    place = Place(tmp_path, birch="10Gbps", alder="100Gbps")
    place.round()
    place.round()
    place.now += 60
    place.round(times=250)
    said = [line for line in place.said if "POST /v1/load" in line]
    assert said == ["caps: in bits per second, and not in force until POST /v1/load says what is carried: alder, birch"]
    assert place.account["state"] == "idle"
    assert place.ask(1)["birch"] == NETWORKS
    told = place.control.take_loads([Load("birch", 20e9, place.now)], place.now)
    assert told["accepted"] == 1
    place.now += 60
    place.round(times=250)
    assert place.account["state"] == "priced"
    assert place.account["note"] == ""
    given = place.ask(40)
    assert given["birch"] == pytest.approx(0.45 * given.total(), rel=0.1)
    kept = LocalStore(tmp_path / "state").load_json("loads")
    assert kept["sums"]["birch"][0] == 20e9


def test_a_load_of_somebody_unknown_is_refused(tmp_path: Path) -> None:
    place = Place(tmp_path, birch="10Gbps")
    with pytest.raises(LoadError, match="there is no provider 'elm'"):
        place.control.take_loads([Load("birch", 1e9, NOW), Load("elm", 1e9, NOW)], NOW)
    assert not place.control.caps.fit.sums


def test_what_other_rules_give_takes_up_room(tmp_path: Path) -> None:
    """Half of all queries are of a name that always gives birch, whose cap of 60 % leaves 4 % to measured names."""
    place = Place(tmp_path, birch="60%")
    for _ in range(2):
        place.ask(40, "one")
        place.round()
        place.now += 60
    assert place.account["birch"]["load"] == pytest.approx(0.54 * place.account["total"], rel=0.02)
    given = place.ask(40)
    assert given["birch"] == pytest.approx(0.08 * given.total(), abs=0.03 * given.total())
    assert place.ask(1, "one") == {"birch": NETWORKS}


def test_a_network_that_a_rule_takes_out_is_no_room_for_others(tmp_path: Path) -> None:
    """Networks of the table only: AS 64999, which a rule pins, is not among them, so www's measured rule reaches all."""
    place = Place(tmp_path, birch="50%")
    place.round()
    place.now += 60
    problem = place.control.caps_problem(place.now)
    assert problem is not None
    reach = {len(rule.answers): rule.reach for rule in problem.rules() if rule.reach is not None}
    assert all(np.allclose(part[1:], 1.0) for part in reach.values())


def test_a_failure_overloads_no_survivor_that_was_solved_for(tmp_path: Path) -> None:
    """Without birch everyone would go to alder, which has room for half."""
    place = Place(tmp_path, alder="50%")
    place.round()
    assert place.account["state"] == "kept"
    for _ in range(24):
        place.now += 0.5
        place.control.ingest(samples(place.now, {"birch": None, "alder": 30.0, "cedar": 80.0}), place.now)
    given = place.ask(40)
    assert given["birch"] == 0
    assert given["alder"] == pytest.approx(0.45 * given.total(), rel=0.03)


def test_a_cap_that_cannot_be_met_is_said_once_and_shared_out(tmp_path: Path) -> None:
    place = Place(tmp_path, birch="30%", alder="30%", cedar="20%")
    place.round()
    place.now += 60
    place.round(times=250)
    said = [line for line in place.said if "can't be met" in line]
    assert len(said) == 1
    assert "alder by 25%" in said[0]
    assert place.account["state"] == "unmet"
    given = place.ask(40)
    shares = [given[name] / given.total() for name in ("birch", "alder", "cedar")]
    assert shares == pytest.approx([0.375, 0.375, 0.25], abs=0.02)
    place.declare(birch="60%", alder="60%", cedar="60%")
    assert place.control.take_rules(place.control.worlds.read_rules(place.now), place.now)
    place.price()
    assert "caps are met again" in place.said
    assert place.account["state"] == "priced"


def test_without_caps_in_the_rules_everybody_goes_home(tmp_path: Path) -> None:
    place = Place(tmp_path, birch="50%")
    place.round()
    assert place.ask(1)["alder"] > 20
    place.declare()
    assert place.control.take_rules(place.control.worlds.read_rules(place.now), place.now)
    assert place.ask(1) == {"birch": NETWORKS}
    place.measure()
    assert place.account["state"] == "none"


def test_prices_are_solved_each_minute_and_when_somebody_comes_or_goes(tmp_path: Path) -> None:
    place = Place(tmp_path, birch="50%")
    place.round()
    assert place.control.caps_problem(place.now) is None
    for _ in range(12):
        place.now += 0.5
        place.control.ingest(samples(place.now, {"birch": 20.0, "alder": None, "cedar": 80.0}), place.now)
    assert place.control.caps_problem(place.now) is None
    assert place.control.caps_problem(place.now + 5) is not None
    assert place.control.caps_problem(place.now + 15) is None
    assert place.control.caps_problem(place.now + 65) is not None


def test_demand_may_be_given_in_a_file_and_bits_need_no_measured_load_then(tmp_path: Path) -> None:
    """Three names; what the measured one has is a third, of which birch takes up to 0.9 x 20 of 30 Gbps less what is fixed."""
    file = replace(tmp_path / "demand.csv", "network,gbps\n" + "".join(f"AS{64512 + n},1.5\n" for n in range(NETWORKS)))
    place = Place(tmp_path, file, birch="63Gbps")
    place.price()
    assert place.account["unit"] == "bits"
    assert place.account["total"] == pytest.approx(90e9)
    assert place.account["birch"]["load"] == pytest.approx(0.9 * 63e9, rel=0.01)
    given = place.ask(40)
    assert given["birch"] == pytest.approx((0.9 * 63 - 45) / 30 * given.total(), rel=0.05)
    replace(file, "network,gbps\nAS64512,lots\n")
    place.measure()
    assert any("demand.csv:2: expected NETWORK,NUMBER" in line for line in place.said)
    assert place.control.caps.forecast is not None
    replace(file, "network,gbps\nAS64512,1\n")
    place.measure()
    place.price()
    assert place.account["total"] == pytest.approx(1e9)
    assert place.ask(1) == {"birch": NETWORKS}


@pytest.mark.timeout(20)
def test_demand_is_read_from_plain_files_of_some_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe, file = tmp_path / "pipe", tmp_path / "demand.csv"
    os.mkfifo(pipe)
    with pytest.raises(SourceError, match="pipe: not a plain file"):
        read_demand(pipe)
    with pytest.raises(SourceError, match="no-such: No such file"):
        read_demand(tmp_path / "no-such")
    file.write_text("network,queries\nDE,1\n", encoding="utf-8")
    assert read_demand(file).entries
    monkeypatch.setattr("edgedns.control.caps.LARGEST", 10)
    with pytest.raises(SourceError, match="longer than 10 octets"):
        read_demand(file)


class TestForecast:
    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", ":1: the first line must be"),
            ("network,bytes\nDE,1\n", ":1: the first line must be"),
            ("network,queries\nDE 1\n", ":2: expected NETWORK,NUMBER, not 'DE 1'"),
            ("network,queries\nDE,-1\n", ":2: expected NETWORK,NUMBER"),
            ("network,queries\nDE,nan\n", ":2: expected NETWORK,NUMBER"),
            ("network,queries\n# a remark\nDE,1\nGermany,1\n", ":4: 'Germany' is no ASN"),
            ("network,queries\nAS4294967296,1\n", ":2: 'AS4294967296' is no ASN"),
            ("network,queries\n192.0.2.0/33,1\n", ":2: '192.0.2.0/33' is no ASN"),
        ],
    )
    def test_mistakes_are_named(self, text: str, message: str) -> None:
        with pytest.raises(SourceError, match=message.replace("/", "[/]")):
            parse(text, "demand.csv")

    def test_every_kind_of_network_is_found(self, tmp_path: Path) -> None:
        ground = Place(tmp_path).control.world.ground
        text = "network,queries\nAS64513,4\nAS64514/DE,3\nAS64514/FR,2\nDE,61\n10.9.0.0/24,7\n203.0.113.0/24,5\n"
        at = [int(np.flatnonzero(ground.atoms.net_asn == n)[0]) for n in (64513, 64514, 64521)]
        found = by_network(parse(text, ""), ground.atoms, lambda address: at[2] if address[0] == 10 else 0)
        assert found[at].tolist() == [5.0, 4.0, 8.0]
        assert found[0] == 7.0


class TestRates:
    def test_they_follow_counters_that_wrap_and_ones_that_begin_anew(self) -> None:
        first = Rates().after("a", np.array([2**32 - 5, 7], np.uint32), np.array([10], np.uint64), 10.0)
        assert first.seconds == 0.0
        second = first.after("a", np.array([5, 3], np.uint32), np.array([30, 4], np.uint64), 10.0)
        assert second.networks.tolist() == [10.0, 0.0]
        assert second.cells.tolist() == [20.0, 4.0]
        third = second.after("a", np.array([5, 4], np.uint32), np.array([2, 4], np.uint64), 300.0)
        assert third.networks.tolist() == [5.0, 1.0]
        assert third.cells.tolist() == [10.0, 2.0]
        assert third.seconds == pytest.approx(305.0)
        assert third.after("b", np.zeros(2, np.uint32), np.zeros(2, np.uint64), 10.0).seconds == 0.0

    def test_workers_are_added_up_and_other_atoms_left_out(self) -> None:
        arrays = [np.array(one, np.uint32).tobytes() for one in ([1, 2], [2**32 - 1, 1], [9, 9, 9])]
        assert counts_by_network(arrays, 2).tolist() == [0, 3]


def test_the_places_of_these_tests_are_what_they_say() -> None:
    assert subnet(7).startswith(network(7)[:4])
