"""Each share of a split is told and counted for its own reason: the holdout apart from what was measured."""

from __future__ import annotations

from collections import Counter
from ipaddress import ip_address
from random import Random

from edgedns.dns import types
from edgedns.dns.edns import ClientSubnet, Edns
from edgedns.dns.message import Query
from edgedns.engine import answer
from edgedns.model import Reason
from tests.conftest import NOW, Example

WWW = b"\3www\3cdn\7example\3net\0"


def test_holdouts_are_told_apart(example: Example) -> None:
    dice, seen = Random(5), Counter[tuple[Reason | None, bool]]()
    for _ in range(6000):
        row = dice.randrange(len(example.table.start4))
        address = dice.randint(int(example.table.start4[row]), int(example.table.end4[row]))
        edns = Edns(1232, 0, False, ClientSubnet(1, 24, 0, (address >> 8 << 8).to_bytes(4, "big")))
        query = Query(0, types.QUERY, False, False, WWW, WWW, types.A, types.IN, edns, b"")
        given, choice = answer.answer(example.steered, query, ip_address("192.0.2.1").packed, NOW)
        if given.steered is None or not given.steered.ranking.reasons:
            continue
        held = given.steered.provider == given.steered.ranking.targets[1]
        assert (choice.reason is Reason.HOLDOUT) == held
        assert choice.provider == choice.ranking[held]
        assert given.scope >= 24
        seen[choice.reason, held] += 1
    assert seen[Reason.HOLDOUT, True] > 10
    assert seen[Reason.MEASURED, False] > 10
    assert seen[Reason.HELD, False] > 10
    share = seen[Reason.HOLDOUT, True] / seen.total()
    assert 0.08 < share < 0.35, "a fifth of the hash units"
