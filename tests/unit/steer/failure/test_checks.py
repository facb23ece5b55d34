"""Thresholds of checks, IPv4 and IPv6 apart, and what decide() makes of who fails."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Literal

import pytest

from edgedns.model import Action, AllDown, Check, Failover, Family, NetworkKey, Pin, Provider, Reason, State, Wan, Weighted
from edgedns.steer.deciding.decisions import Column, Ranking
from edgedns.steer.deciding.policy import decide
from edgedns.steer.failure.checks import Checks, Target, targets_of
from edgedns.steer.failure.health import Health
from edgedns.steer.table.rtt import RttStore
from edgedns.steer.table.wan import estimate

CHECK = Check("tcp", port=80, down_after=3, up_after=2)
V4, SECOND, V6 = bytes((192, 0, 2, 1)), bytes((192, 0, 2, 2)), bytes.fromhex("20010db8000000000000000000000001")
ALDER = Provider("alder", (V4, SECOND), (V6,), check=CHECK)
BIRCH = Provider("birch", (bytes((198, 51, 100, 1)),), (bytes(15) + b"\2",))
BOTH = {"alder": ALDER, "birch": BIRCH}
Policy = Literal["fail-open", "nodata", "servfail", "use"]
Failing = tuple[str, Family]
ANYONE = NetworkKey(64500, "DE", 4, 1)


def following(providers: Mapping[str, Provider] | None = None) -> Checks:
    checks = Checks()
    checks.follow(BOTH if providers is None else providers)
    return checks


def feed(checks: Checks, results: str, address: bytes = V4) -> str:
    """One letter a result, + or -; the answer has D and U where the family tipped, else a dot."""
    letters = {None: ".", True: "D", False: "U"}
    changes = [checks.observe(Target("alder", address), each == "+", "said", float(i)) for i, each in enumerate(results)]
    return "".join(letters[change and change.down] for change in changes)


class TestThresholds:
    @pytest.mark.parametrize(
        ("results", "expected"),
        [
            ("--", ".."),
            ("---", "..D"),
            ("--+--", "....."),
            ("+-+--+---", "........D"),
            ("---+", "..D."),
            ("---++", "..D.U"),
            ("---+-+", "..D..."),
            ("---+-++", "..D...U"),
            ("------++---", "..D....U..D"),
        ],
    )
    def test_only_results_in_a_row_tip_it(self, results: str, expected: str) -> None:
        assert feed(following(), results) == expected

    def test_the_rule_says_how_many(self) -> None:
        quick = Provider("alder", (V4,), (), check=Check("tcp", port=80, down_after=1, up_after=1))
        assert feed(following({"alder": quick}), "+-+--+") == ".DUD.U"

    def test_families_are_apart_and_any_address_counts(self) -> None:
        checks = following()
        feed(checks, "---", V6)
        assert checks.failing == {("alder", 6)}
        feed(checks, "---", SECOND)
        assert checks.failing == {("alder", 6), ("alder", 4)}
        assert feed(checks, "---", V4) == "...", "the family was down already"
        assert feed(checks, "++", SECOND) == "..", "one of its addresses still is"
        assert feed(checks, "++", V4) == ".U"
        assert checks.failing == {("alder", 6)}

    def test_a_change_says_whom_and_why(self) -> None:
        checks = following()
        feed(checks, "--")
        change = checks.observe(Target("alder", V4), False, "HTTP 500", 9.0)
        assert change is not None
        assert change.text == "check: alder is down over IPv4: 192.0.2.1: HTTP 500"
        feed(checks, "+")
        change = checks.observe(Target("alder", V4), True, "HTTP 200", 9.0)
        assert change is not None
        assert change.text == "check: alder is up again over IPv4: 192.0.2.1: HTTP 200"

    def test_who_is_not_checked_counts_nothing(self) -> None:
        checks = following()
        unknown = (Target("birch", BIRCH.v4[0]), Target("alder", b"\1\2\3\4"), Target("oak", V4))
        assert [checks.observe(target, False, "", 0.0) for target in unknown * 5] == [None] * 15
        assert checks.failing == frozenset()
        assert checks.checked == {("alder", 4), ("alder", 6)}


class TestFollowing:
    def test_rules_that_change_keep_what_stays(self) -> None:
        checks = following()
        feed(checks, "---")
        feed(checks, "---", V6)
        checks.follow({"alder": Provider("alder", (V4,), (), check=CHECK)})
        assert checks.failing == {("alder", 4)}
        checks.follow({"alder": Provider("alder", (V4,), (V6,), check=None)})
        assert checks.failing == frozenset()
        checks.follow(BOTH)
        assert checks.failing == frozenset(), "an address that comes back begins up"

    def test_targets(self) -> None:
        assert targets_of(BOTH) == {Target("alder", address): CHECK for address in (V4, SECOND, V6)}

    def test_a_restart_goes_on(self) -> None:
        through, cut = following(), following()
        feed(through, "--")
        feed(cut, "--")
        again = Checks.from_json(cut.to_json())
        again.follow(BOTH)
        assert feed(again, "-+", V4) == feed(through, "-+", V4) == "D."
        assert again.to_json() == through.to_json()
        assert again.told("alder") == through.told("alder") != []

    @pytest.mark.parametrize("plain", [None, 7, ["x"], [[1]], [["alder", 5, 0, 0, 0, ""]], [["alder", "zz", 0, 0, 0, ""]]])
    def test_broken_state_is_said(self, plain: object) -> None:
        with pytest.raises(ValueError, match=r".+"):
            Checks.from_json(plain)


def decided(
    action: Action, all_down: Policy = "fail-open", failing: Collection[Failing] = (),
    states: Mapping[str, State] | None = None, family: Family = 4, use: str = "",
) -> Ranking:  # fmt: skip
    column = Column(action, family, AllDown(all_down, use))
    args = (BOTH, states or {}, estimate(RttStore()), Health(), None, 0.0, 30.0)
    made = decide([column], *args, failing=frozenset(failing)).columns[column]
    assert made.ranking_for(ANYONE) == made.default == made.nominal, "what workers turn to by themselves says the same"
    return made.default


ALDER4: Failing = ("alder", 4)
BIRCH4: Failing = ("birch", 4)
ALDER6: Failing = ("alder", 6)
NAMES = ("alder", "birch")
WAN, FAILOVER, WEIGHTED = Wan(NAMES, NAMES), Failover(NAMES), Weighted((("alder", 1.0), ("birch", 1.0)))


class TestDeciding:
    @pytest.mark.parametrize("action", [WAN, FAILOVER])
    def test_who_fails_is_out_in_that_family_only(self, action: Action) -> None:
        assert decided(action, failing=[ALDER6]).targets == NAMES
        assert decided(action, failing=[ALDER6], family=6) == Ranking(("birch",), Reason.FAILED_OVER)
        assert decided(action, failing=[ALDER4]) == Ranking(("birch",), Reason.FAILED_OVER)

    def test_weighted_shares_go_to_the_others(self) -> None:
        assert decided(WEIGHTED, failing=[ALDER4]) == Ranking(("birch",), Reason.WEIGHTED)

    @pytest.mark.parametrize("action", [WAN, FAILOVER, WEIGHTED, Pin("alder")])
    @pytest.mark.parametrize("down", ["nodata", "servfail"])
    def test_all_failing_is_what_the_rule_says(self, action: Action, down: Literal["nodata", "servfail"]) -> None:
        assert decided(action, down, [ALDER4, BIRCH4]) == Ranking((), Reason.ALL_DOWN, down=down)
        assert decided(action, down, [ALDER4, BIRCH4], family=6).targets != ()

    @pytest.mark.parametrize("action", [WAN, FAILOVER, Pin("alder")])
    def test_use(self, action: Action) -> None:
        assert decided(action, "use", [ALDER4, BIRCH4], use="birch") == Ranking(("birch",), Reason.ALL_DOWN)

    @pytest.mark.parametrize("action", [WAN, FAILOVER])
    def test_checks_never_take_the_last_one_unless_asked(self, action: Action) -> None:
        """Failing open gives everyone; but who was drained stays out as long as only a check speaks against another."""
        assert decided(action, failing=[ALDER4, BIRCH4]) == Ranking(NAMES, Reason.ALL_DOWN)
        assert decided(action, failing=[BIRCH4], states={"alder": "drain"}) == Ranking(("birch",), Reason.ALL_DOWN)
        assert decided(action, failing=[BIRCH4], states={"alder": "drain", "birch": "down"}).targets == NAMES

    def test_drained_and_failing_together_are_all(self) -> None:
        assert decided(WAN, "nodata", [BIRCH4], {"alder": "drain"}).down == "nodata"
        assert decided(WAN, "nodata", [BIRCH4]).targets == ("alder",)

    def test_a_pin_stays_where_the_rule_fails_open(self) -> None:
        assert decided(Pin("alder"), failing=[ALDER4]) == Ranking(("alder",), Reason.PINNED)
