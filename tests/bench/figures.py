"""Figures that the scripts of this folder measure in a process of their own, and what may be asked of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any


def figures(script: str, *words: str) -> Any:
    """What a script of this folder prints, as JSON."""
    command = [sys.executable, str(Path(__file__).with_name(script)), *words]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def within(most: float) -> float:
    """CPU time is half as long again and more where caches and cores are shared: twice that is let pass on a busy machine."""
    busy = os.getloadavg()[0] > (os.cpu_count() or 1)
    return 2 * most if busy else most
