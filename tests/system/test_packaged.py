"""The wheel: one for every Python from 3.11 on, needing libc alone; without a compiler plain Python answers, and says so."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
import zipfile
from pathlib import Path

import pytest

from edgedns.engine import native
from tests.small import write_rules, write_table

ROOT = Path(__file__).parents[2]
MODULES = {"edgedns/engine/_fastpath.abi3.so", "edgedns/bench/_volley.abi3.so"}
MANYLINUX = (2, 28)
DEADLINE = 60.0
pytestmark = pytest.mark.timeout(300)


def build_wheel(top: Path, **environ: str) -> Path:
    """From a copy, so that neither what was built in place nor another build is taken."""
    copy = top / "copy"
    ignored = shutil.ignore_patterns("__pycache__", "*.so")
    shutil.copytree(ROOT / "edgedns", copy / "edgedns", ignore=ignored)
    for name in ("pyproject.toml", "setup.py", "README.md"):
        shutil.copy(ROOT / name, copy)
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "--no-cache-dir"]
    subprocess.run([*command, "-w", str(top), str(copy)], check=True, env={**os.environ, **environ}, timeout=200)
    (wheel,) = top.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("gcc") is None:
        pytest.skip("needs gcc")
    return build_wheel(tmp_path_factory.mktemp("wheel"))


def test_its_tag_and_modules_are_of_the_stable_abi(wheel: Path) -> None:
    assert re.search(r"-cp311-abi3-linux_\w+\.whl$", wheel.name)
    with zipfile.ZipFile(wheel) as packed:
        names = set(packed.namelist())
    assert {name for name in names if name.endswith(".so")} == MODULES
    assert "edgedns/engine/_fastpath.pyi" in names


def test_its_modules_need_libc_alone_and_no_new_one(wheel: Path, tmp_path: Path) -> None:
    """What auditwheel would hold against manylinux_2_28, by the dynamic section and versioned symbols."""
    if shutil.which("readelf") is None:
        pytest.skip("needs binutils")
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(tmp_path)
    for name in MODULES:
        command = ["readelf", "-W", "-d", "--dyn-syms", str(tmp_path / name)]
        told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert set(re.findall(r"NEEDED.*\[(.+)\]", told)) == {"libc.so.6"}
        versions = re.findall(r"@GLIBC_(\d+)\.(\d+)", told)
        assert versions
        assert max((int(major), int(minor)) for major, minor in versions) <= MANYLINUX
        missing = set(re.findall(r" UND (\w+)$", told, re.MULTILINE))
        assert {symbol for symbol in missing if not re.match(r"_?Py|_ITM_|__gmon_start__", symbol)} == set()


def test_wheels_are_configured_for_the_same() -> None:
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["cibuildwheel"]
    assert wanted["build"] == ["cp311-manylinux_*", "cp311-musllinux_*"]
    assert set(wanted["archs"]) == {"x86_64", "aarch64"}
    assert wanted["manylinux-x86_64-image"] == wanted["manylinux-aarch64-image"] == "manylinux_{}_{}".format(*MANYLINUX)
    assert "native.LOOPS" in wanted["test-command"]
    assert native.LOOPS or os.environ.get("CI") != "true"


def test_without_a_compiler_it_installs_and_says_engine_python(tmp_path: Path) -> None:
    made = build_wheel(tmp_path, CC="/bin/false", CXX="/bin/false")
    with zipfile.ZipFile(made) as packed:
        assert not [name for name in packed.namelist() if name.endswith(".so")]
        packed.extractall(tmp_path / "installed")
    rules, table = write_rules(tmp_path / "rules"), write_table(tmp_path / "table.tsv")
    command = [sys.executable, "-m", "edgedns", "serve", "--rules", str(rules), "--asn", str(table), "--admin", "off"]
    command += ["--state", str(tmp_path / "state"), "--listen", "127.0.0.1:0", "--workers", "1"]
    environ = {**os.environ, "PYTHONPATH": str(tmp_path / "installed")}
    log = tmp_path / "log"
    with log.open("wb") as out:
        server = subprocess.Popen(command, cwd=tmp_path / "installed", env=environ, stderr=out)
    try:
        until = time.monotonic() + DEADLINE
        while "engine: " not in log.read_text() and time.monotonic() < until and server.poll() is None:
            time.sleep(0.05)
    finally:
        server.terminate()
        server.wait(30)
    assert "engine: python" in log.read_text()
