"""The house as docs/architecture.md draws it: who imports whom, and what serving processes may load."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

HOUSE = Path(__file__).parents[1] / "edgedns"

# Room -> the rooms it may import. What is not listed may not be imported; `model` and its like are open to all.
GROUND = {"errors", "model", "metrics", "lines", "pictures", "plainfile", "special"}
ALLOWED = {
    "errors": set(),
    "model": set(),
    "metrics": set(),
    "lines": set(),
    "pictures": set(),
    "plainfile": set(),
    "special": set(),
    "config": set(),
    "dns": set(),
    "steer": set(),
    "bench": {"dns"},
    "engine": {"dns", "steer"},
    "serve": {"config", "dns", "steer", "engine"},
    "probe": {"dns", "steer", "engine"},
    "store": {"dns", "steer", "engine"},
    "publish": {"dns", "steer", "engine"},
    "web": {"dns", "steer", "engine"},
    "control": {"config", "dns", "steer", "engine", "serve", "probe", "store", "publish", "web"},
    "demo": {"config", "dns", "steer", "engine", "serve", "probe", "store", "publish", "web"},
}
# The only importers of a library, where the house names one.
ONLY = {"dnslib": {"dns/message.py"}, "maxminddb": {"steer/space/asn.py"}, "pyasn": set()}
IMPURE = {"time", "random", "secrets", "socket", "asyncio", "threading", "subprocess", "urllib", "http"}
# engine/load.py and steer/space/asn.py are the readers that are given paths (law 6 is about deciding and answering).
READERS = {"engine/load.py", "steer/space/asn.py", "steer/space/asnpack.py", "steer/space/asnfiles.py"}


def modules() -> list[Path]:
    return sorted(HOUSE.rglob("*.py"))


def room_of(path: Path) -> str:
    return path.relative_to(HOUSE).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """Absolute dotted names that a module imports, relative ones resolved."""
    package = ["edgedns", *path.relative_to(HOUSE).parts[:-1]]
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            name = ".".join([*base, *([node.module] if node.module else [])])
            found |= {f"{name}.{alias.name}" for alias in node.names} | {name}
    return found


def called(path: Path) -> set[str]:
    """The plain names that a module calls."""
    calls = (node.func for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call))
    return {function.id for function in calls if isinstance(function, ast.Name)}


def rooms_of(names: set[str]) -> set[str]:
    """The rooms of ours among imported names."""
    inside = {name.split(".")[1] for name in names if name.startswith("edgedns.")}
    return {room for room in inside if (HOUSE / room).is_dir() or (HOUSE / f"{room}.py").exists()}


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(HOUSE)))
def test_imports_run_one_way(path: Path) -> None:
    room = room_of(path)
    if room not in ALLOWED:
        assert room in {"cli", "__init__", "__main__"}, f"{room} is not in the picture"
        return
    others = rooms_of(imported(path)) - {room} - GROUND
    assert others <= ALLOWED[room], f"{path} imports {sorted(others - ALLOWED[room])}"
    assert not (room in GROUND and rooms_of(imported(path)) - {room} - {"model", "errors"})


@pytest.mark.parametrize("library", ONLY)
def test_libraries_have_one_importer(library: str) -> None:
    importers = {str(path.relative_to(HOUSE)) for path in modules() if library in {n.split(".")[0] for n in imported(path)}}
    assert importers == ONLY[library]


@pytest.mark.parametrize("room", ["dns", "steer", "engine"])
def test_the_core_is_pure(room: str) -> None:
    """Law 6: no clock, no dice, no socket, no file."""
    for path in (HOUSE / room).rglob("*.py"):
        name = str(path.relative_to(HOUSE))
        assert not IMPURE & {each.split(".")[0] for each in imported(path)}, name
        assert name in READERS or "open" not in called(path), name


def test_workers_stay_small() -> None:
    """A serving process loads neither numpy, pydantic nor aiohttp, and no dnspython."""
    code = "import edgedns.serve.worker, edgedns.serve.current, sys, json; print(json.dumps(sorted(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True, env={**os.environ})
    loaded = {name.split(".")[0] for name in json.loads(out.stdout)}
    assert not loaded & {"numpy", "scipy", "pydantic", "aiohttp", "yaml", "click", "rich", "dns"}


def test_every_room_says_what_it_is() -> None:
    for path in modules():
        docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
        assert docstring, path
        assert len(docstring) > 15, path


def test_no_two_test_files_share_a_name() -> None:
    """pytest takes such files for one module, and leaves one out."""
    names = [path.name for path in Path(__file__).parent.rglob("*.py") if path.name not in ("__init__.py", "conftest.py")]
    assert sorted({name for name in names if names.count(name) > 1}) == []


def test_nothing_points_outside() -> None:
    """Who reads a clone has neither our plans nor our lists of things to do."""
    told = re.compile(r"\b(DESIGN|TODO|FIXME)\b|\bissue \d")
    paths = [*HOUSE.rglob("*.py"), *(path for path in Path(__file__).parent.rglob("*.py") if path != Path(__file__))]
    assert [str(path) for path in paths if told.search(path.read_text(encoding="utf-8"))] == []
