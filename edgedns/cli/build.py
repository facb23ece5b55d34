"""Which files of ours a process runs from: after an upgrade on disk it is another build, whatever its version says."""

from __future__ import annotations

import zlib
from pathlib import Path

import edgedns


def build_of(package: Path = Path(edgedns.__file__).parent) -> str:
    """Changes with the name, size or time of any file but the interpreter's own caches."""
    rows = []
    for path in package.rglob("*"):
        if path.parent.name != "__pycache__" and path.is_file():
            status = path.stat()
            rows.append(f"{path.relative_to(package)} {status.st_size} {status.st_mtime_ns}\n")
    return f"{zlib.crc32(''.join(sorted(rows)).encode()):08x}"
