"""The comparison of tests/bench/peers in small: it starts, steers as the table says, measures, and writes."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path
from random import Random

import pytest

from edgedns.steer.space import asn
from tests.bench.peers import contest, echo, nsd, ours, table, tcp
from tests.bench.peers.served import PROVIDERS, World
from tests.conformance.peers import free_port
from tests.small import write_table


@pytest.fixture
def small(tmp_path: Path) -> World:
    path = write_table(tmp_path / "table.tsv")
    return World(asn.load(path), path, names=200)


def test_a_round_of_three(small: World, tmp_path: Path) -> None:
    kinds = [kind for kind in (echo.CEcho, nsd.Nsd, ours.Native, ours.Python) if not kind.missing()][:3]
    if len(kinds) < 3:
        pytest.skip("needs gcc and nsd, or the native engine")
    mixes = contest.loads(small, subnets=500)
    with contest.started(small, kinds, tmp_path, [free_port() for _ in kinds]) as scores:
        contest.contest(scores, mixes, 1, 0.1, checked=50)
        peers = [score.peer for score in scores if score.peer.answers]
        costs = tcp.contest(peers, mixes[:1], 1)
    assert all(0.1 < cost[0] < 10_000 for each in costs.values() for cost in each.values()), costs
    rows = tcp.markdown(peers, costs).splitlines()[4:]
    assert [row.split("|")[1].strip() for row in rows] == [peer.title for peer in peers]
    text = table.markdown(scores, mixes, 1, 0.1, small.count)
    assert "50 subnets, 64 sources" in text
    assert all(1 < cost[0] < 10_000 for score in scores for cost in score.cost.values()), text
    assert all(score.memory > 0 and score.first_answer > 0 for score in scores)
    table.chart(scores, mixes, tmp_path / "chart.svg")
    assert "one name" in (tmp_path / "chart.svg").read_text() or (tmp_path / "chart.svg").stat().st_size > 10_000


def test_a_server_that_steers_otherwise_is_found(small: World, tmp_path: Path) -> None:
    """NSD steers nobody: said to steer by subnet it must fail the check."""

    class Pretender(nsd.Nsd):
        steers = "subnet"

    if Pretender.missing():
        pytest.skip("needs nsd")
    with contest.started(small, [Pretender], tmp_path, [free_port()]) as scores, pytest.raises(RuntimeError, match="otherwise"):
        contest.check(scores[0].peer, 50)


def test_prefixes_say_what_the_table_says(small: World) -> None:
    assert {small.provider_at(each) for each in small.slash24s(200, Random(1))} == set(PROVIDERS)
    for each in small.slash24s(200, Random(2)):
        address = ip_address(each.address)
        found = [name for name, nets in small.prefixes.items() for net in nets if address in net]
        assert (found or [next(iter(PROVIDERS))]) == [small.provider_at(each)]
