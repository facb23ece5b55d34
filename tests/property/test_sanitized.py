"""The native engine under AddressSanitizer and UBSan: no packet and no section makes it read or write out of bounds."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from edgedns.engine import native
from tests.conftest import NOW, SECRETS
from tests.property import strangers
from tests.property.test_native import Large, large  # noqa: F401 (a fixture)

HERE = Path(__file__).parent
SOURCE = HERE.parents[1] / "edgedns" / "engine" / "_fastpath.c"
COUNT = 4000
TRANSFER = bytes.fromhex("1234 0000 0001 0000 0000 0000") + b"\3big\7example\0" + bytes.fromhex("00fb 0001")  # IXFR


def library(name: str) -> str:
    found = subprocess.run(["gcc", f"-print-file-name={name}"], capture_output=True, text=True, check=True).stdout.strip()
    return found if os.path.isabs(found) else ""


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("gcc") is None or not library("libasan.so") or not Path(sysconfig.get_path("include"), "Python.h").exists():
        pytest.skip("needs gcc, libasan and Python.h")
    made = tmp_path_factory.mktemp("sanitized") / "_fastpath.abi3.so"
    flags = ["-O1", "-g", "-std=c11", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-DPy_LIMITED_API=0x030B0000"]
    flags += ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", f"-I{sysconfig.get_path('include')}"]
    subprocess.run(["gcc", *flags, str(SOURCE), "-o", str(made)], check=True, timeout=120)
    return made


def run(module: Path, file: Path) -> list[int]:
    environ = {
        **os.environ,
        "LD_PRELOAD": f"{library('libasan.so')} {library('libubsan.so')}",
        "ASAN_OPTIONS": "detect_leaks=0",
        "PYTHONMALLOC": "malloc",
    }
    command = [sys.executable, "-S", str(HERE / "sanitized.py"), str(module), str(file)]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr[-4000:]
    return [int(word) for word in done.stdout.split()]


def flat(large: Large) -> dict[str, bytes]:  # noqa: F811
    found = native.sections(large.snapshot.at(NOW), SECRETS, large.tally())
    return {name: bytes(memoryview(part).cast("B")) if len(memoryview(part)) else b"" for name, part in found.items()}


def packets(large: Large, dice: Random, count: int) -> list[tuple[bytes, bytes, str]]:  # noqa: F811
    made = []
    for _ in range(count):
        client = dice.randbytes(dice.choice((4, 16)))
        sources: Callable[[], bytes] = lambda: dice.randbytes(dice.choice((4, 16)))  # noqa: E731
        made.append((strangers.packet(dice, large.names, sources, client), client, dice.choice(("udp", "udp", "tcp"))))
    return made


def test_strangers(module: Path, large: Large, tmp_path: Path) -> None:  # noqa: F811
    file = tmp_path / "strangers"
    sections = {**flat(large), "secondary": b"\4\x08\x7f" + bytes(15)}  # what 127.0.0.0/8 asks of transfers is handed back
    asked = packets(large, Random(1), COUNT)
    asked[:: COUNT // 40] = [(TRANSFER, bytes((127, 0, 0, 1)), "udp")] * 40
    file.write_bytes(pickle.dumps((sections, asked, NOW)))
    replies, handed_back, streamed = run(module, file)
    assert replies > COUNT * 0.8
    assert streamed > COUNT * 0.8
    assert handed_back > 0  # many are lost: the flood is faster than the sanitizers


@pytest.mark.parametrize("seed", range(8))
def test_sections_that_lie(module: Path, large: Large, tmp_path: Path, seed: int) -> None:  # noqa: F811
    """Numbers just beyond the ends of sections above all, where a check that is off by little would let them through."""
    dice, sections, file = Random(seed), flat(large), tmp_path / "lies"
    ends = [len(part) // size for part in sections.values() for size in (1, 2, 4, 8, 12, 16, 20, 24, 32, 52)]
    for name in (*native.ATOMS, *native.BASE, *native.OVERLAY, "zone", "policy", "rule", "apex_hash"):
        lying = bytearray(sections[name])
        width = 2 if name in ("pointer", "cut", "ranking_of", "ranking") else 1 if name in ("blob", "split") else 4
        for _ in range(min(len(lying) // 40, 200)):
            at = dice.randrange(len(lying) // width) * width
            end = dice.choice(ends)
            lie = dice.choice((end, end + dice.randrange(1, 3), (1 << 32) - 1, 1 << 31, dice.getrandbits(32)))
            lying[at : at + width] = (lie & (1 << 8 * width) - 1).to_bytes(width, "little")
        sections[name] = bytes(lying)
    file.write_bytes(pickle.dumps((sections, packets(large, dice, COUNT // 4), NOW)))
    run(module, file)
