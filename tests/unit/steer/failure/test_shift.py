"""RTT shifts: what the serving CUSUM tells, on made series and on the traces that people labelled."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from edgedns.cli.replay import replay
from edgedns.errors import SourceError
from edgedns.model import NetworkKey
from edgedns.steer.failure.health import Health
from edgedns.steer.failure.shift import LEVEL, follow
from edgedns.steer.replay.labelled import Series, alarms, found, parse_labelled
from edgedns.steer.table.batch import Batch
from edgedns.steer.table.rows import pack, rows_of

TRACES = Path(__file__).parents[3] / "data" / "rtt" / "dev_rtt_traces_labelled.csv.gz"
HEADER = "probe,idx,rtt_ms,change_label\n"


def series(*parts: tuple[float, int], noise: float = 0.5, seed: int = 1) -> Series:
    """Parts of (level in ms, samples); every part but the first begins with a label."""
    rng = np.random.default_rng(seed)
    rtt = np.concatenate([level + rng.normal(0, noise, n) for level, n in parts])
    labelled = np.zeros(len(rtt), dtype=bool)
    labelled[np.cumsum([n for _, n in parts])[:-1]] = True
    return Series(rtt, labelled)


class TestDetector:
    @pytest.mark.parametrize("step", [12.0, -12.0, 80.0, -30.0])
    def test_a_step_is_told_once_and_within_five_samples(self, step: float) -> None:
        told = alarms([series((100.0, 100), (100.0 + step, 100))])[0]
        assert len(told) == 1
        assert 100 <= told[0] < 105

    def test_the_size_of_a_shift_is_told(self) -> None:
        levels = np.zeros(1, dtype=LEVEL)
        for rtt in (50.0,) * 20 + (90.0,) * 4:
            levels, jump = follow(levels, np.array([rtt]))
            if jump[0]:
                break
        assert jump[0] == pytest.approx(40.0, abs=2.0)

    def test_small_changes_are_followed_without_a_word(self) -> None:
        assert not len(alarms([series((50.0, 200), (55.0, 200), (50.0, 200))])[0])

    def test_single_outliers_are_no_shift(self) -> None:
        trace = series((50.0, 500))
        trace.rtt[50::50] = 300.0
        assert not len(alarms([trace])[0])

    def test_a_noisy_path_needs_more(self) -> None:
        assert len(alarms([series((100.0, 1000), noise=15.0)])[0]) <= 2

    def test_losses_say_nothing(self) -> None:
        trace = series((50.0, 100))
        trace.rtt[10:60] = np.nan
        assert not len(alarms([trace])[0])


def test_the_detector_that_is_scored_is_the_one_that_serves() -> None:
    """Where `--shifts` has alarms upwards, samples that go through Health, as served ones do, leave their mark."""
    trace = series((50.0, 150), (80.0, 150), (45.0, 150), (95.0, 150), (101.0, 150), (140.0, 150))
    key, health, worse = rows_of([NetworkKey(64500, "DE", 4, 1)]), Health(), []
    for i, rtt in enumerate(trace.rtt):
        zero = np.zeros(1, dtype=np.int64)
        at = 1000.0 + 10.0 * i
        health.observe(Batch(key, ("alder",), ("fra1",), zero, zero, zero, zero + 4, np.array([rtt]), np.array([at])))
        if not np.isnan(health.slower(pack(key), ["alder"], 4, at)[0, 0]):
            worse.append(i)
    told = alarms([trace])[0]
    assert worse == [i for i in told if trace.rtt[i] > trace.rtt[i - 20]]
    assert [i // 150 for i in worse] == [1, 3, 5]
    assert [i // 150 for i in told] == [1, 2, 3, 5]


class TestScore:
    def test_found_and_strays_are_counted_apart(self) -> None:
        labelled, bare = series((50.0, 100), (90.0, 100)), series((50.0, 100), (90.0, 100), seed=2)
        bare.labelled[:] = False
        result = found([labelled, bare, series((50.0, 100), (53.0, 100))], 864.0)
        assert (result.shifts, result.found, result.alarms, result.unlabelled) == (1, 1, 2, 1)
        assert result.days == pytest.approx(6.0)
        assert result.unlabelled_per_day == pytest.approx(1 / 6)

    def test_the_real_traces(self) -> None:
        with gzip.open(TRACES, "rt") as lines:
            traces, rejected = parse_labelled(lines)
        assert not rejected
        assert sum(len(trace.rtt) for trace in traces) == 408_087
        assert sum(int(trace.labelled.sum()) for trace in traces) == 1047
        result = found(traces, 240.0)
        assert result.recall >= 0.80
        assert result.unlabelled_per_day <= 0.5


class TestFiles:
    @pytest.mark.parametrize(
        ("line", "error"),
        [
            ("1,2,3", "3 columns, the header has 4"),
            ("1,x,3,0", "idx 'x' is not a whole number"),
            ("1,2,fast,0", "rtt_ms 'fast' is not a number"),
            ("1,2,10001,0", "rtt_ms '10001' is over 10000 ms"),
            ("1,2,nan,0", "rtt_ms 'nan' is over 10000 ms"),
            ("1,2,3,yes", "change_label 'yes' is neither 0 nor 1"),
        ],
    )
    def test_a_bad_line_is_named_and_skipped(self, line: str, error: str) -> None:
        traces, rejected = parse_labelled([HEADER, "1,0,20,0\n", f"{line}\n", "1,1,lost,0\n", "1,2,-1,0\n"])
        assert rejected == [(3, error)]
        assert np.isnan(traces[0].rtt).tolist() == [False, True, True]

    def test_a_file_of_another_kind_is_refused(self) -> None:
        with pytest.raises(SourceError, match="header lacks probe, idx, change_label"):
            parse_labelled(["slot,asn,provider,rtt_ms\n"])
        with pytest.raises(SourceError, match="no usable"):
            parse_labelled([HEADER, "a,b,c,d\n"])

    def test_the_command(self, tmp_path: Path) -> None:
        file = tmp_path / "traces.csv"
        rtts = [20.0] * 50 + [60.0] * 50
        file.write_text(HEADER + "".join(f"a,{i},{rtt},{int(i == 50)}\n" for i, rtt in enumerate(rtts)) + "bad\n")
        told = CliRunner().invoke(replay, [str(file), "--shifts", "--json"])
        assert told.exit_code == 0
        assert f"{file}:102: skipped" in told.stderr
        answer = json.loads(told.stdout)
        assert (answer["recall"], answer["unlabelled_per_day"], answer["rejected"], answer["rows"]) == (1.0, 0.0, 1, 100)
        assert "found within 5 samples" in CliRunner().invoke(replay, [str(file), "--shifts"]).stdout
