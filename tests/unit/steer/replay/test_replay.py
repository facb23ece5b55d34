"""Replay: files in, the score out, and what it is on real round-trip times (tests/data/rtt/README.md)."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from edgedns.cli.replay import replay
from edgedns.errors import SourceError
from edgedns.model import NetworkKey
from edgedns.steer.replay.play import Plan, Schedule, play
from edgedns.steer.replay.score import Score, score
from edgedns.steer.replay.trace import Rejected, Trace, parse
from edgedns.steer.table.rows import key_of

DATA = Path(__file__).parents[3] / "data" / "rtt"
PLANETLAB = DATA / "dev_planetlab_ipa.csv.gz"


@pytest.fixture(scope="module")
def planetlab() -> Trace:
    with gzip.open(PLANETLAB, "rt") as lines:
        trace, rejected = parse(lines)
    assert not rejected
    return trace


def percent(trace: Trace, first: int | None = None, **plan: Any) -> tuple[float, Score]:
    result = score(play(trace, Plan(**plan)), first)
    assert result.gap_captured is not None
    return 100 * result.gap_captured, result


class TestPlanetLab:
    def test_everything_probed(self, planetlab: Trace) -> None:
        gap, result = percent(planetlab)
        assert gap >= 96.5
        assert result.answers.p95_ms <= 49.0
        assert result.switches_per_100 <= 0.5
        assert result.share_worse_5ms <= 0.01
        assert result.rows == 17 * 394

    def test_the_baselines_are_the_files_own(self, planetlab: Trace) -> None:
        result = percent(planetlab)[1]
        assert result.best_single == "p4"
        assert result.baselines["best_single"].mean_ms == pytest.approx(41.92, abs=0.01)
        assert result.baselines["oracle"].mean_ms == pytest.approx(14.15, abs=0.01)

    @pytest.mark.parametrize("seed", [0, 1])
    def test_a_quarter_of_the_arms_by_dice(self, planetlab: Trace, seed: int) -> None:
        gap, result = percent(planetlab, budget=0.25, seed=seed)
        assert gap >= 83.0
        assert result.switches_per_100 <= 6.0

    def test_a_quarter_of_the_arms_by_the_engines_schedule(self, planetlab: Trace) -> None:
        played = play(planetlab, Plan(budget=0.25, schedule="engine"))
        whole, late = score(played), score(played, 6)
        assert (whole.gap_captured or 0.0) >= 0.89
        assert (late.gap_captured or 0.0) >= 0.95
        assert late.switches_per_100 <= 1.0

    def test_objectives_differ(self, planetlab: Trace) -> None:
        literal, by_rtt = percent(planetlab, objective="median")[0], percent(planetlab, objective="rtt")[0]
        assert literal < 65.0
        assert by_rtt >= 96.5

    def test_belief_is_in_order(self, planetlab: Trace) -> None:
        realised = [part["realised"] for part in percent(planetlab)[1].calibration]
        assert realised == sorted(realised)
        assert realised[-1] > 0.4


class TestFiles:
    def read(self, text: str) -> tuple[Trace, list[Rejected]]:
        return parse(text.splitlines(keepends=True))

    def test_every_column(self) -> None:
        text = (
            "at,asn,country,prefix,vantage,provider,rtt_ms\n"
            "1000.5,AS64500,de,192.0.2.0/24,v1,alder,12.5\n1001,64500,DE,2001:db8::/48,v1,alder,lost\n1002,64501,,,,birch,\n"
        )
        trace, rejected = self.read(text)
        assert rejected == []
        assert [key_of(row) for row in trace.batch.rows] == [
            NetworkKey(64500, "DE", 4, 0xC000), NetworkKey(64500, "DE", 6, 0x20010DB8), NetworkKey(64501),
        ]  # fmt: skip
        assert trace.batch.family.tolist() == [4, 6, 4]
        assert trace.batch.lost.tolist() == [False, True, True]
        assert trace.slot_seconds == 10.0

    def test_times_may_be_written_as_dates(self) -> None:
        text = (
            "at,asn,provider,rtt_ms\n2026-11-23T10:00:00Z,64500,alder,5\n2026-11-23 10:00:01.5,64500,alder,5\n"
            "2026-11-23T12:00:02+02:00,64500,alder,5\n1795428003,64500,alder,5\n2026-13-01,64500,alder,5\n"
        )
        trace, rejected = self.read(text)
        assert trace.batch.at.tolist() == [1795428000, 1795428001.5, 1795428002, 1795428003]
        assert [error for _, error in rejected] == ["at '2026-13-01' is no time"]

    def test_more_providers_than_are_served_are_refused(self) -> None:
        lines = "".join(f"1,64500,p{p},5\n" for p in range(257))
        with pytest.raises(SourceError, match="257 providers, at most 256"):
            self.read("slot,asn,provider,rtt_ms\n" + lines)

    def test_a_slot_is_the_files_own_probing_interval(self) -> None:
        lines = "".join(f"{t},64500,alder,10\n{t + 7},64500,birch,10\n" for t in range(0, 2400, 240))
        trace, _ = self.read("at,asn,provider,rtt_ms\n" + lines)
        assert trace.slot_seconds == 240.0
        assert len(trace.slots) == 10

    @pytest.mark.parametrize(
        ("line", "error"),
        [
            ("1,64500,alder", "3 columns, the header has 4"),
            ("x,64500,alder,1", "slot 'x' is not a number"),
            ("1.5,64500,alder,1", "slot '1.5' is not a whole number"),
            ("nan,64500,alder,1", "slot 'nan' is out of range"),
            ("1,0,alder,1", "asn '0' is not an AS number"),
            ("1,4294967296,alder,1", "asn '4294967296' is not an AS number"),
            ("1,64500,,1", "no provider"),
            ("1,64500,alder,-1", "rtt_ms '-1' is out of range"),
            ("1,64500,alder,0", "rtt_ms '0' is not between 0 and 10000 ms"),
            ("1,64500,alder,10001", "rtt_ms '10001' is not between 0 and 10000 ms"),
            ("1,64500,alder,fast", "rtt_ms 'fast' is not a number"),
            ("1,64500,alder,inf", "rtt_ms 'inf' is out of range"),
            ("1,64500,alder," + 99 * "9", "rtt_ms '" + 40 * "9" + "...' is out of range"),
            ("1,64500,alder," + 200_000 * "9", "no CSV: field larger than field limit (131072)"),
        ],
    )
    def test_a_bad_line_is_named_and_skipped(self, line: str, error: str) -> None:
        trace, rejected = self.read(f"slot,asn,provider,rtt_ms\n1,64500,alder,5\n{line}\n2,64500,alder,6\n")
        assert rejected == [(3, error)]
        assert len(trace.batch) == 2

    def test_a_prefix_shorter_than_a_network_keeps_its_family(self) -> None:
        trace, _ = self.read("slot,asn,prefix,provider,rtt_ms\n1,64500,2001:db8::/29,alder,5\n1,64500,198.0.0.0/8,alder,5\n")
        assert [key_of(row) for row in trace.batch.rows] == [
            NetworkKey(64500, "", 6, 0x20010DB8), NetworkKey(64500, "", 4, 0xC600),
        ]  # fmt: skip
        assert trace.batch.family.tolist() == [6, 4]

    def test_the_order_of_lines_and_unknown_columns_do_not_matter(self) -> None:
        lines = [f'{s},"x,{s}",64500,v{v},p{p},{10 + 9 * p + v}\n' for s in range(4) for v in range(3) for p in range(3)]
        header = "slot,note,client_asn,vantage,provider,rtt_ms\n"
        one, other = (score(play(parse([header, *each])[0], Plan())).to_json() for each in (lines, lines[::-1]))
        assert json.dumps(one) == json.dumps(other)

    def test_a_unit_seen_now_and_then_is_compared_with_its_last_answer(self) -> None:
        """Each network is probed in every other slot only; alder is best at first, then birch."""
        lines = [
            f"{s},{64500 + s % 2},{p},{10 if (p == 'alder') == (s < 20) else 90}\n"
            for s in range(60)
            for p in ("alder", "birch")
        ]
        trace, _ = self.read("slot,asn,provider,rtt_ms\n" + "".join(lines))
        assert score(play(trace, Plan())).switches_per_100 == pytest.approx(100 * 2 / 57)

    @pytest.mark.parametrize(
        ("text", "error"),
        [
            ("", "header lacks"),
            ("a,b\n", r"header lacks asn, provider, rtt_ms, slot \(or at\)"),
            ("slot,asn,provider,rtt_ms\n", "no usable"),
            ("slot,asn,provider,rtt_ms,rtt_ms\n", "rtt_ms twice"),
        ],
    )
    def test_a_file_without_samples_is_refused(self, text: str, error: str) -> None:
        with pytest.raises(SourceError, match=error):
            self.read(text)


def made_world(
    seed: int = 7, asns: int = 8, countries: Sequence[str] = ("DE", "FR", "US", "JP"), vantages: int = 3, space: str = "v4"
) -> list[str]:
    """Which provider is best goes by country and prefix, hardly by ASN: truth for the hierarchy. One slot, as surveys are."""
    rng = np.random.default_rng(seed)
    by_country = {c: rng.uniform(20, 80, 4) for c in countries}
    lines = []
    for asn in range(64500, 64500 + asns):
        for c in countries:
            for block in range(2):
                site = by_country[c] * rng.uniform(0.7, 1.3, 4)
                for v in range(vantages):
                    v4, v6 = f"{100 + block}.{asn - 64500}.{countries.index(c)}.0/24", f"2001:{0xDB8 + block:x}:{asn:x}::/48"
                    prefix = v6 if space == "v6" else v4
                    for p in range(4):
                        rtt = site[p] * rng.uniform(0.97, 1.03) + 2
                        lines.append(f"1,{asn},{c},{prefix},{asn}{c}{block}{v},p{p},{rtt:.3f}\n")
    return lines


class TestLeftOutVantages:
    def played(self, columns: set[str], lines: list[str]) -> float:
        header = "slot,asn,country,prefix,vantage,provider,rtt_ms\n"
        flat = [",".join("" if name in columns else part for name, part in zip(header.split(","), line.split(","), strict=True))
                for line in lines]  # fmt: skip
        trace, rejected = parse([header, *flat])
        assert not rejected
        gap = score(play(trace, Plan(leave_out_vantage=True))).gap_captured
        assert gap is not None
        return gap

    @pytest.mark.parametrize(("seed", "space"), [(7, "v4"), (8, "v6"), (9, "v4"), (10, "v6")])
    def test_the_hierarchy_beats_the_flat_asn(self, seed: int, space: str) -> None:
        lines = made_world(seed, asns=5, space=space)
        flat, country, prefix = (self.played(left, lines) for left in ({"country", "prefix"}, {"prefix"}, set[str]()))
        assert flat + 0.2 < country < prefix
        assert prefix > 0.9

    def test_an_asn_abroad_says_less_than_the_country(self) -> None:
        """RTTs go by country; ASNs span three, and in each place a user is the only one of its ASN."""
        rng = np.random.default_rng(4)
        where = {c: rng.permutation(4) for c in ("DE", "FR", "US", "JP", "BR")}
        lines = [
            f"1,{64500 + a},{c},u{a}{c},p{p},{20 + 15 * rank[p] + rng.uniform(0, 5):.2f}\n"
            for a in range(40) for c, rank in where.items() if (a + ord(c[0])) % 5 < 3 for p in range(4)
        ]  # fmt: skip
        trace, _ = parse(["slot,asn,country,vantage,provider,rtt_ms\n", *lines])
        assert (score(play(trace, Plan(leave_out_vantage=True))).gap_captured or 0.0) > 0.95

    @pytest.mark.parametrize("schedule", ["random", "engine"])
    def test_a_probe_budget_holds_there_too(self, schedule: Schedule) -> None:
        lines = [f"{slot}{line[1:]}" for slot in range(4) for line in made_world(asns=2, vantages=2)]
        trace, _ = parse(["slot,asn,country,prefix,vantage,provider,rtt_ms\n", *lines])
        none, half, all_of_it = (
            score(play(trace, Plan(leave_out_vantage=True, budget=budget, schedule=schedule))).gap_captured or 0.0
            for budget in (0.0, 0.5, 1.0)
        )
        assert none < 0.5 < half < all_of_it

    def test_a_vantage_alone_in_the_world_gets_nominal(self) -> None:
        trace, _ = parse(["slot,asn,vantage,provider,rtt_ms\n", *(f"1,64500,v,p{p},{50 - 10 * p}\n" for p in range(3))])
        assert play(trace, Plan(leave_out_vantage=True)).chosen.tolist() == [0]

    def test_later_slots_are_decided_from_earlier_ones_only(self) -> None:
        lines = [f"{s},64500,v{v},p{p},{10 + 30 * (p != (s > 1))}\n" for s in (1, 2) for v in range(3) for p in range(2)]
        trace, _ = parse(["slot,asn,vantage,provider,rtt_ms\n", *lines])
        assert play(trace, Plan(leave_out_vantage=True)).chosen.tolist() == [0] * 6


class TestCommand:
    def test_json_has_the_keys_that_scripts_read(self) -> None:
        result = CliRunner().invoke(replay, [str(PLANETLAB), "--json"])
        assert result.exit_code == 0
        told = json.loads(result.stdout)
        keys = {"gap_captured", "mean_ms", "p50_ms", "p95_ms", "p99_ms", "switches_per_100", "baselines", "rows", "rejected"}
        assert keys | {"share_worse_5ms", "share_better_5ms"} <= set(told)
        assert 0 < told["gap_captured"] < 1
        assert told["rejected"] == 0

    def test_bad_lines_are_named_and_good_ones_counted(self, tmp_path: Path) -> None:
        file = tmp_path / "history.csv"
        good = "".join(f"{s},64500,alder,20\n{s},64500,birch,30\n" for s in range(4))
        file.write_text("slot,asn,provider,rtt_ms\n" + good + "9,64500,alder,fast\n")
        result = CliRunner().invoke(replay, [str(file)])
        assert result.exit_code == 0
        assert f"{file}:10: skipped: rtt_ms 'fast' is not a number" in result.stderr
        assert "lines skipped 1" in result.stdout

    def test_a_byte_order_mark_carriage_returns_and_foreign_letters_are_read(self, tmp_path: Path) -> None:
        file = tmp_path / "history.csv"
        good = "".join(f'{s},64500,M\xfcnchen,"alder",20\r\n{s},64500,,"birch",30\r\n' for s in range(4))
        file.write_bytes(b"\xef\xbb\xbf" + ("slot,asn,vantage,provider,rtt_ms\r\n" + good).encode("latin-1"))
        result = CliRunner().invoke(replay, [str(file), "--json"])
        assert result.exit_code == 0, result.stderr
        assert json.loads(result.stdout)["rejected"] == 0

    @pytest.mark.parametrize("options", [[], ["--probe-budget", "0.5", "--schedule", "engine"], ["--leave-out", "vantage"]])
    def test_where_nothing_came_back_there_is_no_gap(self, tmp_path: Path, options: list[str]) -> None:
        file = tmp_path / "history.csv"
        lines = [f"{s},64500,v{v},{p},lost\n" for s in range(4) for v in range(2) for p in ("alder", "birch")]
        file.write_text("slot,asn,vantage,provider,rtt_ms\n" + "".join(lines))
        result = CliRunner().invoke(replay, [str(file), "--json", *options])
        assert result.exit_code == 0, result.stderr
        told = json.loads(result.stdout, parse_constant=pytest.fail)
        assert (told["gap_captured"], told["mean_ms"]) == (None, 1000.0)

    def test_a_file_that_was_cut_off_is_refused(self, tmp_path: Path) -> None:
        file = tmp_path / "history.csv.gz"
        file.write_bytes(PLANETLAB.read_bytes()[:200_000])
        result = CliRunner().invoke(replay, [str(file)])
        assert result.exit_code == 2
        assert "can't be read: Compressed file ended" in result.stderr

    @pytest.mark.parametrize("content", [b"", b"\x1f\x8b broken", b"\xff\xfe\n1"])
    def test_what_is_no_history_is_refused_in_one_sentence(self, tmp_path: Path, content: bytes) -> None:
        file = tmp_path / "history.csv.gz"
        file.write_bytes(content)
        result = CliRunner().invoke(replay, [str(file)])
        assert result.exit_code == 2
        assert result.stderr.startswith(f"error: {file}: ")
        assert len(result.stderr.splitlines()) == 1

    def test_a_plot_is_drawn(self, tmp_path: Path) -> None:
        for name, begins in (("out.png", b"\x89PNG"), ("out.svg", b"<?xml")):
            result = CliRunner().invoke(replay, [str(PLANETLAB), "--plot", str(tmp_path / name)])
            assert result.exit_code == 0, result.output
            assert (tmp_path / name).read_bytes().startswith(begins)

    def test_a_plot_that_can_not_be_written_is_told(self, tmp_path: Path) -> None:
        for name in ("out.xyz", "nowhere/out.png"):
            result = CliRunner().invoke(replay, [str(PLANETLAB), "--plot", str(tmp_path / name)])
            assert result.exit_code == 2
            assert "the picture can't be written" in result.stderr

    def test_without_matplotlib_the_extra_is_named(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("edgedns.pictures.find_spec", lambda name: None)
        result = CliRunner().invoke(replay, [str(PLANETLAB), "--plot", str(tmp_path / "out.png")])
        assert result.exit_code == 2
        assert "pip install 'edgedns[plot]'" in result.stderr

    def test_leaving_vantages_out_needs_vantages(self) -> None:
        result = CliRunner().invoke(replay, [str(PLANETLAB), "--leave-out", "vantage"])
        assert result.exit_code == 2
        assert "needs a column `vantage`" in result.stderr


RULES = """
version: 1
zone: cdn.example.net
soa: {mname: ns1.cdn.example.net, rname: noc.example.net, minimum: 60s}
ns: [ns1]
providers:
  alder: {v4: [192.0.2.10]}
  birch: {v4: [198.51.100.10]}
  cedar: {v4: [203.0.113.10]}
