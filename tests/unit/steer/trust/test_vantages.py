"""Trust in vantages: who lies or is sick is outvoted, then kept out; who stands elsewhere is not."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgedns.errors import SourceError
from edgedns.model import NetworkKey, RttSample
from edgedns.steer.table.batch import Batch, batch_of
from edgedns.steer.table.rows import pack_json
from edgedns.steer.trust.vantages import ACTIVE, AGREES_FOR, Vantages, within_share

PERIOD = 10.0
START = 1_764_000_000.0
PROVIDERS = ("alder", "birch", "cedar")
PLACES = {"ams1": 5.0, "fra1": 8.0, "lhr1": 12.0, "sin1": 160.0, "nyc1": 80.0}
NETWORKS = 40
Lie = Callable[[str, int, str, float], float]  # (vantage, network, provider, RTT in ms) -> what is reported, NaN for lost


def honest(vantage: str, network: int, provider: str, rtt: float) -> float:
    return rtt


class Scene:
    """Vantages that each time every network once a round. A network's distance is its own from each place."""

    def __init__(self, *names: str, networks: int = NETWORKS, seed: int = 1) -> None:
        self.dice = np.random.default_rng(seed)
        self.names = names
        self.keys = [NetworkKey(64496 + i % 16, "DE", 4, i) for i in range(networks)]
        self.far = {name: PLACES[name] + self.dice.uniform(1, 60, networks) for name in names}
        self.through = {name: self.dice.uniform(0, 60, networks) for name in PROVIDERS}
        self.vantages = Vantages()
        self.now = START

    def rtt(self, vantage: str, network: int, provider: str) -> float:
        noise = float(self.dice.exponential(2.0))
        return float(self.far[vantage][network] + self.through[provider][network]) + noise

    def samples(self, lie: Lie = honest) -> list[RttSample]:
        found = []
        for vantage in self.names:
            for i, key in enumerate(self.keys):
                for provider in PROVIDERS:
                    told = lie(vantage, i, provider, self.rtt(vantage, i, provider))
                    at = self.now + float(self.dice.uniform(0, PERIOD - 1))
                    found.append(RttSample(at, vantage, provider, key, 4, None if math.isnan(told) else told))
        return found

    def round(self, lie: Lie = honest) -> Batch:
        """One round; what of it counts."""
        batch = self.vantages.admit(batch_of(self.samples(lie)), self.now + 5)
        self.now += PERIOD
        counted = self.vantages.vet(batch.take(~batch.lost), self.now)
        self.vantages.close(self.now, PERIOD)
        return counted


def speakers(batch: Batch) -> set[str]:
    return {batch.vantages[i] for i in np.unique(batch.vantage)}


def liar(name: str, tells: Callable[[int, str, float], float]) -> Lie:
    return lambda vantage, network, provider, rtt: tells(network, provider, rtt) if vantage == name else rtt


LIES = {
    "a rival at 1 ms": lambda network, provider, rtt: 1.0 if provider == "cedar" else rtt,
    "a rival far away": lambda network, provider, rtt: rtt * 4 + 100 if provider == "alder" else rtt,
    "anything": lambda network, provider, rtt: float(np.random.default_rng(int(rtt * 1e6)).uniform(1, 300)),
    "everything upside down": lambda network, provider, rtt: 400.0 - rtt,
}


@pytest.mark.parametrize("tells", LIES.values(), ids=LIES.keys())
def test_a_lie_hardly_counts_from_the_first_round_on_and_the_liar_is_out_after_two(tells: Callable[..., float]) -> None:
    scene = Scene("ams1", "fra1", "lhr1")
    wrong = liar("lhr1", tells)
    told = scene.round(wrong)
    lies = int((np.array([told.vantages[i] for i in told.vantage]) == "lhr1").sum())
    assert lies < 0.2 * NETWORKS * len(PROVIDERS)
    scene.round(wrong)
    assert scene.vantages.quarantined == ["lhr1"]
    assert "otherwise than the others do" in scene.vantages.news[0]
    assert speakers(scene.round(wrong)) == {"ams1", "fra1"}


@pytest.mark.parametrize(
    "names", [("ams1", "fra1", "lhr1"), ("ams1", "sin1", "nyc1"), ("ams1", "fra1", "lhr1", "sin1", "nyc1")]
)
def test_honest_vantages_are_heard_wherever_they_stand(names: tuple[str, ...]) -> None:
    scene = Scene(*names)
    for _ in range(10):
        assert speakers(scene.round()) == set(names)
    assert scene.vantages.quarantined == []
    assert scene.vantages.outvoted < 0.02 * 10 * NETWORKS * len(PROVIDERS) * len(names)
    assert min(each.agreement or 0.0 for each in scene.vantages.standings.values()) > 0.9


