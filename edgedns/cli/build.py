"""Which files of ours a process runs from: after an upgrade on disk it is another build, whatever its version says."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path

import edgedns

PACKAGE = Path(edgedns.__file__).parent
# What a worker runs from: where only other files changed, those that run go on.
WORKER = ("__init__.py", "config.py", "errors.py", "metrics.py", "model.py", "dns", "engine", "serve", "steer/space/shape.py")
NOT_RUN = {".pyc", ".c"}


def build_of(package: Path = PACKAGE, within: Sequence[str] = ("",)) -> str:
    """Changes with the name or content of any file that may be loaded."""
    found = 0
    for top in within:
        place = package / top
        for path in sorted(place.rglob("*")) if place.is_dir() else [place]:
            if path.suffix not in NOT_RUN and path.is_file():
                found = zlib.crc32(f"{path.relative_to(package)}\0".encode(), found)
                found = zlib.crc32(path.read_bytes(), found)
    return f"{found:08x}"