records:
  www:
    rules:
      - {name: two, match: {asn: 64500}, wan: {among: [alder, birch], nominal: [birch, alder], min_samples: 1}}
      - {name: everyone-else, wan: {among: all, nominal: [alder, birch, cedar], margin: {percent: 80}, min_samples: 1}}
static:
  - "ns1 A 192.0.2.53"
"""


class TestFailure:
    @pytest.mark.parametrize("column", ["slot", "at"])
    def test_a_path_that_falls_silent_is_left_however_far_apart_its_samples_are(self, column: str) -> None:
        """Alder is best, and dead from slot 20 on; there are six minutes between slots, or nobody says how many."""
        lines = [
            f"{s if column == 'slot' else 360 * s},{64500 + n},{p},{'lost' if p == 'alder' and s >= 20 and not n else rtt}\n"
            for s in range(60) for n in range(3) for p, rtt in (("alder", 20), ("birch", 30), ("cedar", 60))
        ]  # fmt: skip
        trace, _ = parse([f"{column},asn,provider,rtt_ms\n", *lines])
        played = play(trace, Plan())
        given = [played.providers[chosen] for chosen in played.chosen[played.unit == 0]]
        assert given[2:20] == ["alder"] * 18
        assert given[26:] == ["birch"] * 34


class TestRules:
    @pytest.fixture
    def files(self, tmp_path: Path) -> Path:
        (tmp_path / "zone.yaml").write_text(RULES)
        rtts = {"alder": 30, "birch": 40, "cedar": 20}
        lines = [f"{s},64500,{p},{rtt}\n" for s in range(6) for p, rtt in rtts.items()]
        (tmp_path / "history.csv").write_text("slot,asn,provider,rtt_ms\n" + "".join(lines))
        return tmp_path

    def told(self, files: Path, *options: str) -> Any:
        result = CliRunner().invoke(replay, [str(files / "history.csv"), "--rules", str(files), "--json", *options])
        return json.loads(result.stdout)["mean_ms"] if result.exit_code == 0 else result.stderr

    def test_a_rules_own_terms_are_judged(self, files: Path) -> None:
        assert self.told(files, "--rule", "two") == pytest.approx(30.0)
        assert self.told(files, "--rule", "everyone-else") == pytest.approx(30.0), "80 % is more than cedar saves"

    def test_which_rule_must_be_clear(self, files: Path) -> None:
        assert "which rule" in self.told(files)
        assert "two (of www), everyone-else (of www)" in self.told(files)
        assert "has no `wan` rule named 'three'" in self.told(files, "--rule", "three")

    def test_samples_must_be_of_its_providers(self, files: Path) -> None:
        (files / "history.csv").write_text("slot,asn,provider,rtt_ms\n1,64500,p0,20\n")
        assert "the samples are of p0" in self.told(files, "--rule", "two")

    def test_wrong_rules_are_told(self, files: Path) -> None:
        (files / "zone.yaml").write_text("version: 1\nzoone: x\n")
        assert "zoone" in self.told(files)
