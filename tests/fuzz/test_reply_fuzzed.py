"""The plain-Python fast path against the reference path under atheris: tests/fuzz/reply.py, begun with strangers' packets."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from ipaddress import ip_address
from pathlib import Path
from random import Random

import pytest

from edgedns.engine.load import load_rules
from tests.property import strangers

LONG = int(os.environ.get("EDGEDNS_FUZZ_SECONDS", "600"))
TARGET, RULES = Path(__file__).parent / "reply.py", Path(__file__).parents[2] / "rules"
CLIENT = ip_address("192.0.2.1").packed


def write_corpus(folder: Path, count: int) -> Path:
    dice = Random(9)
    names = sorted({rr.owner for rr in load_rules(RULES).statics["cdn.example.net"]})
    folder.mkdir()
    for number in range(count):
        packet = strangers.packet(dice, names, lambda: dice.randbytes(dice.choice((4, 16))), CLIENT)
        (folder / f"{number:04}").write_bytes(packet)
    return folder


@pytest.mark.long
@pytest.mark.timeout(LONG + 300)
@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="needs atheris: pip install atheris")
def test_both_paths_agree_on_what_coverage_finds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corpus = write_corpus(tmp_path / "corpus", 1000)
    options = [f"-max_total_time={LONG}", "-seed=5", "-max_len=1500", f"-artifact_prefix={tmp_path}/"]
    done = subprocess.run([sys.executable, str(TARGET), *options, str(corpus)], stderr=subprocess.PIPE, text=True)
    assert done.returncode == 0, done.stderr[-6000:]
    runs, covered = re.search(r"Done (\d+) runs", done.stderr), re.findall(r" cov: (\d+) ", done.stderr)
    assert runs
    with capsys.disabled():
        print(f"\natheris: {int(runs[1]):,} packets, {covered[-1]} edges in {LONG} s")
    assert int(runs[1]) > 1500
    assert int(covered[-1]) > 400
