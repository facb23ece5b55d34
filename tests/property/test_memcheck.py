"""The native engine under valgrind: nothing is decided by, or sent from, memory that was never written, and nothing is lost."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from random import Random
from xml.etree import ElementTree

import pytest

from tests.conftest import NOW
from tests.property.test_native import Large, large  # noqa: F401 (a fixture)
from tests.property.test_sanitized import HERE, SOURCE, flat, packets

# In native_reply; the last octet of the room for a reply is hardly ever written.
GOOD = "    if (size == HAND_BACK)\n        Py_RETURN_NONE;"
WRONG = "    if (octets[LARGEST - 1] == 7)\n        Py_RETURN_NONE;"
pytestmark = pytest.mark.timeout(600)


def build(source: Path, directory: Path) -> Path:
    if not (shutil.which("gcc") and shutil.which("valgrind") and Path(sysconfig.get_path("include"), "Python.h").exists()):
        pytest.skip("needs gcc, valgrind and Python.h")
    made = directory / "_fastpath.abi3.so"
    flags = ["-O1", "-g", "-std=c11", "-shared", "-fPIC", "-DPy_LIMITED_API=0x030B0000"]
    flags += [f"-I{sysconfig.get_path('include')}", f"-I{SOURCE.parent}"]
    subprocess.run(["gcc", *flags, str(source), "-o", str(made)], check=True, timeout=120)
    return made


def errors(module: Path, large: Large, directory: Path, count: int) -> list[str]:  # noqa: F811
    """What memcheck says with the module on the stack; what it says of the interpreter alone is not ours."""
    file, told = directory / "strangers", directory / "memcheck.xml"
    file.write_bytes(pickle.dumps((flat(large), packets(large, Random(2), count), NOW)))
    options = ["-q", "--leak-check=full", "--show-leak-kinds=definite", "--xml=yes", f"--xml-file={told}"]
    command = ["valgrind", *options, sys.executable, "-S", "-E", str(HERE / "sanitized.py"), str(module), str(file)]
    environ = {**os.environ, "PYTHONMALLOC": "malloc"}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=550)
    assert done.returncode == 0, done.stderr[-4000:]
    assert int(done.stdout.split()[0]) > count * 0.8
    found = ElementTree.parse(told).getroot().findall("error")
    return [ElementTree.tostring(error, "unicode") for error in found if "_fastpath" in "".join(error.itertext())]


def test_strangers(large: Large, tmp_path: Path) -> None:  # noqa: F811
    assert errors(build(SOURCE, tmp_path), large, tmp_path, 300) == []


@pytest.mark.long
def test_what_was_never_written_is_seen(large: Large, tmp_path: Path) -> None:  # noqa: F811
    source = SOURCE.read_text()
    assert source.count(GOOD) == 1
    (tmp_path / "wrong.c").write_text(source.replace(GOOD, WRONG + "\n" + GOOD))
    assert any("native_reply" in error for error in errors(build(tmp_path / "wrong.c", tmp_path), large, tmp_path, 50))


@pytest.mark.long
def test_many_strangers(large: Large, tmp_path: Path) -> None:  # noqa: F811
    assert errors(build(SOURCE, tmp_path), large, tmp_path, 20_000) == []
