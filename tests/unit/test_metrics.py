"""Counters in shared memory: totals over workers and deaths, and who counts where."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from edgedns import metrics
from edgedns.metrics import CELLS, FIXED, OVERFLOW, UDP_RECEIVED, Counters, NetworkCounts, Registry
from edgedns.model import Reason


def opened(run: Path, slot: int) -> Counters:
    return Counters(metrics.counters_path(run, slot))


def test_reasons_are_the_models() -> None:
    assert tuple(reason.name for reason in Reason) == metrics.REASONS


def test_totals_sum_over_workers_and_survive_a_restart(tmp_path: Path) -> None:
    opened(tmp_path, 0).cells[UDP_RECEIVED] += 3
    opened(tmp_path, 1).cells[UDP_RECEIVED] += 4
    again = opened(tmp_path, 0)
    again.begin(17, 1000.0)
    again.cells[UDP_RECEIVED] += 1
    assert metrics.read_totals(tmp_path)[UDP_RECEIVED] == 8
    assert metrics.slots(tmp_path) == [0, 1]


@pytest.mark.parametrize("content", [b"", b"foreign", bytes(100)])
def test_foreign_counter_files_are_not_read_and_are_replaced(tmp_path: Path, content: bytes) -> None:
    metrics.counters_path(tmp_path, 0).write_bytes(content)
    opened(tmp_path, 1).cells[0] = 5
    assert metrics.read_head(tmp_path, 0) is None
    assert metrics.read_totals(tmp_path)[0] == 5
    opened(tmp_path, 0).cells[0] = 2
    assert metrics.read_totals(tmp_path)[0] == 7


def test_a_file_of_other_content_and_our_size_is_replaced(tmp_path: Path) -> None:
    path = metrics.counters_path(tmp_path, 0)
    opened(tmp_path, 0)
    path.write_bytes(b"\xff" * path.stat().st_size)
    assert opened(tmp_path, 0).cells[CELLS - 1] == 0


def test_head_tells_who_and_what_is_served(tmp_path: Path) -> None:
    counters = opened(tmp_path, 3)
    counters.begin(4711, 1764000000.5)
    counters.beat(12.25, 99)
    assert metrics.read_head(tmp_path, 3) == metrics.WorkerHead(3, 4711, 1764000000.5, 99, 12.25)


def test_threads_of_one_process_lose_no_count() -> None:
    cells = Counters().cells

    def count() -> None:
        for _ in range(50_000):
            cells[7] += 1

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert cells[7] == 200_000


def test_registry_gives_the_same_cells_to_the_next_process(tmp_path: Path) -> None:
    path = tmp_path / "registry.jsonl"
    first = Registry(path)
    base = first.block("answers", ("example.net", "all", "alder"), 11)
    other = first.block("answers", ("example.net", "all", "birch"), 11)
    assert (base, other) == (FIXED, FIXED + 11)
    assert first.block("answers", ("example.net", "all", "alder"), 11) == base
    second = Registry(path)
    assert second.blocks() == first.blocks()
    assert second.block("answers", ("example.net", "all", "birch"), 11) == other
    assert second.block("responses", ("example.net",), 24) == FIXED + 22


@pytest.mark.parametrize("tail", [b'["answers", ["a"], 11', b"[1]\n", b"\xff\n", b'["answers", ["b"], 11, 9999]\n'])
def test_a_line_cut_short_by_a_death_ends_the_registry_there(tmp_path: Path, tail: bytes) -> None:
    path = tmp_path / "registry.jsonl"
    kept = Registry(path).block("responses", ("example.net",), 24)
    with path.open("ab") as file:
        file.write(tail)
    mended = Registry(path)
    added = mended.block("responses", ("example.org",), 24)
    assert [block.base for block in Registry(path).blocks()] == [kept, added]


def test_blocks_beyond_the_end_share_the_overflow(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "registry.jsonl", capacity=FIXED + 20 + OVERFLOW)
    assert registry.block("a", ("x",), 20) == FIXED
    assert registry.block("a", ("y",), 20) == registry.block("a", ("z",), 5) == FIXED + 20
    with pytest.raises(ValueError, match="4096 cells"):
        registry.block("a", ("w",), OVERFLOW + 1)


def test_families_name_each_cell_that_counted(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "registry.jsonl")
    requests = registry.block("requests", ("example.net",), len(metrics.SHAPES["requests"].cells))
    answers = registry.block("answers", ("example.net", "all", "alder"), len(metrics.REASONS))
    registry.block("answers", ("example.net", "all", "old"), 3)  # another version's size
    cells = opened(tmp_path, 0).cells
    cells[requests + metrics.SHAPES["requests"].cells.index(("tcp", "2", "AAAA"))] = 6
    cells[answers + Reason.HELD] = 2
    found = {family.name: family for family in metrics.families(registry, tmp_path)}
    assert found["edgedns_dns_requests"].labels == ("zone", "proto", "family", "type")
    assert found["edgedns_dns_requests"].samples == [(("example.net", "tcp", "2", "AAAA"), 6.0)]
    assert found["edgedns_dns_answers"].samples == [(("example.net", "all", "alder", "HELD"), 2.0)]
    assert found["edgedns_dns_responses"].samples == []
    assert found["edgedns_worker_serial"].samples == [(("0",), 0.0)]


def test_network_counts_live_in_a_file_of_their_atoms(tmp_path: Path) -> None:
    for slot, value in ((0, 7), (1, 0xFFFFFFFF)):
        counts = NetworkCounts(metrics.networks_path(tmp_path, slot, "abc"), 5).counts
        counts[4] = value
        counts[4] = counts[4] + 1 & 0xFFFFFFFF
    NetworkCounts(metrics.networks_path(tmp_path, 0, "old"), 2)
    arrays = [memoryview(content).cast("I").tolist() for content in metrics.read_networks(tmp_path, "abc")]
    assert arrays == [[0, 0, 0, 0, 8], [0, 0, 0, 0, 0]]
    metrics.drop_networks(tmp_path, ["abc"])
    assert sorted(path.name for path in tmp_path.glob("*.networks")) == ["worker-0-abc.networks", "worker-1-abc.networks"]


def test_a_deleted_counter_file_is_still_the_workers_own(tmp_path: Path) -> None:
    counts = NetworkCounts(metrics.networks_path(tmp_path, 0, "abc"), 5).counts
    metrics.drop_networks(tmp_path, [])
    counts[0] = 1
    assert counts[0] == 1
    assert metrics.read_networks(tmp_path, "abc") == []
