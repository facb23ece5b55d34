"""Runs of losses: which of them speak of their path, because others from the same vantage were heard meanwhile."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgedns.steer.failure.paths import siblings
from edgedns.steer.table.rows import Bools, Floats, Ints

CLEAN = 15.0
OPEN = 60.0  # seconds after its last loss in which a run that nothing ended still speaks

RUN = np.dtype([("path", "<i8"), ("run", "<i8"), ("began", "<f8"), ("lost", "<f8")])


def clean_beside(codes: Ints, paths: NDArray[np.void], which: Ints, began: Floats, heard: Floats) -> Bools:
    """For runs of these paths: a sibling was heard since `heard`, and lost nothing since shortly before the run began."""
    owner, sibling = siblings(codes, which)
    clean = (paths["replied"][sibling] >= heard[owner]) & (paths["lost"][sibling] < began[owner] - CLEAN)
    return np.asarray(np.bincount(owner[clean], minlength=len(which)) > 0, dtype=np.bool_)


def going_on(codes: Ints, paths: NDArray[np.void], now: float) -> Ints:
    """The path of each loss of runs that go on, nobody knows to where: by paths that aren't down."""
    runs = np.flatnonzero((paths["run"] > 0) & ~paths["down"] & (paths["lost"] > now - OPEN))
    began = paths["began"][runs]
    spoken = runs[clean_beside(codes, paths, runs, began, began)]
    return np.repeat(spoken, paths["run"][spoken])
