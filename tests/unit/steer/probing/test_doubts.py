"""What the detector wants looked into: from which vantage, how often, and each thing once."""

from __future__ import annotations

from collections.abc import Iterable

from edgedns.model import NetworkKey, RttSample
from edgedns.steer.failure.health import Health
from edgedns.steer.probing.doubts import BURST, MOST, OTHER_VANTAGES, RISE, RISE_GAP, SUSPECTED_EVERY, Want

PROVIDERS, VANTAGES = ("alder", "birch", "cedar"), ("fra1", "iad1", "lhr1", "nrt1", "sin1")
NETWORK = NetworkKey(64500, "DE", 4, 0x0A00)
NOW = 2000.0


def sample(at: float, vantage: str, provider: str, rtt: float | None, network: NetworkKey = NETWORK) -> RttSample:
    return RttSample(at, vantage, provider, network, 4, rtt)


def known(vantages: Iterable[str] = VANTAGES, rounds: int = 20) -> Health:
    """Each of these heard every arm of the network, 10 s apart until NOW, at 20 ms; nothing is wanted."""
    health = Health()
    times = [NOW - 10.0 * (rounds - k) for k in range(rounds)]
    for at in times:
        health.observe([sample(at, vantage, provider, 20.0) for vantage in vantages for provider in PROVIDERS])
    assert health.wants(NOW) == []
    return health


def brief(wants: list[Want]) -> set[tuple[str, str, int]]:
    return {(want.vantage, want.provider, want.probes) for want in wants}


def test_a_loss_is_looked_into_from_other_vantages_too_with_a_witness_each() -> None:
    health = known(("fra1", "iad1"))
    health.observe([sample(NOW, "fra1", "birch", None)])
    wants = health.wants(NOW + 1.0)
    arm = {want for want in wants if want.provider == "birch"}
    assert brief(list(arm)) == {("fra1", "birch", BURST), ("iad1", "birch", BURST + 1)}
    witnesses = [want for want in wants if want.provider != "birch"]
    assert {(want.vantage, want.probes) for want in witnesses} == {("fra1", 1), ("iad1", 2)}
    assert health.wants(NOW + 1.1) == [], "once"


def test_of_many_vantages_a_few() -> None:
    health = known()
    health.observe([sample(NOW, "fra1", "birch", None)])
    others = {want.vantage for want in health.wants(NOW + 1.0) if want.provider == "birch"} - {"fra1"}
    assert len(others) == OTHER_VANTAGES


def test_whoever_never_heard_that_arm_is_not_asked() -> None:
    health = known(("fra1",))
    health.observe([sample(NOW - 10.0, "iad1", provider, 20.0) for provider in ("alder", "cedar")])
    health.observe([sample(NOW, "fra1", "birch", None)])
    assert {want.vantage for want in health.wants(NOW + 1.0)} == {"fra1"}


def test_who_was_asked_looks_into_its_own_loss_no_second_time() -> None:
    health = known(("fra1", "iad1"))
    health.observe([sample(NOW, "fra1", "birch", None)])
    health.wants(NOW + 1.0)
    health.observe([sample(NOW + 1.2, "iad1", "birch", 20.0)])
    assert health.wants(NOW + 2.0) == []


def test_one_round_trip_far_above_the_level_is_looked_into_before_it_is_believed() -> None:
    health = known(("fra1",))
    health.observe([sample(NOW, "fra1", "birch", 100.0)])
    wants = health.wants(NOW + 0.5)
    assert [(want.provider, want.probes, want.gap) for want in wants][:1] == [("birch", RISE, RISE_GAP)]
    assert wants[1].provider != "birch", "and a witness, heard after them"
    assert wants[1].gap * (wants[1].probes - 1) >= RISE_GAP * (RISE - 1)
    health.observe([sample(NOW + 1.0, "fra1", "birch", 100.0)])
    assert health.wants(NOW + 1.5) == []


def test_noise_is_not_and_an_outlier_is_once_in_a_while() -> None:
    health = known(("fra1",))
    health.observe([sample(NOW, "fra1", "birch", 22.5)])
    assert health.wants(NOW + 0.5) == []
    asked = 0
    for k in range(1, 7):
        health.observe([sample(NOW + 10.0 * k, "fra1", "birch", 100.0 if k % 2 else 20.0)])
        asked += bool([want for want in health.wants(NOW + 10.0 * k + 0.5) if want.probes == RISE])
    assert 1 <= asked <= 60.0 / SUSPECTED_EVERY + 1


def test_a_flood_of_doubts_is_bounded_and_comes_in_turn() -> None:
    health = Health()
    networks = [NetworkKey(64500 + k, "DE", 4, 0x0A00 + k) for k in range(MOST + 20)]
    for at in (NOW - 20.0, NOW - 10.0):
        health.observe([sample(at, "fra1", provider, 20.0, network) for network in networks for provider in PROVIDERS])
    health.observe([sample(NOW, "fra1", "birch", 100.0, network) for network in networks])
    first, second = health.wants(NOW + 1.0), health.wants(NOW + 1.1)
    asked = [{want.network for want in wants if want.probes == RISE} for wants in (first, second)]
    assert (len(asked[0]), len(asked[1]), len(asked[0] & asked[1])) == (MOST, 20, 0)