def test_a_detour_on_the_way_out_is_its_place_and_no_lie() -> None:
    """What it sees so is outvoted where others measure, and it stays in for the networks that it alone measures."""
    scene = Scene("ams1", "fra1", "sin1")
    for _ in range(5):
        counted = scene.round(liar("sin1", lambda network, provider, rtt: rtt + 180 if provider == "alder" else rtt))
    assert scene.vantages.quarantined == []
    assert "sin1" not in speakers(counted)
    assert scene.vantages.standings["sin1"].agreement == 0.0


def test_the_networks_that_only_a_disputed_vantage_measures_still_count() -> None:
    scene = Scene("ams1", "fra1", "sin1")
    own = RttSample(START + 1, "sin1", "alder", NetworkKey(64499, "SG", 4, 999), 4, 20.0)
    wrong = scene.samples(liar("sin1", lambda network, provider, rtt: 1.0 if provider == "cedar" else rtt))
    counted = scene.vantages.vet(scene.vantages.admit(batch_of([*wrong, own]), START), START + PERIOD)
    mine = counted.take(np.array([counted.vantages[i] == "sin1" for i in counted.vantage]))
    assert mine.rtt.tolist() == [20.0]


def test_a_sick_vantage_is_kept_out_and_comes_back_a_minute_after_it_is_well() -> None:
    scene = Scene("ams1", "fra1", "lhr1")
    scene.round()
    sick = liar("lhr1", lambda network, provider, rtt: float("nan") if scene.dice.random() < 0.6 else rtt)
    for _ in range(3):
        scene.round(sick)
    assert scene.vantages.quarantined == ["lhr1"]
    assert "through each provider, where others lose 0%" in scene.vantages.news[0]
    back = 0
    while scene.vantages.quarantined:
        scene.round()
        back += 1
    assert AGREES_FOR / PERIOD <= back <= AGREES_FOR / PERIOD + 5  # losses of before are remembered for some rounds
    assert speakers(scene.round()) == {"ams1", "fra1", "lhr1"}


def test_one_provider_lost_at_one_place_is_no_sickness() -> None:
    scene = Scene("ams1", "fra1", "lhr1")
    scene.round()
    for _ in range(10):
        scene.round(liar("lhr1", lambda network, provider, rtt: float("nan") if provider == "birch" else rtt))
    assert scene.vantages.quarantined == []


def test_what_all_lose_makes_nobody_sick() -> None:
    scene = Scene("ams1", "fra1", "lhr1")
    scene.round()
    for _ in range(5):
        scene.round(lambda vantage, network, provider, rtt: float("nan") if network % 2 else rtt)
    assert scene.vantages.quarantined == []


def test_half_of_the_vantages_are_never_put_out() -> None:
    scene = Scene("ams1", "fra1", "lhr1", "sin1")
    for _ in range(6):
        scene.round(lambda v, network, p, rtt: float(scene.dice.uniform(1, 300)) if v in ("lhr1", "sin1") else rtt)
    assert len(scene.vantages.quarantined) < 2


def test_two_vantages_do_not_judge_each_other() -> None:
    scene = Scene("ams1", "fra1")
    for _ in range(4):
        assert speakers(scene.round(liar("fra1", LIES["anything"]))) == {"ams1", "fra1"}
    assert scene.vantages.quarantined == []


def test_the_last_one_is_let_in_again_when_all_others_are_gone() -> None:
    scene = Scene("ams1", "fra1", "lhr1")
    wrong = liar("lhr1", LIES["anything"])
    scene.round(wrong)
    scene.round(wrong)
    assert scene.vantages.quarantined == ["lhr1"]
    scene.names = ("lhr1",)
    for _ in range(int(ACTIVE / PERIOD) + 1):
        scene.round(wrong)
    assert scene.vantages.quarantined == []
    assert scene.vantages.news[-1].endswith("no other vantage is measuring any more")


def test_an_order_lasts_until_an_order_ends_it() -> None:
    scene = Scene("ams1", "fra1")
    scene.round()
    scene.vantages.order_out("fra1", "noc", "its uplink is being replaced", scene.now)
    for _ in range(20):
        assert speakers(scene.round()) == {"ams1"}
    with pytest.raises(ValueError, match="no other vantage is measuring"):
        scene.vantages.order_out("ams1", "noc", "", scene.now)
    with pytest.raises(ValueError, match="there is no vantage 'par1'"):
        scene.vantages.order_out("par1", "noc", "", scene.now)
    with pytest.raises(ValueError, match="ams1 is not in quarantine"):
        scene.vantages.order_back("ams1", "noc", scene.now)
    scene.vantages.order_back("fra1", "noc", scene.now)
    assert speakers(scene.round()) == {"ams1", "fra1"}


