"""Pictures as files, by matplotlib (extra `plot`): the same octets for the same figures."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from edgedns.errors import SourceError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def require() -> None:
    """SourceError where matplotlib is not installed."""
    if find_spec("matplotlib") is None:
        raise SourceError("--plot needs matplotlib: pip install 'edgedns[plot]'")


def write(figure: Figure, path: Path) -> None:
    """The name's ending says in which format (.png, .svg, .pdf). SourceError when it can't be written."""
    from matplotlib import rc_context

    try:
        with rc_context({"svg.hashsalt": "edgedns"}):
            figure.savefig(path, dpi=110, metadata={"Date": None} if path.suffix == ".svg" else None)
    except (OSError, ValueError) as error:
        raise SourceError(f"the picture can't be written to {path}: {error}") from error
