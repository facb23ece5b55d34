"""Losses whose replies landed at another PoP are none; what is known of that is bounded, and fades."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Any

import pytest

from edgedns.model import Family, LandedReply, NetworkKey, RttSample
from edgedns.steer.failure import catchments
from edgedns.steer.failure.catchments import AROUND, DOUBTED, GRACE, KEPT, Catchments
from edgedns.steer.table.batch import batch_of

START = 1_764_000_000.0
NETWORK, OTHER = NetworkKey(64500, "DE", 4, 0xCB00), NetworkKey(64501, "US", 4, 0xC633)


def landed(at: float = 0.0, network: NetworkKey = NETWORK, vantage: str = "ams1", sent_by: str = "fra1") -> LandedReply:
    return LandedReply(START + at, vantage, "alder", network, 4, sent_by)


def loss(
    at: float = 0.0, vantage: str = "fra1", provider: str = "alder", network: NetworkKey = NETWORK, family: Family = 4
) -> RttSample:
    return RttSample(START + at, vantage, provider, network, family, None)


def left(known: Catchments, *samples: RttSample) -> int:
    return len(known.without_excused(batch_of(samples)))


def told(*replies: LandedReply) -> Catchments:
    known = Catchments()
    known.take(replies, START)
    return known


def test_a_loss_that_landed_elsewhere_is_none() -> None:
    known = told(landed())
    assert left(known, loss(), loss(5.0)) == 0
    assert known.excused == 2


@pytest.mark.parametrize(
    "other",
    [
        loss(vantage="ams1"),
        loss(provider="birch"),
        loss(network=OTHER),
        loss(family=6),
        loss(AROUND + 1.0),
        loss(-AROUND - 1.0),
        RttSample(START, "fra1", "alder", NETWORK, 4, 12.5),
    ],
)
def test_all_other_samples_stay(other: RttSample) -> None:
    known = told(landed())
    assert left(known, other, loss()) == 1
    assert known.excused == 1


def test_it_holds_for_as_long_as_it_is_told_in_whatever_order() -> None:
    known = told(landed(60.0), landed(0.0), landed(30.0))
    assert left(known, loss(-20.0), loss(45.0), loss(70.0), loss(80.0)) == 2
    assert known.told(10)["catchments"][0]["since"] == START


def test_only_news_of_now_is_passed_on() -> None:
    known, new = Catchments(), list[catchments.Path]()
    known.take([landed(), landed(1.0), landed(-AROUND - 1.0, OTHER)], START, new.append)
    assert [path.network for path in new] == [NETWORK]


def test_a_catchment_that_moves_again_begins_anew_and_who_hears_itself_now_loses_in_earnest() -> None:
    known = told(landed(0.0), landed(0.0, sent_by="iad1"), landed(60.0, vantage="iad1"))
    listed = known.told(10)["catchments"]
    assert [(one["lands_at"], one["sent_by"], one["since"] - START, one["replies"]) for one in listed] == [
        ("iad1", ["fra1"], 60.0, 1)
    ]
    assert left(known, loss(60.0), loss(60.0, vantage="iad1")) == 1


def test_what_nobody_tells_of_is_forgotten() -> None:
    known = told(landed())
    known.take([], START + KEPT - 1.0)
    assert len(known) == 1
    known.take([], START + KEPT + KEPT / 10)
    assert len(known) == 0
    assert left(known, loss()) == 1


def heard(at: float, **more: Any) -> RttSample:
    return replace(loss(at, **more), rtt_ms=12.5)


def test_who_hears_replies_itself_is_not_elsewhere_and_nobody_is_believed_for_a_while() -> None:
    known = told(landed(0.0), landed(0.0, OTHER), landed(0.0, sent_by="iad1"))
    known.hold_to(batch_of([heard(GRACE + 1.0), heard(9.0, vantage="ams1"), loss(9.0, network=OTHER)]), START + 10.0)
    assert len(known) == 2
    known.take([landed(11.0), landed(DOUBTED - 1.0)], START + DOUBTED)
    assert (len(known), known.belied) == (0, 2)
    assert left(known, loss(11.0)) == 1
    known.take([landed(DOUBTED + 50.0)], START + DOUBTED + 50.0)
    assert left(known, loss(DOUBTED + 50.0)) == 0


@pytest.mark.parametrize(
    "other",
    [
        heard(GRACE - 1.0),
        heard(10.0, provider="birch"),
        heard(10.0, vantage="iad1"),
        heard(10.0, network=OTHER),
        heard(10.0, family=6),
        loss(10.0),
    ],
)
def test_replies_of_other_paths_and_those_before_it_moved_end_nothing(other: RttSample) -> None:
    known = told(landed(0.0))
    known.hold_to(batch_of([other, heard(10.0, vantage="sin1")]), START + 10.0)
    assert len(known) == 1


def test_many_paths_are_held_to_what_was_heard_one_by_one() -> None:
    dice = Random(5)
    networks = [NetworkKey(64500 + n, "DE", 4, n) for n in range(20)]
    families: tuple[Family, ...] = (4, 6)
    chances = [(v, p, n, f) for v in ("fra1", "iad1") for p in ("alder", "birch") for n in networks for f in families]
    told_of, sampled = dice.sample(chances, 60), dice.sample(chances, 70)
    known = Catchments()
    known.take([LandedReply(START, "ams1", p, n, f, v) for v, p, n, f in told_of], START)
    known.hold_to(batch_of(RttSample(START + 20.0, v, p, n, f, 5.0) for v, p, n, f in sampled), START + 30.0)
    assert set(known._paths) == {*told_of} - {*sampled}


def test_there_is_room_for_so_many_paths_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catchments, "PATHS_LIMIT", 2)
    known = told(*(landed(sent_by=f"pop{n}") for n in range(5)), landed(1.0, sent_by="pop0"))
    assert (len(known), known.over) == (2, 3)
    assert known.told(1)["catchments"][0]["replies"] == 3


def test_what_is_told_of_them() -> None:
    known = told(landed(1.0), landed(2.0, sent_by="iad1"), landed(3.0, OTHER, "sin1"), landed(4.0, OTHER, "ams1"))
    listed = known.told(1)
    assert listed["total"] == 2
    assert listed["catchments"] == [
        {
            "network": "AS64501/US/198.51.0.0/16", "provider": "alder", "family": 4, "lands_at": "ams1", "sent_by": ["fra1"],
            "since": START + 4.0, "last": START + 4.0, "replies": 1,
        }
    ]  # fmt: skip
    assert known.told(2)["catchments"][1]["sent_by"] == ["fra1", "iad1"]
