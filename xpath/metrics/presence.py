"""How well a model tells what is there from what is not."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from xpath.errors import DataError, ShapeError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["PresenceScores", "presence_scores"]


class PresenceScores(NamedTuple):
    """Answers "present" and "not present" against the truth, NaN where nothing counts."""

    present: int
    """Prompts whose object is there."""
    absent: int
    """Prompts whose object is not there."""
    precision: float
    """Share of answers "present" that are right."""
    recall: float
    """Share of present objects that were found."""
    absent_precision: float
    """Share of answers "not present" that are right."""
    absent_recall: float
    """Share of absent objects that were refused."""


def presence_scores(found: NDArray[np.bool_], truth: NDArray[np.bool_]) -> PresenceScores:
    """Precision and recall of both answers.

    Args:
        found: ``(N,)`` True where the model says present.
        truth: ``(N,)`` True where the object is there.

    Raises:
        DataError: Arrays that are not boolean.
        ShapeError: Arrays of different shapes.
    """
    if found.shape != truth.shape or found.ndim != 1:
        raise ShapeError(f"answers and truth must be (N,), got {found.shape} and {truth.shape}")
    if found.dtype != np.bool_ or truth.dtype != np.bool_:
        raise DataError(f"answers must be boolean, got {found.dtype} and {truth.dtype}")
    return PresenceScores(
        int(truth.sum()),
        int((~truth).sum()),
        _share(truth[found]),
        _share(found[truth]),
        _share(~truth[~found]),
        _share(~found[~truth]),
    )


def _share(right: NDArray[np.bool_]) -> float:
    return float(right.mean()) if len(right) else math.nan
