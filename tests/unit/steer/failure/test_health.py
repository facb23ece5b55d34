"""Failure detection: what is one, what only looks like one, and how the way back goes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from edgedns.errors import SourceError
from edgedns.model import NetworkKey, RttSample
from edgedns.steer.failure.health import Health
from edgedns.steer.table.batch import Batch
from edgedns.steer.table.rows import rows_of

PROVIDERS = ("alder", "birch", "cedar")
Cut = Callable[[float, int, str, str], bool]


def network(i: int) -> NetworkKey:
    return NetworkKey(64500 + i, ("DE", "FR")[i % 2], 4, 0xC000 + i)


class Internet:
    """Probes every network through every provider each 10 s, asks again where the detector wants it, and keeps the time.

    `cut(at, network number, provider, vantage)` says which probes get lost.
    """

    def __init__(
        self, networks: int = 10, cut: Cut = lambda *_: False, vantages: Sequence[str] = ("fra1",), health: Health | None = None
    ) -> None:
        self.networks, self.cut, self.vantages = networks, cut, vantages
        self.health = health or Health()
        self.now = 1000.0
        self.counted: list[Batch] = []
        self.order = np.random.default_rng(5).permutation(networks)

    def probe(self, at: float, i: int, provider: str, vantage: str) -> RttSample:
        rtt = None if self.cut(at, i, provider, vantage) else 20.0
        return RttSample(at, vantage, provider, network(i), 4, rtt)

    def run(self, seconds: float) -> Internet:
        end = self.now + seconds
        while self.now < end:
            slot = round(self.now * 10) % 100
            due = [
                (i, p, v) for place, i in enumerate(self.order) for k, p in enumerate(PROVIDERS) for v in self.vantages
                if round((place * len(PROVIDERS) + k) * 100 / (len(PROVIDERS) * self.networks)) == slot
            ]  # fmt: skip
            self.take([self.probe(self.now, i, p, v) for i, p, v in due])
            for want in self.health.wants(self.now):
                i = want.network.asn - 64500
                times = [self.now + 0.02 * (k + 1) for k in range(want.probes)]
                self.take([self.probe(at, i, want.provider, want.vantage) for at in times])
            self.now = round(self.now + 0.1, 3)
        return self

    def take(self, samples: list[RttSample]) -> None:
        self.counted += self.health.observe(samples)

    def states(self, provider: str) -> dict[int, str]:
        return {i: self.health.state(network(i), provider, 4) for i in range(self.networks)}

    def lost_counted(self) -> int:
        return sum(int(batch.lost.sum()) for batch in self.counted)


def test_all_well_is_up() -> None:
    net = Internet().run(60)
    assert set(net.states("alder").values()) == {"up"}
    assert net.health.wants(net.now) == []
    assert net.health.changes == 0


def test_one_path_goes_down_alone_within_14_seconds() -> None:
    net = Internet(cut=lambda at, i, p, v: at > 1060 and i == 3 and p == "birch").run(60).run(12)
    assert {i for i, state in net.states("birch").items() if state == "down"} == {3}
    assert set(net.states("alder").values()) == {"up"}
    assert not net.health.provider_down("birch", 4)


def test_down_speaks_for_rows_and_their_levels() -> None:
    net = Internet(cut=lambda at, i, p, v: at > 1060 and i % 2 == 0 and p == "birch").run(75)
    levels = [NetworkKey(-1, "DE"), NetworkKey(64500, "DE", 4, 9), NetworkKey(-1, "FR"), NetworkKey()]
    asked = rows_of([network(0), network(1), *levels])
    assert net.health.down(asked, ["birch"], 4)[:, 0].tolist() == [True, False, True, True, False, False]
    assert net.health.down(asked, ["birch"], 6)[:, 0].tolist() == [True, False, True, True, False, False]
    assert not net.health.down(asked, ["alder", "nobody"], 4).any()


def test_a_dead_target_is_no_failure() -> None:
    net = Internet(cut=lambda at, i, p, v: at > 1060 and i == 3).run(180)
    assert all(net.states(p)[3] != "down" for p in PROVIDERS)


def test_a_target_that_was_dead_counts_no_loss() -> None:
    net = Internet(cut=lambda at, i, p, v: 1060 < at < 1180 and i == 3).run(300)
    assert net.lost_counted() == 0


def test_a_dead_vantage_is_no_failure() -> None:
    net = Internet(cut=lambda at, i, p, v: at > 1060 and v == "fra1", vantages=("fra1", "sin1")).run(180)
    assert all(set(net.states(p).values()) <= {"up", "suspect"} for p in PROVIDERS)
    assert not any(net.health.provider_down(p, 4) for p in PROVIDERS)


def test_a_vantage_that_comes_back_accuses_nobody() -> None:
    def cut(at: float, i: int, p: str, v: str) -> bool:
        return 1060 < at < 1092 and v == "fra1"

    net = Internet(networks=40, cut=cut, vantages=("fra1", "iad1")).run(120)
    assert net.health.changes == 0


def test_a_vantage_is_cut_off_while_another_hears_a_provider_that_it_never_heard() -> None:
    def cut(at: float, i: int, p: str, v: str) -> bool:
        return (v == "fra1") == (p == "cedar") or (1060 < at < 1092 and v == "fra1")

    net = Internet(networks=40, cut=cut, vantages=("fra1", "iad1")).run(120)
    assert net.health.changes == 0


def test_a_blackout_is_found_while_another_vantage_is_cut_off() -> None:
    def cut(at: float, i: int, p: str, v: str) -> bool:
        return at > 1060 and (p == "birch" or v == "iad1")

    net = Internet(networks=60, cut=cut, vantages=("fra1", "iad1")).run(90)
    assert net.health.provider_down("birch", 4)
    assert not net.health.provider_down("alder", 4)


def test_what_a_vantage_kept_while_it_was_cut_off_accuses_nobody() -> None:
    """It comes in one body, losses and the first replies together."""
    net = Internet(networks=40).run(60)
    kept = [
        RttSample(net.now + second + i / 40 + k / 200, "fra1", p, network(i), 4, None if second < 32 else 20.0)
        for second in (1, 6, 11, 16, 21, 26, 31, 36)
        for i in range(40)
        for k, p in enumerate(PROVIDERS)
        if second < 36 or i % 4 == k  # not all have been asked again yet
    ]
    net.take(kept)
    assert net.health.changes == 0


def test_a_path_that_stays_dead_when_its_vantage_comes_back_is_found() -> None:
    def cut(at: float, i: int, p: str, v: str) -> bool:
        return 1060 < at < 1092 or (at > 1060 and i == 3 and p == "birch")

    net = Internet(cut=cut).run(92 + 40)
    assert {i for i, state in net.states("birch").items() if state == "down"} == {3}
    assert set(net.states("alder").values()) == {"up"}


def test_a_catchment_that_moved_to_another_vantage_is_no_failure() -> None:
    """fra1 hears nothing more of network 3 by birch, sin1 does."""
    cut = lambda at, i, p, v: at > 1060 and i == 3 and p == "birch" and v == "fra1"  # noqa: E731
    net = Internet(cut=cut, vantages=("fra1", "sin1")).run(180)
    assert net.states("birch")[3] != "down"


def test_a_blackout_takes_the_provider_down_within_4_seconds_everywhere() -> None:
    net = Internet(networks=100, cut=lambda at, i, p, v: at > 1060 and p == "birch").run(64)
    assert net.health.provider_down("birch", 4)
    assert net.health.provider_down("birch", 6), "a family never probed takes the other's word"
    assert not net.health.provider_down("alder", 4)


def test_half_a_region_is_not_the_provider() -> None:
    net = Internet(networks=60, cut=lambda at, i, p, v: at > 1060 and i % 2 == 0 and p == "birch").run(180)
    assert not net.health.provider_down("birch", 4)
    assert sum(state == "down" for state in net.states("birch").values()) == 30


def test_back_within_30_seconds_of_the_return() -> None:
    net = Internet(networks=40, cut=lambda at, i, p, v: 1060 < at < 1120 and p == "birch").run(60 + 60)
    assert net.health.provider_down("birch", 4)
    net.run(25)
    assert not net.health.provider_down("birch", 4)
    assert set(net.states("birch").values()) == {"up"}


def test_an_outage_leaves_no_loss_in_the_histograms() -> None:
    net = Internet(networks=20, cut=lambda at, i, p, v: 1060 < at < 1120 and i < 5 and p == "birch").run(300)
    assert net.lost_counted() == 0


def test_isolated_losses_count() -> None:
    lost = {(3, "birch"): 0}

    def cut(at: float, i: int, p: str, v: str) -> bool:
        if (i, p) == (3, "birch") and at > 1060 and lost[3, "birch"] < 2:
            lost[3, "birch"] += 1
            return True
        return False

    assert Internet(cut=cut).run(120).lost_counted() == 2


def test_who_flaps_stays_out_longer() -> None:
    net = Internet(cut=lambda at, i, p, v: at > 1060 and i == 3 and p == "birch" and at % 60 > 20)
    net.run(300)
    out = [net.health.state(network(3), "birch", 4) == "down"]
    for _ in range(36):
        net.run(5)
        out.append(net.health.state(network(3), "birch", 4) == "down")
    assert np.mean(out) > 0.8, "down for two thirds of each minute, held for the rest"


def test_a_loss_wants_a_burst_and_a_sibling_once() -> None:
    health = Health()
    health.observe([RttSample(1000.0 + k, "fra1", p, network(0), 4, 20.0) for k, p in enumerate(PROVIDERS)])
    health.observe([RttSample(1010.0, "fra1", "birch", network(0), 4, None)])
    wants = health.wants(1010.5)
    assert [(w.provider, w.probes) for w in wants] == [("birch", 4), ("cedar", 1)]
    assert {w.network for w in wants} == {network(0)}
    assert health.wants(1010.6) == []


def test_loss_where_nothing_was_heard_before_says_nothing() -> None:
    health = Health()
    health.observe([RttSample(1000.0 + k, "fra1", "birch", network(0), 4, None) for k in range(20)])
    assert health.state(network(0), "birch", 4) == "up"
    assert health.wants(1020.0) == []


def test_what_is_not_probed_for_hours_is_forgotten() -> None:
    health = Health()
    health.observe([RttSample(1000.0, "fra1", p, network(i), 4, 20.0) for p in PROVIDERS for i in range(4)])
    health.observe([RttSample(1000.0 + 3 * 3600, "fra1", p, network(2), 4, 20.0) for p in PROVIDERS])
    assert len(health.to_sections()["codes"]) == 12
    lost = [RttSample(1000.0 + 7 * 3600 + 0.2 * k, "fra1", "birch", network(5), 4, None) for k in range(3)]
    health.observe([RttSample(1000.0 + 7 * 3600, "fra1", "birch", network(5), 4, 20.0), *lost])
    sections = health.to_sections()
    assert (len(sections["codes"]), len(sections["keys"])) == (4, 2)
    assert health.state(network(5), "birch", 4) == "suspect"
    assert health.state(network(2), "birch", 4) == health.state(network(0), "birch", 4) == "up"


def test_order_in_a_batch_does_not_matter() -> None:
    samples = [
        RttSample(1000.0 + t, "fra1", p, network(i), 4, None if t > 20 and p == "birch" and i == 1 else 20.0)
        for t in range(40) for p in PROVIDERS for i in range(4)
    ]  # fmt: skip
    forth, back = Health(), Health()
    forth.observe(samples)
    back.observe(samples[::-1])
    assert forth.state(network(1), "birch", 4) == "down"
    same = {name: np.array_equal(a, back.to_sections()[name]) for name, a in forth.to_sections().items()}
    assert all(same.values()), same


@pytest.mark.parametrize("at", [1066.0, 1125.0])
def test_a_restart_goes_on_as_if_it_had_not_happened(at: float) -> None:
    cut = lambda at, i, p, v: 1060 < at < 1120 and i < 5 and p == "birch"  # noqa: E731
    straight = Internet(cut=cut).run(200)
    before = Internet(cut=cut).run(at - 1000)
    after = Internet(cut=cut, health=Health.from_sections(before.health.to_sections()))
    after.now = before.now
    after.run(1200 - at)
    assert {k: v.tolist() for k, v in after.health.to_sections().items()} == {
        k: v.tolist() for k, v in straight.health.to_sections().items()
    }


def test_damaged_state_is_refused() -> None:
    with pytest.raises(SourceError):
        Health.from_sections({})