def test_a_quarantine_outlives_the_process() -> None:
    scene = Scene("ams1", "fra1", "lhr1")
    for _ in range(2):
        scene.round(liar("lhr1", LIES["anything"]))
    scene.vantages = Vantages.from_sections(scene.vantages.to_sections())
    assert scene.vantages.quarantined == ["lhr1"]
    assert "lhr1" not in speakers(scene.round(liar("lhr1", LIES["anything"])))
    with pytest.raises(SourceError):
        Vantages.from_sections({"standings": pack_json([{"name": "fra1", "mood": "good"}])})


def test_what_is_told() -> None:
    scene = Scene("ams1", "fra1", "lhr1")
    scene.vantages.note_clock("fra1", -0.25)
    for _ in range(2):
        scene.round(liar("lhr1", LIES["anything"]))
    told = {each["name"]: each for each in scene.vantages.told(scene.now)["vantages"]}
    assert told["fra1"]["clock_offset"] == -0.25
    assert told["fra1"]["samples_per_second"] == NETWORKS * len(PROVIDERS) / PERIOD
    assert told["fra1"]["quarantined"] is None
    assert told["fra1"]["shared_networks"] == NETWORKS
    assert told["lhr1"]["quarantined"]["since"] == scene.now


counts = st.dictionaries(
    st.tuples(st.sampled_from("abcd"), st.integers(0, 2), st.sampled_from(PROVIDERS)), st.integers(1, 30), min_size=1
)


@settings(max_examples=100, deadline=None)
@given(counts)
def test_no_vantage_carries_more_than_half_of_what_others_measured(sent: dict[tuple[str, int, str], int]) -> None:
    samples = [
        RttSample(START + i, vantage, provider, NetworkKey(64496, "DE", 4, network), 4, 20.0)
        for (vantage, network, provider), count in sent.items()
        for i in range(count)
    ]
    batch = batch_of(samples)
    kept = within_share(batch)
    left = batch.take(kept)
    for network in range(3):
        for provider in PROVIDERS:
            mine = {v: n for (v, where, p), n in sent.items() if (where, p) == (network, provider)}
            in_arm = [
                left.vantages[v]
                for v, p, r in zip(left.vantage, left.provider, left.row, strict=True)
                if left.providers[p] == provider and left.rows["block"][r] == network
            ]
            for vantage, count in mine.items():
                others = sum(mine.values()) - count
                assert in_arm.count(vantage) == (min(count, others) if others else count)


def test_what_stays_under_the_share_lies_evenly() -> None:
    at = [RttSample(START + i, "ams1", "alder", NetworkKey(64496, "DE", 4, 1), 4, 20.0) for i in range(9)]
    others = [replace(at[0], vantage="fra1"), replace(at[1], vantage="fra1"), replace(at[2], vantage="lhr1")]
    kept = np.flatnonzero(within_share(batch_of([*at, *others]))[:9]).tolist()
    assert kept == [2, 5, 8]


def test_lies_that_come_late_are_held_against_what_the_others_see_now() -> None:
    scene = Scene("ams1", "fra1", "lhr1")
    scene.round()
    scene.names = ("ams1", "fra1")
    honest_ones = scene.samples()
    scene.names = ("lhr1",)
    wrong = [replace(each, at=each.at - 100) for each in scene.samples(liar("lhr1", LIES["a rival at 1 ms"]))]
    counted = scene.vantages.vet(scene.vantages.admit(batch_of([*honest_ones, *wrong]), scene.now), scene.now + PERIOD)
    late = counted.take(counted.at < scene.now - 50)
    assert len(late) < 0.2 * len(wrong)


def test_names_that_are_gone_leave_room_for_others() -> None:
    scene = Scene("ams1", "fra1", "lhr1", networks=3)
    scene.round()
    scene.now += 700
    scene.names = ("fra1", "sin1")
    scene.far["sin1"] = scene.far["ams1"]
    scene.round()
    assert scene.vantages.views._vantages == ("fra1", "sin1")
    assert scene.vantages.standings["ams1"].seen_at > 0
    assert len(scene.vantages.views) == 2 * 3 * len(PROVIDERS)
