"""The native engine under libFuzzer with AddressSanitizer and UBSan: packets over a good world, and published files that lie.

What coverage found is then asked of both paths (law 1). The long form takes EDGEDNS_FUZZ_SECONDS, 600 unless told otherwise.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sysconfig
from dataclasses import dataclass
from pathlib import Path

import pytest

from edgedns.engine import answer, native
from tests.conftest import SECRETS
from tests.fuzz import worlds

HERE = Path(__file__).parent
ENGINE = HERE.parents[1] / "edgedns" / "engine"
TARGETS = ("packets", "lies")
LONG = int(os.environ.get("EDGEDNS_FUZZ_SECONDS", "600"))
FLAGS = ("-O1", "-g", "-std=c11", "-Wall", "-Wextra", "-Werror", "-DPy_LIMITED_API=0x030B0000")
SANITIZED = ("-fsanitize=fuzzer,address,undefined", "-fno-sanitize-recover=all")
# No interpreter: what of Python's is referred to stays unresolved, and a call of it would end the run.
LINKED = ("-no-pie", "-Wl,-z,lazy", "-Wl,--unresolved-symbols=ignore-all")
# Each lets something be read that lies beyond; the target that is to see it.
READS = "{} {}(query *q, const table *from, size_t at)\n{{\n    if (at {} from->count)"
BUGS = {
    "word": ("lies", READS.format("uint32_t", "word", "<"), READS.format("uint32_t", "word", "<=")),
    "half": ("lies", READS.format("uint16_t", "half", "<"), READS.format("uint16_t", "half", "<=")),
    "slice": ("lies", "at <= from->count - size", "at <= from->count"),
    "name": ("packets", "if (size >= most ||", "if (size > most ||"),
    "pass": ("packets", "octets > left(c)", "octets > left(c) + 1"),
}
pytestmark = [pytest.mark.xdist_group("fuzz"), pytest.mark.timeout(LONG + 300)]


@dataclass(frozen=True)
class Found:
    """How a run went: executions, edges covered, and what the fuzzer said."""

    executions: int
    edges: int
    said: str


@dataclass(frozen=True)
class Place:
    """A directory with a world, corpora and what was built."""

    directory: Path
    world: worlds.World

    def build(self, *targets: str, sources: Path = HERE) -> None:
        """All at once."""
        include = f"-I{sysconfig.get_path('include')}"
        commands = []
        for name in targets:
            made = ["-o", str(self.directory / f"fuzz-{name}")]
            commands.append(["clang", *FLAGS, *SANITIZED, include, str(sources / f"{name}.c"), *LINKED, *made])
        for process in [subprocess.Popen(command) for command in commands]:
            assert process.wait(200) == 0

    def start(self, target: str, seconds: int) -> subprocess.Popen[str]:
        corpus = self.directory / f"found-{target}"
        corpus.mkdir(exist_ok=True)
        options = [f"-max_total_time={seconds}", "-seed=5", "-timeout=10", f"-artifact_prefix={self.directory}/"]
        command = [str(self.directory / f"fuzz-{target}"), str(corpus), str(self.directory / target), *options]
        environ = {**os.environ, "EDGEDNS_WORLD": str(self.directory / "world")}
        return subprocess.Popen([*command, "-print_final_stats=1"], env=environ, stderr=subprocess.PIPE, text=True)

    def replay(self) -> int:
        """Ask the native engine and the reference path what coverage found; how many packets both answered."""
        paths = [*self.directory.glob("found-packets/*"), *self.directory.glob("packets/*")]
        inputs = [worlds.read_input(path.read_bytes()) for path in paths]
        quick, slow, both = self.world.tally(), self.world.tally(), 0
        for transport, client, now, packet in filter(None, inputs):
            fast = native.reply(self.world.snapshot, packet, client, transport, now, SECRETS, quick)
            if fast is not None:
                assert (fast or None) == answer.respond(self.world.snapshot, packet, client, transport, now, SECRETS, slow)
                both += bool(fast)
        assert bytes(quick.cells) == bytes(slow.cells)
        assert quick.ring is not None
        assert slow.ring is not None
        assert quick.ring.octets == slow.ring.octets
        return both


def finish(process: subprocess.Popen[str], seconds: int) -> Found:
    said = process.communicate(timeout=seconds + 100)[1]
    assert process.returncode == 0, said[-6000:]
    executions, edges = re.search(r"number_of_executed_units: (\d+)", said), re.findall(r" cov: (\d+) ", said)
    assert executions
    return Found(int(executions[1]), int(edges[-1]), said)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    if shutil.which("clang") is None or not Path(sysconfig.get_path("include"), "Python.h").exists():
        pytest.skip("needs clang with libFuzzer, and Python.h")
    directory = tmp_path_factory.mktemp("fuzzed")
    made = Place(directory, worlds.make(directory))
    worlds.write_sections(made.world.snapshot, made.world.tally(), directory / "world")
    worlds.write_corpora(made.world, directory, 1500)
    made.build(*TARGETS)
    return made


@pytest.mark.parametrize(("target", "edges"), [("packets", 480), ("lies", 500)])
def test_a_few_seconds(place: Place, target: str, edges: int) -> None:
    found = finish(place.start(target, 5), 5)
    assert found.executions > 1500
    assert found.edges > edges


def test_what_was_found_is_answered_alike(place: Place) -> None:
    if not native.AVAILABLE:
        pytest.skip("_fastpath was not built")
    assert place.replay() > 1000


@pytest.mark.long
def test_for_long(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    running = {target: place.start(target, LONG) for target in TARGETS}
    for target, process in running.items():
        found = finish(process, LONG)
        with capsys.disabled():
            print(f"\n{target}: {found.executions:,} executions, {found.edges} edges in {LONG} s")
    assert place.replay() > 1000


@pytest.mark.long
@pytest.mark.parametrize("bug", BUGS)
def test_a_check_that_is_wrong_is_seen(place: Place, tmp_path: Path, bug: str) -> None:
    """The fuzzers can fail: what they have to see is put in, and they see it."""
    target, good, wrong = BUGS[bug]
    parts = [*HERE.glob("*.[ch]"), *ENGINE.glob("_fastpath*.[ch]")]
    sources = {path.name: path.read_text().replace("../../edgedns/engine/", "") for path in parts}
    assert sum(text.count(good) for text in sources.values()) == 1
    for name, text in sources.items():
        (tmp_path / name).write_text(text.replace(good, wrong))
    broken = Place(tmp_path, place.world)
    for name in (target, "world"):
        (tmp_path / name).symlink_to(place.directory / name)
    broken.build(target, sources=tmp_path)
    process = broken.start(target, 120)
    assert "AddressSanitizer" in process.communicate(timeout=300)[1]
    assert process.returncode != 0
