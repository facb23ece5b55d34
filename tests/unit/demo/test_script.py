"""The demo's script: its form, its mistakes, its timeline; and the Internet it makes."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from pathlib import Path
from random import Random

import pytest

from edgedns.demo.networks import Network, networks
from edgedns.demo.paths import Internet
from edgedns.demo.script import Script, default, load, parse, timeline
from edgedns.errors import SourceError
from edgedns.steer.space import asn

HEAD = """
version: 1
repeat: 100
providers:
  alder: {source: 127.1.0.1, rtt_ms: {AF: 90, AS: 150, EU: 14, NA: 75, OC: 260, SA: 150}}
  birch: {source: 127.1.0.2, rtt_ms: {AF: 90, AS: 150, EU: 28, NA: 75, OC: 260, SA: 150}}
"""
CUT = "{at: 10, for: 20, kind: cut, provider: alder, continent: EU, text: cut}"
PLACES = (
    Network(64496, "DE", "EU", "192.0.2.1", "one"),
    Network(64497, "FR", "EU", "198.51.100.1", "two"),
    Network(64498, "BR", "SA", "203.0.113.1", "three"),
)


def script(*events: str, head: str = HEAD) -> Script:
    return parse(head + "events: [" + ", ".join(events) + "]\n", "s.yaml")


def mistake(text: str) -> str:
    with pytest.raises(SourceError) as caught:
        parse(text, "s.yaml")
    return str(caught.value)


def test_the_timeline_is_in_order_and_begins_again() -> None:
    made = script("{at: 30, for: 10, kind: loss, percent: 5, text: later}", CUT)
    changes = [(change.at, change.event.text, change.begins) for change in islice(timeline(made), 6)]
    assert changes == [
        (10, "cut", True),
        (30, "cut", False),
        (30, "later", True),
        (40, "later", False),
        (110, "cut", True),
        (130, "cut", False),
    ]


def test_without_repeat_the_timeline_ends() -> None:
    assert len(list(timeline(script(CUT, head=HEAD.replace("repeat: 100", "repeat: 0"))))) == 2


def test_a_script_without_events_has_an_empty_timeline() -> None:
    assert list(timeline(script())) == []


@pytest.mark.parametrize(
    ("event", "error"),
    [
        ("{at: 10, for: 20, kind: cut}", "event 1: text: say what happens"),
        ("{at: 10, kind: cut, text: x}", "event 1: for is missing"),
        ("{at: -1, for: 20, kind: cut, text: x}", "event 1: at is not a number from 0 to 86400: -1"),
        ("{at: .nan, for: 20, kind: cut, text: x}", "event 1: at is not a number from 0 to 86400: nan"),
        ("{at: 90, for: 20, kind: cut, text: x}", "event 1: it ends after 100 s, when the script repeats"),
        ("{at: 10, for: 20, kind: cutt, text: x}", "event 1: kind is not one of cut, slow, loss: 'cutt'"),
        ("{at: 10, for: 20, kind: slow, text: x}", "event 1: by_ms is missing"),
        ("{at: 10, for: 20, kind: loss, percent: 101, text: x}", "event 1: percent is not a number from 0 to 100: 101"),
        ("{at: 10, for: 20, kind: cut, provider: dune, text: x}", "event 1: unknown provider 'dune'"),
        ("{at: 10, for: 20, kind: cut, continent: XX, text: x}", "event 1: continent is not among AF, AS, EU, NA, OC, SA"),
        ("{at: 10, for: 20, kind: cut, country: [NO], text: x}", "event 1: country is not of strs: [False]"),
        ("{at: 10, for: 20, kind: cut, asn: AS3320, text: x}", "event 1: asn is not of ints: 'AS3320'"),
        ("{at: 10, for: 20, kind: cut, text: x, until: 5}", "event 1: unknown key 'until'"),
        ("5", "event 1: not a mapping"),
    ],
)
def test_a_wrong_event_is_named(event: str, error: str) -> None:
    assert mistake(HEAD + f"events: [{event}]").startswith(f"s.yaml: {error}")


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "the script: not a mapping"),
        ("version: 2", "version is not 1"),
        ("version: 1", "providers: give at least one"),
        ("[" * 100_000, "nested deeper than 8 levels"),
        ("a: [", "not YAML: "),
        (HEAD + "sed: 5", "the script: unknown key 'sed'"),
        (HEAD + "events: 5", "events: not a list"),
        (HEAD.replace("127.1.0.2", "127.1.0.1"), "providers: each needs a source of its own"),
        (HEAD.replace("127.1.0.2", "192.0.2.1"), "provider birch: source 192.0.2.1 is not within 127.0.0.0/8"),
        (HEAD.replace("127.1.0.2", "home"), "provider birch: source is not an IPv4 address: 'home'"),
        (HEAD.replace("{AF: 90, AS: 150, EU: 28,", "{AF: 90, EU: 28,"), "provider birch: rtt_ms: AS is missing"),
    ],
)
def test_a_wrong_script_is_named(text: str, error: str) -> None:
    assert mistake(text).startswith(f"s.yaml: {error}")


def test_a_script_is_read_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(HEAD + f"events: [{CUT}]")
    assert load(file) == script(CUT)
    with pytest.raises(SourceError, match="No such file"):
        load(tmp_path / "nowhere")
    file.write_bytes(b"\xff")
    with pytest.raises(SourceError, match="not UTF-8 at byte 1"):
        load(file)


def test_events_touch_what_they_name() -> None:
    def touched(place: str) -> list[str]:
        (event,) = script("{at: 0, for: 1, kind: cut, text: x%s}" % place).events  # noqa: UP031
        return [network.country for network in PLACES if event.touches(network)]

    assert touched("") == ["DE", "FR", "BR"]
    assert touched(", continent: EU") == ["DE", "FR"]
    assert touched(", asn: [64496], country: BR") == ["DE", "BR"]


def test_a_cut_loses_everything_on_its_paths_and_nothing_elsewhere() -> None:
    made = script(CUT, "{at: 0, for: 1, kind: slow, asn: 64497, by_ms: 80, text: x}")
    internet = Internet(made, PLACES)
    before = [[path.base_ms for path in row] for row in internet.paths]
    internet.apply(made.events)
    assert [[path.loss for path in row] for row in internet.paths] == [[1, 1, 0], [0, 0, 0]]
    assert [[path.add_ms for path in row] for row in internet.paths] == [[0, 80, 0], [0, 80, 0]]
    dice = Random(1)
    assert {internet.delay_ms(internet.paths[0][0], 0, dice) for _ in range(1000)} == {None}
    internet.apply(())
    assert [[(path.base_ms, path.add_ms, path.loss) for path in row] for row in internet.paths] == [
        [(rtt, 0, 0) for rtt in row] for row in before
    ]


def test_loss_jitter_and_drift_are_as_the_script_says() -> None:
    internet = Internet(script(head=HEAD + "loss_percent: 10\ndrift_percent: 5\njitter_ms: 2\n"), PLACES)
    path, dice = internet.paths[0][0], Random(1)
    delays = [internet.delay_ms(path, n * 86400 / 10_000, dice) for n in range(10_000)]
    came = [delay for delay in delays if delay is not None]
    assert 900 < delays.count(None) < 1100
    assert min(came) == pytest.approx(path.base_ms * 0.95, rel=0.01)
    assert sum(came) / len(came) == pytest.approx(path.base_ms + 2, rel=0.02)


def test_the_same_seed_makes_the_same_internet() -> None:
    bases = [[[path.base_ms for path in row] for row in Internet(default(), networks()).paths] for _ in range(2)]
    other = Internet(script(head=HEAD + "seed: 5\n"), PLACES).paths[0][0].base_ms
    assert bases[0] == bases[1]
    assert other != Internet(script(), PLACES).paths[0][0].base_ms


def test_the_demos_internet_has_winners_everywhere_clear_margins_and_near_ties() -> None:
    made = default()
    internet = Internet(made, networks())
    winners: Counter[str] = Counter()
    margins = []
    for column in zip(*internet.paths, strict=True):
        ranked = sorted((path.base_ms, transit.name) for path, transit in zip(column, made.providers, strict=True))
        winners[ranked[0][1]] += 1
        margins.append(ranked[1][0] / ranked[0][0] - 1)
    assert min(winners[transit.name] for transit in made.providers) >= 20
    assert sum(margin > 0.05 for margin in margins) > 0.65 * len(margins)
    assert sum(margin < 0.02 for margin in margins) > 0.05 * len(margins)


def test_each_of_the_demos_events_hits_the_best_path_of_somebody() -> None:
    made = default()
    internet = Internet(made, networks())
    names = [transit.name for transit in made.providers]
    for event in made.events:
        row = names.index(event.provider)
        columns = list(zip(*internet.paths, strict=True))
        hit = [
            network.asn for network, column in zip(internet.networks, columns, strict=True)
            if event.touches(network) and column[row] is min(column, key=lambda path: path.base_ms)
        ]  # fmt: skip
        assert hit, event.text
    assert {network.asn for network in internet.networks} >= {asn for event in made.events for asn in event.asns}


def test_the_networks_are_those_of_the_asn_table() -> None:
    table = asn.embedded()
    listed = networks()
    assert len(listed) >= 190
    assert len({network.asn for network in listed}) == len(listed)
    for network in listed:
        packed = bytes(int(part) for part in network.address.split("."))
        assert table.lookup(packed) == (network.asn, network.country)
        assert asn.continent(network.country) == network.continent
